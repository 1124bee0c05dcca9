package main

// call-me run: it acquires a slot, runs a command, and releases the slot when the
// command has ended.
//
// Not here: how a command is started, signalled and watched, which differs between
// systems (run_unix.go, run_linux.go, run_darwin.go, run_windows.go, run_other.go), what
// happens while the slot is held (run_held.go), the renewal of the lease
// (run_renewal.go), and the process that takes over when call-me is killed
// (run_watchdog.go).

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	runTTL                 = 2 * time.Minute // default ttl of the lease
	minRunTTL              = 3 * time.Second
	defaultGrace           = 5 * time.Second
	releaseTime            = 10 * time.Second // for the release of the slot
	releaseTimeAfterSignal = 2 * time.Second  // for the release after a signal

	// settleTime passes between the end of a command that was ended because its lease was
	// lost or call-me was killed, and the release. What the command sent last may still be
	// on its way to the environment.
	settleTime = 200 * time.Millisecond
)

// A childState is a change of the command between stopped and running.
type childState int

const (
	stateStopped       childState = iota // by Ctrl-Z or SIGSTOP
	stateNeedsTerminal                   // stopped, because it uses the terminal in the background
	stateContinued
)

// A runner runs one command under a lease.
type runner struct {
	*session
	*terminal
	options      acquireOptions
	grace        time.Duration // between the signal that asks the command to end and SIGKILL
	leaveRunning bool          // do not end the processes that the command leaves running
	keep         time.Duration // how long the slot of a command that fails is kept; zero if it is not
	argv         []string
}

// run acquires a slot, runs the command, and releases the slot in every case. It passes
// signals on to the command, but not SIGHUP if call-me was started with SIGHUP ignored.
// The error is nil if the command exits with zero, or an exitError with the code of the
// command. Otherwise it says why the command was not run or the slot was lost.
func (r *runner) run(ctx context.Context) error {
	forwarded := slices.DeleteFunc(slices.Clone(forwardedSignals), func(s os.Signal) bool {
		return s == syscall.SIGHUP && signal.Ignored(s)
	})
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	path, err := exec.LookPath(r.argv[0])
	if err == nil {
		err = checkFormat(path)
	}
	if err != nil {
		return r.reportCannotStart(err)
	}
	if err := checkSystem(); err != nil {
		return err
	}
	w := r.newWaitDisplay(r.options, runForm)
	g, err := r.client.acquire(ctx, r.options, w)
	if err != nil {
		w.failed(err, ctx.Err() != nil)
		w.done()
		return hintNoSlot(err, r.options)
	}
	r.options.ttl = g.ttl
	h := &heldRun{runner: r, grant: g, signals: signals, since: time.Now(),
		tag: runTag(g.all(), rand.Text())}
	return h.hold(path, w)
}

// ownFailure returns a runError, whose exit code is 125, for an error whose exit code
// would be 1. It returns any other err, and an exitError, unchanged.
func ownFailure(err error) error {
	var code exitError
	if err == nil || errors.As(err, &code) || exitCode(err) != exitFailed {
		return err
	}
	return runError{err}
}

// reportCannotStart prints why the command cannot be started. It returns an exitError with the
// shell's code: 127 if the command was not found, else 126.
func (r *runner) reportCannotStart(err error) error {
	problem := fmt.Errorf("cannot run %s: %s", r.argv[0], plainExecError(err))
	if hint := r.startHint(err); hint != "" {
		problem = withHint(problem, hint)
	}
	r.fail(problem)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitError(exitNotFound)
	}
	return exitError(exitNotRunnable)
}

// startHint returns what to type where a command cannot be started; empty where that is not
// known.
func (r *runner) startHint(err error) string {
	isMissing := errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
	run := "call-me run " + r.options.words() + " -- "
	switch {
	case isMissing && len(r.argv) == 1 && strings.ContainsAny(r.argv[0], " \t;&|<>$"):
		return "for a line of shell: " + run + "sh -c " + quote(r.argv[0])
	case isMissing && strings.ContainsAny(r.argv[0], `/\`):
		return "the path is looked up from the folder in which call-me was started"
	case isMissing:
		return "it is looked up in PATH; for a word of the shell: " + run + "sh -c ..."
	case errors.Is(err, fs.ErrPermission):
		return "chmod +x " + quote(r.argv[0]) + ", if it is a program"
	}
	return ""
}

// plainExecError returns the text of err without the command's path and the name of the
// system call.
func plainExecError(err error) string {
	var outer *exec.Error
	var path *fs.PathError
	switch {
	case errors.As(err, &outer):
		return plainExecError(outer.Err)
	case errors.As(err, &path):
		return path.Err.Error()
	}
	return err.Error()
}

// lastingLeftovers returns the names of what the command has left running and is there for a
// second: what is about to end is no reason to keep the slot.
func lastingLeftovers(p *process) []string {
	names := p.leftoverNames()
	for end := time.Now().Add(time.Second); len(names) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		names = p.leftoverNames()
	}
	return names
}
