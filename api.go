package main

// What goes over the wire: the forms of the answers, and the one table that
// both ends share of what can go wrong, with its status and its exit code.

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// What a caller can be told besides the refusals of the rules and the keeper.
var (
	errKey         = errors.New("missing or wrong API key")
	errMalformed   = errors.New("malformed request")
	errParameter   = errors.New("bad parameter")
	errNotFound    = errors.New("not found")
	errMethod      = errors.New("method not allowed")
	errTooLarge    = errors.New("too large")
	errLongURL     = errors.New("the URL is too long")
	errTooMany     = errors.New("too many wrong keys")
	errUnavailable = errors.New("the server cannot answer now")
	errInternal    = errors.New("internal error")
	errUsage       = errors.New("usage")
	errLost        = errors.New("the slot was lost")
)

// Exit codes of the client. 128+n is added by main for signal n.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitNoSlot  = 75 // EX_TEMPFAIL of sysexits.h: try again later
	exitNotHeld = 76
)

// failures maps errors to statuses and exit codes. The first row that fits
// counts, in either direction; status 0: never sent.
var failures = []struct {
	err    error
	status int
	exit   int
}{
	{errNoSlot, http.StatusForbidden, exitNoSlot},
	{errNotHeld, http.StatusConflict, exitNotHeld},
	{errEnded, http.StatusGone, exitNotHeld},
	{errLost, 0, exitNotHeld},
	{errUndeclared, http.StatusNotFound, exitFailed},
	{errNotFound, http.StatusNotFound, exitFailed},
	{errKey, http.StatusUnauthorized, exitFailed},
	{errMalformed, http.StatusBadRequest, exitFailed},
	{errParameter, http.StatusUnprocessableEntity, exitFailed},
	{errSeveral, http.StatusUnprocessableEntity, exitFailed},
	{errDifferent, http.StatusUnprocessableEntity, exitFailed},
	{errMethod, http.StatusMethodNotAllowed, exitFailed},
	{errTooLarge, http.StatusRequestEntityTooLarge, exitFailed},
	{errLongURL, http.StatusRequestURITooLong, exitFailed},
	{errTooMany, http.StatusTooManyRequests, exitFailed},
	{errUnavailable, http.StatusServiceUnavailable, exitFailed},
	{errStopping, http.StatusServiceUnavailable, exitFailed},
	{errBusy, http.StatusServiceUnavailable, exitFailed},
	{errUnknown, http.StatusServiceUnavailable, exitFailed},
	{errFull, http.StatusServiceUnavailable, exitFailed},
	{errGone, http.StatusServiceUnavailable, exitFailed},
	{errInternal, http.StatusInternalServerError, exitFailed},
	{errUsage, 0, exitUsage},
}

// statusOf returns the status that tells the error; 500 for one that the
// table does not know.
func statusOf(err error) int {
	for _, f := range failures {
		if f.status != 0 && errors.Is(err, f.err) {
			return f.status
		}
	}
	return http.StatusInternalServerError
}

// failureOf returns the error that a status tells; nil for an unknown one.
func failureOf(status int) error {
	for _, f := range failures {
		if f.status == status {
			return f.err
		}
	}
	return nil
}

// exitCode returns what the process ends with: 0 for nil.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	if failed := (runError{}); errors.As(err, &failed) {
		return exitOwnFailure
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.exit
		}
	}
	return exitFailed
}

// An exitError ends the process with its code, and says nothing.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// A usageError is a mistake of the one who typed the command, errUsage.
type usageError string

func (e usageError) Error() string { return string(e) }

func (e usageError) Is(target error) bool { return target == errUsage }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// A hinted error knows what to type next.
type hinted struct {
	error
	hint string
}

func hint(err error, text string) error { return hinted{err, text} }

func (h hinted) Unwrap() error { return h.error }

// leaseJSON is a lease as everyone may see it.
type leaseJSON struct {
	Environment foreign `json:"environment"`
	Slot        foreign `json:"slot"`
	Holder      foreign `json:"holder,omitempty"`
	URL         foreign `json:"url,omitempty"`
	Reason      foreign `json:"reason,omitempty"`
	Fence       uint64  `json:"fence"`
	// Since is when it was granted. Until is when it ends unless it is
	// renewed; absent: when it is released. Both by the server's clock.
	Since         time.Time  `json:"since"`
	Until         *time.Time `json:"until,omitempty"`
	TTLSeconds    float64    `json:"ttl_seconds"` // 0: until released
	WaitedSeconds float64    `json:"waited_seconds"`
	HeldSeconds   float64    `json:"held_seconds"`
	// Similar is an older environment with nearly the same name, in the answer
	// to a request; absent: none.
	Similar foreign `json:"similar,omitempty"`
}

