//go:build linux || darwin

package tests

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A trial is one process of `call-me run`.
type trial struct {
	t      *testing.T
	d      *daemon
	cmd    *exec.Cmd
	out    *lockedBuffer
	err    *lockedBuffer
	ended  chan struct{}
	status syscall.WaitStatus
	folder string

	environment string
}

func (d *daemon) run(t *testing.T, args ...string) *trial {
	t.Helper()
	return d.runWith(t, nil, args...)
}

func (d *daemon) runWith(t *testing.T, env []string, args ...string) *trial {
	t.Helper()
	r := d.newTrial(t, "uat", env, args...)
	r.start()
	return r
}

// newTrial returns a trial that is not started.
func (d *daemon) newTrial(t *testing.T, environment string, env []string, args ...string) *trial {
	t.Helper()
	cmd := mortal(t, append([]string{"run", environment}, args...)...)
	cmd.Env = append(append(d.env[:len(d.env):len(d.env)], "CALL_ME_HOLDER=runner"), env...)
	return d.trialOf(t, environment, cmd)
}

// try starts a command that has the arguments and the variables of a call-me run.
func (d *daemon) try(t *testing.T, cmd *exec.Cmd) *trial {
	t.Helper()
	r := d.trialOf(t, "uat", cmd)
	r.start()
	return r
}

// trialOf returns a trial of a command, which is not started.
func (d *daemon) trialOf(t *testing.T, environment string, cmd *exec.Cmd) *trial {
	t.Helper()
	r := &trial{t: t, d: d, cmd: cmd, out: &lockedBuffer{}, err: &lockedBuffer{}, ended: make(chan struct{}),
		folder: t.TempDir(), environment: environment}
	r.cmd.Dir = r.folder
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.err
	r.cmd.WaitDelay = time.Second // processes that are left running may hold the pipes open
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return r
}

func (r *trial) start() {
	r.t.Helper()
	t := r.t
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.cmd.Wait()
		r.status = r.cmd.ProcessState.Sys().(syscall.WaitStatus)
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("run said:\n%s%s", r.out, r.err)
		}
	})
}

// wantCode waits until the process ends, and compares its exit code.
func (r *trial) wantCode(code int, within time.Duration) *trial {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(within):
		r.t.Fatalf("still running after %v\n%s", within, r.err)
	}
	if got := r.status.ExitStatus(); got != code {
		r.t.Errorf("exit code %d, want %d\n%s", got, code, r.err)
	}
	return r
}

func (r *trial) said(what string) *trial {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%q is said", what), func() bool { return strings.Contains(r.out.String()+r.err.String(), what) })
	return r
}

// pids waits until the command has written n process numbers to the file pids, and
// returns them.
func (r *trial) pids(n int) []int {
	r.t.Helper()
	var pids []int
	eventually(r.t, fmt.Sprint(n, " processes have started"), func() bool {
		text, _ := os.ReadFile(filepath.Join(r.folder, "pids"))
		pids = nil
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
		return len(pids) >= n
	})
	return pids
}

// watchdog returns the process number of the run's watchdog; zero if it has none.
func (r *trial) watchdog() int {
	out, _ := exec.Command("pgrep", "-P", fmt.Sprint(r.cmd.Process.Pid), "-f", "call-me watchdog").Output()
	pid, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	return pid
}

// alive reports whether a process runs. A zombie does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	out, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}

// nobodyLeft waits until none of the processes runs.
func (r *trial) nobodyLeft(pids []int, within time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		for _, pid := range pids {
			if alive(pid) {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d of %v live after %v", left, pids, within)
		}
	}
}

// freeWithin waits until the slot is free.
func (r *trial) freeWithin(d time.Duration) {
	r.t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if code, _ := r.d.call("GET", "/maybe?environment="+r.environment); code == 200 {
			return
		}
		if time.Now().After(end) {
			_, body := r.d.call("GET", "/environments")
			r.t.Fatalf("not free after %v: %s", d, body)
		}
	}
}

// family is a shell with a child and a grandchild. All write their process numbers.
const family = `echo $$ >>pids; sh -c 'echo $$ >>pids; sleep 1000 & echo $! >>pids; wait' & echo $! >>pids; wait`

