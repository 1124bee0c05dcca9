package main

// GET /metrics, for Prometheus. Labels are bounded: never a holder, and only
// so many environments.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	exposition "github.com/VictoriaMetrics/metrics"
)

// labelledEnvironments is how many environments have a label of their own;
// the rest are summed up as otherEnvironments.
const (
	labelledEnvironments = 500
	otherEnvironments    = "(others)"
)

// metricHelp says what each metric of ours is.
var metricHelp = map[string]string{
	"callme_wait_seconds":          "Time from entering the line until the grant.",
	"callme_hold_seconds":          "Time from the grant until the end of the lease.",
	"callme_grants_total":          "Slots granted.",
	"callme_leases_ended_total":    "Leases ended, by how: released, expired or forced.",
	"callme_waits_ended_total":     "Requests that ended without a slot, by how: left or lapsed.",
	"callme_commit_seconds":        "Time of one durable commit.",
	"callme_commit_failures_total": "Commits that failed.",
	"callme_refused_keys_total":    "Calls with a missing or wrong key.",
	"callme_http_requests_total":   "HTTP requests answered.",
	"callme_slots":                 "Slots, by state: free or held.",
	"callme_waiting":               "Requests in line.",
	"callme_longest_wait_seconds":  "Time that the first in line has waited so far; 0: nobody waits.",
	"callme_healthy":               "1 while commits succeed.",
}

// Buckets for how long people wait for a slot and hold it, and for commits, in
// seconds.
var (
	durationBuckets = []float64{1, 5, 15, 60, 180, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600}
	commitBuckets   = exposition.ExponentialBuckets(0.0001, 2.5, 12)
)

// metrics are what the server counts. The keeper counts from its one
// goroutine, the handlers from theirs; everything here is safe for both.
type metrics struct {
	set     *exposition.Set
	commit  *exposition.PrometheusHistogram
	failed  *exposition.Counter
	badKeys *exposition.Counter
	own     map[string]*environmentMetrics // of environments that have a label; the keeper's
	others  *environmentMetrics            // of those that have none

	mu       sync.RWMutex
	counters map[answerKind]*exposition.Counter // of requests, as they were found first
}

// environmentMetrics are what is counted for one environment.
type environmentMetrics struct {
	waited, held *exposition.PrometheusHistogram
	granted      *exposition.Counter
	ended        [usedUp + 1]*exposition.Counter // by the kind of the event; nil: not counted
}

// An answerKind is what answers are counted by.
type answerKind struct {
	route, method string
	code          int
}

func newMetrics() *metrics {
	set := exposition.NewSet()
	return &metrics{set: set, commit: set.NewPrometheusHistogramExt("callme_commit_seconds", commitBuckets),
		failed: set.NewCounter("callme_commit_failures_total"), badKeys: set.NewCounter("callme_refused_keys_total"),
		own: map[string]*environmentMetrics{}, counters: map[answerKind]*exposition.Counter{}}
}

// A label is a name and a value.
type label struct{ name, value string }

// labelled returns the name of a metric with its labels, which are in the order
// of their names.
func labelled(metric string, labels ...label) string {
	var all []string
	for _, l := range labels {
		all = append(all, l.name+`="`+escapeLabel.Replace(l.value)+`"`)
	}
	return metric + "{" + strings.Join(all, ",") + "}"
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// of returns what is counted for the environment, while there are few.
func (m *metrics) of(environment string) *environmentMetrics {
	own := m.own[environment]
	switch {
	case own != nil:
		return own
	case len(m.own) < labelledEnvironments:
		own = m.make(environment)
		m.own[environment] = own
		return own
	case m.others == nil:
		m.others = m.make(otherEnvironments)
	}
	return m.others
}

// make begins to count under a name. An environment of that very name may be
// counted there already.
func (m *metrics) make(name string) *environmentMetrics {
	histogram := func(metric string) *exposition.PrometheusHistogram {
		return m.set.GetOrCreatePrometheusHistogramExt(labelled(metric, label{"environment", name}), durationBuckets)
	}
	e := &environmentMetrics{waited: histogram("callme_wait_seconds"), held: histogram("callme_hold_seconds"),
		granted: m.set.GetOrCreateCounter(labelled("callme_grants_total", label{"environment", name}))}
	for _, kind := range []eventKind{released, expired, forced} {
		e.ended[kind] = m.set.GetOrCreateCounter(labelled("callme_leases_ended_total", label{"environment", name}, label{"how", kind.String()}))
	}
	for _, kind := range []eventKind{left, lapsed} {
		e.ended[kind] = m.set.GetOrCreateCounter(labelled("callme_waits_ended_total", label{"environment", name}, label{"how", kind.String()}))
	}
	return e
}

// count is told of each event that is published.
func (m *metrics) count(e *event) {
	counted := m.of(e.environment)
	switch e.kind {
	case granted:
		counted.granted.Inc()
		counted.waited.Update(e.waited.Seconds())
	case released, expired, forced:
		counted.ended[e.kind].Inc()
		counted.held.Update(e.held.Seconds())
	case left, lapsed:
		counted.ended[e.kind].Inc()
	}
}

// committed is told how long each commit took, and whether it failed.
func (m *metrics) committed(took time.Duration, err error) {
	m.commit.Update(took.Seconds())
	if err != nil {
		m.failed.Inc()
	}
}

// answered is told of each HTTP answer.
func (m *metrics) answered(route, method string, code int) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		method = "other"
	}
	kind := answerKind{route, method, code}
	m.mu.RLock()
	counter := m.counters[kind]
	m.mu.RUnlock()
	if counter == nil {
		counter = m.set.GetOrCreateCounter(labelled("callme_http_requests_total", label{"code", fmt.Sprint(code)}, label{"method", method}, label{"route", route}))
		m.mu.Lock()
		m.counters[kind] = counter
		m.mu.Unlock()
	}
	counter.Inc()
}

