package main

// GET / and GET /rows: the status page, with the state of all environments or of one, and what
// has changed of it. server_page_rows.go says what a row shows, server_page_board.go keeps the
// rows, server_page_environment.go is the page of one environment, server_act.go takes what
// people do on the page. The files that it loads are in web/.

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// assets are the files of the page, and openapi.yaml, which is served beside it.
//
//go:embed web openapi.yaml
var assets embed.FS

// pageTemplate returns the templates of the page. They are parsed at the first call, because
// the commands of the client never use them.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").Funcs(pageFunctions).ParseFS(assets, "web/*.html"))
})

// pageWeek is the longer of the two times that the page draws.
const (
	pageDay  = 24 * time.Hour
	pageWeek = 7 * 24 * time.Hour
)

// A viewer is who looks at the page: the user name of HTTP Basic, and the caller. What a viewer
// may do on the page is decided here.
type viewer struct {
	Name   string
	caller caller
}

// viewerOf returns who sends the call.
func viewerOf(r *http.Request) viewer { return viewer{basicUser(r), callerOf(r)} }

// is reports whether the viewer has the name of a holder.
func (v viewer) is(holder string) bool { return v.Name != "" && holder == v.Name }

// MayAct reports whether the viewer may do more than look. The history names who did something.
func (v viewer) MayAct() bool { return v.Name != "" && v.caller.may(actionRequest) == nil }

// MayForce reports whether the viewer may do something to what others have.
func (v viewer) MayForce() bool { return v.caller.may(actionForce) == nil }

// pageData is the data of the templates.
type pageData struct {
	Viewer  viewer
	Now     time.Time
	Window  time.Duration
	TV      bool
	Show, Q string
	Find    string // Q in lower case, without white space around it
	Serial  uint64
	Pause   *pauseJSON // of all environments; nil if there is none
	Counts  []pageCount
	Needs   []pageNeed
	Yours   []pageRow
	Index   []pageRow // all rows, unless there are too many
	Rows    []pageTableRow
	More    int         // environments that are not shown
	Changed bool        // only rows that have changed are in Rows
	Order   string      // with Changed: the ids of all rows, if that has changed
	Past    []pagePast  // with Changed: the charts, if they are asked for
	One     *pageOne    // the page of one environment
	Act     *pageAction // what the viewer is about to do
	Problem string      // why that was refused

	status int // of the answer, zero if it is 200
}

// A pageTableRow is a row as it is rendered.
type pageTableRow struct {
	pageRow
	Before, After, Chart template.HTML
	IsHidden             bool
}

// A pagePast is the chart of an environment.
type pagePast struct {
	ID    string
	Chart template.HTML
}

// A pageCount is a link that selects rows, with their number.
type pageCount struct {
	Show, Text string
	Count      int
}

// Week reports whether the page draws seven days.
func (d pageData) Week() bool { return d.Window == pageWeek }

// From returns the begin of the time that is drawn.
func (d pageData) From() time.Time { return d.Now.Add(-d.Window) }

// Ticks returns where the timelines have lines: at midnights of UTC, and for a day at each sixth
// hour. The script of the page moves them to those of the reader's zone.
func (d pageData) Ticks() (places []float64) {
	step := 6 * time.Hour
	if d.Week() {
		step = pageDay
	}
	for t := d.From().Truncate(step).Add(step); t.Before(d.Now); t = t.Add(step) {
		places = append(places, timelinePlace(t, d.From(), d.Now))
	}
	return places
}

// Waits reports whether the viewer waits in a queue.
func (d pageData) Waits() bool {
	return slices.ContainsFunc(d.Yours, func(r pageRow) bool { return r.Yours != nil })
}

// Title returns the title of the page.
func (d pageData) Title() string {
	if d.One != nil {
		return fmt.Sprintf("%s: %s – call-me", d.One.Row.Name, d.One.Row.State().Word)
	}
	return fmt.Sprintf("%d of %d free – call-me", d.Counts[1].Count, d.Counts[0].Count)
}

