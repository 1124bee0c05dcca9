package main

// GET /metrics for Prometheus: the counters and histograms, which the keeper and the
// handlers update, and the gauges, which are computed at each scrape. The number of labels
// is limited: no label is a holder, and at most labelledEnvironments are environments.

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// labelledEnvironments is how many environments have a label of their own. All others
// share the label otherEnvironments.
const (
	labelledEnvironments = 500
	otherEnvironments    = "(others)"
	allEnvironments      = "(all)" // of the pauses of all
)

// The upper bounds of the histograms' buckets, in seconds: durationBuckets for waiting and
// holding, commitBuckets for commits.
var (
	durationBuckets = []float64{1, 5, 15, 60, 180, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600}
	commitBuckets   = prometheus.ExponentialBuckets(0.0001, 2.5, 12)
)

// metrics are the counters and histograms of the server. badKeys, called and responded are used by
// the handlers and are safe for concurrent use. saved and published are called by the
// keeper, from one goroutine.
type metrics struct {
	commit                                      prometheus.Histogram
	failed, badKeys                             prometheus.Counter
	waited, held                                *prometheus.HistogramVec
	granted, leasesEnded, waitsEnded, responses *prometheus.CounterVec
	keptTime, pauses, calls, notices            *prometheus.CounterVec
	queuedNotices                               *prometheus.GaugeVec

	labels labelSet // used by the keeper's goroutine only
}

// newMetrics returns metrics that are not registered yet.
func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: durationBuckets}
		return prometheus.NewHistogramVec(opts, []string{"environment"})
	}
	return &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "callme_commit_seconds", Help: "Time of one durable commit.", Buckets: commitBuckets}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "callme_commit_failures_total", Help: "Commits that failed."}),
		badKeys: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "callme_refused_keys_total", Help: "Calls with a missing or wrong key."}),
		waited:  histogram("callme_wait_seconds", "Time from entering the queue until the grant."),
		held:    histogram("callme_hold_seconds", "Time from the grant until the end of the lease."),
		granted: counter("callme_grants_total", "Slots granted.", "environment"),
		leasesEnded: counter("callme_leases_ended_total",
			"Leases ended, by how: released, expired, forced, taken or handed.", "environment", "how"),
		waitsEnded: counter("callme_waits_ended_total",
			"Requests that ended without a slot, by how: left, abandoned, superseded, removed "+
				"or undeclared.",
			"environment", "how"),
		keptTime: counter("callme_kept_slot_seconds_total",
			"Seconds for which free slots were kept for requests that need several, summed over the slots.",
			"environment"),
		pauses: counter("callme_pauses_total",
			"Pauses begun or changed (paused), and ended (resumed); those of all environments are (all).",
			"environment", "event"),
		calls: counter("callme_calls_total",
			"Calls with an accepted key, by the name of the key; (none) without one.", "key"),
		responses: counter("callme_http_requests_total",
			"HTTP requests answered.", "code", "method", "route"),
		notices: counter("callme_webhook_events_total",
			"Events for webhooks, by result: sent, failed, or dropped as too many waited.",
			"host", "result"),
		queuedNotices: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "callme_webhook_queued", Help: "Events that wait to be sent to webhooks."},
			[]string{"host"}),
		labels: labelSet{},
	}
}

// collectors returns all metrics, to be registered.
func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.commit, m.failed, m.badKeys, m.waited, m.held,
		m.granted, m.leasesEnded, m.waitsEnded, m.keptTime, m.pauses, m.calls, m.responses,
		m.notices, m.queuedNotices}
}

// A labelSet is the set of environments that have a label of their own. It is not safe for
// concurrent use.
type labelSet map[string]bool

// label returns the label of an environment. That is its name, which is added to the set
// while the set has fewer than labelledEnvironments, and else otherEnvironments. Bytes
// that are not UTF-8, which a file of 2019 may contain, are replaced: the library panics
// on them.
func (s labelSet) label(environment string) string {
	environment = strings.ToValidUTF8(environment, "\ufffd")
	switch {
	case s[environment]:
		return environment
	case len(s) < labelledEnvironments:
		s[environment] = true
		return environment
	}
	return otherEnvironments
}

