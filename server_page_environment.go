package main

// The page of one environment: its slots, the whole queue, its past with figures and events,
// the commands to type, and the form of what the viewer is about to do.

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	pageEvents  = 50  // events of one environment on its page
	pageWaiters = 500 // waiters
)

// A pageOne is what the page of one environment has besides the row of the table.
type pageOne struct {
	Row         pageRow
	Before      template.HTML
	After       template.HTML
	Queue       []pageWaiter
	MoreWaiting int
	Stats       pageStats
	Charts      []pageChart // one for each slot
	WorkHours   string      // how busy each hour of the last week was, for the script
	WorkFrom    time.Time   // its first hour
	Work        int         // how busy it was in working hours of UTC, in per cent
	Events      []pageEvent
	Quoted      string // the name as a word of a shell
}

// A pageEvent is an event of the history.
type pageEvent struct {
	eventJSON
	At           time.Time
	Held, Waited time.Duration
}

// environmentPage answers GET / with an environment. One that is not declared, and that nobody
// has, is errUndeclared.
func (s *server) environmentPage(
	w http.ResponseWriter, r *http.Request, q query, d pageData, name string,
) error {
	if err := checkEnvironment(name); err != nil {
		return err
	}
	return s.sendPage(w, r, "page.html", &d, func() error {
		if err := s.fillTable(&d, nil); err != nil {
			return err
		}
		isOther := func(n pageNeed) bool { return n.Name != name }
		d.Rows, d.Index, d.Needs = nil, nil, slices.DeleteFunc(d.Needs, isOther)
		if err := s.fillOne(&d, name); err != nil {
			return err
		}
		if q.get("act") == "" || !d.Viewer.MayAct() {
			return nil
		}
		act, err := s.newPageAction(d.One, q, d.Viewer)
		d.Act = act
		return err
	})
}

// fillOne sets the page of one environment. The error is errUndeclared for one that the viewer
// does not see.
func (s *server) fillOne(d *pageData, name string) error {
	if err := s.checkSeen(d.Viewer.caller, []string{name}); err != nil {
		return err
	}
	state := s.boards.of(d.Viewer.caller).state
	v, err := s.keeper.viewIn(state, name)
	if err != nil {
		return s.undeclared(d.Viewer.caller, name)
	}
	holds := state.holdsOf(name)
	facts := factsToJSON(s.declared().facts, name)
	one := &pageOne{Row: newPageRow(v, state, holds, facts, d.Viewer, d.Now)}
	one.Row.setAllLines(v, state, d.Viewer, d.Now)
	if one.Before, one.After, err = renderRow(one.Row, d.Now); err != nil {
		return err
	}
	estimates := v.estimates(holds, d.Now)
	for i := range v.queue[:min(len(v.queue), pageWaiters)] {
		one.Queue = append(one.Queue, newPageWaiter(v, i, estimates, d.Viewer))
	}
	one.MoreWaiting = len(v.queue) - len(one.Queue)
	one.setPast(v, state, d)
	found, _ := s.keeper.events(eventFilter{environment: name, limit: pageEvents})
	for _, e := range found {
		one.Events = append(one.Events, pageEvent{eventToJSON(e), e.at, e.held, e.waited})
	}
	one.Quoted = quote(name)
	d.One = one
	return nil
}

// setAllLines sets a line for each slot of the environment.
func (r *pageRow) setAllLines(v *view, s *publishedState, who viewer, now time.Time) {
	r.Lines, r.MoreLines = nil, 0
	for _, row := range slotRows(v) {
		r.Lines = append(r.Lines, newPageLine(v, s, row, who, now))
	}
}

// setPast sets the timelines and figures of the environment.
func (o *pageOne) setPast(v *view, state *publishedState, d *pageData) {
	events := byEnvironment(state.eventsSince(d.Now.Add(-pageWeek)))[v.name]
	from := d.From()
	all := newPageChart(v, events, from, d.Now)
	o.Stats = all.pageStats
	spans := spansOf(events, v.leases, d.Now)
	for _, slot := range all.Slots {
		chart := pageChart{Name: slot, Slots: []string{slot}}
		chart.Paths = drawTimeline(chart.Slots, spans, from, d.Now)
		chart.Busy = busyShare(spans, chart.Slots, from, d.Now)
		o.Charts = append(o.Charts, chart)
	}
	o.WorkFrom = d.Now.UTC().Truncate(time.Hour).Add(-pageWeek)
	hours := busyHours(spans, all.Slots, o.WorkFrom, d.Now)
	var texts []string
	sum, count := 0, 0
	for i, busy := range hours {
		texts = append(texts, strconv.Itoa(busy))
		at := o.WorkFrom.Add(time.Duration(i) * time.Hour)
		if isWorkHour(at) {
			sum, count = sum+busy, count+1
		}
	}
	o.WorkHours, o.Work = strings.Join(texts, " "), sum/max(1, count)
}

