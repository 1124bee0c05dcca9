package tests

// The server as a process that is killed, stopped or idle, while its clients continue.

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestFiftyWaitersKeepTheirOrderAcrossAKill(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	first, _ := d.client("first", "request", "uat")
	if err := first.Run(); err != nil {
		t.Fatal(err)
	}
	var acquired lockedBuffer
	var all sync.WaitGroup
	const n = 50
	for i := range n {
		holder := fmt.Sprintf("w%02d", i)
		cmd, out := d.client(holder, "request", "uat")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, holder+" is in the queue", func() bool { return strings.Contains(out.String(), "in the queue") })
		all.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v\n%s", holder, err, out)
				return
			}
			fmt.Fprintln(&acquired, holder)
			if release, out := d.client(holder, "release", "uat"); release.Run() != nil {
				t.Errorf("%s: releasing: %s", holder, out)
			}
		})
	}
	d.kill()
	d.start()
	if release, out := d.client("first", "release", "uat"); release.Run() != nil {
		t.Fatal(out)
	}
	all.Wait()
	want := ""
	for i := range n {
		want += fmt.Sprintf("w%02d\n", i)
	}
	if acquired.String() != want {
		t.Errorf("the order was\n%s", acquired.String())
	}
	last := uint64(0)
	for _, m := range regexp.MustCompile(`msg=granted .*fence=(\d+)`).FindAllStringSubmatch(d.log.String(), -1) {
		var fence uint64
		fmt.Sscan(m[1], &fence)
		if fence <= last {
			t.Errorf("fence %d after %d", fence, last)
		}
		last = fence
	}
	if last == 0 {
		t.Error("no fence was seen")
	}
}

func TestAWaiterThatIsKilledIsPassedOverAndOneThatIsStoppedLeavesTheQueue(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=first")
	start := func(holder string) (*exec.Cmd, *lockedBuffer) {
		cmd, out := d.client(holder, "request", "uat")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, holder+" is in the queue", func() bool { return strings.Contains(out.String(), "in the queue") })
		return cmd, out
	}
	killed, _ := start("killed")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		stopped, out := start("stopped")
		stopped.Process.Signal(s)
		stopped.Wait()
		if code := stopped.ProcessState.ExitCode(); runtime.GOOS != "windows" && code != 128+int(s) {
			t.Errorf("exit code %d after %v: %s", code, s, out)
		}
		if _, body := d.call("GET", "/environments?environment=uat"); strings.Contains(body, "stopped") {
			t.Errorf("after %v it is in the queue still: %s", s, body)
		}
	}
	next, _ := start("next")
	killed.Process.Kill()
	killed.Wait()
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := next.Wait(); err != nil {
		t.Error(err)
	}
}

func TestALeaseExpiresWhenItShouldAlsoAcrossARestart(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	took := func(restart bool) time.Duration {
		start := time.Now()
		d.call("POST", "/maybe?environment=uat&id="+newID()+"&ttl=2s")
		if restart {
			time.Sleep(time.Second)
			d.kill()
			d.start()
			start = time.Now()
		}
		if code, body := d.call("POST", "/maybe?environment=uat&wait=1m&id="+newID()+"&ttl=1s"); code != 201 {
			t.Fatal(code, body)
		}
		after := time.Since(start)
		d.call("DELETE", "/maybe?environment=uat&force=1")
		return after
	}
	if d := took(false); d < 2*time.Second || d > 4*time.Second {
		t.Errorf("a lease of 2 s ended after %v", d)
	}
	// The server counts from the moment at which it listens. The test sees that a little later.
	if d := took(true); d < 1900*time.Millisecond || d > 4*time.Second {
		t.Errorf("after a restart a lease of 2 s ended after %v", d)
	}
}

func TestHoldersReleaseByThemselvesOnly(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	ends := func(want int, holder string, args ...string) string {
		t.Helper()
		cmd, out := d.client(holder, args...)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		go func() { <-ctx.Done(); cmd.Process.Kill() }()
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%s %v: exit code %d, want %d\n%s", holder, args, code, want, out)
		}
		return out.String()
	}
	ends(0, "a", "request", "uat")
	ends(75, "b", "request", "uat", "--no-wait")
	ends(75, "b", "request", "--timeout", "1s", "uat")
	for range 2 { // each of the requests that got no slot has its own clean-up step
		if text := ends(0, "b", "release", "uat"); !strings.Contains(text, "freed nothing on uat") {
			t.Error(text)
		}
	}
	if text := ends(76, "b", "release", "uat"); !strings.Contains(text, "hint: you are b, and a has the slot") {
		t.Error(text)
	}
	ends(0, "a", "release", "uat")
	ends(0, "b", "request", "uat")
	ends(0, "a", "release", "uat") // a repeated clean-up step, after the next grant
	ends(75, "c", "request", "uat", "--no-wait")
	ends(0, "c", "release", "uat", "--force")
	ends(76, "b", "release", "uat")
}
