package main

// Why a request still waits, for people: who holds the slots that it lacks, for whom free ones
// are kept, and what is kept for itself meanwhile.

import (
	"fmt"
	"slices"
	"strings"
)

// positionText returns the position of a request in the queue; of several environments that in
// each queue: "next in the queue of uat and 2nd in the queue of perf". An estimate follows if
// there is one: "3rd in the queue, about 25 min".
func positionText(reply errorJSON) string {
	if len(reply.WaitsFor) == 0 {
		if reply.EstimatedWaitSeconds != nil {
			return queuePosition(reply.Position) + ", " + estimateText(seconds(*reply.EstimatedWaitSeconds))
		}
		return queuePosition(reply.Position)
	}
	var all []string
	for _, l := range reply.WaitsFor {
		all = append(all, queuePosition(l.Position)+" of "+l.Environment.String())
	}
	return andText(all)
}

// keptText returns for whom a slot is kept and until when, as the words after its name.
func keptText(k keptJSON) string {
	holder := holderName(leaseJSON{Holder: k.Holder})
	if len(k.WaitsFor) == 0 {
		return "is offered to " + holder + ", which has to ask for it within 10s"
	}
	return "is kept for " + holder + ", which waits for " + needsText(k.WaitsFor)
}

// keptSlots prints a line for each of the first three slots that are kept.
func (t *terminal) keptSlots(kept []keptJSON) {
	for _, k := range kept[:min(3, len(kept))] {
		t.say("%s %s", k.Slot, keptText(k))
	}
}

// lackLines prints what is paused, who holds what a request lacks, and for whom free slots of it are kept.
func (t *terminal) lackLines(reply errorJSON) {
	t.pauses(reply.Pauses)
	for _, l := range reply.lacks() {
		t.holders(l.HeldBy)
		t.keptSlots(l.Kept)
	}
}

// ownKept prints which of its environments are kept for a request that waits for others.
func (w *waitDisplay) ownKept() {
	if len(w.lastReply.WaitsFor) == 0 {
		return
	}
	own := slices.DeleteFunc(w.options.names(), func(name string) bool {
		isIt := func(l lackJSON) bool { return string(l.Environment) == name }
		return slices.ContainsFunc(w.lastReply.WaitsFor, isIt)
	})
	if len(own) > 0 {
		w.say("kept for you meanwhile: %s", printable(andText(own)))
	}
}

// whoHas returns who has the slots that the request lacks, and by whom they are paused, as the
// server has sent it last: "held by ann; kept for bob". Of several environments each has its name before it.
func (w *waitDisplay) whoHas() string {
	var all []string
	if text := pausesText(w.lastReply.Pauses); text != "" {
		all = append(all, text)
	}
	for _, l := range w.lastReply.lacks() {
		if len(all) > 0 && len(l.HeldBy)+len(l.Kept) == 0 {
			continue
		}
		text := lackText(l)
		if len(w.lastReply.WaitsFor) > 0 {
			text = l.Environment.String() + " is " + text
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// lackText returns the first three holders of an environment, and the first for whom a slot of
// it is kept or to whom it is offered.
func lackText(l lackJSON) string {
	var parts, names []string
	for _, held := range l.HeldBy[:min(3, len(l.HeldBy))] {
		names = append(names, holderName(held))
	}
	if len(names) > 0 {
		parts = append(parts, "held by "+strings.Join(names, ", "))
	}
	if len(l.Kept) > 0 {
		text, _, _ := strings.Cut(keptText(l.Kept[0]), ", which has to")
		parts = append(parts, strings.TrimPrefix(text, "is "))
	}
	if len(parts) == 0 {
		return "held by nobody, it is being handed on"
	}
	return strings.Join(parts, ", ")
}

// factsOf returns what has to differ between two answers for a line: in holders the leases, the
// kept slots and the pauses, in positions the places in the queues.
func factsOf(reply errorJSON) (holders, positions string) {
	for _, l := range reply.lacks() {
		for _, held := range l.HeldBy {
			holders += fmt.Sprint(" ", held.Fence)
		}
		for _, k := range l.Kept {
			holders += fmt.Sprintf(" %q %q %v", k.Slot, k.Holder, k.WaitsFor)
		}
		holders += ";"
		positions += fmt.Sprint(l.Environment, l.Position, ";")
	}
	holders += pauseFacts(reply.Pauses)
	return holders, positions
}

// sayNested warns of a wait within a run: runs within runs can wait for each other in a circle,
// which requests that ask for all at once cannot.
func (w *waitDisplay) sayNested() {
	if !isWithinRun(w.getenv) {
		return
	}
	var names []string
	for _, l := range leasesOfRun(w.getenv) {
		if !slices.Contains(names, quote(l.Environment.String())) {
			names = append(names, quote(l.Environment.String()))
		}
	}
	held := "its slot"
	if len(names) > 0 {
		held = andText(names)
	} else {
		names = []string{"uat"}
	}
	w.say("call-me: this waits within a call-me run that keeps %s meanwhile; "+
		"two such waits can wait for each other forever", held)
	w.say("hint: ask for both at once: call-me run %s %s -- ...", strings.Join(names, " "), w.options.words())
}