// stubborn is a shell that ignores every signal that can be ignored. Its child does too.
const stubborn = `trap "" INT TERM HUP QUIT; echo $$ >>pids; sh -c 'echo $$ >>pids; while :; do sleep 1; done' & while :; do sleep 1; done`

func TestRunReturnsTheCommandsExitCode(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	codes := []int{0, 1, 2, 3, 75, 76, 125, 126, 127, 128, 130, 137, 143, 254, 255}
	if !leftOut(t, "the other 241 exit codes") {
		codes = nil
		for code := range 256 {
			codes = append(codes, code)
		}
	}
	var wait sync.WaitGroup
	limit := make(chan struct{}, 4)
	for _, code := range codes {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			cmd, out := d.client(fmt.Sprint("runner", code), "run", fmt.Sprint("env", code%7), "--", "sh", "-c", fmt.Sprint("exit ", code))
			cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("exit code %d, want %d\n%s", got, code, out)
			}
		})
	}
	wait.Wait()
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"killed by itself":    {[]string{"--", "sh", "-c", "kill -9 $$"}, 137, "released"},
		"terminated":          {[]string{"--", "sh", "-c", "kill $$"}, 143, "released"},
		"not there":           {[]string{"--", "no-such-command"}, 127, "cannot run no-such-command"},
		"not there by path":   {[]string{"--", "./no-such-command"}, 127, "cannot run ./no-such-command"},
		"not executable":      {[]string{"--", "/etc/passwd"}, 126, "cannot run /etc/passwd: permission denied"},
		"a folder":            {[]string{"--", "/tmp"}, 126, "cannot run /tmp"},
		"without --":          {[]string{"sh", "-c", "exit 9"}, 9, "released"},
		"flags behind":        {[]string{"--ttl", "1m", "--", "sh", "-c", "exit 8"}, 8, "released"},
		"a short ttl":         {[]string{"--ttl", "2s", "--", "true"}, 2, "3s or more"},
		"no ttl":              {[]string{"--ttl", "0", "--", "true"}, 2, "3s or more"},
		"no command":          {[]string{"--"}, 2, "run needs a command"},
		"an unknown flag":     {[]string{"--leave-runing", "--", "true"}, 2, "did you mean --leave-running?"},
		"a flag of COMMAND's": {[]string{"--", "ls", "--no-such-flag-of-ls"}, -1, "released"},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.run(t, c.args...)
			<-r.ended
			if got := r.status.ExitStatus(); got != c.code && c.code >= 0 || !strings.Contains(r.err.String(), c.says) {
				t.Errorf("exit code %d, want %d\n%s", got, c.code, r.err)
			}
			r.freeWithin(time.Second)
		})
	}
	t.Run("a wrong key", func(t *testing.T) {
		r := d.runWith(t, []string{"API_KEY=another key than the server's"}, "--", "true")
		<-r.ended
		if got := r.status.ExitStatus(); got != 125 || !strings.Contains(r.err.String(), "refuses the key in API_KEY") {
			t.Errorf("exit code %d, want 125\n%s", got, r.err)
		}
	})
}

func TestTheCommandIsUntouched(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	script := filepath.Join(t.TempDir(), "show")
	os.WriteFile(script, []byte("#!/bin/sh\nfor a; do echo \"[$a]\"; done\ncat\necho to stderr >&2\nenv | grep ^CALL_ME | sort\n"), 0o755)
	r := &trial{t: t, d: d, out: &lockedBuffer{}, err: &lockedBuffer{}, environment: "uat"}
	cmd := mortal(t, "run", "uat", "--", script, "a b", "", "$HOME", "--", "*", "--json", "it's")
	cmd.Env = append(d.env, "CALL_ME_HOLDER=run'ner", "CALL_ME_FENCE=1", "CALL_ME_SLOT=stale", "CALL_ME_RUNS=(1)")
	cmd.Stdin = strings.NewReader("from stdin\n")
	cmd.Stdout, cmd.Stderr = r.out, r.err
	if err := cmd.Run(); err != nil {
		t.Fatal(err, r.err)
	}
	want := regexp.MustCompile(`^\[a b\]\n\[\]\n\[\$HOME\]\n\[--\]\n\[\*\]\n\[--json\]\n\[it's\]\nfrom stdin\n` +
		`CALL_ME_DB=.*\nCALL_ME_ENVIRONMENT=uat\nCALL_ME_FENCE=\d+\nCALL_ME_HOLDER=run'ner\nCALL_ME_LEASES=\[{"environment":"uat","slot":"uat","fence":\d+}\]\nCALL_ME_RUNS=\(1\)\(\d+-\w+\)\nCALL_ME_SLOT=uat\n$`)
	if !want.MatchString(r.out.String()) {
		t.Errorf("stdout is\n%s", r.out)
	}
	lines := strings.Split(strings.TrimSpace(r.err.String()), "\n")
	if len(lines) != 3 || lines[0] != "call-me: acquired uat, waited 0s; renewed while the command runs" || lines[1] != "to stderr" || !strings.HasPrefix(lines[2], "call-me: released uat, held for ") {
		t.Errorf("stderr is\n%s", r.err)
	}
}

