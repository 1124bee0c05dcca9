//go:build linux || darwin

package tests

// Leases that change hands, with the real binary: a takeover, a hand-over, and a slot that is
// kept after a failure.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lease returns the only lease of uat.
func (d *daemon) lease(t *testing.T) leaseJSON {
	t.Helper()
	var all struct{ Environments []environmentJSON }
	if err := json.Unmarshal([]byte(d.want(200, "GET", "/environments?environment=uat")), &all); err != nil {
		t.Fatal(err)
	}
	l := all.Environments[0].Slots[0].Lease
	if l == nil {
		t.Fatal("uat is free")
	}
	return *l
}

// letGo ends a command that begins with untilGo.
func (r *trial) letGo() { os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600) }

const untilGo = `while [ ! -e go ]; do sleep 0.01; done; `

func TestATakeoverEndsTheRunThatHadTheSlot(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "3s", "--", "sh", "-c", family)
	pids := r.pids(4)
	d.want(201, "POST", fmt.Sprint("/maybe?environment=uat&id=somebody-else&holder=ann&reason=urgent&take=", d.lease(t).Fence))
	r.wantCode(76, 5*time.Second).nobodyLeft(pids, 0)
	r.said("call-me: lost uat: the lease was taken over by ann (urgent) at ").said("; ann has it now; ending sh")
	d.want(200, "PUT", "/maybe?environment=uat&id=somebody-else")
}

// A run whose lease is handed over lets its command go on, and releases nothing, also when
// the deadline of the command would have passed.
func TestARunWhoseLeaseIsHandedOverGoesOn(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "3s", "--", "sh", "-c", untilGo+"exit 7")
	r.said("acquired")
	d.want(204, "DELETE", "/maybe?environment=uat&holder=runner&to=ann&reason=please+test")
	r.said("call-me: uat was handed to ann (please test); sh goes on, the lease is not renewed any more")
	time.Sleep(4 * time.Second) // longer than the ttl
	r.letGo()
	r.wantCode(7, 5*time.Second)
	d.want(200, "PUT", "/maybe?environment=uat&holder=ann")
	if out := r.err.String(); strings.Contains(out, "released") || strings.Contains(out, "lost") {
		t.Errorf("run said:\n%s", out)
	}
}

func TestAHandOverThatRunHearsOfAtTheEnd(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "1h", "--", "sh", "-c", untilGo+"exit 7")
	r.said("acquired")
	d.want(204, "DELETE", "/maybe?environment=uat&holder=runner&to=ann")
	r.letGo()
	r.wantCode(7, 5*time.Second).said("call-me: uat was handed over or released before")
	d.want(200, "PUT", "/maybe?environment=uat&holder=ann")
}

// Of two leases, one is handed over by the command itself: the other is renewed and released.
func TestARunThatHandsOneOfTwoLeasesOver(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	cmd := mortal(t, "run", "uat", "perf", "--ttl", "3s", "--", "sh", "-c", "call-me release uat --to ann && sleep 5 && exit 7")
	cmd.Env = append(d.env[:len(d.env):len(d.env)], "CALL_ME_HOLDER=runner", "PATH="+filepath.Dir(binaryPath())+":"+os.Getenv("PATH"))
	r := d.trialOf(t, "uat", cmd)
	r.start()
	r.said("uat is handed to ann until ")
	time.Sleep(4 * time.Second)
	d.want(403, "GET", "/maybe?environment=perf")
	r.wantCode(7, 10*time.Second)
	d.want(200, "GET", "/maybe?environment=perf")
	d.want(200, "PUT", "/maybe?environment=uat&holder=ann")
}

// Of two slots of one environment, one is handed over: the other is renewed and released.
func TestARunThatHandsOneOfTwoSlotsOver(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:2")
	r := d.newTrial(t, "uat", nil, "uat", "--ttl", "3s", "--", "sh", "-c", untilGo+"exit 7")
	r.start()
	r.said("acquired uat uat-1 and uat uat-2")
	d.want(204, "DELETE", fmt.Sprint("/maybe?environment=uat&holder=runner&to=ann&fence=", d.lease(t).Fence))
	time.Sleep(5 * time.Second) // longer than the ttl
	d.wantLeases("uat", "ann runner")
	r.letGo()
	r.wantCode(7, 5*time.Second)
	d.wantLeases("uat", "ann -")
}

