//go:build unix

package tests

// SIGTERM with as many waiters as the server allows.

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestSIGTERMAnswersEveryWaiterAndClientsKeepTheirPlaces(t *testing.T) {
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678")
	waiters := 10_000
	if leftOut(t, "10,000 waiters instead of 1,000") {
		waiters = 1_000
	}
	if limit := openFiles() - 300; limit < waiters {
		waiters = limit
		t.Logf("the limit of open files allows %d waiters", waiters)
	}
	cmd, out := d.client("client", "request", "uat")
	cmd.Start()
	eventually(t, "the client is in the queue", func() bool { return strings.Contains(out.String(), "in the queue") })
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	answers := make(chan string, waiters)
	var stopped atomic.Bool
	for i := range waiters {
		go func() {
			r, _ := http.NewRequest("POST", fmt.Sprintf("http://%s/maybe?environment=uat&id=waiter-%05d&wait=5m", d.host, i), nil)
			r.Header.Set("X-API-KEY", testKey)
			response, err := transport.RoundTrip(r)
			for ; err != nil && !stopped.Load(); response, err = transport.RoundTrip(r) {
				time.Sleep(100 * time.Millisecond) // retried, as by any client, if closed before the request had arrived
			}
			if err != nil {
				answers <- err.Error()
				return
			}
			response.Body.Close()
			answers <- fmt.Sprint(response.StatusCode, " Retry-After ", response.Header.Get("Retry-After"))
		}()
	}
	eventually(t, "all are in the queue", func() bool {
		_, body := d.call("GET", "/environments?environment=uat")
		return strings.Count(body, `"connected":true`) == waiters+1
	})
	stopped.Store(true)
	start := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	counts := map[string]int{}
	for range waiters {
		counts[<-answers]++
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	} else {
		t.Logf("%d waiters were answered and the file closed in %v", waiters, took)
	}
	if counts["503 Retry-After 1"] != waiters {
		t.Errorf("answers: %v", counts)
	}
	d.start()
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := cmd.Wait(); err != nil { // it was the first in the queue, and keeps its position
		t.Errorf("%v\n%s", err, out)
	}
}

// openFiles returns how many files and connections this process may have. Go raises the soft
// limit to the hard limit at its start.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20
	}
	return int(min(1<<20, limit.Cur))
}
