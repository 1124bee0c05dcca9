package main

// The table of status: who has what, who is in the queue.

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// lookPeriod is how often status --watch looks, also when nothing has
// happened: durations grow, and a proxy may keep the events to itself.
const watchPeriod = 5 * time.Second

// A cell is a text with its colour.
type cell struct {
	text   string
	colour int
}

// table prints the environments, within the terminal's width.
func (t *terminal) table(w io.Writer, all environmentsJSON, columns int, colours bool) {
	rows := [][]cell{}
	for _, title := range []string{"ENVIRONMENT", "SLOT", "HOLDER", "SINCE", "UNTIL", "REASON"} {
		if len(rows) == 0 {
			rows = append(rows, nil)
		}
		rows[0] = append(rows[0], cell{title, bold})
	}
	for _, e := range all.Environments {
		rows = append(rows, environmentRows(e)...)
	}
	if len(rows) == 1 {
		fmt.Fprintln(w, "no slot is held, and nobody waits")
		return
	}
	printRows(w, rows, columns, colours)
}

func environmentRows(e environmentJSON) [][]cell {
	name := e.Environment.String()
	var rows [][]cell
	for _, s := range e.Slots {
		row := []cell{{name, 0}, {s.Slot.String(), 0}, {"free", green}, {}, {}, {}}
		if l := s.Lease; l != nil {
			row = []cell{{name, 0}, {l.Slot.String(), 0}, {holderName(*l), yellow},
				{fmt.Sprintf("%s (%s)", shortClock(l.Since), secondsText(l.HeldSeconds)), 0}, {"released", 0}, {l.Reason.String(), 0}}
			if l.Until != nil {
				row[4].text = shortClock(*l.Until)
			}
		}
		rows = append(rows, row)
		name = ""
	}
	for _, p := range e.Queue {
		place := ordinal(p.Position)
		if p.Position == 1 {
			place = "next"
		}
		rows = append(rows, []cell{{name, 0}, {place, cyan}, {cmp.Or(p.Holder.String(), "somebody who gave no name"), 0},
			{fmt.Sprintf("%s (%s)", shortClock(p.Since), secondsText(p.WaitedSeconds)), 0}, {}, {p.Reason.String(), 0}})
	}
	return rows
}

// printRows aligns the cells. When they are too wide, the reasons are cut
// first, then the holders.
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

// shortClock shows the minute, with the day unless it is today.
func shortClock(t time.Time) string {
	local := t.Local()
	if local.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return local.Format("15:04")
	}
	return local.Format("Jan 2 15:04")
}

// watch prints the table again and again until ctx ends: in place on a
// terminal, after each change in a log. follow tells of changes.
func (t *terminal) watch(ctx context.Context, look func() (environmentsJSON, error), follow func(context.Context, chan<- struct{}) error) error {
	changed := make(chan struct{}, 1)
	go func() {
		for sleepy := time.Duration(0); sleep(ctx, sleepy) == nil; sleepy = maxBackOff {
			follow(ctx, changed)
		}
	}()
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	var before environmentsJSON
	for first := true; ; first = false {
		all, err := look()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && first:
			return err
		case err != nil:
			t.say("%s; trying again", printable(err.Error()))
		case width(t.out) > 0:
			fmt.Fprintf(t.out, clearScreen+"%s, live\n\n", t.now().Format(time.TimeOnly))
			t.table(t.out, all, width(t.out), t.coloured(t.out))
		case first || !reflect.DeepEqual(comparableState(before), comparableState(all)):
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

// historyTable prints what has happened, newest first.
func (t *terminal) historyTable(w io.Writer, all historyJSON, columns int, colours bool) {
	if len(all.Events) == 0 {
		fmt.Fprintln(w, "nothing has happened in this time")
		return
	}
	rows := [][]cell{{{"WHEN", bold}, {"EVENT", bold}, {"HOLDER", bold}, {"SLOT", bold}, {"WAITED", bold}, {"HELD", bold}, {"REASON", bold}}}
	for _, e := range all.Events {
		slot := e.Environment.String()
		if e.Slot != "" && e.Slot != e.Environment {
			slot += " " + e.Slot.String()
		}
		held, why := "", e.Reason.String()
		if e.Event == "released" || e.Event == "expired" || e.Event == "forced" {
			held = secondsText(e.HeldSeconds)
		}
		if e.Event == "forced" {
			why = "by " + cmp.Or(e.By.String(), "somebody who gave no name")
		}
		colour := map[untrusted]int{"granted": green, "expired": yellow, "forced": yellow}[e.Event]
		rows = append(rows, []cell{{clockTime(e.At), 0}, {e.Event.String(), colour}, {cmp.Or(e.Holder.String(), "somebody who gave no name"), 0},
			{slot, 0}, {secondsText(e.WaitedSeconds), 0}, {held, 0}, {why, 0}})
	}
	printRows(w, rows, columns, colours)
}

// timeless is what counts as a change: not that time passes.
func comparableState(all environmentsJSON) []string {
	var facts []string
	for _, e := range all.Environments {
		for _, s := range e.Slots {
			fact := e.Environment.String() + " " + s.Slot.String()
			if s.Lease != nil {
				fact += fmt.Sprint(" ", s.Lease.Fence)
			}
			facts = append(facts, fact)
		}
		for _, p := range e.Queue {
			facts = append(facts, fmt.Sprint(p.Position, p.Holder, p.Since))
		}
	}
	return facts
}
