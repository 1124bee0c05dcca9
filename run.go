package main

// `call-me run`: a slot is held for exactly as long as a command lives. What
// is different on each system, how a command is started, signalled and
// watched, is in run_unix.go and run_other.go; the clockwork in run_renewal.go.

import (
	"cmp"
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
	"sync/atomic"
	"syscall"
	"time"
)

const (
	runTTL       = 2 * time.Minute
	minRunTTL    = 3 * time.Second
	defaultGrace = 5 * time.Second
	releaseTime  = 10 * time.Second // for the server to answer the release, unless a signal hurries us
	hurryTime    = 2 * time.Second  // with one
)

// A mood is what a command can be in besides running and ended.
type childState int

const (
	stateStopped childState = iota // by Ctrl-Z, or SIGSTOP
	stateContinued
)

// A runner runs one command under a lease.
type runner struct {
	*session
	*terminal
	options      acquireOptions
	grace        time.Duration // between the signal that ends the command and SIGKILL
	leaveRunning bool          // what the command leaves behind when it ends
	argv         []string
}

// run waits for a slot, runs the command, and gives the slot back whatever
// happens. The error is an exitError with the command's code, or says what
// prevented the run.
func (r *runner) run(ctx context.Context) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, slices.DeleteFunc(slices.Clone(forwardedSignals), func(s os.Signal) bool { return s == syscall.SIGHUP && signal.Ignored(s) })...)
	defer signal.Stop(signals)
	path, err := exec.LookPath(r.argv[0])
	if err != nil {
		return r.cannotStart(err)
	}
	w := r.newWaitDisplay(r.options, runForm)
	g, err := r.client.acquire(ctx, r.options, w)
	if err != nil && ctx.Err() != nil {
		w.interrupted()
	}
	w.done()
	if err != nil {
		return explainNoSlot(err, r.options)
	}
	h := &heldRun{runner: r, grant: g, signals: signals, since: time.Now(), tag: fmt.Sprintf("(%d-%s)", g.Fence, rand.Text())}
	return h.hold(path)
}

// ownFailure makes failures that would end with 1 end with 125.
func ownFailure(err error) error {
	var code exitError
	if err == nil || errors.As(err, &code) || exitCode(err) != exitFailed {
		return err
	}
	return runError{err}
}

// cannotStart tells why a command cannot be started, with the shell's code.
func (r *runner) cannotStart(err error) error {
	r.say("call-me: cannot run %s: %s", printable(r.argv[0]), printable(plainExecError(err)))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitError(exitNotFound)
	}
	return exitError(exitNotRunnable)
}

func plainExecError(err error) string {
	var outer *exec.Error
	var path *fs.PathError
	switch {
	case errors.As(err, &outer):
		return outer.Err.Error()
	case errors.As(err, &path):
		return path.Err.Error()
	}
	return err.Error()
}

// A holder is a runner that has its slot.
type heldRun struct {
	*runner
	grant       grant
	since       time.Time
	signals     chan os.Signal
	tag         string // in marksVariable: the fence, and what no other run has, also not of another server
	watchdog    *watchdog
	until       atomic.Pointer[time.Time] // the deadline
	firstSignal syscall.Signal            // the first one that asked to end; 0: none
	endBy       time.Time                 // when the grace is over; zero: nobody has asked the command to end
	lost        error                     // why the lease is not ours any more; nil: it is
}

// hold runs the command and gives the slot back.
func (h *heldRun) hold(path string) error {
	keeping, stop := context.WithCancel(context.Background())
	defer stop()
	t := &renewer{ttl: h.options.ttl, grace: h.grace, renew: h.renew, onDeadline: h.reportDeadline}
	var err error
	if h.watchdog, err = startWatchdog(h.watchdogConfig(t.shortGrace())); err != nil {
		h.release()
		h.say("call-me: cannot start the watchdog: %v", err)
		return exitError(exitOwnFailure)
	}
	defer h.watchdog.dismiss()
	lost := make(chan error, 1)
	h.reportDeadline(t.deadline(h.grant.sent)) // before the command exists
	go func() { lost <- t.run(keeping, h.grant.sent) }()
	err = h.command(path, lost, t.shortGrace())
	if h.lost == nil {
		h.release()
	} else {
		h.abandon()
	}
	if h.lost != nil {
		return exitError(exitNotHeld)
	}
	return err
}

// command runs the command to its end, and ends what it leaves behind.
func (h *heldRun) command(path string, lost <-chan error, shortGrace time.Duration) error {
	select {
	case s := <-h.signals: // came when the slot did
		if h.firstSignal = s.(syscall.Signal); slices.Contains(endSignals, h.firstSignal) {
			return exitError(128 + int(h.firstSignal))
		}
		h.firstSignal = 0
	default:
	}
	p, err := startProcess(path, h.argv, append(os.Environ(),
		"CALL_ME_ENVIRONMENT="+h.options.environment, "CALL_ME_SLOT="+string(h.grant.Slot),
		fmt.Sprint("CALL_ME_FENCE=", h.grant.Fence), "CALL_ME_HOLDER="+h.options.holder,
		runTagsVariable+"="+os.Getenv(runTagsVariable)+h.tag), h.watchdog.setGroup)
	if err != nil {
		h.watchdog.clearGroup()
		return h.cannotStart(err)
	}
	h.await(p, lost, shortGrace)
	if !h.leaveRunning {
		h.endLeftovers(p, lost)
	}
	h.watchdog.clearGroup() // before the command's number may become another's
	return h.code(p.reap())
}

