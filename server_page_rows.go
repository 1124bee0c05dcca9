package main

// The rows of the status page: what the table shows of an environment, of its slots and of its
// queue. server_page_board.go keeps the rows of all environments.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pageLines is how many slots of one environment the table shows, at most.
const pageLines = 12

// A pageRow is an environment in the table. It has times and no durations: those are rendered
// from the times, so that a row changes only when its environment does.
type pageRow struct {
	Name      string
	Facts     *factsJSON
	Slots     int         // those that are declared, and those that have a lease though they are not
	Held      int         // slots with a lease
	Open      []string    // slots that a request would get at once
	Lines     []*pageLine // the only slot; of several those that are held, kept or paused
	MoreLines int         // that are not shown
	Pause     *pauseJSON  // of all slots of the environment; nil if there is none
	Waiting   int         // requests in the queue
	Longest   time.Time   // when the one came that has waited for longest
	Next      *pageWaiter
	Yours     *pageWaiter // the viewer's first request in the queue; nil if there is none
	Wait      string      // how long a request that came now would be likely to wait, as text
	Viewer    string      // the name of the viewer, if it is the holder of anything in the row
}

// A pageLine is one slot in the table.
type pageLine struct {
	Slot  string
	Lease *pageLease
	Kept  *keptJSON
	Pause *pauseJSON // of the slot alone

	Blocked bool // nobody has it and nobody can get it, see slotRow
}

// A pageLease is a lease as the page shows it.
type pageLease struct {
	Holder, URL, Reason untrusted
	Key                 untrusted // the name of the key that it was taken with
	Verified            untrusted // the beginning of Holder that was proved
	Fence               uint64
	Since               time.Time
	Until               time.Time // zero: until released
	Runs                bool      // its job renews it while it runs: Until is zero
	Mine                bool      // the viewer is the holder
	Claim               bool      // the viewer must confirm it
	TTL                 string    // how long it was asked for, as a parameter
}

// A pageWaiter is a request in the queue.
type pageWaiter struct {
	Number, Position    int
	Holder, URL, Reason untrusted
	Key                 untrusted // the name of the key that it was made with
	Verified            untrusted // the beginning of Holder that was proved
	Since               time.Time
	Away                bool   // nobody asks for it at the moment
	Wait                string // how long it is likely to wait, as text
	Priority            int
	Needs               []needJSON
	Mine                bool
}

// newPageRow returns the row of an environment for a viewer, of nobody if the name is empty.
// holds are how long the last holders had it.
func newPageRow(
	v *view, s *publishedState, holds []time.Duration, facts *factsJSON, who viewer, now time.Time,
) pageRow {
	estimates := v.estimates(holds, now)
	r := pageRow{Name: v.name, Facts: facts, Waiting: len(v.queue), Held: len(v.leases)}
	for _, p := range v.pauses {
		if p.slot == "" {
			r.Pause = pagePause(p, now)
		}
	}
	rows := slotRows(v)
	r.Slots = len(rows)
	for _, row := range rows {
		if slices.Contains(v.open, row.slot) {
			r.Open = append(r.Open, row.slot)
		}
		line := newPageLine(v, s, row, who, now)
		isMine := line.Lease != nil && line.Lease.Mine
		switch {
		case len(rows) > 1 && line.hasNothing():
		case len(r.Lines) >= pageLines && !isMine:
			r.MoreLines++
		default:
			r.Lines = append(r.Lines, line)
		}
		if isMine {
			r.Viewer = who.Name
		}
	}
	r.setQueue(v, estimates, who)
	if len(r.Open) == 0 {
		r.Wait = estimateWords(estimates, len(v.queue))
	}
	return r
}

// setQueue sets what the row says of the queue.
func (r *pageRow) setQueue(v *view, estimates []time.Duration, who viewer) {
	for i, w := range v.queue {
		if i == 0 {
			next := newPageWaiter(v, i, estimates, who)
			r.Next, r.Longest = &next, w.since
		}
		if w.since.Before(r.Longest) {
			r.Longest = w.since
		}
		if who.is(w.holder) && r.Yours == nil {
			yours := newPageWaiter(v, i, estimates, who)
			r.Yours, r.Viewer = &yours, who.Name
		}
	}
}

