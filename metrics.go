package main

// GET /metrics, for Prometheus. Labels are bounded: never a holder, and only
// so many environments.

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
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

// Buckets for how long people wait for a slot and hold it, in seconds.
var durationBuckets = []float64{1, 5, 15, 60, 180, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600}

// metrics are what the server counts. The keeper counts from its one
// goroutine, the handlers from theirs; everything here is safe for both.
type metrics struct {
	registry *prometheus.Registry
	waited   *prometheus.HistogramVec
	held     *prometheus.HistogramVec
	granted  *prometheus.CounterVec
	ended    *prometheus.CounterVec
	gaveUp   *prometheus.CounterVec
	commit   prometheus.Histogram
	failed   prometheus.Counter
	badKeys  prometheus.Counter
	requests *prometheus.CounterVec
	own      map[string]*environmentMetrics // of environments that have a label; the keeper's
	others   *environmentMetrics            // of those that have none

	mu       sync.RWMutex
	counters map[answerKind]prometheus.Counter // of requests, as they were found first
}

// environmentMetrics are what is counted for one environment, looked up in
// the registry once: a look-up costs more than the counting.
type environmentMetrics struct {
	waited, held prometheus.Observer
	granted      prometheus.Counter
	ended        [usedUp + 1]prometheus.Counter // by the kind of the event; nil: not counted
}

// An answerKind is what answers are counted by.
type answerKind struct {
	route, method string
	code          int
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "callme_wait_seconds",
			Help: "Time from entering the line until the grant.", Buckets: durationBuckets}, []string{"environment"}),
		held: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "callme_hold_seconds",
			Help: "Time from the grant until the end of the lease.", Buckets: durationBuckets}, []string{"environment"}),
		granted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "callme_grants_total", Help: "Slots granted."}, []string{"environment"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "callme_leases_ended_total",
			Help: "Leases ended, by how: released, expired or forced."}, []string{"environment", "how"}),
		gaveUp: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "callme_waits_ended_total",
			Help: "Requests that ended without a slot, by how: left or lapsed."}, []string{"environment", "how"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "callme_commit_seconds",
			Help: "Time of one durable commit.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12)}),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "callme_commit_failures_total", Help: "Commits that failed."}),
		badKeys: prometheus.NewCounter(prometheus.CounterOpts{Name: "callme_refused_keys_total", Help: "Calls with a missing or wrong key."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "callme_http_requests_total",
			Help: "HTTP requests answered."}, []string{"route", "method", "code"}),
		own:      map[string]*environmentMetrics{},
		counters: map[answerKind]prometheus.Counter{},
	}
	m.registry.MustRegister(m.waited, m.held, m.granted, m.ended, m.gaveUp, m.commit, m.failed, m.badKeys, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return m
}

// of returns what is counted for the environment, while there are few.
func (m *metrics) of(environment string) *environmentMetrics {
	own := m.own[environment]
	switch {
	case own != nil:
		return own
	case len(m.own) < labelledEnvironments:
		own = m.lookUp(environment)
		m.own[environment] = own
		return own
	case m.others == nil:
		m.others = m.lookUp(otherEnvironments)
	}
	return m.others
}

func (m *metrics) lookUp(label string) *environmentMetrics {
	e := &environmentMetrics{waited: m.waited.WithLabelValues(label), held: m.held.WithLabelValues(label), granted: m.granted.WithLabelValues(label)}
	for _, kind := range []eventKind{released, expired, forced} {
		e.ended[kind] = m.ended.WithLabelValues(label, kind.String())
	}
	for _, kind := range []eventKind{left, lapsed} {
		e.ended[kind] = m.gaveUp.WithLabelValues(label, kind.String())
	}
	return e
}

// count is told of each event that is published.
func (m *metrics) count(e *event) {
	counted := m.of(e.environment)
	switch e.kind {
	case granted:
		counted.granted.Inc()
		counted.waited.Observe(e.waited.Seconds())
	case released, expired, forced:
		counted.ended[e.kind].Inc()
		counted.held.Observe(e.held.Seconds())
	case left, lapsed:
		counted.ended[e.kind].Inc()
	}
}

// committed is told how long each commit took, and whether it failed.
func (m *metrics) committed(took time.Duration, err error) {
	m.commit.Observe(took.Seconds())
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
		counter = m.requests.WithLabelValues(route, method, strconv.Itoa(code))
		m.mu.Lock()
		m.counters[kind] = counter
		m.mu.Unlock()
	}
	counter.Inc()
}

// A stateCollector reads what is the case from the keeper when it is asked.
type stateCollector struct {
	keeper   *keeper
	declared environments

	mu     sync.Mutex
	labels map[string]bool // environments that have a label
}

var (
	slotsMetric = prometheus.NewDesc("callme_slots", "Slots, by state: free or held.", []string{"environment", "state"}, nil)
	lineMetric  = prometheus.NewDesc("callme_waiting", "Requests in line.", []string{"environment"}, nil)
	oldMetric   = prometheus.NewDesc("callme_longest_wait_seconds", "Time that the first in line has waited so far; 0: nobody waits.", []string{"environment"}, nil)
	upMetric    = prometheus.NewDesc("callme_healthy", "1 while commits succeed.", nil, nil)
)

func (*stateCollector) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{slotsMetric, lineMetric, oldMetric, upMetric} {
		c <- d
	}
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

// Collect copies nothing: with very many environments that would hold the
// keeper up. Those without a label are summed up.
func (s *stateCollector) Collect(c chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, states := time.Now(), map[string]*state{}
	for _, name := range s.declared.names { // some may have neither lease nor line
		s.of(states, name).add(len(s.declared.of(name)), 0, nil, now)
	}
	s.keeper.each(func(e *environment) {
		declared := 0
		if len(s.declared.names) > 0 { // counted above
			declared = len(e.slots)
		}
		x := s.of(states, e.name)
		x.add(len(e.slots), len(e.leases), e.line, now)
		x.free -= float64(declared)
	})
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for label, x := range states {
		gauge(slotsMetric, x.free, label, "free")
		gauge(slotsMetric, x.held, label, "held")
		gauge(lineMetric, x.waiting, label)
		gauge(oldMetric, x.oldest, label)
	}
	healthy := 0.0
	if s.keeper.healthy.Load() {
		healthy = 1
	}
	gauge(upMetric, healthy)
}

// of returns the state that an environment counts for.
func (s *stateCollector) of(states map[string]*state, name string) *state {
	if !s.labels[name] {
		if len(s.labels) < labelledEnvironments {
			s.labels[name] = true
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

// metricsHandler answers the scrape.
func (s *server) metricsHandler() handler {
	s.metrics.registry.MustRegister(&stateCollector{keeper: s.keeper, declared: s.declared, labels: map[string]bool{}})
	h := promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
	return func(w http.ResponseWriter, r *http.Request) error {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
		h.ServeHTTP(w, r)
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