// label returns the label of an environment. For a new label it adds all metrics of an
// environment, so that each begins at zero. The keeper's goroutine calls it.
func (m *metrics) label(environment string) string {
	if m.labels[environment] {
		return environment
	}
	label := m.labels.label(environment)
	m.waited.WithLabelValues(label)
	m.held.WithLabelValues(label)
	m.granted.WithLabelValues(label)
	m.keptTime.WithLabelValues(label)
	for _, kind := range []eventKind{eventReleased, eventExpired, eventForced, eventTaken, eventHanded} {
		m.leasesEnded.WithLabelValues(label, kind.String())
	}
	for _, kind := range []eventKind{eventLeft, eventAbandoned, eventUndeclared, eventSuperseded,
		eventRemoved} {
		m.waitsEnded.WithLabelValues(label, kind.String())
	}
	for _, kind := range []eventKind{eventPaused, eventResumed} {
		m.pauses.WithLabelValues(label, kind.String())
	}
	return label
}

// published counts committed events.
func (m *metrics) published(events []*event) {
	for _, e := range events {
		m.count(e)
	}
}

// count counts one event. eventClosed is not counted.
func (m *metrics) count(e *event) {
	if e.environment == everywhere {
		m.pauses.WithLabelValues(allEnvironments, e.kind.String()).Inc()
		return
	}
	label := m.label(e.environment)
	switch e.kind {
	case eventPaused, eventResumed:
		m.pauses.WithLabelValues(label, e.kind.String()).Inc()
	case eventGranted:
		m.granted.WithLabelValues(label).Inc()
		m.waited.WithLabelValues(label).Observe(e.waited.Seconds())
	case eventReleased, eventExpired, eventForced, eventTaken, eventHanded:
		m.leasesEnded.WithLabelValues(label, e.kind.String()).Inc()
		m.held.WithLabelValues(label).Observe(e.held.Seconds())
	case eventLeft, eventAbandoned, eventUndeclared, eventSuperseded, eventRemoved:
		m.waitsEnded.WithLabelValues(label, e.kind.String()).Inc()
	}
}

// kept counts the time for which slots of an environment were kept.
func (m *metrics) kept(environment string, slotTime time.Duration) {
	m.keptTime.WithLabelValues(m.label(environment)).Add(max(0, slotTime.Seconds()))
}

// saved counts a commit, its duration and its error. Failed commits are in the histogram of
// durations too.
func (m *metrics) saved(took time.Duration, err error) {
	m.commit.Observe(took.Seconds())
	if err != nil {
		m.failed.Inc()
	}
}

// called counts a call with an accepted key, by the label of its caller.
func (m *metrics) called(label string) { m.calls.WithLabelValues(label).Inc() }

// responded counts a response. A method that is not used by the API is counted as "other",
// because the client chooses its name.
func (m *metrics) responded(route, method string, code int) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		method = "other"
	}
	m.responses.WithLabelValues(strconv.Itoa(code), method, route).Inc()
}

// An environmentCollector is a prometheus.Collector of the gauges of environments. It reads
// the published state of the keeper at each scrape. It is safe for concurrent use.
type environmentCollector struct {
	keeper   *keeper
	declared func() declaredEnvironments

	mu     sync.Mutex
	labels labelSet
}

var (
	slotsDesc = environmentDesc("callme_slots",
		"Slots, by state: free, held, or paused and not held.", "state")
	waitingDesc = environmentDesc("callme_waiting", "Requests in the queue.")
	longestDesc = environmentDesc("callme_longest_wait_seconds",
		"Time that the first in the queue has waited so far; 0: nobody waits.")
	endlessDesc = environmentDesc("callme_leases_without_end",
		"Leases that last until they are released, because nothing gives them an end.")
	pausedDesc = environmentDesc("callme_paused_seconds",
		"Time for which the environment or one of its slots has been paused so far; 0: it is not. "+
			"The pause of all environments is (all).")
)

// environmentDesc describes a gauge with the label environment and more labels.
func environmentDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"environment"}, more...), nil)
}

// Describe implements prometheus.Collector.
func (c *environmentCollector) Describe(to chan<- *prometheus.Desc) {
	to <- slotsDesc
	to <- waitingDesc
	to <- longestDesc
	to <- endlessDesc
	to <- pausedDesc
}