func TestASignalEndsTheCommandAndIsTheExitCode(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			r := d.run(t, "--", "sh", "-c", family)
			pids := r.pids(4)
			start := time.Now()
			r.cmd.Process.Signal(s)
			r.wantCode(128+int(s), 7*time.Second).nobodyLeft(pids, 0)
			r.freeWithin(0)
			t.Logf("ended after %v", time.Since(start))
		})
	}
	t.Run("the command's own code when it ends by itself", func(t *testing.T) {
		r := d.run(t, "--", "sh", "-c", `trap "exit 42" TERM; echo ready; while :; do sleep 0.05; done`).said("ready")
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(42, 7*time.Second).freeWithin(0)
	})
	t.Run("the first one counts", func(t *testing.T) {
		r := d.run(t, "--grace", "300ms", "--", "sh", "-c", stubborn)
		pids := r.pids(2)
		r.cmd.Process.Signal(syscall.SIGINT)
		time.Sleep(50 * time.Millisecond)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(130, 7*time.Second).nobodyLeft(pids, 0)
	})
	t.Run("other signals are passed on", func(t *testing.T) {
		r := d.run(t, "--", "sh", "-c", `trap "echo got it; exit 5" USR1; echo ready; while :; do sleep 0.05; done`).said("ready")
		r.cmd.Process.Signal(syscall.SIGUSR1)
		r.wantCode(5, 7*time.Second).said("got it")
	})
}

// A command that ignores signals is ended, and its slot is free, within 7 s of the first
// signal. GitHub cancels a job with SIGINT, 7.5 s later with SIGTERM, and then with
// SIGKILL for all of its processes.
func TestAStubbornCommandIsGoneAndTheSlotFreeWithinSevenSeconds(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--", "sh", "-c", stubborn)
	pids := r.pids(2)
	start := time.Now()
	r.cmd.Process.Signal(syscall.SIGINT)
	r.wantCode(130, 7*time.Second).nobodyLeft(pids, 0)
	r.freeWithin(0)
	if took := time.Since(start); took < 5*time.Second {
		t.Errorf("it had %v, though the grace is 5s", took)
	}
}

func TestASignalWhileWaitingLeavesTheQueue(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=other")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		r := d.run(t, "--", "touch", "started").said("waiting for uat, next in the queue; held by other since")
		r.cmd.Process.Signal(s)
		r.wantCode(128+int(s), 4*time.Second)
		if _, body := d.call("GET", "/environments"); strings.Contains(body, "runner") {
			t.Errorf("still in the queue: %s", body)
		}
		if _, err := os.Stat(filepath.Join(r.folder, "started")); err == nil {
			t.Error("the command was run")
		}
	}
	d.run(t, "--timeout", "500ms", "--", "true").wantCode(75, 5*time.Second)
}

func TestTheWatchdogCleansUpAfterAKilledRun(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"a family": family, "a stubborn one": stubborn} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			r := d.run(t, "--", "sh", "-c", command)
			pids := r.pids(2)
			r.cmd.Process.Kill()
			r.nobodyLeft(pids, 10*time.Second) // it takes less than one where nothing else runs
			r.freeWithin(10 * time.Second)
		})
	}
	t.Run("while it waits", func(t *testing.T) {
		d := newDaemon(t)
		d.call("POST", "/maybe?environment=uat&id=12345678&holder=other")
		r := d.run(t, "--", "true").said("waiting")
		connected := func(is string) {
			eventually(t, "the server sees connected: "+is, func() bool {
				_, body := d.call("GET", "/environments")
				return strings.Contains(body, `"connected":`+is)
			})
		}
		connected("true")
		r.cmd.Process.Kill()
		connected("false")
		d.call("DELETE", "/maybe?environment=uat&id=12345678")
		r.freeWithin(12 * time.Second) // the waiter is removed after 10 s without a connection
	})
}

