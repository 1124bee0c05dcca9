package main

// What goes over the wire: the JSON of the answers, as the server writes and the client
// reads it, and the version of HTTP. The errors and their statuses are in errors.go.
// Times are the server's, durations are in seconds. openapi.yaml describes the same.

import (
	"net/http"
	"time"
)

// leaseJSON is a lease. It is the answer to a POST that was granted and to a PUT, and part
// of other answers. It has no id, which is known to the owner of the lease only.
type leaseJSON struct {
	Environment untrusted `json:"environment"`
	Slot        untrusted `json:"slot"`
	Holder      untrusted `json:"holder,omitempty"`
	URL         untrusted `json:"url,omitempty"`
	Reason      untrusted `json:"reason,omitempty"`
	Fence       uint64    `json:"fence"`
	// Since is when the lease was granted. Until is when it ends unless it is renewed;
	// nil if it lasts until it is released.
	Since         time.Time  `json:"since"`
	Until         *time.Time `json:"until,omitempty"`
	TTLSeconds    float64    `json:"ttl_seconds"` // zero if it lasts until it is released
	WaitedSeconds float64    `json:"waited_seconds"`
	HeldSeconds   float64    `json:"held_seconds"`
	// Similar is an older environment with nearly the same name; empty if there is
	// none. Only the answer to a request has it.
	Similar untrusted `json:"similar,omitempty"`
}

// isFor reports whether the JSON is a lease of call-me on this environment. Other JSON,
// such as that of a proxy, has no fence.
func (l *leaseJSON) isFor(environment string) bool {
	return string(l.Environment) == environment && l.Fence != 0
}

// waiterJSON is a waiter.
type waiterJSON struct {
	Position      int       `json:"position"` // in the queue; 1 is next
	Holder        untrusted `json:"holder,omitempty"`
	URL           untrusted `json:"url,omitempty"`
	Reason        untrusted `json:"reason,omitempty"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// Connected is false if the caller has no poll under way. The waiter loses its
	// position when it stays so.
	Connected bool `json:"connected"`
}

// slotJSON is a slot with its lease; null in JSON if it is free.
type slotJSON struct {
	Slot  untrusted  `json:"slot"`
	Lease *leaseJSON `json:"lease"`
}

// environmentJSON is an environment with its slots and its queue.
type environmentJSON struct {
	Environment untrusted    `json:"environment"`
	Free        int          `json:"free"` // the number of slots without a lease
	Slots       []slotJSON   `json:"slots"`
	Queue       []waiterJSON `json:"queue"`
}

// environmentsJSON is the answer to GET /environments.
type environmentsJSON struct {
	Environments []environmentJSON `json:"environments"`
}

// isFor reports whether the JSON is a list of environments of call-me.
func (e *environmentsJSON) isFor(string) bool { return e.Environments != nil }

// endJSON is how a request ended.
type endJSON struct {
	How  untrusted `json:"how"` // released, expired, forced, left, abandoned, closed
	At   time.Time `json:"at"`
	Slot untrusted `json:"slot,omitempty"`
	By   untrusted `json:"by,omitempty"` // the holder that ended the lease by force
}

// endedByForce is the How of an endJSON and the Event of an eventJSON for a lease that was
// ended by force.
const endedByForce = "forced"

// errorJSON is the body of every answer that is an error.
type errorJSON struct {
	Code        int         `json:"code"` // the HTTP status
	Message     untrusted   `json:"message"`
	Environment untrusted   `json:"environment,omitempty"`
	Position    int         `json:"position,omitempty"` // in the queue; 1 is next, zero if not in it
	HeldBy      []leaseJSON `json:"held_by,omitempty"`
	Ended       *endJSON    `json:"ended,omitempty"` // the caller's own request; nil if it has not ended
}

// isFor reports whether the JSON is an error about this environment.
func (e *errorJSON) isFor(environment string) bool { return string(e.Environment) == environment }

// eventJSON is an event of the history.
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
	HeldSeconds   float64   `json:"held_seconds"`   // zero unless a lease has ended
	By            untrusted `json:"by,omitempty"`   // the holder that ended the lease by force
	From          untrusted `json:"from,omitempty"` // the address of the caller that did so
}

// historyJSON is a page of the history, newest first, the answer to GET /history.
type historyJSON struct {
	Events []eventJSON `json:"events"`
	// Next is the parameter "before" of the next page; zero if there is none.
	Next uint64 `json:"next,omitempty"`
}

// isFor reports whether the JSON is a page of the history of call-me.
func (h *historyJSON) isFor(string) bool { return h.Events != nil }

// onlyHTTP1 returns the protocols of server and client. All limits are made for HTTP/1.
// With HTTP/2 a client would have one connection for all its calls, also when that
// connection is dead.
func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}
