package main

// The tables of status and history, and status --watch.

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// watchPeriod is how often status --watch gets the state without an event: durations
// grow, and a proxy may hold the events back.
const watchPeriod = 5 * time.Second

// A cell is the text of a row in one column, with its colour.
type cell struct {
	text   string
	colour int
}

// table prints the slots and the waiters of the environments, no wider than columns. The
// width is not limited if columns is zero. With colours it prints colour sequences.
func (t *terminal) table(w io.Writer, all environmentsJSON, columns int, colours bool) {
	rows := [][]cell{{
		{"ENVIRONMENT", bold}, {"SLOT", bold}, {"HOLDER", bold}, {"SINCE", bold}, {"UNTIL", bold},
		{"REASON", bold},
	}}
	for _, e := range all.Environments {
		rows = append(rows, environmentRows(e)...)
	}
	if all.Pause != nil {
		fmt.Fprintln(w, fitColumns(pauseSentence(*all.Pause), columns))
	}
	if len(rows) == 1 {
		fmt.Fprintln(w, "no slot is held, and nobody waits")
		return
	}
	printRows(w, rows, columns, colours)
	for _, e := range all.Environments {
		if e.Facts != nil {
			fmt.Fprintln(w, factsLine(e.Environment, *e.Facts))
		}
	}
}

// factsLine returns what is declared of an environment as a line: "uat: https://uat.example,
// owner #team: the note".
func factsLine(environment untrusted, facts factsJSON) string {
	var parts []string
	if facts.URL != "" {
		parts = append(parts, facts.URL.String())
	}
	if facts.Owner != "" {
		parts = append(parts, "owner "+facts.Owner.String())
	}
	if facts.Note != "" {
		parts = append(parts, facts.Note.String())
	}
	return environment.String() + ": " + strings.Join(parts, ", ")
}

// environmentRows returns a row for each pause of an environment, for each of its slots and for
// each of its waiters. Only the first row has the name of the environment.
func environmentRows(e environmentJSON) [][]cell {
	name := e.Environment.String()
	rows := pauseRows(name, e.Pauses)
	if len(rows) > 0 {
		name = ""
	}
	for _, s := range e.Slots {
		row := []cell{{name, 0}, {s.Slot.String(), 0}, {"free", green}, {}, {}, {}}
		switch {
		case s.Kept != nil:
			row = keptRow(name, s)
		case isPaused(e, s.Slot):
			row[2] = cell{"paused", yellow}
		case s.Blocked:
			row[2] = cell{"not free", yellow}
		}
		if s.Lease != nil {
			row = leaseRow(name, *s.Lease)
		}
		rows = append(rows, row)
		name = ""
	}
	for _, w := range e.Queue {
		position := ordinal(w.Position)
		if w.Position == 1 {
			position = "next"
		}
		since := fmt.Sprintf("%s (%s)", shortClock(w.Since), secondsText(w.WaitedSeconds))
		holder := cmp.Or(w.Holder.String(), "an unnamed caller")
		rows = append(rows, []cell{
			{name, 0}, {position, cyan}, {holder, 0}, {since, 0}, {waiterNumber(w), 0}, {waiterReason(w), 0},
		})
	}
	return rows
}

// waiterNumber returns the number of a waiter, by which it can be removed; empty for a server that
// tells none.
func waiterNumber(w waiterJSON) string {
	if w.Number == 0 {
		return ""
	}
	return fmt.Sprint("waiter ", w.Number)
}

// waiterReason returns how long a waiter is likely to wait, what it needs if that is not any
// slot of its environment, its priority and its reason.
func waiterReason(w waiterJSON) string {
	var needs, parts []string
	for _, n := range w.Needs {
		switch {
		case n.Other:
			needs = append(needs, n.label())
		case n.Slot == "":
			needs = append(needs, n.Environment.String())
		case len(w.Needs) == 1:
			needs = append(needs, n.Slot.String())
		default:
			needs = append(needs, n.Environment.String()+" "+n.Slot.String())
		}
	}
	if w.EstimatedWaitSeconds != nil {
		parts = append(parts, estimateText(seconds(*w.EstimatedWaitSeconds)))
	}
	if len(needs) > 0 {
		parts = append(parts, "for "+strings.Join(needs, " and "))
	}
	if w.Priority != 0 {
		parts = append(parts, fmt.Sprintf("priority %d", w.Priority))
	}
	if w.Reason != "" {
		parts = append(parts, w.Reason.String())
	}
	return strings.Join(parts, "; ")
}

