package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metricNames has the name of every metric of call-me's own.
var metricNames = []string{"callme_calls_total", "callme_commit_failures_total", "callme_commit_seconds", "callme_grants_total", "callme_healthy", "callme_history_used_ratio",
	"callme_hold_seconds", "callme_http_requests_total", "callme_kept_slot_seconds_total", "callme_leases_ended_total", "callme_leases_without_end", "callme_longest_wait_seconds",
	"callme_paused_seconds", "callme_pauses_total",
	"callme_refused_keys_total", "callme_slots", "callme_wait_seconds", "callme_waiting", "callme_waits_ended_total"}

func TestMetricsHaveTheStateAndTheCounts(t *testing.T) {
	s := newSite(t, "uat,perf:2")
	s.call("POST /maybe?environment=uat&id=12345678&holder=ann")
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=bob&wait=0s")
	s.call("POST /maybe?environment=uat&id=waiting-2&holder=carol&wait=0s")
	s.call("DELETE /maybe?environment=uat&id=waiting-2")
	s.call("POST /maybe?environment=perf&id=12345678&holder=ann")
	s.call("DELETE /maybe?environment=perf&force=1")
	s.call("FROB /maybe")
	text := s.call("GET /metrics").want(t, 200, "").body
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range families {
		if strings.HasPrefix(name, "callme_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, metricNames) {
		t.Errorf("the metrics are %q, want %q", names, metricNames)
	}
	for _, line := range []string{
		`callme_slots{environment="uat",state="held"} 1`, `callme_slots{environment="uat",state="free"} 0`,
		`callme_slots{environment="perf",state="free"} 2`, `callme_waiting{environment="uat"} 1`,
		`callme_grants_total{environment="uat"} 1`, `callme_leases_ended_total{environment="perf",how="forced"} 1`,
		`callme_waits_ended_total{environment="uat",how="left"} 1`, `callme_wait_seconds_count{environment="uat"} 1`,
		`callme_hold_seconds_count{environment="perf"} 1`, `callme_healthy 1`, `callme_commit_failures_total 0`,
		`callme_http_requests_total{code="201",method="POST",route="/maybe"} 2`, `callme_http_requests_total{code="405",method="other",route="/maybe"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, secret := range []string{"ann", "bob", "12345678", testKey} {
		if strings.Contains(text, `"`+secret) {
			t.Errorf("%s is in the metrics", secret)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	// The metrics of the process are those of the library, and not checked.
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "callme_") })
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	for _, name := range []string{"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total", "process_start_time_seconds", "go_goroutines", "go_memstats_alloc_bytes"} {
		if runtime.GOOS == "linux" && !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("no %s", name)
		}
	}
}

// A pause counts for what it was made for, a lease with a ttl is not one without an end, and
// a full history uses all of its limits.
func TestMetricsHaveWhatOneShouldLookAfter(t *testing.T) {
	s := newSite(t, "uat,perf,dev")
	value := func(name string) (value float64) {
		t.Helper()
		_, rest, _ := strings.Cut(s.call("GET /metrics").body, "\n"+name+" ")
		line, _, _ := strings.Cut(rest, "\n")
		value, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return value
	}
	s.call("POST /maybe?environment=uat&ttl=0")
	s.call("POST /maybe?environment=perf&ttl=1h")
	s.call("PUT /pause?environment=perf")
	for _, name := range []string{`callme_paused_seconds{environment="uat"}`, `callme_paused_seconds{environment="(all)"}`,
		`callme_leases_without_end{environment="perf"}`, `callme_leases_without_end{environment="dev"}`} {
		if got := value(name); got != 0 {
			t.Errorf("%s %v", name, got)
		}
	}
	if got := value(`callme_leases_without_end{environment="uat"}`); got != 1 {
		t.Errorf("%v leases without an end", got)
	}
	s.call("PUT /pause?all=1")
	for _, name := range []string{`callme_paused_seconds{environment="perf"}`, `callme_paused_seconds{environment="(all)"}`} {
		if got := value(name); got <= 0 || got > 60 {
			t.Errorf("%s %v", name, got)
		}
	}
	if got := value(`callme_paused_seconds{environment="uat"}`); got != 0 {
		t.Errorf("uat, which only the pause of all covers, is paused for %v", got)
	}
	used := value("callme_history_used_ratio")
	s.keeper.mu.Lock()
	s.keeper.history.limit = s.keeper.history.size
	s.keeper.mu.Unlock()
	if full := value("callme_history_used_ratio"); used <= 0 || used >= 1 || full != 1 {
		t.Errorf("the history uses %v of its limits, and %v when it is full", used, full)
	}
}

