package main

// What goes over the wire: the JSON of the answers, as the server writes and the client
// reads it, and the version of HTTP. The errors and their statuses are in errors.go.
// Times are the server's, durations are in seconds. openapi.yaml describes the same.

import (
	"net/http"
	"slices"
	"time"
)

// versionHeader is the header of every response of call-me, except those to the calls of
// 2019, which are the same as then. Its value is the version of the API. The client takes
// a response without it for that of a proxy or of another program.
const (
	versionHeader = "Call-Me"
	apiVersion    = "2"
)

// leaseJSON is a lease. It is the answer to a POST that was granted and to a PUT, and part
// of other answers. It has no id, which is known to the owner of the lease only.
type leaseJSON struct {
	Environment untrusted `json:"environment"`
	Slot        untrusted `json:"slot"`
	Holder      untrusted `json:"holder,omitempty"`
	Key         untrusted `json:"key,omitempty"`             // the name of the key that it was taken with
	Verified    untrusted `json:"verified_holder,omitempty"` // the beginning of Holder that was proved
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
	// MaxHoldSeconds is how long the lease lasts at most, whatever is renewed, and MaxUntil
	// when it ends therefore; zero and nil if there is no limit.
	MaxHoldSeconds float64    `json:"max_hold_seconds,omitempty"`
	MaxUntil       *time.Time `json:"max_until,omitempty"`
	// Renewed is true if the lease was renewed by its id after it was confirmed, as run
	// does while its command runs. A start of the server forgets it until the next renewal.
	Renewed  bool `json:"renewed,omitempty"`
	Priority int  `json:"priority,omitempty"`
	// Similar is an older environment with nearly the same name; empty if there is
	// none. Only the answer to a request has it.
	Similar untrusted `json:"similar,omitempty"`
	// EnvironmentURL is where the environment is, as declared. Only the answers to the owner
	// have it.
	EnvironmentURL untrusted `json:"environment_url,omitempty"`
}

// leasesJSON is the answer to a POST or a PUT for several slots: a lease for each, in the
// order of their environments.
type leasesJSON struct {
	Leases []leaseJSON `json:"leases"`
}

// isFor reports whether the JSON is a lease of call-me on this environment. Other JSON,
// such as that of a proxy, has no fence.
func (l *leaseJSON) isFor(environment string) bool {
	return string(l.Environment) == environment && l.Fence != 0
}