// keptRow returns the row of a free slot that is kept for a waiter.
func keptRow(name string, s slotJSON) []cell {
	holder, what := holderName(leaseJSON{Holder: s.Kept.Holder}), "offered to "
	reason := "until it asks for it, for 10s at most"
	if len(s.Kept.WaitsFor) > 0 {
		what, reason = "kept for ", "it waits for "+needsText(s.Kept.WaitsFor)
	}
	return []cell{{name, 0}, {s.Slot.String(), 0}, {what + holder, cyan}, {}, {}, {reason, 0}}
}

// leaseRow returns the row of a slot with a lease. Name is empty if an earlier row has
// the name of the environment.
func leaseRow(name string, l leaseJSON) []cell {
	since := fmt.Sprintf("%s (%s)", shortClock(l.Since), secondsText(l.HeldSeconds))
	until := "released"
	switch {
	case l.Renewed:
		until = "its command ends"
	case l.Until != nil:
		until = shortClock(*l.Until)
	}
	return []cell{
		{name, 0}, {l.Slot.String(), 0}, {holderName(l), yellow}, {since, 0}, {until, 0},
		{l.Reason.String(), 0},
	}
}

// printRows prints the rows with their cells aligned, two spaces between the columns.
// Rows wider than columns are cut: first the last column, the reasons, then the third
// one, the holders, to no less than 12 each. The width is not limited if columns is
// zero. All rows have as many cells as the first one.
func printRows(w io.Writer, rows [][]cell, columns int, colours bool) {
	widths := make([]int, len(rows[0]))
	total := -2
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], len([]rune(row[i].text)))
		}
		total += widths[i] + 2
	}
	for _, i := range []int{len(widths) - 1, 2} {
		if columns > 0 && total > columns {
			cut := min(total-columns, widths[i]-min(widths[i], 12))
			widths[i], total = widths[i]-cut, total-cut
		}
	}
	for _, row := range rows {
		var b strings.Builder
		gap := 0
		for i, c := range row {
			text := fitColumns(c.text, widths[i])
			if text != "" {
				b.WriteString(strings.Repeat(" ", gap))
				gap = 0
				if colours {
					b.WriteString(paint(c.colour, text))
				} else {
					b.WriteString(text)
				}
			}
			gap += widths[i] - len([]rune(text)) + 2
		}
		fmt.Fprintln(w, b.String())
	}
}

// shortClock returns a time of day in the local zone, to the minute, with month and day
// unless it is today.
func shortClock(t time.Time) string {
	local := t.Local()
	if local.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return local.Format("15:04")
	}
	return local.Format("Jan 2 15:04")
}

// watch prints the table of status again and again until ctx ends. On a terminal it
// replaces the table each time, in a log it prints one after each change. With asJSON it
// prints the state as one line of JSON after each change, everywhere. get returns
// the present state. follow sends to its channel when something has changed, until ctx
// or its connection ends, and is then called again after maxBackOff. watch returns the
// first error of get, that of ctx, or one of writing JSON. Later errors of get are printed on stderr.
func (t *terminal) watch(
	ctx context.Context,
	asJSON bool,
	get func() (environmentsJSON, error),
	follow func(context.Context, chan<- struct{}) error,
) error {
	changed := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			follow(ctx, changed)
			sleep(ctx, maxBackOff)
		}
	}()
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	var before environmentsJSON
	failures := 0 // in a row
	for first := true; ; first = false {
		all, err := get()
		failures++
		if err == nil {
			failures = 0
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && first:
			return err
		case failures == 1:
			t.say("%s; trying again", printable(err.Error()))
		case err != nil: // reported before
		case width(t.out) > 0 && !asJSON:
			fmt.Fprintf(t.out, clearScreen+"%s, live\n\n", t.now().Format(time.TimeOnly))
			t.table(t.out, all, width(t.out), t.coloured(t.out))
		case !first && reflect.DeepEqual(comparableState(before), comparableState(all)): // no change
		case asJSON:
			if err := t.jsonLine(all); err != nil {
				return err
			}
			before = all
		default:
			fmt.Fprintf(t.out, "%s\n", t.now().Format(time.TimeOnly))
			t.table(t.out, all, 0, false)
			before = all
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-ticker.C:
		}
	}
}