// Processes that have left the process group, as timeout and setsid do, are ended before
// the slot is free, also when call-me is killed and they lose their parents.
func TestWhatLeftTheGroupEndsWithAKilledRun(t *testing.T) {
	t.Parallel()
	onlyLinux(t)
	const elsewhere = `echo $$ >>pids; setsid sh -c 'echo $$ >>pids; trap "" TERM; sleep 1000 & echo $! >>pids; while :; do sleep 1; done' & wait`
	for name, end := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			r := d.run(t, "--ttl", "8s", "--", "sh", "-c", elsewhere)
			pids := r.pids(3)
			r.cmd.Process.Signal(end)
			r.freeWithin(30 * time.Second)
			r.nobodyLeft(pids, 0)
			if _, body := d.call("GET", "/history"); !strings.Contains(body, `"released"`) {
				t.Errorf("the watchdog has not released the slot: %s", body)
			}
		})
	}
	t.Run("a run within a run", func(t *testing.T) {
		d := newDaemon(t)
		r := d.run(t, "--", binaryPath(), "run", "inner", "--", "sh", "-c", stubborn)
		pids := r.pids(2)
		r.cmd.Process.Kill()
		r.freeWithin(3 * time.Second)
		r.nobodyLeft(pids, 0)
	})
}

func onlyLinux(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only Linux tells who belongs to the tree")
	}
}

// The watchdog of a run within a run releases the inner slot, also when the outer run
// kills processes that do not end. It does not count as a leftover process.
func TestARunWithinARunGivesBothSlotsBack(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--grace", "500ms", "--", binaryPath(), "run", "inner", "--grace", "500ms", "--ttl", "1h", "--", "sh", "-c", stubborn)
	pids := r.pids(2)
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.wantCode(143, 7*time.Second).nobodyLeft(pids, time.Second)
	eventually(t, "the inner slot is free", func() bool {
		code, _ := d.call("GET", "/maybe?environment=inner")
		return code == 200
	})
	r = d.run(t, "--", binaryPath(), "run", "inner", "--", "true").wantCode(0, 7*time.Second)
	if strings.Contains(r.err.String(), "left running") {
		t.Errorf("the inner watchdog was taken for a leftover: %s", r.err)
	}
}

// The grace lasts until every process of the group has ended: a shell may end before its
// script has cleaned up.
func TestTheGraceIsForAllOfTheGroup(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	script := filepath.Join(t.TempDir(), "test.sh")
	os.WriteFile(script, []byte("trap 'sleep 0.3; sleep 0.2 && echo cleaned up; exit' TERM\necho $$ >>pids\nwhile :; do sleep 0.02; done\n"), 0o755)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} { // background processes ignore SIGINT
		r := d.run(t, "--", "sh", "-c", "sh "+script+" & wait; echo never")
		pids := r.pids(1)
		r.cmd.Process.Signal(s)
		r.wantCode(128+int(s), 4*time.Second).said("cleaned up").nobodyLeft(pids, 0)
		if n := strings.Count(r.out.String(), "cleaned up"); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
	}
	t.Run("and what cleans up is not asked to end", func(t *testing.T) {
		clean := "trap 'for i in $(seq 100); do sleep 0.005 || echo a process that cleans up was ended; done; " +
			"echo cleaned up; exit' TERM\necho $$ >>pids\nwhile :; do sleep 0.02; done\n"
		os.WriteFile(script, []byte(clean), 0o755)
		r := d.run(t, "--", "sh", "-c", "sh "+script+" & wait")
		pids := r.pids(1)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(143, 9*time.Second).said("cleaned up").nobodyLeft(pids, 0)
		if strings.Contains(r.out.String(), "was ended") {
			t.Errorf("call-me ended what its command had started to clean up: %s", r.out.String())
		}
	})
	t.Run("and hurried by a second signal", func(t *testing.T) {
		r := d.run(t, "--grace", "1m", "--", "sh", "-c", `sh -c 'trap "" TERM; echo $$ >>pids; while :; do sleep 0.1; done' & wait`)
		pids := r.pids(1)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.said("left running")
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(143, 7*time.Second).nobodyLeft(pids, 0)
	})
}