// isWorkHour reports whether the hour that begins at t is from 9 to 17 o'clock of Monday to
// Friday. The script of the page does the same in the zone of the reader.
func isWorkHour(t time.Time) bool {
	return t.Weekday() != time.Saturday && t.Weekday() != time.Sunday && t.Hour() >= 9 && t.Hour() < 17
}

// A pageAction is a form: what the viewer is about to do with an environment, a slot or a
// waiter. ID is that of the request which the form makes: sent twice, it is one request.
type pageAction struct {
	Act, Title, Button string
	Environment        string
	Line               *pageLine   // the slot that it is about; nil for the whole environment
	Waiter             *pageWaiter // whom it removes
	ID                 string
	TTL                string // the length that is selected at first
}

// newPageAction returns the form that the parameters act, slot, fence and waiter ask for. A
// lease that is over, or a request that does not wait any more, is errOver and errNotWaiting.
func (s *server) newPageAction(o *pageOne, q query, v viewer) (*pageAction, error) {
	a := &pageAction{Act: q.get("act"), Environment: o.Row.Name, TTL: "2h"}
	a.ID = cmp.Or(q.get("id"), pageIDPrefix+rand.Text())
	if err := checkID(a.ID); err != nil {
		return nil, err
	}
	fence, slot, hasSlot := q.get("fence"), q.get("slot"), false
	for i := range o.Row.Lines {
		l := o.Row.Lines[i]
		isThis := l.Lease != nil && fence == strconv.FormatUint(l.Lease.Fence, 10)
		if isThis || fence == "" && slot != "" && l.Slot == slot {
			a.Line, hasSlot = l, true
		}
	}
	for i, w := range o.Queue {
		if strconv.Itoa(w.Number) == q.get("waiter") {
			a.Waiter = &o.Queue[i]
		}
	}
	what := o.Row.Name
	if hasSlot {
		what = slotLabel(untrusted(what), untrusted(a.Line.Slot))
	}
	isHeld := a.Line != nil && a.Line.Lease != nil
	switch {
	case a.Act == "more":
		a.Title = what
	case a.Act == "reserve":
		a.Title, a.Button = "Reserve "+what, "Reserve"
	case a.Act == "wait":
		a.Title, a.Button = "Wait in the queue of "+what, "Wait in the queue"
	case a.Act == "pause":
		a.Title, a.Button = "Pause "+what, "Pause"
	case a.Act == "remove" && a.Waiter == nil:
		return nil, errNotWaiting
	case a.Act == "remove":
		a.Title, a.Button = "Remove from the queue of "+what, "Remove from the queue"
	case !slices.Contains([]string{"extend", "force", "take"}, a.Act):
		return nil, fmt.Errorf("%w: act is none that this page has", errParameter)
	case !isHeld:
		return nil, fmt.Errorf("%w: %s", errOver, what)
	case a.Act == "extend":
		a.Title, a.Button = "Extend "+what, "Extend"
	case a.Act == "force":
		a.Title, a.Button = "Force the release of "+what+"?", "Force the release"
	default:
		a.Title, a.Button = "Take over "+what+"?", "Take over"
	}
	return a, nil
}

// IsDanger reports whether the form ends what is somebody else's.
func (a pageAction) IsDanger() bool {
	return slices.Contains([]string{"force", "take", "remove"}, a.Act)
}

// Is reports whether the form is one of some.
func (a pageAction) Is(acts ...string) bool { return slices.Contains(acts, a.Act) }

// TTLs returns the lengths that a form offers.
func (a pageAction) TTLs() []pageLength {
	all := []pageLength{{"30m", "30 minutes"}, {"1h", "1 hour"}, {"2h", "2 hours"}, {"4h", "4 hours"},
		{"8h", "8 hours"}, {"24h", "a day"}}
	if a.Act == "pause" {
		return append(all, pageLength{"", "until it is resumed"})
	}
	return append(all, pageLength{"0", "until I release it"})
}

// A pageLength is a length of time that a form offers.
type pageLength struct{ Value, Text string }