func TestLabelsOfMetricsAreBounded(t *testing.T) {
	s := newSite(t, "")
	for i := range labelledEnvironments + 20 {
		s.ask(&call{kind: callRequest, environment: fmt.Sprintf("env-%04d", i), request: request{id: "12345678"}})
	}
	text := s.call("GET /metrics").body
	if n := strings.Count(text, "callme_grants_total{"); n != labelledEnvironments+1 {
		t.Errorf("%d labels", n)
	}
	for _, line := range []string{`callme_grants_total{environment="(others)"} 20`, `callme_slots{environment="(others)",state="held"} 20`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}

// Every metric that the examples name is one that the server has.
func TestTheExamplesUseMetricsThatExist(t *testing.T) {
	s := newSite(t, "")
	s.server.leads = func() float64 { return 1 } // as of one of several
	s.http.Config.Handler = s.server.routes()
	s.call("POST /maybe?environment=uat&holder=ann")
	s.call("POST /maybe?environment=uat&id=waiting-1&wait=0s")
	s.call("DELETE /maybe?environment=uat&id=waiting-1")
	s.call("DELETE /maybe?environment=uat&force=1")
	s.call("POST /maybe?environment=uat&holder=ann")
	text := s.call("GET /metrics").body
	for _, file := range []string{"examples/prometheus/alerts.yml", "examples/prometheus/dashboard.json"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`callme_\w+`).FindAllString(string(content), -1)
		for _, name := range names {
			if !strings.Contains(text, "\n"+name) {
				t.Errorf("%s asks for %s", file, name)
			}
		}
		if len(names) < 2 {
			t.Errorf("%s asks for %v", file, names)
		}
	}
	dashboard, _ := os.ReadFile("examples/prometheus/dashboard.json")
	if !json.Valid(dashboard) {
		t.Error("the dashboard is no JSON")
	}
}

// Labels keep an environment's name that has the characters which end a label or a line.
func TestLabelsAreQuoted(t *testing.T) {
	s := newSite(t, "")
	name := `a"b\c}{,d="e`
	s.call("POST /maybe?environment=" + url.QueryEscape(name))
	s.call("POST /maybe?environment=" + url.QueryEscape(otherEnvironments))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(s.call("GET /metrics").body))
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"callme_grants_total", "callme_wait_seconds", "callme_slots"} {
		var seen []string
		for _, m := range families[family].GetMetric() {
			seen = append(seen, m.GetLabel()[0].GetValue())
		}
		if !slices.Contains(seen, name) || !slices.Contains(seen, otherEnvironments) {
			t.Errorf("%s is about %q", family, seen)
		}
	}
}

// An environment whose name is not UTF-8 is in the metrics, because the server of 2019
// accepted any bytes as a name.
func TestAnEnvironmentWhoseNameIsNotUTF8IsCounted(t *testing.T) {
	s := newSite(t, "")
	s.keeper.mu.Lock()
	s.keeper.environment("\xff").apply(change{newLease: &lease{slot: "\xff", fence: 1, since: time.Now()}})
	s.keeper.published.Store(newPublishedState(s.keeper.current, nil, s.keeper.find))
	s.keeper.mu.Unlock()
	s.call("DELETE /maybe?environment=uat&force=1")
	s.server.metrics.count(&event{kind: eventGranted, environment: "\xff"})
	s.server.metrics.count(&event{kind: eventReleased, environment: "\xff"})
	s.call("GET /metrics").want(t, 200, `callme_slots{environment="`+"\ufffd"+`",state="held"} 1`)
}
