package tests

// A server whose machine is lost, and which starts on another one with the same file.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The server is killed with -9 and starts at another address with the same file. Those who wait
// keep their places, those who hold go on, and all are back within 30 s.
func TestAServerThatDiesAndStartsElsewhere(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("shell commands")
	}
	const waiters, holders = 100, 20
	d := newDaemon(t)
	elsewhere := fmt.Sprint("127.0.0.1:", freePort())
	hosts := "HOST=" + d.host + "," + elsewhere
	d.want(201, "POST", "/maybe?environment=uat&holder=owner&id=the-owner&ttl=1h")
	start := func(holder string, args ...string) (*exec.Cmd, *lockedBuffer) {
		cmd, out := d.client(holder, args...)
		cmd.Env = append(cmd.Env, hosts)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		return cmd, out
	}
	done := filepath.Join(t.TempDir(), "done")
	var runs []*exec.Cmd
	var runLogs, waiterLogs []*lockedBuffer
	for i := range holders {
		run, log := start(fmt.Sprint("runner-", i), "run", fmt.Sprint("perf-", i), "--ttl", "2m", "--",
			"sh", "-c", "until [ -e "+done+" ]; do sleep 0.2; done")
		runs, runLogs = append(runs, run), append(runLogs, log)
	}
	var first *exec.Cmd
	for i := range waiters {
		cmd, log := start(fmt.Sprint("waiter-", i), "request", "uat")
		waiterLogs = append(waiterLogs, log)
		if i == 0 {
			first = cmd
			eventually(t, "the first waits", func() bool { return connected(d) == 1 })
		}
	}
	eventually(t, "all wait", func() bool { return connected(d) == waiters })
	eventually(t, "all hold", func() bool {
		_, body := d.call("GET", "/environments")
		return strings.Count(body, `"holder":"runner-`) == holders
	})
	before := queueOf(d)

	d.kill()
	_, port, _ := strings.Cut(elsewhere, ":")
	d.host, d.base, d.env = elsewhere, "http://"+elsewhere, append(d.env, "PORT="+port)
	killed := time.Now()
	d.start()
	for connected(d) != waiters {
		if time.Since(killed) > 30*time.Second {
			t.Fatalf("%d of %d are back", connected(d), waiters)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("all are back after %v", time.Since(killed).Round(100*time.Millisecond))
	if after := queueOf(d); after != before {
		t.Errorf("the queue was\n%s\nand is\n%s", before, after)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&id=the-owner")
	if err := first.Wait(); err != nil {
		t.Errorf("the first in the queue: %v\n%s", err, waiterLogs[0])
	}
	for _, log := range waiterLogs {
		if strings.Contains(log.String(), "end of the queue") {
			t.Errorf("a place was lost: %s", log)
		}
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, run := range runs {
		if err := run.Wait(); err != nil || !strings.Contains(runLogs[i].String(), "released perf-") {
			t.Errorf("%v\n%s", err, runLogs[i])
		}
	}
}

// connected returns how many in the queue of uat have a connection.
func connected(d *daemon) int {
	_, body := d.call("GET", "/environments?environment=uat")
	return strings.Count(body, `"connected":true`)
}

// queueOf returns the holders in the queue of uat, in its order.
func queueOf(d *daemon) string {
	var seen environmentsJSON
	body := d.want(200, "GET", "/environments?environment=uat")
	if err := json.Unmarshal([]byte(body), &seen); err != nil || len(seen.Environments) != 1 {
		d.t.Fatalf("%v: %s", err, body)
	}
	var holders []string
	for _, w := range seen.Environments[0].Queue {
		holders = append(holders, w.Holder)
	}
	return strings.Join(holders, " ")
}
