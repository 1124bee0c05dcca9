package main

// What goes over the wire: the forms of the answers, and the one table that
// both ends share of what can go wrong, with its status and its exit code.

import (
	"net/http"
	"time"
)

// leaseJSON is a lease as everyone may see it.
type leaseJSON struct {
	Environment untrusted `json:"environment"`
	Slot        untrusted `json:"slot"`
	Holder      untrusted `json:"holder,omitempty"`
	URL         untrusted `json:"url,omitempty"`
	Reason      untrusted `json:"reason,omitempty"`
	Fence       uint64    `json:"fence"`
	// Since is when it was granted. Until is when it ends unless it is
	// renewed; absent: when it is released. Both by the server's clock.
	Since         time.Time  `json:"since"`
	Until         *time.Time `json:"until,omitempty"`
	TTLSeconds    float64    `json:"ttl_seconds"` // 0: until released
	WaitedSeconds float64    `json:"waited_seconds"`
	HeldSeconds   float64    `json:"held_seconds"`
	// Similar is an older environment with nearly the same name, in the answer
	// to a request; absent: none.
	Similar untrusted `json:"similar,omitempty"`
}

// ours reports whether an answer is a call-me's about this environment, and
// not any other JSON.
func (l *leaseJSON) isFor(environment string) bool {
	return string(l.Environment) == environment && l.Fence != 0
}

func (r *errorJSON) isFor(environment string) bool { return string(r.Environment) == environment }

func (e *environmentsJSON) isFor(string) bool { return e.Environments != nil }

// placeJSON is a waiting request as everyone may see it.
type waiterJSON struct {
	Position      int       `json:"position"` // 1: next
	Holder        untrusted `json:"holder,omitempty"`
	URL           untrusted `json:"url,omitempty"`
	Reason        untrusted `json:"reason,omitempty"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	Connected     bool      `json:"connected"` // false: it may be gone, and loses its place soon
}

// slotJSON is a slot with its lease; null: nobody has it.
type slotJSON struct {
	Slot  untrusted  `json:"slot"`
	Lease *leaseJSON `json:"lease"`
}

// environmentJSON is one environment of GET /environments.
type environmentJSON struct {
	Environment untrusted    `json:"environment"`
	Free        int          `json:"free"` // slots that nobody has
	Slots       []slotJSON   `json:"slots"`
	Queue       []waiterJSON `json:"queue"`
}

type environmentsJSON struct {
	Environments []environmentJSON `json:"environments"`
}

// endJSON is how a request ended.
type endJSON struct {
	How  untrusted `json:"how"` // released, expired, forced, left, abandoned, closed
	At   time.Time `json:"at"`
	Slot untrusted `json:"slot,omitempty"`
	By   untrusted `json:"by,omitempty"` // forced
}

// endedByForce is the How and the Event of a lease that somebody ended by force.
const endedByForce = "forced"

// errorJSON is the body of every answer that is an error.
type errorJSON struct {
	Code        int         `json:"code"` // the status
	Message     untrusted   `json:"message"`
	Environment untrusted   `json:"environment,omitempty"`
	Position    int         `json:"position,omitempty"` // in the queue; 1: next
	HeldBy      []leaseJSON `json:"held_by,omitempty"`
	Ended       *endJSON    `json:"ended,omitempty"`
}

// eventJSON is one event as everyone may see it.
type eventJSON struct {
	Number        uint64    `json:"number"`
	At            time.Time `json:"at"`
	Event         untrusted `json:"event"` // granted, released, expired, forced, left, abandoned
	Environment   untrusted `json:"environment"`
	Slot          untrusted `json:"slot,omitempty"`
	Holder        untrusted `json:"holder,omitempty"`
	URL           untrusted `json:"url,omitempty"`
	Reason        untrusted `json:"reason,omitempty"`
	Fence         uint64    `json:"fence,omitempty"`
	WaitedSeconds float64   `json:"waited_seconds"`
	HeldSeconds   float64   `json:"held_seconds"`   // of an ended lease
	By            untrusted `json:"by,omitempty"`   // forced: who
	From          untrusted `json:"from,omitempty"` // forced: from which address
}

// historyJSON is a page of the history, newest first.
type historyJSON struct {
	Events []eventJSON `json:"events"`
	// Next is what to give as before= for the next page; absent: there is none.
	Next uint64 `json:"next,omitempty"`
}

func (h *historyJSON) isFor(string) bool { return h.Events != nil }

// onlyHTTP1 are the protocols of server and client. Every limit is meant for
// HTTP/1, and of HTTP/2 there would be one connection for all calls, also when it
// is dead.
func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}