// await waits until the command has ended, passes signals on to it, and ends
// it when the lease is lost.
func (h *heldRun) await(p *process, lost <-chan error, shortGrace time.Duration) {
	var kill <-chan time.Time
	for {
		select {
		case <-p.ended:
			if h.lost == nil && isPast(*h.until.Load(), time.Now()) { // who knows when it ended: we may have been stopped
				h.lost = errDeadline
				h.say("call-me: lost %s: %s", h.grant.Slot, h.whyLost())
			}
			return
		case s := <-h.signals:
			number := s.(syscall.Signal)
			p.signal(number)
			if slices.Contains(endSignals, number) {
				if h.firstSignal == 0 {
					h.firstSignal = number
				}
				if kill == nil {
					kill, h.endBy = time.After(h.grace), time.Now().Add(h.grace)
				}
			}
		case h.lost = <-lost:
			h.say("call-me: lost %s: %s; ending %s", h.grant.Slot, h.whyLost(), printable(h.argv[0]))
			p.signal(syscall.SIGTERM)
			kill, h.endBy = time.After(shortGrace), time.Now().Add(shortGrace)
		case m := <-p.states:
			if m == stateStopped {
				h.say("call-me: %s is stopped, the lease is renewed; to go on: kill -CONT -- -%d; Ctrl-C ends it", printable(h.argv[0]), p.pid())
			}
		case <-kill:
			p.signal(syscall.SIGKILL)
		}
	}
}

// whyLost says what has happened to the lease, and who has the slot now.
func (h *heldRun) whyLost() string {
	var refused *apiError
	if errors.Is(h.lost, errDeadline) || !errors.As(h.lost, &refused) {
		return printable(h.lost.Error())
	}
	text := "the lease is over"
	if e := refused.Ended; e != nil {
		switch text = "the lease "; e.How {
		case "forced":
			text += "was ended by force by " + cmp.Or(e.By.String(), "somebody who gave no name")
		case "released":
			text += "was released"
		default:
			text += e.How.String()
		}
		text += " at " + clockTime(e.At)
	}
	for _, l := range refused.HeldBy {
		if l.Slot == h.grant.Slot {
			return text + "; " + holderName(l) + " has it now"
		}
	}
	return text
}

// endLeftovers ends what is still running of the command's group, and of its
// tree where the system can tell. What was asked to end with the command has
// the rest of its grace, and may start what it needs for that.
func (h *heldRun) endLeftovers(p *process, lost <-chan error) {
	names := p.leftovers()
	if len(names) == 0 {
		return
	}
	h.say("call-me: ending what %s left running: %s", printable(h.argv[0]), printable(strings.Join(names, ", ")))
	patience, asked := h.grace, !h.endBy.IsZero()
	if asked {
		patience = time.Until(h.endBy)
		if h.lost != nil || h.firstSignal == syscall.SIGTERM {
			p.markGroupAsked()
		}
	}
	p.endLeftovers(patience, !asked, func() bool {
		select {
		case s := <-h.signals:
			return slices.Contains(endSignals, s.(syscall.Signal))
		case h.lost = <-lost:
			h.say("call-me: lost %s: %s", h.grant.Slot, h.whyLost())
			return true
		default:
			return false
		}
	})
}

// code is what run exits with when the command has ended.
func (h *heldRun) code(state *os.ProcessState) error {
	signal, signalled := deathSignal(state)
	switch {
	case signalled && h.firstSignal != 0:
		return exitError(128 + int(h.firstSignal))
	case signalled:
		return exitError(128 + int(signal))
	case state.ExitCode() == 0:
		return nil
	}
	return exitError(state.ExitCode())
}

// renew is one attempt. A refused key is read again: it may have been
// changed while the command ran.
func (h *heldRun) renew(ctx context.Context) error {
	var lease leaseJSON
	values := requestSelector(h.options.environment, h.grant.id)
	values.Set("ttl", h.options.ttl.String()) // whatever a renewal by the holder has made of it
	err := h.client.do(ctx, "PUT", "/maybe", values, &lease)
	if refusesKey(err) {
		h.client.readKey()
	}
	if err == nil && lease.Fence != h.grant.Fence {
		return errNotCallMe
	}
	return err
}

func (h *heldRun) reportDeadline(deadline time.Time) {
	h.until.Store(&deadline)
	h.watchdog.setDeadline(deadline)
}

// release gives the slot back. The lease goes on being renewed meanwhile. A
// signal hurries it.
func (h *heldRun) release() {
	limit := releaseTime
	if h.firstSignal != 0 {
		limit = hurryTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	go func() {
		select {
		case <-h.signals:
			time.AfterFunc(hurryTime, cancel)
		case <-ctx.Done():
		}
	}()
	err := h.client.end(ctx, h.options.environment, h.grant.id)
	if errors.Is(err, errNotHeld) { // and no renewal had told us
		h.lost = err
		h.say("call-me: lost %s while %s ran: %s", h.grant.Slot, printable(h.argv[0]), h.whyLost())
		return
	}
	if err != nil {
		h.say("call-me: could not release %s: %s; it comes free when its lease ends, in %s at the latest",
			h.grant.Slot, printable(err.Error()), durationText(h.options.ttl))
		return
	}
	h.say("call-me: released %s, held for %s", h.grant.Slot, durationText(time.Since(h.since)))
}

// abandon tells the server that a lost lease is not needed any more. It is
// over already, or soon.
func (h *heldRun) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), hurryTime)
	defer cancel()
	h.client.end(ctx, h.options.environment, h.grant.id)
}
