package main

// What release prints besides the line of 2019, which says that a slot has been freed
// also where there was none: the truth, on stderr. And what request prints of the other
// slots that its holder has.

import (
	"fmt"
	"strings"
)

// releasedNothing prints that a release has ended no lease, who has the slots of the
// environment now, and a hint where the name may be mistyped. all is the state of the
// server after the release, or of no environment if it could not be read. With force the
// release meant the lease of any holder.
func (t *terminal) releasedNothing(which leaseSelector, force bool, all environmentsJSON) {
	var others, own, names []string // holders of the environment; slots of the caller; environments
	elsewhere := ""                 // another environment on which the caller holds a slot
	for _, e := range all.Environments {
		name := string(e.Environment)
		names = append(names, name)
		for _, s := range e.Slots {
			isOwn := s.Lease != nil && string(s.Lease.Holder) == which.holder
			switch {
			case s.Lease == nil:
			case name != which.environment && isOwn:
				elsewhere = name
			case name != which.environment:
			case isOwn:
				own = append(own, fmt.Sprintf("%s with the fence %d", s.Slot, s.Lease.Fence))
			default:
				others = append(others, fmt.Sprintf("%s is %s's now", s.Slot, holderName(*s.Lease)))
			}
		}
	}
	t.say("call-me: %s", printable(nothingReleased(which, force)+stateAfterRelease(own, others)))
	near := nearest(which.environment, names)
	switch {
	case len(own)+len(others) > 0 || near == which.environment:
	case elsewhere != "":
		t.say("hint: you hold a slot on %s: call-me release %s",
			printable(elsewhere), printable(quote(elsewhere)))
	case near != "":
		t.say("hint: did you mean %q? call-me release %s", untrusted(near), printable(quote(near)))
	}
}

// nothingReleased returns the beginning of the sentence of releasedNothing.
func nothingReleased(which leaseSelector, force bool) string {
	what := which.environment
	if which.slot != "" && which.slot != which.environment {
		what = which.slot + " of " + what
	}
	switch {
	case force:
		return what + " was free already"
	case which.fence != 0:
		return fmt.Sprintf("you held nothing with the fence %d on %s", which.fence, what)
	}
	return "you held nothing on " + what
}

// stateAfterRelease returns the end of the sentence of releasedNothing: the slots that the
// caller holds, and the first three that others hold. It is empty without any.
func stateAfterRelease(own, others []string) string {
	text := ""
	if len(own) > 0 {
		text = "; you hold " + strings.Join(own, ", ")
	}
	if more := len(others) - 3; more > 0 {
		others = append(others[:3:3], fmt.Sprintf("%d more are held", more))
	}
	if len(others) > 0 {
		text += "; " + strings.Join(others, ", ")
	}
	return text
}

// releasedNoRequest prints that a release has freed nothing, because the newest request of
// the job or script got no slot, or has not got one yet.
func (t *terminal) releasedNoRequest(environment string, isUndecided bool) {
	how := "got no slot"
	if isUndecided {
		how = "has not got its slot"
	}
	t.say("call-me: freed nothing on %s: the last request here %s", printable(environment), how)
	t.say("hint: to give back the slot of an earlier one, once more: call-me release %s",
		printable(quote(environment)))
}

// otherSlots prints which slots of the environment the holder of a new lease had before.
func (t *terminal) otherSlots(got leaseJSON, options acquireOptions, all environmentsJSON) {
	for _, e := range all.Environments {
		for _, s := range e.Slots {
			switch {
			case s.Lease == nil || s.Lease.Fence == got.Fence || string(s.Lease.Holder) != options.holder:
			case options.isOwn(*s.Lease):
				t.say("call-me: you hold %s already; %s is a further slot", s.Slot, got.Slot)
			default:
				t.say("call-me: another process of yours holds %s; %s is a further slot", s.Slot, got.Slot)
			}
		}
	}
}