func TestWhatWasThereBeforeTheCommandStays(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	folder := t.TempDir()
	cmd := mortal(t)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! >tunnel; sleep 0.5' & while [ ! -s tunnel ]; do sleep 0.01; done; exec call-me run uat -- sh -c 'sleep 1000 & echo $! >leftover; sleep 1'`}
	cmd.Dir, cmd.Env = folder, append(d.env, "CALL_ME_HOLDER=step")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	number := func(file string) int {
		text, _ := os.ReadFile(filepath.Join(folder, file))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return pid
	}
	if pid := number("tunnel"); pid == 0 || !alive(pid) {
		t.Error("it was ended")
	} else {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if pid := number("leftover"); pid == 0 || alive(pid) {
		t.Error("what the command left is alive")
	}
}

// A command that renews its own lease does not change the ttl that run uses.
func TestRenewingWithinARunKeepsItsTTL(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "9s", "--", "sh", "-c", `call-me request uat --again && call-me renew uat --ttl 1s && sleep 4`)
	r.wantCode(0, 10*time.Second).said("run renews uat")
	r = d.run(t, "--ttl", "9s", "--", "call-me", "run", "inner", "--", "sh", "-c", `call-me renew uat --ttl 1s && sleep 4`)
	r.wantCode(0, 10*time.Second).said("run renews uat")
	r = d.run(t, "--", "sh", "-c", `call-me request other && call-me renew other --ttl 4h && call-me release other`)
	r.wantCode(0, 10*time.Second).said("(4h)")
	d.run(t, "--ttl", "3s", "--", "sh", "-c", `sleep 4`)
	eventually(t, "it has its slot", func() bool {
		_, body := d.call("GET", "/environments")
		return strings.Contains(body, `"ttl_seconds":3`)
	})
	if code, body := d.call("PUT", "/maybe?environment=uat&holder=runner&ttl=1h"); code != 200 || !strings.Contains(body, `"ttl_seconds":3600`) {
		t.Error(code, body)
	}
	eventually(t, "the ttl is that of run again", func() bool {
		_, body := d.call("GET", "/environments")
		return strings.Contains(body, `"ttl_seconds":3,`)
	})
}

func TestStoppedByItselfTheWatchdogEndsTheCommandInTime(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "4s", "--", "sh", "-c", family)
	pids := r.pids(4)
	r.cmd.Process.Signal(syscall.SIGSTOP)
	r.nobodyLeft(pids, 4*time.Second)
	r.freeWithin(2 * time.Second)
	if code, body := d.call("POST", "/maybe?environment=uat&id=somebody-else&holder=other"); code != 201 {
		t.Fatal(code, body)
	}
	r.cmd.Process.Signal(syscall.SIGCONT)
	r.wantCode(76, 5*time.Second)
	if _, body := d.call("GET", "/environments"); !strings.Contains(body, `"holder":"other"`) {
		t.Errorf("the next holder was disturbed: %s", body)
	}
}

func TestAWatchdogThatDiesIsReplaced(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--", "sh", "-c", family)
	pids := r.pids(4)
	var first int
	eventually(t, "there is a watchdog", func() bool { first = r.watchdog(); return first != 0 })
	syscall.Kill(first, syscall.SIGKILL)
	eventually(t, "there is another one", func() bool { second := r.watchdog(); return second != 0 && second != first })
	time.Sleep(100 * time.Millisecond) // it gets its configuration
	r.cmd.Process.Kill()
	r.nobodyLeft(pids, 1500*time.Millisecond)
	r.freeWithin(time.Second)
}