// Collect implements prometheus.Collector.
func (c *environmentCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	all := gaugeValues{}
	all.addPauses(c.keeper.published.Load().pauses, time.Now())
	gauge(pausedDesc, all.pausedFor, allEnvironments)
	for label, g := range c.states() {
		gauge(slotsDesc, g.free, label, "free")
		gauge(slotsDesc, g.held, label, "held")
		gauge(slotsDesc, g.paused, label, "paused")
		gauge(waitingDesc, g.waiting, label)
		gauge(longestDesc, g.oldest, label)
		gauge(endlessDesc, g.endless, label)
		gauge(pausedDesc, g.pausedFor, label)
	}
}

// gaugeValues are the gauges of one label, the sums of its environments: free slots, held
// slots, paused slots that are not held, waiters, leases without an end, and the longest wait
// and the longest pause in seconds.
type gaugeValues struct{ free, held, paused, waiting, endless, oldest, pausedFor float64 }

// add adds an environment.
func (g *gaugeValues) add(v *view, now time.Time) {
	free := freeSlots(v)
	g.free += float64(free)
	g.held += float64(len(v.leases))
	g.paused += float64(max(0, len(v.slots)-len(v.leases)) - free)
	g.waiting += float64(len(v.queue))
	if len(v.queue) > 0 {
		g.oldest = max(g.oldest, now.Sub(v.queue[0].since).Seconds())
	}
	for _, l := range v.leases {
		if l.deadline.IsZero() {
			g.endless++
		}
	}
	isOfAll := func(p *pause) bool { return p.environment == everywhere }
	g.addPauses(slices.DeleteFunc(slices.Clone(v.pauses), isOfAll), now)
}

// addPauses adds pauses.
func (g *gaugeValues) addPauses(pauses []*pause, now time.Time) {
	for _, p := range pauses {
		g.pausedFor = max(g.pausedFor, now.Sub(p.since).Seconds())
	}
}

// states returns the gauges of each label.
func (c *environmentCollector) states() map[string]*gaugeValues {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, values := time.Now(), map[string]*gaugeValues{}
	valuesOf := func(environment string) *gaugeValues {
		label := c.labels.label(environment)
		if values[label] == nil {
			values[label] = &gaugeValues{}
		}
		return values[label]
	}
	// The published state has no idle environments, also if they are declared.
	published := c.keeper.published.Load()
	for _, name := range c.declared().names {
		g := valuesOf(name)
		if published.find(name) == nil {
			g.add(published.idleView(name, c.keeper.slots(name)), now)
		}
	}
	for v := range published.all() {
		valuesOf(v.name).add(v, now)
	}
	return values
}

// registry returns a new registry of everything that GET /metrics shows: the metrics, the
// gauges, and those of the Go runtime and of the process.
func (s *server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(s.metrics.collectors()...)
	if s.keeper != nil {
		r.MustRegister(&environmentCollector{keeper: s.keeper, declared: s.declared, labels: labelSet{}},
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "callme_history_used_ratio",
				Help: "How much of its limits, in bytes or in events, the history uses, from 0 to 1. " +
					"At 1 events are deleted before they are 30 days old."}, s.keeper.historyUse))
	}
	if s.isShared() {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "callme_leader", Help: "1 while this server leads, else 0."}, s.leads))
	}
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "callme_healthy", Help: "1 while commits succeed."}, s.healthGauge),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// healthGauge returns 1 while commits succeed, else 0.
func (s *server) healthGauge() float64 {
	if s.keeper == nil || s.keeper.isHealthy.Load() {
		return 1
	}
	return 0
}

// metricsHandler returns the handler of GET /metrics. It is called once, because it makes
// the registry. A metric that cannot be collected is logged and left out.
func (s *server) metricsHandler() handler {
	registry, format := s.registry(), expfmt.NewFormat(expfmt.TypeTextPlain)
	render := func() ([]byte, error) {
		families, err := registry.Gather()
		if err != nil {
			s.log.Error("collecting metrics failed", "error", err)
		}
		var b bytes.Buffer
		encoder := expfmt.NewEncoder(&b, format)
		for _, family := range families {
			if err := encoder.Encode(family); err != nil {
				return nil, err
			}
		}
		return b.Bytes(), nil
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := callerOf(r).mayAll(actionMetrics); err != nil {
			return err
		}
		text, err := sharedAnswer(&s.renderer, "metrics", render)
		if err != nil {
			return err
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
		w.Header().Set("Content-Type", string(format))
		w.Header().Set("Cache-Control", "no-store")
		w.Write(text)
		return nil
	}
}

// A codeWriter is a ResponseWriter that keeps the status of the response.
type codeWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap returns the inner ResponseWriter, for http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
