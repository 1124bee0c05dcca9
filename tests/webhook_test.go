package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A receiver that never answers costs events of its own, and nobody a grant. The other receiver
// gets all of them, in their order. No output has an address of them.
func TestWebhooksUnderLoadWithAReceiverThatHangs(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	}))
	var mu sync.Mutex
	last, got := 0.0, 0
	well := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m struct {
			Text  string
			Event struct{ Number float64 }
		}
		mu.Lock()
		defer mu.Unlock()
		if err := json.Unmarshal(body, &m); err != nil || m.Event.Number <= last || !strings.HasPrefix(m.Text, "env-") ||
			!strings.HasPrefix(r.Header.Get("Call-Me-Signature"), "sha256=") {
			t.Errorf("%v, after number %.0f: %s", err, last, body)
		}
		last, got = m.Event.Number, got+1
	}))
	defer well.Close()
	defer stuck.Close()
	defer close(ended)
	d := newDaemon(t, "CALL_ME_WEBHOOK="+stuck.URL+"/hooks/t0ken,"+well.URL+"/hooks/t0ken",
		"CALL_ME_WEBHOOK_EVENTS=granted,released", "CALL_ME_WEBHOOK_SECRET=s3cret")
	const clients, cycles = 8, 100
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for i := range cycles {
				call := fmt.Sprintf("/maybe?environment=env-%d&id=request-%d", c, i)
				if status, body := d.call("POST", call); status != 201 {
					t.Errorf("POST %s: %d %s", call, status, body)
				}
				if status, body := d.call("DELETE", call); status != 204 {
					t.Errorf("DELETE %s: %d %s", call, status, body)
				}
			}
		})
	}
	all.Wait()
	const events = 2 * clients * cycles
	eventually(t, "the other receiver gets all events", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got == events
	})
	metrics := d.want(200, "GET", "/metrics")
	count := func(name, labels string) (n int) {
		t.Helper()
		line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name+"{"+labels+"} ") + `(\d+)$`).FindStringSubmatch(metrics)
		if line == nil {
			t.Fatalf("no %s of %s in the metrics", name, labels)
		}
		fmt.Sscan(line[1], &n)
		return n
	}
	host := `host="` + strings.TrimPrefix(stuck.URL, "http://") + `"`
	dropped, failed := count("callme_webhook_events_total", host+`,result="dropped"`), count("callme_webhook_events_total", host+`,result="failed"`)
	queued := count("callme_webhook_queued", host)
	if dropped+failed+queued+1 != events || queued > 1000 {
		t.Errorf("%d are dropped, %d failed, %d wait, of %d", dropped, failed, queued, events)
	}
	if runtime.GOOS != "windows" {
		d.cmd.Process.Signal(syscall.SIGTERM)
		d.cmd.Wait()
	}
	if said := d.log.String() + metrics; strings.Contains(said, "t0ken") || strings.Contains(said, "s3cret") ||
		!strings.Contains(said, "events for a webhook are dropped") {
		t.Errorf("the server said\n%s", d.log)
	}
}