// waiterJSON is a waiter.
type waiterJSON struct {
	Position      int       `json:"position"` // in the queue; 1 is next
	Number        uint64    `json:"number"`   // stays the same, and is never used again
	Holder        untrusted `json:"holder,omitempty"`
	Key           untrusted `json:"key,omitempty"`             // the name of the key that it was made with
	Verified      untrusted `json:"verified_holder,omitempty"` // the beginning of Holder that was proved
	URL           untrusted `json:"url,omitempty"`
	Reason        untrusted `json:"reason,omitempty"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// EstimatedWaitSeconds is how long it is likely to wait from now on; nil if unknown.
	EstimatedWaitSeconds *float64 `json:"estimated_wait_seconds,omitempty"`
	// Connected is false if the caller has no poll under way. The waiter loses its
	// position when it stays so.
	Connected bool `json:"connected"`
	Priority  int  `json:"priority,omitempty"`
	// Needs is what it waits for, if that is not any one slot of the environment.
	Needs []needJSON `json:"needs,omitempty"`
}

// needJSON is one of the slots that a waiter needs; Slot is empty if it may be any.
type needJSON struct {
	Environment untrusted `json:"environment"`
	Slot        untrusted `json:"slot,omitempty"`
	Other       bool      `json:"other,omitempty"` // one that the caller's key does not see, without its name
}

// label returns the slot with its environment, for a sentence.
func (n needJSON) label() string {
	if n.Other {
		return "another environment"
	}
	return slotLabel(n.Environment, n.Slot)
}

// needsText returns needs for a sentence: "perf and web blue".
func needsText(needs []needJSON) string {
	var all []string
	for _, n := range needs {
		all = append(all, n.label())
	}
	return andText(all)
}

// slotLabel returns a slot with its environment before it, unless these are the same. A slot
// without a name is any of its environment.
func slotLabel(environment, slot untrusted) string {
	if slot == "" || slot == environment {
		return environment.String()
	}
	return environment.String() + " " + slot.String()
}

// slotJSON is a slot with its lease; null in JSON if it has none. Kept says for whom a free
// slot is kept; nil if anybody may have it.
type slotJSON struct {
	Slot  untrusted  `json:"slot"`
	Lease *leaseJSON `json:"lease"`
	Kept  *keptJSON  `json:"kept,omitempty"`

	// Blocked is true if a lease of a slot that is not declared any more counts in its place.
	Blocked bool `json:"blocked,omitempty"`
}

// keptJSON is for whom a free slot is kept. WaitsFor is what that request still waits for;
// empty if the slot is offered to it: it gets it when it asks again, or loses its place.
type keptJSON struct {
	Slot     untrusted  `json:"slot,omitempty"` // empty where the slot is named beside it
	Holder   untrusted  `json:"holder,omitempty"`
	URL      untrusted  `json:"url,omitempty"`
	Position int        `json:"position"` // in the queue of this environment; 1 is next
	WaitsFor []needJSON `json:"waits_for,omitempty"`
}

// lackJSON is an environment of which a waiting request for several still lacks a slot, with
// what errorJSON says of one.
type lackJSON struct {
	Environment untrusted   `json:"environment"`
	Position    int         `json:"position"`
	HeldBy      []leaseJSON `json:"held_by,omitempty"`
	Kept        []keptJSON  `json:"kept,omitempty"`
}

// factsJSON is what the operator has declared of an environment besides its slots.
type factsJSON struct {
	URL   untrusted `json:"url,omitempty"` // of the environment itself
	Owner untrusted `json:"owner,omitempty"`
	Note  untrusted `json:"note,omitempty"`
}

// environmentJSON is an environment with its slots and its queue.
type environmentJSON struct {
	Environment untrusted  `json:"environment"`
	Free        int        `json:"free"` // the number of slots without a lease that are not paused
	Facts       *factsJSON `json:"facts,omitempty"`
	// EstimatedWaitSeconds is how long a request that came now would be likely to wait; nil
	// if unknown.
	EstimatedWaitSeconds *float64     `json:"estimated_wait_seconds,omitempty"`
	Pauses               []pauseJSON  `json:"pauses,omitempty"`
	Slots                []slotJSON   `json:"slots"`
	Queue                []waiterJSON `json:"queue"`
}

// environmentsJSON is the answer to GET /environments.
type environmentsJSON struct {
	// Pause is the pause of all environments, which each of them has too; nil if there is none.
	Pause        *pauseJSON        `json:"pause,omitempty"`
	Environments []environmentJSON `json:"environments"`
}

// isFor reports whether the JSON is a list of environments of call-me.
func (e *environmentsJSON) isFor(string) bool { return e.Environments != nil }

// endJSON is how a request ended.
type endJSON struct {
	// How is released, expired, forced, taken, handed, superseded, removed, left, abandoned,
	// closed or undeclared.
	How  untrusted `json:"how"`
	At   time.Time `json:"at"`
	Slot untrusted `json:"slot,omitempty"`
	By   untrusted `json:"by,omitempty"` // the holder that forced, took, superseded or removed it

	ByKey untrusted `json:"by_key,omitempty"` // the name of the key with which it was ended

	To  untrusted `json:"to,omitempty"`  // the holder to whom the lease was handed over
	Why untrusted `json:"why,omitempty"` // the reason of whoever took, handed, forced or removed it

	ByURL untrusted `json:"by_url,omitempty"` // the link of the job that superseded it
}

// endedByForce is the How of an endJSON and the Event of an eventJSON for a lease that was
// ended by force.
const endedByForce = "forced"

// The same for a lease that another request took over, and for one that was handed over to
// another holder.
const (
	endedByTakeover = "taken"
	endedByHandOver = "handed"
)

// The same for a waiter that a newer request or somebody else has ended.
const (
	endedByNewer   = "superseded"
	endedByRemoval = "removed"
)

// errorJSON is the body of every answer that is an error.
type errorJSON struct {
	Code        int       `json:"code"` // the HTTP status
	Message     untrusted `json:"message"`
	Environment untrusted `json:"environment,omitempty"`
	Position    int       `json:"position,omitempty"` // in the queue; 1 is next, zero if not in it
	Number      uint64    `json:"number,omitempty"`   // of the caller's request in the queue
	// EstimatedWaitSeconds is how long it is likely to wait from now on; nil if unknown.
	EstimatedWaitSeconds *float64    `json:"estimated_wait_seconds,omitempty"`
	HeldBy               []leaseJSON `json:"held_by,omitempty"`
	Kept                 []keptJSON  `json:"kept,omitempty"`      // free slots of it that are kept for others
	Pauses               []pauseJSON `json:"pauses,omitempty"`    // that are in the way
	Ended                *endJSON    `json:"ended,omitempty"`     // of the caller; nil if it has not ended
	WaitsFor             []lackJSON  `json:"waits_for,omitempty"` // of a waiting request for several slots

	// Key is the name of the caller's key, if it may not do this, and has one. NeedsRole is the
	// role that it would need, Limit what it is limited to; each is empty if that is not what
	// it lacks.
	Key       untrusted  `json:"key,omitempty"`
	NeedsRole untrusted  `json:"needs_role,omitempty"`
	Limit     *limitJSON `json:"limit,omitempty"`
}

// limitJSON is a limit of a key. Value is as the file of keys has it, Seconds the same of a
// limit of time.
type limitJSON struct {
	Name    untrusted `json:"name"` // environments, max-ttl, max-hold, max-places or max-priority
	Value   untrusted `json:"value"`
	Seconds float64   `json:"seconds,omitempty"`
}

// isForbidden reports whether the error is that the caller's key may not do this.
func (e *errorJSON) isForbidden() bool { return e.NeedsRole != "" || e.Limit != nil }

// isFor reports whether the JSON is an error about this environment.
func (e *errorJSON) isFor(environment string) bool { return string(e.Environment) == environment }

// hasFence reports whether one of the leases has the fence.
func (e errorJSON) hasFence(fence uint64) bool {
	return slices.ContainsFunc(e.HeldBy, func(l leaseJSON) bool { return l.Fence == fence })
}

// lacks returns the environments of which a waiting request lacks slots, at least one.
func (e errorJSON) lacks() []lackJSON {
	if len(e.WaitsFor) > 0 {
		return e.WaitsFor
	}
	return []lackJSON{{Environment: e.Environment, Position: e.Position, HeldBy: e.HeldBy, Kept: e.Kept}}
}

// releasedHeader is the header of the answer to a release, which has no body: the fence of
// the lease that it has ended, or 0 if it has ended none. The answer to the call of 2019
// does not have it.
const releasedHeader = "Call-Me-Released"

// handedHeader is a further header of the answer to a hand-over: the fence of the new lease.
// A call that repeats an earlier one does not have it.
const handedHeader = "Call-Me-Handed"

// handedForHeader is a further header of that answer: for how many seconds the new lease
// lasts, its ttl or the longest hold. It is missing if the lease lasts until it is released.
const handedForHeader = "Call-Me-Handed-Seconds"

// eventJSON is an event of the history.
type eventJSON struct {
	Number        uint64    `json:"number"`
	At            time.Time `json:"at"`
	Event         untrusted `json:"event"` // granted, or how a request ended, see endJSON
	Environment   untrusted `json:"environment"`
	All           bool      `json:"all,omitempty"` // paused or resumed: all environments, the name is empty
	Slot          untrusted `json:"slot,omitempty"`
	Holder        untrusted `json:"holder,omitempty"`
	Key           untrusted `json:"key,omitempty"`             // the name of the key of the request
	Verified      untrusted `json:"verified_holder,omitempty"` // the beginning of Holder that was proved
	URL           untrusted `json:"url,omitempty"`
	Reason        untrusted `json:"reason,omitempty"`
	Fence         uint64    `json:"fence,omitempty"`
	WaitedSeconds float64   `json:"waited_seconds"`
	HeldSeconds   float64   `json:"held_seconds"` // zero unless a lease has ended

	By    untrusted `json:"by,omitempty"`     // the holder that forced, took, superseded or removed
	ByKey untrusted `json:"by_key,omitempty"` // the name of the key with which it was ended
	From  untrusted `json:"from,omitempty"`   // the address of the call; empty if time did it
	To    untrusted `json:"to,omitempty"`     // the holder to whom it was handed over
	Why   untrusted `json:"why,omitempty"`    // the reason of whoever did so

	ByURL untrusted `json:"by_url,omitempty"` // the link of the job that superseded it
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
