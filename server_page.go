package main

// The status page, for people: what is the case now, and a picture of the
// last day or week. page.html, page.css and page.js stand beside this file.

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sync"
	"time"
)

//go:embed page.html page.css page.js events.js openapi.yaml
var assets embed.FS

// pageTemplate is parsed when the page is first asked for: the clients of this
// program, and most servers at first, have no page to show.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").ParseFS(assets, "page.html"))
})

// What the page shows at the most: a browser is no database.
const (
	pageEnvironments = 200
	pageWaiters      = 20
	pageBars         = 800 // of all lanes; more are drawn as one, where they are close
)

// laneWidth is the width of a lane in the units of its drawing.
const laneWidth = 1000

// contentPolicy lets the page load its own style, script and worker, speak to
// its own server, and nothing else.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; worker-src 'self'; " +
	"connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pageData is what the template is given.
type pageData struct {
	User         string // the Basic user name
	Now          time.Time
	Week         bool // seven days instead of one
	Environments []pageEnvironment
	More         int // environments that are not shown
	Hours        []string
}

type pageEnvironment struct {
	Name  string
	Free  int
	Slots []pageSlot
	Queue []waiterJSON
	More  int // in the queue, not shown
	Stats pageStats
	Lanes []lane
}

type pageSlot struct {
	slotJSON
	Mine bool
}

// pageStats sum up the time that is drawn.
type pageStats struct {
	Busy       int // per cent of the slots' time
	Grants     int
	Expiries   int
	Forced     int
	Median     time.Duration // of the waits before a grant
	NinetyFive time.Duration
}

// A lane is the timeline of one slot.
type lane struct {
	Slot string
	Bars []bar
}

// A bar is a lease, or several that are too close to tell apart.
type bar struct {
	X, Width         float64
	WaitX, WaitWidth float64
	How              string // released, expired, forced, held
	Title            string
	from, to, asked  time.Time
	count            int
}

// page answers the status page.
func (s *server) page(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	if since := q.get("since"); !slices.Contains([]string{"", "24h", "7d"}, since) {
		return fmt.Errorf("%w: since is 24h or 7d on this page", errParameter)
	}
	now := time.Now()
	d := pageData{User: basicUser(r), Now: now, Week: q.get("since") == "7d"}
	span, step, layout := 24*time.Hour, 6*time.Hour, "15:04"
	if d.Week {
		span, step, layout = 7*24*time.Hour, 24*time.Hour, "Mon"
	}
	for t := now.Add(-span); !t.After(now); t = t.Add(step) {
		d.Hours = append(d.Hours, t.UTC().Format(layout))
	}
	events := byEnvironment(s.keeper.eventsSince(now.Add(-span)))
	views := s.keeper.views(s.pageNames(events))
	d.More = max(0, len(views)-pageEnvironments)
	for _, v := range views[:len(views)-d.More] {
		d.Environments = append(d.Environments, newPageEnvironment(v, events[v.name], now.Add(-span), now, d.User))
	}
	thinBars(d.Environments)
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, d); err != nil {
		return err
	}
	return writePage(w, "text/html; charset=utf-8", b.Bytes())
}

// known are the declared environments, and those that had a lease in the time
// that is drawn, though nobody has one now.
func (s *server) pageNames(events map[string][]*event) []string {
	names := slices.Clone(s.declared.names)
	for name := range events {
		if s.keeper.slots(name) != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// asset answers a file of the binary.
func serveAsset(name, kind string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		content, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		return writePage(w, kind, content)
	}
}

func writePage(w http.ResponseWriter, kind string, content []byte) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.Write(content)
	return nil
}

func byEnvironment(events []*event) map[string][]*event {
	all := map[string][]*event{}
	for _, e := range events {
		if e.kind != eventClosed {
			all[e.environment] = append(all[e.environment], e)
		}
	}
	return all
}

func newPageEnvironment(v view, events []*event, from, now time.Time, user string) pageEnvironment {
	j := viewToJSON(v, now)
	e := pageEnvironment{Name: v.name, Free: j.Free, Queue: j.Queue, More: max(0, len(j.Queue)-pageWaiters)}
	e.Queue = e.Queue[:len(e.Queue)-e.More]
	var names []string
	for _, s := range j.Slots {
		e.Slots = append(e.Slots, pageSlot{s, s.Lease != nil && user != "" && string(s.Lease.Holder) == user})
		names = append(names, string(s.Slot))
	}
	bars := map[string][]bar{}
	for _, ev := range events {
		if ev.kind == eventReleased || ev.kind == eventExpired || ev.kind == eventForced {
			start := ev.at.Add(-ev.held)
			bars[ev.slot] = append(bars[ev.slot], bar{from: start, to: ev.at, asked: start.Add(-ev.waited), How: ev.kind.String(), count: 1,
				Title: barTitle(ev.holder, ev.held, ev.waited, ev.kind.String()+" at "+ev.at.UTC().Format("Jan 2 15:04 UTC"))})
		}
	}
	for _, l := range v.leases {
		held := now.Sub(l.since)
		bars[l.slot] = append(bars[l.slot], bar{from: l.since, to: now, asked: l.since.Add(-l.waited), How: "held", count: 1,
			Title: barTitle(l.holder, held, l.waited, "held now")})
	}
	for _, name := range names {
		e.Lanes = append(e.Lanes, lane{name, placeBars(bars[name], from, now)})
	}
	e.Stats = newStats(events, bars, len(names), from, now)
	return e
}