func TestProcessesThatTheCommandLeavesAreEndedAndReported(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	t.Run("its group", func(t *testing.T) {
		r := d.run(t, "--", "sh", "-c", `sleep 1000 & echo $! >>pids; exit 3`)
		r.wantCode(3, 7*time.Second).said("call-me: ending what sh left running: ").nobodyLeft(r.pids(1), 0)
	})
	t.Run("its tree", func(t *testing.T) {
		if _, err := os.Stat("/proc/self/stat"); err != nil {
			t.Skip("only Linux tells who belongs to the tree")
		}
		r := d.run(t, "--", "sh", "-c", `setsid sh -c 'echo $$ >>pids; sleep 1000 & echo $! >>pids; wait' & while [ "$(cat pids 2>/dev/null | wc -l)" -lt 2 ]; do sleep 0.01; done; exit 4`)
		r.wantCode(4, 7*time.Second).said("left running").nobodyLeft(r.pids(2), 0)
	})
	t.Run("a stubborn rest", func(t *testing.T) {
		r := d.run(t, "--grace", "200ms", "--", "sh", "-c", `sh -c 'trap "" TERM; echo $$ >>pids; while :; do sleep 1; done' & while [ ! -s pids ]; do sleep 0.01; done`)
		r.wantCode(0, 7*time.Second).nobodyLeft(r.pids(1), 0)
	})
	t.Run("unless it is told to leave it", func(t *testing.T) {
		r := d.run(t, "--leave-running", "--", "sh", "-c", `sleep 1000 >/dev/null 2>&1 & echo $! >>pids`)
		pids := r.wantCode(0, 7*time.Second).pids(1)
		if !alive(pids[0]) {
			t.Error("it was ended")
		}
		syscall.Kill(pids[0], syscall.SIGKILL)
	})
}

func TestALostLeaseEndsTheCommandWithItsOwnExitCode(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "3s", "--", "sh", "-c", family)
	pids := r.pids(4)
	d.call("DELETE", "/maybe?environment=uat&force=1&holder=the+boss")
	d.call("POST", "/maybe?environment=uat&id=somebody-else&holder=other")
	r.wantCode(76, 5*time.Second).nobodyLeft(pids, 0)
	r.said("call-me: lost uat: the lease was ended by force by the boss at ").said("; other has it now; ending sh")
	if code, _ := d.call("PUT", "/maybe?environment=uat&id=somebody-else"); code != 200 {
		t.Error("the next holder was disturbed")
	}
}

func TestALeaseLostUnnoticedIsReportedAtTheRelease(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "1h", "--", "sh", "-c", `while [ ! -e go ]; do sleep 0.01; done`)
	r.said("acquired")
	d.call("DELETE", "/maybe?environment=uat&force=1&holder=the+boss")
	os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
	r.wantCode(76, 5*time.Second).said("lost uat while sh ran: the lease was ended by force by the boss")
}

func TestAServerThatIsAwayForHalfTheTTLIsNotNoticedByTheCommand(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "8s", "--grace", "1s", "--", "sh", "-c", `sleep 9; exit 5`).said("acquired")
	d.kill()
	time.Sleep(4 * time.Second)
	d.start()
	r.wantCode(5, 20*time.Second).said("released").freeWithin(0)
}