// ours reports whether an answer is a call-me's about this environment, and
// not any other JSON.
func (l *leaseJSON) ours(environment string) bool {
	return string(l.Environment) == environment && l.Fence != 0
}

func (r *refusalJSON) ours(environment string) bool { return string(r.Environment) == environment }

func (e *environmentsJSON) ours(string) bool { return e.Environments != nil }

// placeJSON is a waiting request as everyone may see it.
type placeJSON struct {
	Position      int       `json:"position"` // 1: next
	Holder        foreign   `json:"holder,omitempty"`
	URL           foreign   `json:"url,omitempty"`
	Reason        foreign   `json:"reason,omitempty"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	Connected     bool      `json:"connected"` // false: it may be gone, and loses its place soon
}

// slotJSON is a slot with its lease; null: nobody has it.
type slotJSON struct {
	Slot  foreign    `json:"slot"`
	Lease *leaseJSON `json:"lease"`
}

// environmentJSON is one environment of GET /environments.
type environmentJSON struct {
	Environment foreign     `json:"environment"`
	Free        int         `json:"free"` // slots that nobody has
	Slots       []slotJSON  `json:"slots"`
	Line        []placeJSON `json:"line"`
}

type environmentsJSON struct {
	Environments []environmentJSON `json:"environments"`
}

// endJSON is how a request ended.
type endJSON struct {
	How  foreign   `json:"how"` // released, expired, forced, left, lapsed, used up
	At   time.Time `json:"at"`
	Slot foreign   `json:"slot,omitempty"`
	By   foreign   `json:"by,omitempty"` // forced
}

// refusalJSON is the body of every answer that is an error.
type refusalJSON struct {
	Code        int         `json:"code"` // the status
	Message     foreign     `json:"message"`
	Environment foreign     `json:"environment,omitempty"`
	Position    int         `json:"position,omitempty"` // in the line; 1: next
	HeldBy      []leaseJSON `json:"held_by,omitempty"`
	Ended       *endJSON    `json:"ended,omitempty"`
}

func leaseToJSON(environment string, l *lease, now time.Time) leaseJSON {
	j := leaseJSON{Environment: foreign(environment), Slot: foreign(l.slot), Holder: foreign(l.holder), URL: foreign(l.url),
		Reason: foreign(l.reason), Fence: l.fence, Since: wireTime(l.since), TTLSeconds: l.ttl.Seconds(), WaitedSeconds: l.waited.Seconds(), HeldSeconds: max(0, now.Sub(l.since).Seconds())}
	if !l.deadline.IsZero() {
		until := wireTime(now.Add(l.deadline.Sub(now)))
		j.Until = &until
	}
	return j
}

func leasesToJSON(environment string, leases []lease, now time.Time) []leaseJSON {
	all := make([]leaseJSON, len(leases))
	for i := range leases {
		all[i] = leaseToJSON(environment, &leases[i], now)
	}
	return all
}

// viewToJSON lists the declared slots, and after them those that have a lease
// though they are not declared.
func viewToJSON(v view, now time.Time) environmentJSON {
	j := environmentJSON{Environment: foreign(v.name), Free: max(0, len(v.slots)-len(v.leases)), Slots: []slotJSON{}, Line: []placeJSON{}}
	bySlot := map[foreign]*leaseJSON{}
	for _, l := range leasesToJSON(v.name, v.leases, now) {
		bySlot[l.Slot] = &l
	}
	for _, s := range v.slots {
		j.Slots = append(j.Slots, slotJSON{foreign(s), bySlot[foreign(s)]})
		delete(bySlot, foreign(s))
	}
	for _, l := range v.leases {
		if other := bySlot[foreign(l.slot)]; other != nil {
			j.Slots = append(j.Slots, slotJSON{foreign(l.slot), other})
		}
	}
	for i, p := range v.line {
		j.Line = append(j.Line, placeJSON{Position: i + 1, Holder: foreign(p.holder), URL: foreign(p.url), Reason: foreign(p.reason),
			Since: wireTime(p.since), WaitedSeconds: max(0, now.Sub(p.since).Seconds()), Connected: p.present})
	}
	return j
}

func endToJSON(e *event) *endJSON {
	if e == nil {
		return nil
	}
	return &endJSON{How: foreign(e.kind.String()), At: wireTime(e.at), Slot: foreign(e.slot), By: foreign(e.by)}
}

func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