// newPageLine returns a slot of an environment for a viewer.
func newPageLine(v *view, s *publishedState, row slotRow, who viewer, now time.Time) *pageLine {
	line := &pageLine{Slot: row.slot, Blocked: row.isBlocked}
	for _, p := range v.pauses {
		if p.slot == row.slot {
			line.Pause = pagePause(p, now)
		}
	}
	if l := row.lease; l != nil {
		line.Lease = &pageLease{
			Holder: untrusted(l.holder), URL: untrusted(l.url), Reason: untrusted(l.reason),
			Fence: l.fence, Since: l.since, Runs: l.kept, Mine: who.is(l.holder),
			Key: untrusted(l.key), Verified: untrusted(l.verified),
			TTL: l.ttl.String()}
		line.Lease.Claim = line.Lease.Mine && isClaim(*l)
		if !l.kept && !l.deadline.IsZero() {
			line.Lease.Until = pageTime(now.Add(l.deadline.Sub(now)))
		}
	} else if w := v.keptFor(row.slot); w != nil {
		kept := keptSlotToJSON(v, s, keptSlot{waiter: w}, who.caller)
		line.Kept = &kept
	}
	return line
}

// hasNothing reports whether the table says nothing of the slot: it is counted only.
func (l *pageLine) hasNothing() bool { return l.Lease == nil && l.Kept == nil && l.Pause == nil }

// newPageWaiter returns the waiter at a place of the queue, counted from zero.
func newPageWaiter(v *view, at int, estimates []time.Duration, who viewer) pageWaiter {
	w := v.queue[at]
	return pageWaiter{Number: int(w.number), Position: at + 1, Holder: untrusted(w.holder),
		URL: untrusted(w.url), Reason: untrusted(w.reason), Since: w.since, Away: !w.connected.Load(),
		Wait: estimateWords(estimates, at), Priority: w.priority,
		Needs: needsToJSON(w.request, v.name, who.caller),
		Mine:  who.is(w.holder), Key: untrusted(w.key),
		Verified: untrusted(w.verified)}
}

// pagePause returns a pause without the duration that pauseJSON has.
func pagePause(p *pause, now time.Time) *pauseJSON {
	j := pauseToJSON(p, now)
	j.PausedSeconds = 0
	if j.Until != nil {
		until := pageTime(*j.Until)
		j.Until = &until
	}
	return &j
}

// pageTime returns a time to the second. One that is computed from the monotonic clock differs
// by less from call to call.
func pageTime(t time.Time) time.Time { return t.Round(time.Second) }

// estimateWords returns an estimate as text; empty if it is unknown.
func estimateWords(estimates []time.Duration, at int) string {
	if at >= len(estimates) || estimates[at] == unknownWait {
		return ""
	}
	return estimateText(estimates[at])
}

// involves reports whether somebody has a slot of an environment or waits in its queue.
func involves(v *view, holder string) bool {
	has := func(l leaseView) bool { return l.holder == holder }
	waits := func(w *waiter) bool { return w.holder == holder }
	return holder != "" && (slices.ContainsFunc(v.leases, has) || slices.ContainsFunc(v.queue, waits))
}

// A pageState is the state of an environment in a sign, a word and a class of the style.
type pageState struct{ Class, Sign, Word string }

// State returns the state of the environment for a viewer.
func (r pageRow) State() pageState {
	one := r.Slots <= 1
	switch {
	case one && r.IsMine():
		return pageState{"mine", "◆", "yours"}
	case len(r.Open) > 0 && one:
		return pageState{"free", "○", "free"}
	case len(r.Open) > 0:
		return pageState{"free", "○", fmt.Sprintf("%d of %d free", len(r.Open), r.Slots)}
	case r.isPaused() && r.Held > 0:
		return pageState{"paused", "‖", "paused, held"}
	case r.isPaused():
		return pageState{"paused", "‖", "paused"}
	case r.Held >= r.Slots && one:
		return pageState{"held", "●", "held"}
	case r.Held >= r.Slots:
		return pageState{"held", "●", fmt.Sprintf("all %d held", r.Slots)}
	case one && len(r.Lines[0].Kept.WaitsFor) == 0:
		return pageState{"kept", "◐", "offered"}
	case one:
		return pageState{"kept", "◐", "kept"}
	}
	return pageState{"kept", "◐", "none free"}
}