// Link returns the address of the page with another value of show.
func (d pageData) Link(show string) string { return d.address(show, d.Window, d.TV) }

// WindowLink returns the address of the page with another time.
func (d pageData) WindowLink(since string) string {
	return d.address(d.Show, map[string]time.Duration{"7d": pageWeek}[since], d.TV)
}

// address returns an address of the page that names what is not the default.
func (d pageData) address(show string, window time.Duration, tv bool) string {
	var q []string
	add := func(name, value string) {
		if value != "" {
			q = append(q, name+"="+template.URLQueryEscaper(value))
		}
	}
	if d.One != nil {
		add("environment", d.One.Row.Name)
	}
	add("show", show)
	add("q", d.Q)
	if window == pageWeek {
		add("since", "7d")
	}
	if tv {
		add("view", "tv")
	}
	if len(q) == 0 {
		return "/"
	}
	return "/?" + strings.Join(q, "&")
}

// page answers GET /: the status page as HTML. The parameter since selects the time that is
// drawn, 24h or 7d; show and q select rows; view=tv is for a screen that nobody operates. With
// environment it is the page of one, and act opens what the viewer is about to do.
func (s *server) page(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	d, err := newPageData(r, q)
	if err != nil {
		return err
	}
	if name, found := q.find("environment"); found {
		return s.environmentPage(w, r, q, d, name)
	}
	return s.sendPage(w, r, "page.html", &d, func() error { return s.fillTable(&d, nil) })
}

// newPageData returns the data of a page, as its parameters say. The error is errParameter.
func newPageData(r *http.Request, q query) (pageData, error) {
	d := pageData{Viewer: viewerOf(r), Now: time.Now(), Window: pageDay}
	d.Show, d.Q = q.get("show"), q.get("q")
	d.Find = strings.ToLower(strings.TrimSpace(d.Q))
	since, view := q.get("since"), q.get("view")
	switch {
	case !slices.Contains([]string{"", "24h", "7d"}, since):
		return d, fmt.Errorf("%w: since is 24h or 7d on this page", errParameter)
	case d.Show != "" && !slices.Contains(pageShows, d.Show):
		return d, fmt.Errorf("%w: show is one of %s", errParameter, strings.Join(pageShows, ", "))
	case view != "" && view != "tv":
		return d, fmt.Errorf("%w: view is tv, or missing", errParameter)
	}
	if since == "7d" {
		d.Window = pageWeek
	}
	d.TV = view == "tv"
	return d, nil
}

// rows answers GET /rows: what of the table has changed after a serial number, as HTML for the
// script of the page. With past=1 it has the charts too.
func (s *server) rows(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	d, err := newPageData(r, q)
	if err != nil {
		return err
	}
	after, errAfter := strconv.ParseUint(cmp.Or(q.get("after"), "0"), 10, 64)
	if errAfter != nil {
		return fmt.Errorf("%w: after must be the number that the page had", errParameter)
	}
	past, err := q.flag("past")
	if err != nil {
		return err
	}
	d.Changed = true
	return s.sendPage(w, r, "rows", &d, func() error {
		if err := s.fillTable(&d, &after); err != nil || !past {
			return err
		}
		b := s.boards.of(d.Viewer.caller)
		p, err := b.past(d.Window, d.Now)
		for _, row := range b.order {
			d.Past = append(d.Past, pagePast{row.ChartID(), p.charts[row.Name]})
		}
		return err
	})
}

// sendPage fills the data of a template and sends what it gives. Both are done in the turn of
// the renderer. A page with a form has the id of a request, and is not compressed: the length
// of a compressed answer says something of a secret beside a text of the caller's choice.
func (s *server) sendPage(
	w http.ResponseWriter, r *http.Request, name string, d *pageData, fill func() error,
) error {
	var b bytes.Buffer
	var err error
	s.renderer.render(func() {
		err = fill()
		if err == nil {
			err = pageTemplate().ExecuteTemplate(&b, name, d)
		}
	})
	if err != nil {
		return err
	}
	return writePage(w, r, cmp.Or(d.status, http.StatusOK), b.Bytes(), d.Act == nil)
}
