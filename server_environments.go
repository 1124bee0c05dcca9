package main

// GET /environments: the answer is rendered in pieces from one published state, and each
// piece is sent before the next one is rendered. So an answer of any size takes little
// memory, and a slow reader holds nothing up.

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	pieceSize    = 32 << 10    // of a piece, at least, unless it is the last one
	recentPieces = 8           // that an answer keeps for its other readers
	answerTime   = time.Minute // for a whole answer; each piece has writeTime
)

// environments answers GET /environments: the slots, leases and queue of the named
// environment, or without a name of all that are declared or have a lease or a waiter,
// ordered by name. A named environment that is not declared is errUndeclared.
func (s *server) environments(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	who := callerOf(r)
	if _, one := q.find("environment"); one {
		names, err := q.environments()
		if err == nil {
			err = s.checkSeen(who, names)
		}
		if err != nil {
			return err
		}
		state := s.keeper.published.Load()
		v, err := s.keeper.viewIn(state, names[0])
		if err != nil {
			return s.undeclared(who, names[0])
		}
		return s.sendEnvironments(w, r,
			&environmentsAnswer{views: []*view{v}, state: state, caller: who, facts: s.declared().facts,
				holds: map[string][]time.Duration{v.name: state.holdsOf(v.name)}, now: time.Now()})
	}
	answer, err := sharedAnswer(&s.renderer, "environments"+who.scope(), func() (*environmentsAnswer, error) {
		state := s.keeper.published.Load()
		declared := s.declared()
		isHidden := func(v *view) bool { return !who.sees(v.name) }
		views := slices.DeleteFunc(s.keeper.views(state, declared.names), isHidden)
		return &environmentsAnswer{views: views, state: state, caller: who, facts: declared.facts,
			holds: state.holds(func(string) bool { return true }), now: time.Now()}, nil
	})
	if err != nil {
		return err
	}
	return s.sendEnvironments(w, r, answer)
}

// sendEnvironments sends an answer piece by piece. If a piece cannot be rendered, or its
// client does not read it in time, it ends the connection, so that the client cannot take
// the beginning for the whole answer.
func (s *server) sendEnvironments(w http.ResponseWriter, r *http.Request, a *environmentsAnswer) error {
	p, err := a.piece(&s.renderer, place{})
	if err != nil {
		return err
	}
	jsonHeader(w, http.StatusOK)
	control, end := http.NewResponseController(w), time.Now().Add(answerTime)
	for {
		deadline := time.Now().Add(writeTime)
		if deadline.After(end) {
			deadline = end
		}
		control.SetWriteDeadline(deadline)
		if _, err := w.Write(p.text); err != nil {
			panic(http.ErrAbortHandler)
		}
		if p.isLast || r.Method == http.MethodHead {
			return nil
		}
		p, err = a.piece(&s.renderer, p.next)
		if err != nil {
			s.log.Error("answering failed", "method", r.Method, "path", r.URL.Path, "error", err)
			panic(http.ErrAbortHandler)
		}
	}
}

// An environmentsAnswer is one answer to GET /environments. Several calls may send it, each
// at its own pace. It renders a piece again for a reader who is slower than the others.
type environmentsAnswer struct {
	views []*view
	state *publishedState // that has the views

	// caller is who looks, or one of several that see the same environments.
	caller caller
	facts  map[string]environmentFacts
	holds  map[string][]time.Duration // of the environments, for estimates
	now    time.Time

	mu     sync.Mutex
	recent [recentPieces]piece
	oldest int // the index in recent that is replaced next
}

// A place is where a piece begins: an index in the views, and how many slots and waiters of
// that environment are before it. With zero rows the piece begins with the environment.
type place struct{ environment, rows int }

// A piece is a part of the JSON.
type piece struct {
	from, next place
	text       []byte
	isLast     bool
}

// piece returns the piece that begins at a place. The error is that of encoding.
func (a *environmentsAnswer) piece(r *renderer, from place) (p piece, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.recent {
		if p.text != nil && p.from == from {
			return p, nil
		}
	}
	r.render(func() { p, err = a.render(from) })
	a.recent[a.oldest] = p
	a.oldest = (a.oldest + 1) % recentPieces
	return p, err
}

// render renders the piece that begins at a place.
func (a *environmentsAnswer) render(from place) (piece, error) {
	p := piece{from: from, next: from}
	b := &bytes.Buffer{}
	if from == (place{}) {
		b.WriteByte('{')
		for _, pause := range a.state.pauses {
			b.WriteString(`"pause":`)
			if err := appendJSON(b, pauseToJSON(pause, a.now)); err != nil {
				return p, err
			}
			b.WriteByte(',')
		}
		b.WriteString(`"environments":[`)
	}
	for p.next.environment < len(a.views) && b.Len() < pieceSize {
		if err := a.renderEnvironment(b, &p.next); err != nil {
			return p, err
		}
	}
	if p.next.environment == len(a.views) {
		b.WriteString("]}\n")
		p.isLast = true
	}
	p.text = b.Bytes()
	return p, nil
}

// renderEnvironment writes an environment from a place on, until its end or until the piece
// is full, and moves the place. It writes what json writes of viewToJSON.
func (a *environmentsAnswer) renderEnvironment(b *bytes.Buffer, at *place) error {
	v := a.views[at.environment]
	slots := slotRows(v)
	estimates := v.estimates(a.holds[v.name], a.now)
	if at.rows == 0 {
		if at.environment > 0 {
			b.WriteByte(',')
		}
		if err := a.renderHead(b, v, estimates); err != nil {
			return err
		}
	}
	for at.rows < len(slots)+len(v.queue) {
		i := at.rows - len(slots)
		if i == 0 {
			b.WriteString(queueBegins)
		} else if at.rows > 0 {
			b.WriteByte(',')
		}
		var row any
		if i < 0 {
			row = slotToJSON(v, a.state, slots[at.rows], a.caller, a.now)
		} else {
			w := waiterToJSON(v.name, i+1, v.queue[i], a.caller, a.now)
			w.EstimatedWaitSeconds = estimateJSON(estimates, i)
			row = w
		}
		if err := appendJSON(b, row); err != nil {
			return err
		}
		at.rows++
		if b.Len() >= pieceSize {
			break
		}
	}
	if at.rows < len(slots)+len(v.queue) {
		return nil
	}
	if len(v.queue) == 0 {
		b.WriteString(queueBegins)
	}
	b.WriteString("]}")
	*at = place{environment: at.environment + 1}
	return nil
}

// renderHead writes the JSON of an environment up to its first slot: the fields of
// environmentJSON before Slots, in their order.
func (a *environmentsAnswer) renderHead(b *bytes.Buffer, v *view, estimates []time.Duration) error {
	err := appendJSON(b, struct {
		Environment          untrusted   `json:"environment"`
		Free                 int         `json:"free"`
		Facts                *factsJSON  `json:"facts,omitempty"`
		EstimatedWaitSeconds *float64    `json:"estimated_wait_seconds,omitempty"`
		Pauses               []pauseJSON `json:"pauses,omitempty"`
	}{untrusted(v.name), freeSlots(v), factsToJSON(a.facts, v.name),
		estimateJSON(estimates, len(v.queue)), viewPauses(v, a.now)})
	if err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the brace
	b.WriteString(`,"slots":[`)
	return nil
}

// queueBegins stands between the slots and the queue of an environment.
const queueBegins = `],"queue":[`

// appendJSON appends a value as JSON, without the newline that an encoder adds.
func appendJSON(b *bytes.Buffer, value any) error {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1)
	return nil
}
