package main

// GET /: the status page, with the current state and a drawing of the last day or week,
// and the files that it loads. server_page_lanes.go computes the drawing and the figures.
// Its files are in web/.

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

// assets are the files of the page, and openapi.yaml, which is served beside it.
//
//go:embed web openapi.yaml
var assets embed.FS

// pageTemplate returns the template of page.html. It is parsed at the first call, because
// the commands of the client never use it.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").ParseFS(assets, "web/page.html"))
})

// The limits of what the page shows, so that a browser can draw it.
const (
	pageEnvironments = 200
	pageWaiters      = 20 // of one environment
)

// contentPolicy is the Content-Security-Policy of the page: it may load its own style,
// scripts and worker and data: images, and connect to its own server, and nothing else.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; worker-src 'self'; " +
	"connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pageData is the data of the template.
type pageData struct {
	User         string // the user name of HTTP Basic, empty if there is none
	Now          time.Time
	Week         bool // the drawing shows seven days instead of one
	Environments []pageEnvironment
	More         int      // environments that are not shown
	Hours        []string // the labels of the time axis, in UTC
}

// A pageEnvironment is one environment on the page.
type pageEnvironment struct {
	Name  string
	Free  int // slots without a lease
	Slots []pageSlot
	Queue []waiterJSON
	More  int // waiters that are not shown
	Stats pageStats
	Lanes []lane // one for each of Slots
}

// A pageSlot is a slot with its lease.
type pageSlot struct {
	slotJSON
	Mine bool // the holder of the lease is the user of the page
}

// page answers GET / with the status page as HTML. The parameter since selects the time
// that is drawn: 24h, which is the default, or 7d. Any other value is errParameter.
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
		e := newPageEnvironment(v, events[v.name], now.Add(-span), now, d.User)
		d.Environments = append(d.Environments, e)
	}
	thinBars(d.Environments)
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, d); err != nil {
		return err
	}
	return writePage(w, "text/html; charset=utf-8", b.Bytes())
}

// pageNames returns the declared environments, and those with an event in the time that is
// drawn, sorted by name. While environments are declared, others are left out. The keeper
// adds those that have a lease or a waiter now.
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

// serveAsset returns a handler that sends an embedded file with the content type kind.
func serveAsset(name, kind string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		content, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		return writePage(w, kind, content)
	}
}

// writePage sends a page or a file of it, with the headers that protect the page in a
// browser. Its error is always nil.
func writePage(w http.ResponseWriter, kind string, content []byte) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.Write(content)
	return nil
}

// byEnvironment groups events by environment, in their order. It leaves out eventClosed.
func byEnvironment(events []*event) map[string][]*event {
	all := map[string][]*event{}
	for _, e := range events {
		if e.kind != eventClosed {
			all[e.environment] = append(all[e.environment], e)
		}
	}
	return all
}

// newPageEnvironment returns an environment as the page shows it to user. events are its
// events from the time from until now, oldest first. A slot that has no lease now and is
// not declared has no lane.
func newPageEnvironment(v view, events []*event, from, now time.Time, user string) pageEnvironment {
	j := viewToJSON(v, now)
	e := pageEnvironment{Name: v.name, Free: j.Free, Queue: j.Queue, More: max(0, len(j.Queue)-pageWaiters)}
	e.Queue = e.Queue[:len(e.Queue)-e.More]
	var names []string
	for _, s := range j.Slots {
		mine := s.Lease != nil && user != "" && string(s.Lease.Holder) == user
		e.Slots = append(e.Slots, pageSlot{s, mine})
		names = append(names, string(s.Slot))
	}
	bars := barsOf(events, v.leases, now)
	for _, name := range names {
		e.Lanes = append(e.Lanes, lane{name, placeBars(bars[name], from, now)})
	}
	e.Stats = newStats(events, bars, len(names), from, now)
	return e
}

// Spell returns a duration as text, such as 1h30m. The template calls it, and the methods
// after it.
func (pageData) Spell(d time.Duration) string { return durationText(d) }

// Seconds returns a number of seconds as Spell does.
func (pageData) Seconds(s float64) string { return secondsText(s) }

// Ordinal returns a position in the queue: next, 2nd, 3rd.
func (pageData) Ordinal(n int) string {
	if n == 1 {
		return "next"
	}
	return ordinal(n)
}

// Name returns a holder, or what stands for an empty one.
func (pageData) Name(holder untrusted) string {
	return cmp.Or(holder.String(), "somebody who gave no name")
}

// Clock returns a time of day in UTC. The script of the page replaces it by the time in
// the zone of the browser.
func (pageData) Clock(t time.Time) string { return t.UTC().Format("15:04 UTC") }

// ISO returns a time as RFC 3339 in UTC.
func (pageData) ISO(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Left returns how much of a lease is left, in per cent of its ttl, and 100 for a lease
// without a ttl.
func (d pageData) Left(l *leaseJSON) int {
	if l.Until == nil || l.TTLSeconds == 0 {
		return 100
	}
	return max(0, min(100, int(100*l.Until.Sub(d.Now).Seconds()/l.TTLSeconds)))
}

// LeftTime returns how much of a lease is left, as Spell does. More than five minutes are
// cut to whole minutes. The lease must have an Until.
func (d pageData) LeftTime(l *leaseJSON) string {
	left := max(0, l.Until.Sub(d.Now))
	if left > 5*time.Minute {
		left = left.Truncate(time.Minute)
	}
	return durationText(left)
}
