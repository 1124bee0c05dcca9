package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a signal to call-me does.
const (
	ends      = "ends"      // call-me ends its command and releases the slot; exit code 128+n
	passes    = "passes"    // the command gets it
	nothing   = "nothing"   //
	stops     = "stops"     // until SIGCONT
	kills     = "kills"     // the watchdog ends the command and releases the slot
	noTrial   = "no trial"  // Go's and the C library's own
	afterWait = time.Second // for something that must not happen
)

// whatSignalsDo has the standard signals of Linux. The others, up to 64, do nothing.
var whatSignalsDo = map[syscall.Signal]string{
	syscall.SIGINT: ends, syscall.SIGTERM: ends, syscall.SIGHUP: ends, syscall.SIGQUIT: ends,
	syscall.SIGUSR1: passes, syscall.SIGUSR2: passes,
	syscall.SIGPIPE: nothing, syscall.SIGALRM: nothing, syscall.SIGCHLD: nothing, syscall.SIGCONT: nothing,
	syscall.SIGURG: nothing, syscall.SIGXCPU: nothing, syscall.SIGXFSZ: nothing, syscall.SIGVTALRM: nothing,
	syscall.SIGPROF: nothing, syscall.SIGWINCH: nothing, syscall.SIGIO: nothing, syscall.SIGPWR: nothing,
	syscall.SIGSTOP: stops, syscall.SIGTSTP: stops, syscall.SIGTTIN: stops, syscall.SIGTTOU: stops,
	syscall.SIGKILL: kills, syscall.SIGILL: kills, syscall.SIGTRAP: kills, syscall.SIGABRT: kills, syscall.SIGBUS: kills,
	syscall.SIGFPE: kills, syscall.SIGSEGV: kills, syscall.SIGSTKFLT: kills, syscall.SIGSYS: kills,
	32: noTrial, 33: noTrial, 34: noTrial,
}

// Each signal is sent to a run that waits, to one whose command runs, and to one that
// releases its slot and gets no answer.
func TestEverySignalInEveryState(t *testing.T) {
	t.Parallel()
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGPIPE, syscall.SIGALRM,
		syscall.SIGTSTP, syscall.SIGKILL, syscall.SIGABRT}
	if !leftOut(t, "56 of 64 signals") {
		signals = nil
		for s := syscall.Signal(1); s <= 64; s++ {
			signals = append(signals, s)
		}
	}
	d := newDaemon(t)
	var wait sync.WaitGroup
	limit := make(chan struct{}, 16) // most of the time they wait
	for _, s := range signals {
		does := whatSignalsDo[s]
		if does == "" {
			does = nothing
		}
		for state, try := range map[string]func(*testing.T, *daemon, syscall.Signal, string){
			"waiting": trySignalWaiting, "running": trySignalRunning, "releasing": trySignalReleasing,
		} {
			if does == noTrial {
				continue
			}
			limit <- struct{}{}
			wait.Go(func() {
				defer func() { <-limit }()
				t.Run(fmt.Sprintf("%v %s", s, state), func(t *testing.T) { try(t, d, s, does) })
			})
		}
	}
	wait.Wait()
}

// send sends the signal, and after one that stops SIGCONT.
func (r *trial) send(s syscall.Signal, does string) {
	syscall.Kill(r.cmd.Process.Pid, s)
	if does == stops {
		time.Sleep(200 * time.Millisecond)
		syscall.Kill(r.cmd.Process.Pid, syscall.SIGCONT)
	}
}

// wantKilled waits until the signal has ended call-me. Go exits with 2 after most signals of
// this kind.
func (r *trial) wantKilled(s syscall.Signal) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("still running\n%s", r.err)
	}
	if !r.status.Signaled() && r.status.ExitStatus() != 2 {
		r.t.Errorf("exit code %d\n%s", r.status.ExitStatus(), r.err)
	}
}

func trySignalWaiting(t *testing.T, d *daemon, s syscall.Signal, does string) {
	environment := fmt.Sprint("waiting", int(s))
	d.want(201, "POST", "/maybe?environment="+environment+"&id=12345678&holder=other")
	r := d.newTrial(t, environment, nil, "--", "sh", "-c", "exit 6")
	r.start()
	r.said("waiting for " + environment)
	r.send(s, does)
	switch does {
	case ends:
		r.wantCode(128+int(s), 20*time.Second)
	case kills:
		r.wantKilled(s)
		// A grant to a client that has just died is free only after its claim. So the slot is
		// released when the server has noticed: at once, or after 10 s without a connection.
		eventually(t, "the waiter has left the queue", func() bool {
			numbers, _ := d.queueOf(environment)
			return len(numbers) == 0
		})
	default:
		time.Sleep(200 * time.Millisecond)
	}
	d.want(204, "DELETE", "/maybe?environment="+environment+"&id=12345678")
	if does != ends && does != kills {
		r.wantCode(6, 20*time.Second)
	}
	r.freeWithin(10 * time.Second)
}

func trySignalRunning(t *testing.T, d *daemon, s syscall.Signal, does string) {
	r := d.newTrial(t, fmt.Sprint("running", int(s)), nil, "--", "sh", "-c",
		`trap "echo passed" USR1 USR2; echo $$ >>pids; while [ ! -e go ]; do sleep 0.05; done; exit 6`)
	r.start()
	pids := r.pids(1)
	r.send(s, does)
	switch does {
	case ends:
		r.wantCode(128+int(s), 20*time.Second)
		r.nobodyLeft(pids, 0)
	case kills:
		r.wantKilled(s)
		r.nobodyLeft(pids, 10*time.Second)
	case passes:
		r.said("passed")
	default:
		time.Sleep(200 * time.Millisecond)
	}
	os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
	if does != ends && does != kills {
		r.wantCode(6, 20*time.Second)
	}
	if does == nothing && strings.Contains(r.out.String(), "passed") {
		t.Error("the command got it")
	}
	r.freeWithin(10 * time.Second)
}

func trySignalReleasing(t *testing.T, d *daemon, s syscall.Signal, does string) {
	w := newWire(t, d.host)
	r := d.newTrial(t, fmt.Sprint("releasing", int(s)), []string{"HOST=" + w.Addr().String()}, "--",
		"sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 6")
	r.start()
	r.said("acquired")
	w.set(time.Hour, false) // no reply arrives from now on
	os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
	r.freeWithin(10 * time.Second) // the release has reached the server
	d.want(201, "POST", "/maybe?environment="+r.environment+"&id=somebody-else&holder=other")
	r.send(s, does)
	time.Sleep(100 * time.Millisecond)
	w.set(0, false)
	if does == kills {
		r.wantKilled(s)
	} else {
		r.wantCode(6, 20*time.Second)
	}
	if slices.Contains([]string{ends, kills}, does) {
		time.Sleep(afterWait / 2) // a watchdog would release again
	}
	d.want(200, "PUT", "/maybe?environment="+r.environment+"&id=somebody-else")
}
