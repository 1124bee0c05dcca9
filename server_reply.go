package main

// Responses: an error as a status and JSON, the 2019 response without a body, and the
// conversion of leases, waiters and environments to JSON. The JSON types are in api.go,
// the table of errors and statuses is in errors.go.

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// respondError sends an error as its status and an errorJSON. An error that has no status
// in the table of errors is logged, and sent as errInternal without its text. 413 and a
// stopping server close the connection.
func (s *server) respondError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	var fromKeeper replyError
	if errors.As(err, &fromKeeper) && errors.Is(err, errUndeclared) && !errors.Is(err, errWithdrawn) {
		err = s.undeclared(fromKeeper.caller, fromKeeper.name)
	}
	if status == http.StatusForbidden && errors.Is(err, errForbidden) && r.URL.Path == "/maybe" {
		status = http.StatusUnprocessableEntity // 403 is that no slot is free: clients of 2019 wait then
	}
	body := errorJSON{Code: status, Message: untrusted(err.Error())}
	if errors.As(err, &fromKeeper) {
		body = fromKeeper.json(status, time.Now())
	}
	if s.isShared() && errors.Is(err, errUnknown) {
		body.Message = untrusted(errEtcdFailed.Error())
	}
	describeForbidden(&body, err)
	switch status {
	case http.StatusInternalServerError:
		s.log.Error("answering failed", "method", r.Method, "path", r.URL.Path, "error", err)
		body.Message = untrusted(errInternal.Error())
	case http.StatusUnauthorized:
		if !fromScript(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="call-me", charset="UTF-8"`)
		}
	case http.StatusRequestEntityTooLarge: // the rest of the body is not read
		w.Header().Set("Connection", "close")
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
		if errors.Is(err, errStopping) {
			w.Header().Set("Connection", "close")
		}
	}
	writeJSON(w, status, body)
}

// setReleased sets the header that says which leases a release has ended: their fences, with
// commas between them, or 0 if the call has ended none. If it has handed them over, further
// headers have the fences of the new leases, and how long these last.
func setReleased(w http.ResponseWriter, rep reply) {
	w.Header().Set(releasedHeader, cmp.Or(fencesText(rep.own), "0"))
	if len(rep.given) > 0 {
		w.Header().Set(handedHeader, fencesText(rep.given))
		if d := rep.given[0].lasts(); d > 0 {
			w.Header().Set(handedForHeader, strconv.FormatFloat(d.Seconds(), 'f', -1, 64))
		}
	}
}

// fencesText returns the fences of leases with commas between them.
func fencesText(leases []leaseView) string {
	var fences []string
	for _, l := range leases {
		fences = append(fences, strconv.FormatUint(l.fence, 10))
	}
	return strings.Join(fences, ",")
}

// fromScript reports whether the script of the status page sends the call, or the browser
// for its event stream. The script itself shows that the key is not accepted. With
// WWW-Authenticate in the response, the browser would show its login dialog first.
func fromScript(r *http.Request) bool {
	return r.Header.Get("X-Requested-With") == "call-me" || r.Header.Get("Accept") == "text/event-stream"
}

// A replyError is a reply of the keeper with an error. It wraps that error.
type replyError struct {
	name   string // of the environment
	caller caller
	reply
}

// Error returns the text of the error alone; message adds the state of the environment.
func (r replyError) Error() string { return r.err.Error() }

// Unwrap returns the error of the reply.
func (r replyError) Unwrap() error { return r.err }

// json returns the body of the response. Durations in it are as of now.
func (r replyError) json(status int, now time.Time) errorJSON {
	body := errorJSON{
		Code:        status,
		Message:     untrusted(r.message(now)),
		Environment: untrusted(r.name),
		Position:    r.position,
		Number:      r.number,
		HeldBy:      leasesToJSON(r.name, r.leases, now),
		Pauses:      pausesToJSON(r.allPauses(), now),
		Ended:       endToJSON(r.ended),
		WaitsFor:    r.lacksToJSON(now),
	}
	if v := r.viewOfName(); v != nil {
		body.Kept = keptToJSON(v, r.state, r.waiter, r.caller)
		if r.position > 0 {
			estimates := v.estimates(r.state.holdsOf(v.name), now)
			body.EstimatedWaitSeconds = estimateJSON(estimates, r.position-1)
		}
	}
	return body
}

// message returns one line for people: the error, how and when the request ended if it
// did, and the first three leases of the environment.
func (r replyError) message(now time.Time) string {
	if text := r.endedByOthers(); text != "" {
		return text
	}
	var b strings.Builder
	switch {
	case errors.Is(r.err, errSeveral):
		var slots []string
		for _, l := range r.own {
			slots = append(slots, l.slot)
		}
		fmt.Fprintf(&b, "several leases on %q match; name the slot: %s", r.name, strings.Join(slots, ", "))
		return b.String()
	case errors.Is(r.err, errNoSlot):
		fmt.Fprintf(&b, "no free slot on %q", r.name)
	case errors.Is(r.err, errPaused):
		return r.pausedMessage(now)
	case errors.Is(r.err, errOtherKey):
		fmt.Fprintf(&b, "%s may not renew or end it: the lease on %q was taken with another key",
			r.caller, r.name)
	case errors.Is(r.err, errNotHeld):
		fmt.Fprintf(&b, "you hold no slot on %q", r.name)
	case errors.Is(r.err, errOver):
		fmt.Fprintf(&b, "the lease on %q is over", r.name)
	default:
		b.WriteString(r.err.Error())
	}
	if r.ended != nil {
		fmt.Fprintf(&b, "; it %s at %s", endText(r.ended), wireTime(r.ended.at).Format(time.RFC3339))
	}
	b.WriteString(r.pausesText(now))
	for i, l := range r.leases {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(r.leases)-i)
			break
		}
		before := ", "
		if i == 0 {
			before = "; held by "
		}
		holder, since := cmp.Or(l.holder, "an unnamed caller"), wireTime(l.since)
		fmt.Fprintf(&b, "%s%s since %s", before, holder, since.Format(time.RFC3339))
	}
	b.WriteString(r.keptText())
	return b.String()
}

// endText returns how a lease or a request ended, as the words after "it" in message.
func endText(end *requestEnd) string {
	switch end.kind {
	case eventReleased:
		return "was released"
	case eventForced:
		if end.event == nil {
			return "was released by force"
		}
		return "was released by force by " + cmp.Or(end.event.by, "an unnamed caller")
	case eventTaken:
		if end.event == nil {
			return "was taken over"
		}
		return "was taken over by " + cmp.Or(end.event.by, "an unnamed caller") + inBrackets(end.event.why)
	case eventHanded:
		if end.event == nil {
			return "was handed over"
		}
		return "was handed to " + end.event.to + inBrackets(end.event.why)
	case eventLeft:
		return "left the queue"
	case eventAbandoned:
		return "lost its place in the queue, because nobody asked for it any more,"
	case eventSuperseded, eventRemoved:
		return supersededText(end)
	case eventClosed:
		return "was ended before it began"
	case eventUndeclared:
		return "lost its place in the queue, because its environment was not declared any more,"
	}
	return end.kind.String()
}

// status2019 returns the status of a response to the 2019 call: the given one for yes, else
// 403.
func status2019(yes bool, status int) int {
	if yes {
		return status
	}
	return http.StatusForbidden
}

// writeEmpty2019 sends a status without a body, as in 2019: without versionHeader too. Its
// error is always nil.
func writeEmpty2019(w http.ResponseWriter, status int) error {
	w.Header().Del(versionHeader)
	return writeEmpty(w, status)
}

// writeEmpty sends a status without a body. Its error is always nil.
func writeEmpty(w http.ResponseWriter, status int) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(status)
	return nil
}

// writeJSON sends a status and a body as JSON. It returns an error, and has sent nothing,
// if the body cannot be encoded. An error of the connection is ignored: the client is
// gone.
func writeJSON(w http.ResponseWriter, status int, body any) error {
	encoded, err := encodeJSON(body)
	if err != nil {
		return err
	}
	sendJSON(w, status, encoded)
	return nil
}

// encodeJSON returns a value as JSON, with a newline at its end.
func encodeJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return b.Bytes(), err
}

// sendJSON sends a status and a body that is JSON. An error of the connection is ignored:
// the client is gone.
func sendJSON(w http.ResponseWriter, status int, encoded []byte) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	jsonHeader(w, status)
	w.Write(encoded) // #nosec G705 -- it is JSON, and its header says so
}

// jsonHeader sends a status and the header of a body that is JSON.
func jsonHeader(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}

// leaseToJSON returns a lease as everyone may see it, without its id. The deadline of a
// lease is a time of the monotonic clock. Until is computed from now, so that it is
// right also after the wall clock was set.
func leaseToJSON(environment string, l leaseView, now time.Time) leaseJSON {
	j := leaseJSON{
		Environment:   untrusted(environment),
		Slot:          untrusted(l.slot),
		Holder:        untrusted(l.holder),
		Key:           untrusted(l.key),
		Verified:      untrusted(l.verified),
		URL:           untrusted(l.url),
		Reason:        untrusted(l.reason),
		Fence:         l.fence,
		Since:         wireTime(l.since),
		TTLSeconds:    l.ttl.Seconds(),
		WaitedSeconds: l.waited.Seconds(),
		Priority:      l.priority,
		HeldSeconds:   max(0, now.Sub(l.since).Seconds()),
		Renewed:       l.kept,

		MaxHoldSeconds: l.longest.Seconds(),
	}
	if !l.limit.IsZero() {
		last := wireTime(now.Add(l.limit.Sub(now)))
		j.MaxUntil = &last
	}
	if !l.deadline.IsZero() {
		until := wireTime(now.Add(l.deadline.Sub(now)))
		j.Until = &until
	}
	return j
}

// leasesToJSON returns leases of one environment in their order.
func leasesToJSON(environment string, leases []leaseView, now time.Time) []leaseJSON {
	all := make([]leaseJSON, len(leases))
	for i, l := range leases {
		all[i] = leaseToJSON(environment, l, now)
	}
	return all
}

// estimateJSON returns the estimate at a place, in whole seconds; nil if it is unknown.
func estimateJSON(estimates []time.Duration, at int) *float64 {
	if at >= len(estimates) || estimates[at] == unknownWait {
		return nil
	}
	seconds := math.Round(estimates[at].Seconds())
	return &seconds
}

// factsToJSON returns the declared facts of an environment; nil if there are none.
func factsToJSON(all map[string]environmentFacts, name string) *factsJSON {
	facts, found := all[name]
	if !found {
		return nil
	}
	return &factsJSON{URL: untrusted(facts.url), Owner: untrusted(facts.owner), Note: untrusted(facts.note)}
}

// viewToJSON returns an environment as everyone may see it: the declared slots, after them
// the slots that have a lease although they are not declared, and the queue. Lists are
// empty rather than null. s is the state that has the view; c is who looks.
func viewToJSON(v *view, s *publishedState, c caller, now time.Time) environmentJSON {
	estimates := v.estimates(s.holdsOf(v.name), now)
	j := environmentJSON{
		EstimatedWaitSeconds: estimateJSON(estimates, len(v.queue)),

		Environment: untrusted(v.name),
		Free:        freeSlots(v),
		Pauses:      viewPauses(v, now),
		Slots:       []slotJSON{},
		Queue:       []waiterJSON{},
	}
	for _, row := range slotRows(v) {
		j.Slots = append(j.Slots, slotToJSON(v, s, row, c, now))
	}
	for i, w := range v.queue {
		j.Queue = append(j.Queue, waiterToJSON(v.name, i+1, w, c, now))
		j.Queue[i].EstimatedWaitSeconds = estimateJSON(estimates, i)
	}
	return j
}

// waiterToJSON returns a waiter as c sees it, without its id.
func waiterToJSON(environment string, position int, w *waiter, c caller, now time.Time) waiterJSON {
	return waiterJSON{
		Position:      position,
		Number:        w.number,
		Holder:        untrusted(w.holder),
		Key:           untrusted(w.key),
		Verified:      untrusted(w.verified),
		URL:           untrusted(w.url),
		Reason:        untrusted(w.reason),
		Since:         wireTime(w.since),
		WaitedSeconds: max(0, now.Sub(w.since).Seconds()),
		Priority:      w.priority,
		Needs:         needsToJSON(w.request, environment, c),
		Connected:     w.connected.Load(),
	}
}

// needsToJSON returns what a waiter in the queue of an environment waits for, as c sees it; nil
// if that is any slot of it.
func needsToJSON(q request, environment string, c caller) []needJSON {
	if q.needs == nil && q.slot != "" {
		return needListToJSON([]need{{environment, q.slot}}, c)
	}
	return needListToJSON(q.needs, c)
}

// endToJSON returns the end of a lease or request, nil for nil. It has neither names nor a
// reason if the history does not have its event any more.
func endToJSON(end *requestEnd) *endJSON {
	if end == nil {
		return nil
	}
	j := &endJSON{How: untrusted(end.kind.String()), At: wireTime(end.at)}
	if end.event != nil {
		j.Slot, j.By = untrusted(end.event.slot), untrusted(end.event.by)
		j.To, j.Why = untrusted(end.event.to), untrusted(end.event.why)
		j.ByKey = untrusted(end.event.byKey)
		j.ByURL = untrusted(end.event.byURL)
	}
	return j
}

// wireTime returns a time as it is sent: in UTC, cut to milliseconds.
func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
