package main

// Pauses for people: in the answers of pause and resume, in the tables, and while a request
// waits for what is paused.

import (
	"cmp"
	"fmt"
	"strings"
)

// pauseSentence returns a pause in one sentence: what, by whom, since when, until when and why.
func pauseSentence(p pauseJSON) string {
	text := fmt.Sprintf("%s is paused by %s since %s (%s)", pausedName(p), pausedBy(p), clockTime(p.Since),
		secondsText(p.PausedSeconds))
	return text + pauseEnd(p)
}

// pausedName returns what a pause names, for a sentence.
func pausedName(p pauseJSON) string {
	if p.All {
		return "every environment"
	}
	return slotLabel(p.Environment, p.Slot)
}

// pausedBy returns who has made a pause.
func pausedBy(p pauseJSON) string { return cmp.Or(p.By.String(), "an unnamed caller") }

// pauseEnd returns the end of a sentence about a pause: until when and why.
func pauseEnd(p pauseJSON) string {
	text := ""
	if p.Until != nil {
		text = ", until " + clockTime(*p.Until)
	}
	if p.Reason != "" {
		text += ": " + p.Reason.String()
	}
	return text
}

// targetWords returns the words after "call-me pause" or "call-me resume" that name a target.
func targetWords(p pauseTarget) string {
	switch {
	case p.environment == "":
		return "--all"
	case p.slot == "":
		return quote(p.environment)
	}
	return quote(p.environment) + " --slot " + quote(p.slot)
}

// paused prints what has been paused on stdout, and on stderr how many slots of it are held.
func (t *terminal) paused(target pauseTarget, made pausedJSON, waits bool) {
	until := "until it is resumed"
	if made.Pause.Until != nil {
		until = "until " + clockTime(*made.Pause.Until)
	}
	fmt.Fprintf(t.out, "%s is paused %s; to end it: call-me resume %s\n",
		pausedName(made.Pause), until, printable(targetWords(target)))
	status := "call-me status"
	if target.environment != "" {
		status += " " + quote(target.environment)
	}
	switch {
	case made.Held == 0 || waits:
	case made.Held == 1:
		t.say("1 slot of it is still held; to see by whom: %s", printable(status))
	default:
		t.say("%d slots of it are still held; to see by whom: %s", made.Held, printable(status))
	}
}

// resumed prints on stdout what is not paused any more, and on stderr what still is.
func (t *terminal) resumed(target pauseTarget, ended resumedJSON) {
	name := pausedName(pauseJSON{All: target.environment == "",
		Environment: untrusted(target.environment), Slot: untrusted(target.slot)})
	switch {
	case ended.Resumed == nil && target.environment == "":
		fmt.Fprintln(t.out, "there was no pause of all environments")
	case ended.Resumed == nil:
		fmt.Fprintf(t.out, "there was no pause of %s itself\n", name)
	case target.environment == "":
		fmt.Fprintln(t.out, "the pause of all environments has ended")
	default:
		fmt.Fprintf(t.out, "the pause of %s has ended\n", name)
	}
	t.pauses(ended.StillPaused)
	for i, p := range ended.StillPaused {
		if i == 0 {
			other := pauseTarget{string(p.Environment), string(p.Slot)}
			t.say("hint: to end that, too: call-me resume %s", printable(targetWords(other)))
		}
	}
}

// pauses prints a line for each of the first three pauses, and how many more there are.
func (t *terminal) pauses(all []pauseJSON) {
	for i, p := range all {
		if i == 3 {
			t.say("and %d more pauses; see: call-me status", len(all)-i)
			return
		}
		t.say("%s", pauseSentence(p))
	}
}

// pausesText returns the first pause of an answer for the line of a wait: "paused by ann, until
// 12:00:00 UTC: upgrade"; empty without one.
func pausesText(all []pauseJSON) string {
	if len(all) == 0 {
		return ""
	}
	text := "paused by " + pausedBy(all[0])
	if all[0].Slot != "" && all[0].Slot != all[0].Environment {
		text = all[0].Slot.String() + " is " + text
	}
	return text + pauseEnd(all[0])
}

// pauseFacts returns what has to differ between the pauses of two answers for a line.
func pauseFacts(all []pauseJSON) string {
	var b strings.Builder
	for _, p := range all {
		fmt.Fprintf(&b, "%v %q %q %q %q %v", p.All, p.Environment, p.Slot, p.By, p.Reason, p.Since)
	}
	return b.String()
}

// pauseRows returns a row for each pause of an environment and of its slots.
func pauseRows(name string, pauses []pauseJSON) (rows [][]cell) {
	for _, p := range pauses {
		if p.All {
			continue
		}
		until := "resumed"
		if p.Until != nil {
			until = shortClock(*p.Until)
		}
		since := fmt.Sprintf("%s (%s)", shortClock(p.Since), secondsText(p.PausedSeconds))
		rows = append(rows, []cell{
			{name, 0}, {p.Slot.String(), 0}, {"paused by " + pausedBy(p), yellow}, {since, 0}, {until, 0},
			{p.Reason.String(), 0},
		})
		name = ""
	}
	return rows
}

// isPaused reports whether a pause covers a slot of an environment.
func isPaused(e environmentJSON, slot untrusted) bool {
	for _, p := range e.Pauses {
		if p.covers(e.Environment, slot) {
			return true
		}
	}
	return false
}