// Of two slots of one environment, one is taken over: the command is ended, and the other given
// back.
func TestARunThatLosesOneOfTwoSlots(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:2")
	r := d.newTrial(t, "uat", nil, "uat", "--ttl", "3s", "--", "sleep", "60")
	r.start()
	r.said("acquired uat uat-1 and uat uat-2")
	d.want(201, "POST", fmt.Sprint("/maybe?environment=uat&id=somebody-else&holder=ann&take=", d.lease(t).Fence))
	r.wantCode(76, 5*time.Second).said("lost uat uat-1: the lease was taken over by ann at ").said("ann has it now; ending sleep").said("call-me: released uat uat-2")
	d.wantLeases("uat", "ann -")
}

func TestTheSlotOfACommandThatFailsIsKept(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--keep-on-failure", "2h", "--", "sh", "-c", "exit 3").wantCode(3, 10*time.Second)
	r.said("call-me: sh has failed; uat is kept for you until ").said("(2h)\nhint: to give it back: call-me release uat --holder runner\n")
	if l := d.lease(t); l.Holder != "runner" || l.Reason != "kept: exit 3; sh -c 'exit 3'" || l.TTLSeconds != 7200 {
		t.Errorf("the lease is %+v", l)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&holder=runner")

	// A command that a signal ends, which call-me does not get, has failed by itself too.
	d.run(t, "--keep-on-failure", "1h", "--", "sh", "-c", "kill -KILL $$").wantCode(137, 10*time.Second)
	if l := d.lease(t); !strings.HasPrefix(string(l.Reason), "kept: exit 137; ") {
		t.Errorf("the lease is %+v", l)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&holder=runner")

	// A command line that everyone would see is cut, and has no key in it.
	d.run(t, "--keep-on-failure", "1h", "--", "false", strings.Repeat("x", 1000)).wantCode(1, 10*time.Second)
	if l := d.lease(t); len(l.Reason) > 150 || !strings.HasSuffix(string(l.Reason), "x…") {
		t.Errorf("the reason has %d bytes: %s", len(l.Reason), l.Reason)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&holder=runner")
	d.run(t, "--keep-on-failure", "1h", "--", "false", testKey).wantCode(1, 10*time.Second)
	if l := d.lease(t); l.Reason != "kept: exit 1" {
		t.Errorf("the lease is %+v", l)
	}
}

func TestTheSlotIsNotKeptOtherwise(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.run(t, "--keep-on-failure", "2h", "--", "true").wantCode(0, 10*time.Second).said("released uat").freeWithin(0)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := d.run(t, "--keep-on-failure", "2h", "--", "sh", "-c", "trap 'exit 9' INT TERM; echo begun; "+untilGo)
		r.said("begun")
		r.cmd.Process.Signal(s)
		r.wantCode(9, 10*time.Second).said("released uat").freeWithin(0)
	}
	// Both get the signal, as by Ctrl-C.
	r := d.run(t, "--keep-on-failure", "2h", "--", "sh", "-c", "echo begun; "+untilGo)
	r.said("begun")
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT)
	r.wantCode(130, 10*time.Second).said("released uat").freeWithin(0)
	d.run(t, "--keep-on-failure", "2h", "--timeout", "1s", "--", "./nothing").wantCode(127, 10*time.Second).freeWithin(0)

	lost := d.run(t, "--keep-on-failure", "2h", "--ttl", "3s", "--", "sleep", "60")
	lost.said("acquired")
	d.want(204, "DELETE", "/maybe?environment=uat&force=1&holder=boss")
	lost.wantCode(76, 5*time.Second).freeWithin(0)
}

// Where the slot cannot be kept, nothing is released either: the lease ends after its ttl.
func TestASlotThatCannotBeKeptIsNotReleased(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--keep-on-failure", "2h", "--ttl", "1m", "--", "sh", "-c", untilGo+"exit 3")
	r.said("acquired")
	d.kill()
	r.letGo()
	r.wantCode(3, 20*time.Second).said("call-me: could not keep uat: ").said("; it comes free when its lease ends, in 1m at the latest")
	d.start()
	time.Sleep(time.Second) // a watchdog that releases it would have done so
	if l := d.lease(t); l.Holder != "runner" || l.Reason != "" {
		t.Errorf("the lease is %+v", l)
	}
}
