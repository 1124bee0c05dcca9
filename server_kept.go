package main

// What the answers say of slots that are free and cannot be had: for whom they are kept, and
// what that request still waits for.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// keptToJSON returns for whom slots of a view are kept, in the order of the queue, without
// those that are kept for own, the caller's. s is the state that has the view; c is who looks.
func keptToJSON(v *view, s *publishedState, own *waiter, c caller) []keptJSON {
	var all []keptJSON
	for _, k := range v.kept {
		if k.waiter != own {
			all = append(all, keptSlotToJSON(v, s, k, c))
		}
	}
	return all
}

// keptSlotToJSON returns for whom one slot of a view is kept, as c sees it.
func keptSlotToJSON(v *view, s *publishedState, k keptSlot, c caller) keptJSON {
	w := k.waiter
	return keptJSON{Slot: untrusted(k.slot), Holder: untrusted(w.holder), URL: untrusted(w.url),
		Position: v.position(w), WaitsFor: needListToJSON(s.lacks(w, v.name), c)}
}

// needListToJSON returns needs in their order. All of environments that c does not see are one,
// at the end, without a name.
func needListToJSON(needs []need, c caller) []needJSON {
	var all []needJSON
	isHidden := false
	for _, n := range needs {
		if !c.sees(n.environment) {
			isHidden = true
			continue
		}
		all = append(all, needJSON{Environment: untrusted(n.environment), Slot: untrusted(n.slot)})
	}
	if isHidden {
		all = append(all, needJSON{Other: true})
	}
	return all
}

// viewOfName returns the view of the environment that the error is about, if the error is that
// no slot is free; else nil.
func (r replyError) viewOfName() *view {
	if r.state == nil || !errors.Is(r.err, errNoSlot) {
		return nil
	}
	return r.state.find(r.name)
}

// keptText returns for whom the first free slot of the environment is kept, as the end of
// message; empty if there is none, or the error is another one.
func (r replyError) keptText() string {
	v := r.viewOfName()
	if v == nil {
		return ""
	}
	kept := keptToJSON(v, r.state, r.waiter, r.caller)
	if len(kept) == 0 {
		return ""
	}
	slot, holder := kept[0].Slot, cmp.Or(kept[0].Holder, "an unnamed caller")
	if len(kept[0].WaitsFor) == 0 {
		return fmt.Sprintf("; %s is offered to %s", slot, holder)
	}
	return fmt.Sprintf("; %s is kept for %s, which waits for %s", slot, holder, needsText(kept[0].WaitsFor))
}

// lacksToJSON returns the environments of which a waiter for several slots still lacks some,
// with what it must know of each; nil for a waiter for one slot.
func (r replyError) lacksToJSON(now time.Time) []lackJSON {
	if r.waiter == nil || r.waiter.needs == nil {
		return nil
	}
	var all []lackJSON
	for _, n := range r.state.lacks(r.waiter, r.name) {
		v := r.state.find(n.environment)
		isThere := func(l lackJSON) bool { return string(l.Environment) == n.environment }
		if v == nil || slices.ContainsFunc(all, isThere) || !r.caller.sees(n.environment) {
			continue
		}
		all = append(all, lackJSON{Environment: untrusted(n.environment), Position: v.position(r.waiter),
			HeldBy: leasesToJSON(n.environment, v.leases, now),
			Kept:   keptToJSON(v, r.state, r.waiter, r.caller)})
	}
	return all
}
