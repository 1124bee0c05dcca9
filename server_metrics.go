package main

// GET /metrics, for Prometheus. Labels are bounded: never a holder, and only
// so many environments.

import (
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// labelledEnvironments is how many environments have a label of their own;
// the rest are summed up as otherEnvironments.
const (
	labelledEnvironments = 500
	otherEnvironments    = "(others)"
)

// Buckets for how long people wait for a slot and hold it, and for commits, in
// seconds.
var (
	durationBuckets = []float64{1, 5, 15, 60, 180, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600}
	commitBuckets   = prometheus.ExponentialBuckets(0.0001, 2.5, 12)
)

// metrics are what the server counts. The keeper counts from its one
// goroutine, the handlers from theirs.
type metrics struct {
	commit                                      prometheus.Histogram
	failed, badKeys                             prometheus.Counter
	waited, held                                *prometheus.HistogramVec
	granted, leasesEnded, waitsEnded, responses *prometheus.CounterVec

	labels labelSet // the keeper's
}

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
			"Leases ended, by how: released, expired or forced.", "environment", "how"),
		waitsEnded: counter("callme_waits_ended_total",
			"Requests that ended without a slot, by how: left or abandoned.", "environment", "how"),
		responses: counter("callme_http_requests_total", "HTTP requests answered.", "code", "method", "route"),
		labels:    labelSet{},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.commit, m.failed, m.badKeys, m.waited, m.held,
		m.granted, m.leasesEnded, m.waitsEnded, m.responses}
}

// A labelSet has the environments that have a label of their own.
type labelSet map[string]bool

// label returns the value of the label for an environment: its name, which is
// added while there is room, or otherEnvironments. A name that is not UTF-8, as
// a file of 2019 may have, is made so: the library panics otherwise.
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

// label returns the label of an environment. With a new one all metrics of an
// environment begin at zero.
func (m *metrics) label(environment string) string {
	if m.labels[environment] {
		return environment
	}
	label := m.labels.label(environment)
	m.waited.WithLabelValues(label)
	m.held.WithLabelValues(label)
	m.granted.WithLabelValues(label)
	for _, kind := range []eventKind{eventReleased, eventExpired, eventForced} {
		m.leasesEnded.WithLabelValues(label, kind.String())
	}
	for _, kind := range []eventKind{eventLeft, eventAbandoned} {
		m.waitsEnded.WithLabelValues(label, kind.String())
	}
	return label
}

// published counts events that have been committed.
func (m *metrics) published(events []*event) {
	for _, e := range events {
		m.count(e)
	}
}

func (m *metrics) count(e *event) {
	label := m.label(e.environment)
	switch e.kind {
	case eventGranted:
		m.granted.WithLabelValues(label).Inc()
		m.waited.WithLabelValues(label).Observe(e.waited.Seconds())
	case eventReleased, eventExpired, eventForced:
		m.leasesEnded.WithLabelValues(label, e.kind.String()).Inc()
		m.held.WithLabelValues(label).Observe(e.held.Seconds())
	case eventLeft, eventAbandoned:
		m.waitsEnded.WithLabelValues(label, e.kind.String()).Inc()
	}
}

// saved counts a commit: how long it took, and whether it failed.
func (m *metrics) saved(took time.Duration, err error) {
	m.commit.Observe(took.Seconds())
	if err != nil {
		m.failed.Inc()
	}
}

// answered counts an HTTP answer.
func (m *metrics) responded(route, method string, code int) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		method = "other"
	}
	m.responses.WithLabelValues(strconv.Itoa(code), method, route).Inc()
}

// environmentCollector reads the state of the environments from the keeper at
// each scrape.
type environmentCollector struct {
	keeper   *keeper
	declared declaredEnvironments

	mu     sync.Mutex
	labels labelSet
}

var (
	slotsDesc   = environmentDesc("callme_slots", "Slots, by state: free or held.", "state")
	waitingDesc = environmentDesc("callme_waiting", "Requests in the queue.")
	longestDesc = environmentDesc("callme_longest_wait_seconds",
		"Time that the first in the queue has waited so far; 0: nobody waits.")
)

func environmentDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"environment"}, more...), nil)
}

// Describe is for prometheus.Collector.
func (c *environmentCollector) Describe(to chan<- *prometheus.Desc) {
	to <- slotsDesc
	to <- waitingDesc
	to <- longestDesc
}

// Collect is for prometheus.Collector.
func (c *environmentCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for label, s := range c.states() {
		gauge(slotsDesc, s.free, label, "free")
		gauge(slotsDesc, s.held, label, "held")
		gauge(waitingDesc, s.waiting, label)
		gauge(longestDesc, s.oldest, label)
	}
}

// A state is what the gauges show of an environment, or of many.
type gaugeValues struct{ free, held, waiting, oldest float64 }

func (s *gaugeValues) add(slots, leases int, line []*waiter, now time.Time) {
	s.free += float64(max(0, slots-leases))
	s.held += float64(leases)
	s.waiting += float64(len(line))
	if len(line) > 0 {
		s.oldest = max(s.oldest, now.Sub(line[0].since).Seconds())
	}
}

// states returns the state of each label. It copies no environment: with very
// many that would hold the keeper up.
func (c *environmentCollector) states() map[string]*gaugeValues {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, states := time.Now(), map[string]*gaugeValues{}
	of := func(environment string) *gaugeValues {
		label := c.labels.label(environment)
		if states[label] == nil {
			states[label] = &gaugeValues{}
		}
		return states[label]
	}
	for _, name := range c.declared.names { // some may have neither lease nor queue
		of(name).add(len(c.declared.slotsOf(name)), 0, nil, now)
	}
	c.keeper.each(func(e *environment) {
		declared := 0
		if len(c.declared.names) > 0 { // counted above
			declared = len(e.slots)
		}
		s := of(e.name)
		s.add(len(e.slots), len(e.leases), e.queue, now)
		s.free -= float64(declared)
	})
	return states
}

// registry has everything that /metrics answers.
func (s *server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(s.metrics.collectors()...)
	r.MustRegister(
		&environmentCollector{keeper: s.keeper, declared: s.declared, labels: labelSet{}},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "callme_healthy", Help: "1 while commits succeed."}, s.healthGauge),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

func (s *server) healthGauge() float64 {
	if s.keeper.isHealthy.Load() {
		return 1
	}
	return 0
}

// metricsHandler answers the scrape.
func (s *server) metricsHandler() handler {
	scrape := promhttp.HandlerFor(s.registry(), promhttp.HandlerOpts{
		ErrorLog:           log.New(newSlogWriter(s.log), "", 0),
		ErrorHandling:      promhttp.ContinueOnError,
		DisableCompression: true,
	})
	return func(w http.ResponseWriter, r *http.Request) error {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
		w.Header().Set("Cache-Control", "no-store")
		scrape.ServeHTTP(w, r)
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

// Unwrap is for http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