// The gauges show what is the case: they read it from the keeper when asked.
type gauges struct {
	keeper   *keeper
	declared environments

	mu     sync.Mutex
	labels map[string]bool // environments that have a label
}

// A state is what the gauges tell of an environment, or of many.
type state struct{ free, held, waiting, oldest float64 }

func (s *state) add(slots, leases int, line []*place, now time.Time) {
	s.free += float64(max(0, slots-leases))
	s.held += float64(leases)
	s.waiting += float64(len(line))
	if len(line) > 0 {
		s.oldest = max(s.oldest, now.Sub(line[0].since).Seconds())
	}
}

// states copies nothing: with very many environments that would hold the
// keeper up. Those without a label are summed up.
func (g *gauges) states() map[string]*state {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, states := time.Now(), map[string]*state{}
	for _, name := range g.declared.names { // some may have neither lease nor line
		g.of(states, name).add(len(g.declared.of(name)), 0, nil, now)
	}
	g.keeper.each(func(e *environment) {
		declared := 0
		if len(g.declared.names) > 0 { // counted above
			declared = len(e.slots)
		}
		x := g.of(states, e.name)
		x.add(len(e.slots), len(e.leases), e.line, now)
		x.free -= float64(declared)
	})
	return states
}

// of returns the state that an environment counts for.
func (g *gauges) of(states map[string]*state, name string) *state {
	if !g.labels[name] {
		if len(g.labels) < labelledEnvironments {
			g.labels[name] = true
		} else {
			name = otherEnvironments
		}
	}
	x := states[name]
	if x == nil {
		x = &state{}
		states[name] = x
	}
	return x
}

// write writes all gauges.
func (g *gauges) write(w io.Writer) {
	states := g.states()
	names := slices.Sorted(maps.Keys(states))
	family := func(metric string, values func(name string, x *state)) {
		fmt.Fprintf(w, "# HELP %s\n# TYPE %[1]s gauge\n", metric)
		for _, name := range names {
			values(name, states[name])
		}
	}
	family("callme_slots", func(name string, x *state) {
		fmt.Fprintf(w, "%s %v\n", labelled("callme_slots", label{"environment", name}, label{"state", "free"}), x.free)
		fmt.Fprintf(w, "%s %v\n", labelled("callme_slots", label{"environment", name}, label{"state", "held"}), x.held)
	})
	family("callme_waiting", func(name string, x *state) {
		fmt.Fprintf(w, "%s %v\n", labelled("callme_waiting", label{"environment", name}), x.waiting)
	})
	family("callme_longest_wait_seconds", func(name string, x *state) {
		fmt.Fprintf(w, "%s %v\n", labelled("callme_longest_wait_seconds", label{"environment", name}), x.oldest)
	})
	healthy := 0
	if g.keeper.healthy.Load() {
		healthy = 1
	}
	fmt.Fprintf(w, "# HELP callme_healthy\n# TYPE callme_healthy gauge\ncallme_healthy %d\n", healthy)
}

// helpLine is the line before each metric, without what it says.
var helpLine = regexp.MustCompile(`(?m)^# HELP (\w+)$`)

// metricsHandler answers the scrape.
func (s *server) metricsHandler() handler {
	exposition.ExposeMetadata(true)
	state := &gauges{keeper: s.keeper, declared: s.declared, labels: map[string]bool{}}
	return func(w http.ResponseWriter, r *http.Request) error {
		var all bytes.Buffer
		s.metrics.set.WritePrometheus(&all)
		state.write(&all)
		exposition.WriteProcessMetrics(&all)
		exposition.WriteFDMetrics(&all)
		text := helpLine.ReplaceAllStringFunc(all.String(), func(line string) string {
			return strings.TrimSpace(line + " " + metricHelp[strings.TrimPrefix(line, "# HELP ")])
		})
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		io.WriteString(w, text)
		return nil
	}
}

// A codeWriter remembers the status of an answer.
type codeWriter struct {
	http.ResponseWriter
	code int
}

func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Hijack hands the connection over; no answer goes this way any more.
func (w *codeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.code = 0
	}
	return conn, buffered, err
}

// Unwrap is for http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