func TestAServerThatIsAwayForTwiceTheTTLEndsTheCommandInTime(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	start := time.Now()
	r := d.run(t, "--ttl", "4s", "--", "sh", "-c", family).said("acquired")
	pids := r.pids(4)
	d.kill()
	r.wantCode(76, 12*time.Second).said("could not be asked to renew").nobodyLeft(pids, 0)
	if took := time.Since(start); took > 7*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAReleaseThatFailsKeepsTheCommandsExitCode(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.run(t, "--ttl", "1h", "--", "sh", "-c", `while [ ! -e go ]; do sleep 0.01; done; exit 6`).said("acquired")
	d.kill()
	os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
	r.wantCode(6, 15*time.Second).said("could not release uat: ").said("comes free when its lease ends, in 1h at the latest")
}

func TestSignalsWhileItReleases(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	w := newWire(t, d.host)
	releasing := func(t *testing.T) *trial {
		w.set(0, false)
		r := d.runWith(t, []string{"HOST=" + w.Addr().String()}, "--", "sh", "-c", "while [ ! -e go ]; do sleep 0.01; done; exit 6").said("acquired")
		w.set(time.Hour, false) // no reply arrives from now on
		os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
		r.freeWithin(3 * time.Second) // the release has reached the server
		return r
	}
	t.Run("SIGTERM hurries it", func(t *testing.T) {
		r := releasing(t)
		start := time.Now()
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(6, 7*time.Second)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("SIGKILL", func(t *testing.T) {
		r := releasing(t)
		if code, body := d.call("POST", "/maybe?environment=uat&id=somebody-else&holder=other"); code != 201 {
			t.Fatal(code, body)
		}
		w.set(0, false)
		watchdog := r.watchdog()
		r.cmd.Process.Kill() // the watchdog releases again
		r.nobodyLeft([]int{watchdog}, 5*time.Second)
		if code, _ := d.call("PUT", "/maybe?environment=uat&id=somebody-else"); code != 200 {
			t.Error("the next holder was disturbed")
		}
	})
	t.Run("SIGSTOP", func(t *testing.T) {
		d.call("DELETE", "/maybe?environment=uat&force=1")
		r := releasing(t)
		r.cmd.Process.Signal(syscall.SIGSTOP)
		w.set(0, false)
		r.cmd.Process.Signal(syscall.SIGCONT)
		<-r.ended
		r.freeWithin(0)
	})
}

func TestAKeyThatIsChangedMeanwhileIsReadAgain(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "keys")
	os.WriteFile(keys, []byte("the-first-key-of-all\n"), 0o600)
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+keys)
	r := d.run(t, "--ttl", "3s", "--", "sh", "-c", `sleep 4; exit 5`).said("acquired")
	os.WriteFile(keys, []byte("another-key-later-on\n"), 0o600)
	d.cmd.Process.Signal(syscall.SIGHUP)
	r.wantCode(5, 12*time.Second).said("released")
}

// A wire is a TCP proxy that delays or drops replies.
type wire struct {
	net.Listener
	mu    sync.Mutex
	delay time.Duration
	drop  bool // close the connection instead of passing a reply on
	calls int
}

func newWire(t *testing.T, to string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c, to)
		}
	}()
	return w
}

func (w *wire) carry(c net.Conn, to string) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	go func() { io.Copy(s, c); s.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := s.Read(buffer)
		if err != nil {
			return
		}
		w.mu.Lock()
		delay, drop := w.delay, w.drop
		w.calls++
		w.mu.Unlock()
		time.Sleep(delay)
		if drop {
			return
		}
		c.Write(buffer[:n])
	}
}

func (w *wire) set(delay time.Duration, drop bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.drop = delay, drop
}

func TestLateAndLostReplies(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	w := newWire(t, d.host)
	through := []string{"HOST=" + w.Addr().String()}
	t.Run("late", func(t *testing.T) {
		w.set(300*time.Millisecond, false)
		r := d.runWith(t, through, "--ttl", "4s", "--", "sh", "-c", "sleep 5; exit 5")
		r.wantCode(5, 15*time.Second).said("released").freeWithin(0)
	})
	t.Run("so late that the lease cannot be kept", func(t *testing.T) {
		w.set(0, false)
		r := d.runWith(t, through, "--ttl", "3s", "--", "sh", "-c", family).said("acquired")
		pids := r.pids(4)
		start := time.Now()
		w.set(4*time.Second, false)
		r.wantCode(76, 12*time.Second)
		r.nobodyLeft(pids, 0)
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		r.freeWithin(5 * time.Second)
	})
	t.Run("lost for a while", func(t *testing.T) {
		w.set(0, false)
		r := d.runWith(t, through, "--ttl", "6s", "--", "sh", "-c", "sleep 6; exit 5").said("acquired")
		w.set(0, true)
		time.Sleep(2 * time.Second)
		w.set(0, false)
		r.wantCode(5, 15*time.Second).said("released").freeWithin(0)
	})
	t.Run("lost at the grant and at the release", func(t *testing.T) {
		w.set(0, true)
		r := d.runWith(t, through, "--", "sh", "-c", "echo running; while [ ! -e go ]; do sleep 0.01; done; exit 5")
		r.said("trying until")
		w.set(0, false)
		r.said("running")
		w.set(0, true)
		os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
		r.freeWithin(2 * time.Second)
		w.set(0, false)
		r.wantCode(5, 15*time.Second).said("released")
		if _, body := d.call("GET", "/environments"); strings.Contains(body, "runner") {
			t.Errorf("a ghost: %s", body)
		}
	})
}