// historyTable prints the events in their order, newest first, no wider than columns.
// The width is not limited if columns is zero. With colours it prints colour sequences.
func (t *terminal) historyTable(w io.Writer, all historyJSON, columns int, colours bool) {
	if len(all.Events) == 0 {
		fmt.Fprintln(w, "nothing has happened in this time")
		return
	}
	rows := [][]cell{{
		{"WHEN", bold}, {"EVENT", bold}, {"HOLDER", bold}, {"SLOT", bold}, {"WAITED", bold}, {"HELD", bold},
		{"REASON", bold},
	}}
	for _, e := range all.Events {
		rows = append(rows, eventRow(e))
	}
	printRows(w, rows, columns, colours)
}

// eventRow returns the row of an event. The slot has the name of the environment before
// its own, unless these are the same.
func eventRow(e eventJSON) []cell {
	slot := e.Environment.String()
	if e.All {
		slot = "all environments"
	}
	if e.Slot != "" && e.Slot != e.Environment {
		slot += " " + e.Slot.String()
	}
	holder := cmp.Or(e.Holder.String(), "an unnamed caller")
	held, reason, colour := "", e.Reason.String(), 0
	switch e.Event {
	case "granted":
		colour = green
	case "released":
		held = secondsText(e.HeldSeconds)
	case "expired":
		held, colour = secondsText(e.HeldSeconds), yellow
	case "paused":
		holder, colour = cmp.Or(e.By.String(), "an unnamed caller"), yellow
	case "resumed":
		held, colour = secondsText(e.HeldSeconds), green
		holder = cmp.Or(e.By.String(), "an unnamed caller")
		if e.From == "" {
			holder = "by itself"
		}
	case endedByForce, endedByTakeover:
		held, colour = secondsText(e.HeldSeconds), yellow
		reason = "by " + cmp.Or(e.By.String(), "an unnamed caller") + inBrackets(e.Why.String())
	case endedByHandOver:
		held = secondsText(e.HeldSeconds)
		reason = "to " + e.To.String() + inBrackets(e.Why.String())
	case endedByNewer, endedByRemoval:
		reason = "by " + cmp.Or(e.By.String(), "an unnamed caller") + inBrackets(e.Why.String())
	}
	if e.Key != "" {
		reason = strings.TrimSuffix("key "+e.Key.String()+"; "+reason, "; ")
	}
	return []cell{
		{clockTime(e.At), 0}, {e.Event.String(), colour}, {holder, 0}, {slot, 0},
		{secondsText(e.WaitedSeconds), 0}, {held, 0}, {reason, 0},
	}
}

// comparableState returns what has to differ for a change: the slots with the fences of
// their leases, and the waiters with their positions. Durations are left out.
func comparableState(all environmentsJSON) []string {
	var facts []string
	if all.Pause != nil {
		facts = append(facts, pauseFacts([]pauseJSON{*all.Pause}))
	}
	for _, e := range all.Environments {
		facts = append(facts, pauseFacts(e.Pauses))
		for _, s := range e.Slots {
			fact := e.Environment.String() + " " + s.Slot.String()
			if s.Lease != nil {
				fact += fmt.Sprint(" ", s.Lease.Fence)
			}
			if s.Kept != nil {
				fact += fmt.Sprintf(" kept %v", *s.Kept)
			}
			facts = append(facts, fact)
		}
		for _, w := range e.Queue {
			facts = append(facts, fmt.Sprint(w.Position, w.Holder, w.Since))
		}
	}
	return facts
}