// barTitle isolates the holder: whatever the direction of its letters, the text
// after it stays as it is. A tooltip has no markup for that.
func barTitle(holder string, held, waited time.Duration, end string) string {
	name := cmp.Or(printable(holder), "somebody who gave no name")
	text := fmt.Sprintf("\u2068%s\u2069: %s, %s", name, durationText(held), end)
	if waited >= time.Second {
		text += ", after waiting " + durationText(waited)
	}
	return text
}

// within keeps the bars that lie in the time from..to, cut to it, and places
// them.
func placeBars(bars []bar, from, to time.Time) []bar {
	x := func(t time.Time) float64 {
		share := float64(t.Sub(from)) / float64(to.Sub(from))
		return laneWidth * min(1, max(0, share))
	}
	var kept []bar
	for _, b := range bars {
		if b.to.Before(from) {
			continue
		}
		b.X, b.WaitX = x(b.from), x(b.asked)
		b.Width, b.WaitWidth = max(1, x(b.to)-b.X), b.X-b.WaitX
		kept = append(kept, b)
	}
	return kept
}

// thinBars draws bars of one lane as one where they are close, when there are
// too many in all.
func thinBars(environments []pageEnvironment) {
	total, lanes := 0, 0
	for _, e := range environments {
		for _, l := range e.Lanes {
			total, lanes = total+len(l.Bars), lanes+1
		}
	}
	if total <= pageBars {
		return
	}
	grain := laneWidth * float64(lanes) / pageBars
	for i := range environments {
		for j := range environments[i].Lanes {
			lane := &environments[i].Lanes[j]
			lane.Bars = mergeBars(lane.Bars, grain)
		}
	}
}

func mergeBars(bars []bar, grain float64) []bar {
	var merged []bar
	for _, b := range bars {
		last := len(merged) - 1
		if last < 0 || b.X+b.Width-merged[last].X > grain {
			merged = append(merged, b)
			continue
		}
		m := &merged[last]
		m.Width = b.X + b.Width - m.X
		m.WaitWidth = max(m.WaitWidth, b.WaitWidth)
		if b.How != "released" {
			m.How = b.How
		}
		m.count++
		m.Title = fmt.Sprintf("%d leases, the last: %s", m.count, b.Title)
	}
	return merged
}

func newStats(events []*event, bars map[string][]bar, slots int, from, to time.Time) pageStats {
	var st pageStats
	var waits []time.Duration
	for _, e := range events {
		if e.at.Before(from) {
			continue
		}
		switch e.kind {
		case eventGranted:
			st.Grants++
			waits = append(waits, e.waited)
		case eventExpired:
			st.Expiries++
		case eventForced:
			st.Forced++
		}
	}
	slices.Sort(waits)
	st.Median, st.NinetyFive = percentile(waits, 50), percentile(waits, 95)
	busy := time.Duration(0)
	for _, lane := range bars {
		for _, b := range lane {
			if start := laterTime(b.from, from); b.to.After(start) {
				busy += b.to.Sub(start)
			}
		}
	}
	if slots > 0 {
		st.Busy = min(100, int(100*busy/(to.Sub(from)*time.Duration(slots))))
	}
	return st
}

// percentile returns the smallest of the sorted values that so many per cent
// do not exceed; 0 of none.
func percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}

func laterTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Busyness says the busy share in words, for its colour.
func (st pageStats) Busyness() string {
	switch {
	case st.Busy >= 80:
		return "high"
	case st.Busy >= 50:
		return "medium"
	}
	return "low"
}

// Spell is for the template.
func (pageData) Spell(d time.Duration) string { return durationText(d) }

// Seconds is for the template.
func (pageData) Seconds(s float64) string { return secondsText(s) }

// Ordinal is for the template.
func (pageData) Ordinal(n int) string {
	if n == 1 {
		return "next"
	}
	return ordinal(n)
}

// Name is for the template.
func (pageData) Name(holder untrusted) string {
	return cmp.Or(holder.String(), "somebody who gave no name")
}

// Clock is for the template; the script shows it in the reader's own zone.
func (pageData) Clock(t time.Time) string { return t.UTC().Format("15:04 UTC") }

// ISO is for the template.
func (pageData) ISO(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Left is how much of a lease is left, in per cent of its ttl.
func (d pageData) Left(l *leaseJSON) int {
	if l.Until == nil || l.TTLSeconds == 0 {
		return 100
	}
	return max(0, min(100, int(100*l.Until.Sub(d.Now).Seconds()/l.TTLSeconds)))
}

// LeftTime is how much of a lease is left, in minutes while it is many.
func (d pageData) LeftTime(l *leaseJSON) string {
	left := max(0, l.Until.Sub(d.Now))
	if left > 5*time.Minute {
		left = left.Truncate(time.Minute)
	}
	return durationText(left)
}