// On a terminal the command is in the foreground: it can read, Ctrl-C reaches it once,
// and Ctrl-Z stops it while its lease is renewed. The program script makes the terminal.
func TestOnATerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil || !strings.Contains(versionOf(script), "util-linux") {
		missing(t, "script of util-linux")
	}
	d := newDaemon(t)
	start := func(t *testing.T, command string) (*exec.Cmd, io.Writer, *lockedBuffer, string) {
		folder := t.TempDir()
		line := fmt.Sprintf("cd %s && %s run uat --ttl 3s -- sh -c %s; echo code=$?", folder, binaryPath(), "'"+strings.ReplaceAll(command, "'", `'\''`)+"'")
		cmd := exec.Command(script, "-qfec", line, "/dev/null")
		cmd.Env = append(d.env, "CALL_ME_HOLDER=runner", "TERM=xterm", "SHELL=/bin/sh")
		in, _ := cmd.StdinPipe()
		out := &lockedBuffer{}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			if t.Failed() {
				t.Logf("the terminal shows:\n%s", out)
			}
		})
		return cmd, in, out, folder
	}
	shows := func(t *testing.T, out *lockedBuffer, what string) {
		t.Helper()
		eventually(t, what+" is shown", func() bool { return strings.Contains(out.String(), what) })
	}
	t.Run("it reads", func(t *testing.T) {
		_, in, out, _ := start(t, `echo ready; read line; echo "read <$line>"; exit 5`)
		shows(t, out, "ready")
		io.WriteString(in, "hello\r")
		shows(t, out, "read <hello>")
		shows(t, out, "code=5")
	})
	t.Run("Ctrl-C reaches it once", func(t *testing.T) {
		_, in, out, folder := start(t, `trap "echo int >>ints" INT; echo ready; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; exit 5`)
		shows(t, out, "ready")
		io.WriteString(in, "\x03")
		shows(t, out, "code=5")
		if text, _ := os.ReadFile(filepath.Join(folder, "ints")); !bytes.Equal(text, []byte("int\n")) {
			t.Errorf("SIGINT came as %q", text)
		}
	})
	t.Run("Ctrl-Z stops it, and the lease goes on", func(t *testing.T) {
		// The command starts no process: a shell that gets the signal between fork and exec
		// of a child is not stopped but waits for the child, which the test cannot see.
		_, in, out, folder := start(t, `echo $$ >pid; echo ready; while [ ! -e go ]; do :; done; exit 5`)
		shows(t, out, "ready")
		io.WriteString(in, "\x1a")
		text, _ := os.ReadFile(filepath.Join(folder, "pid"))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		eventually(t, "it is stopped", func() bool {
			stat, _ := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
			return strings.HasPrefix(string(stat), "T")
		})
		shows(t, out, "call-me: sh is stopped, the lease is renewed; to go on: kill -CONT -- -")
		time.Sleep(4 * time.Second) // longer than the ttl
		if code, body := d.call("GET", "/maybe?environment=uat"); code != 403 {
			t.Errorf("the lease was not renewed: %d %s", code, body)
		}
		os.WriteFile(filepath.Join(folder, "go"), nil, 0o600)
		syscall.Kill(-pid, syscall.SIGCONT)
		shows(t, out, "code=5")
	})
}

func TestATargetThatChecksTheFenceIsSafeFromAPausedHolder(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("flock"); err != nil {
		missing(t, "flock")
	}
	d := newDaemon(t)
	target := t.TempDir()
	script, err := filepath.Abs("examples/fenced-target.sh")
	if err != nil {
		t.Fatal(err)
	}
	late := d.run(t, "--", "sh", "-c", fmt.Sprintf("while [ ! -e go ]; do sleep 0.01; done; exec sh %s %s old", script, target)).said("acquired")
	d.call("DELETE", "/maybe?environment=uat&force=1") // as if the holder was paused for longer than its ttl
	d.run(t, "--", "sh", script, target, "new").wantCode(0, 10*time.Second).said("deployed new")
	os.WriteFile(filepath.Join(late.folder, "go"), nil, 0o600)
	late.wantCode(76, 10*time.Second).said("not deploying old")
	if text, _ := os.ReadFile(filepath.Join(target, "version")); string(text) != "new\n" {
		t.Errorf("the target has %s", text)
	}
}

func versionOf(path string) string {
	out, _ := exec.Command(path, "--version").CombinedOutput()
	return string(out)
}