// isPaused reports whether a pause is why no slot is free: one of all slots, or of one that
// nobody has.
func (r pageRow) isPaused() bool {
	isOff := func(l *pageLine) bool { return l.Pause != nil && l.Lease == nil }
	return r.Pause != nil || slices.ContainsFunc(r.Lines, isOff)
}

// IsOne reports whether the environment has one slot.
func (r pageRow) IsOne() bool { return r.Slots == 1 && len(r.Lines) == 1 }

// only returns the only slot of an environment; nil if it has several.
func (r pageRow) only() *pageLine {
	if !r.IsOne() {
		return nil
	}
	return r.Lines[0]
}

// Label returns a slot, or the environment for nil, and who has it, for the name of a button.
func (r pageRow) Label(l *pageLine) string {
	if l == nil {
		return r.Name
	}
	text := slotLabel(untrusted(r.Name), untrusted(l.Slot))
	if l.Lease != nil {
		text += ", held by " + nameOf(l.Lease.Holder)
	}
	return text
}

// IsOwnPause reports whether the environment itself is paused, and not all or a slot of it.
func (r pageRow) IsOwnPause() bool { return r.Pause != nil && !r.Pause.All }

// ChartID returns the id of the chart of the row.
func (r pageRow) ChartID() string { return "c-" + pageID(r.Name) }

// MoreOpen returns how many of the free slots are not named.
func (r pageRow) MoreOpen() int { return len(r.Open) - 3 }

// IsMine reports whether the viewer has the slot.
func (l *pageLine) IsMine() bool { return l.Lease != nil && l.Lease.Mine }

// Line returns the only slot of an environment.
func (r pageRow) Line() *pageLine { return r.Lines[0] }

// IsMine reports whether the viewer has a slot of the environment.
func (r pageRow) IsMine() bool {
	return slices.ContainsFunc(r.Lines, (*pageLine).IsMine)
}

// ID returns the id of the row in the page. It has no white space, whatever the name has.
func (r pageRow) ID() string { return "e-" + pageID(r.Name) }

// Shows returns the values of the parameter show that select the row, with spaces between.
func (r pageRow) Shows() string {
	var all []string
	for _, show := range pageShows {
		if r.isShown(show) {
			all = append(all, show)
		}
	}
	return strings.Join(all, " ")
}

// pageShows are the values of the parameter show.
var pageShows = []string{"free", "held", "queue", "mine", "paused"}

// isShown reports whether a value of the parameter show selects the row. An empty one selects
// all.
func (r pageRow) isShown(show string) bool {
	switch show {
	case "free":
		return len(r.Open) > 0
	case "held":
		return len(r.Open) == 0 && r.Held > 0
	case "queue":
		return r.Waiting > 0
	case "mine":
		return r.IsMine() || r.Yours != nil
	case "paused":
		return r.isPaused()
	}
	return true
}

// has reports whether a text, in lower case, is in the name, the owner, a holder or a reason.
func (r pageRow) has(text string) bool {
	all := []string{r.Name}
	if r.Facts != nil {
		all = append(all, string(r.Facts.Owner), string(r.Facts.Note))
	}
	for _, l := range r.Lines {
		all = append(all, l.Slot)
		if l.Lease != nil {
			all = append(all, string(l.Lease.Holder), string(l.Lease.Reason))
		}
	}
	if r.Next != nil {
		all = append(all, string(r.Next.Holder))
	}
	return strings.Contains(strings.ToLower(strings.Join(all, "\n")), text)
}

// nameOf returns a holder, or what stands for an empty one.
func nameOf(holder untrusted) string { return cmp.Or(holder.String(), "an unnamed caller") }
