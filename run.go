package main

// call-me run: it acquires a slot, runs a command, and releases the slot when the
// command has ended.
//
// Not here: how a command is started, signalled and watched, which differs between
// systems (run_unix.go, run_linux.go, run_darwin.go, run_other.go), the renewal of the
// lease (run_renewal.go), and the process that takes over when call-me is killed
// (run_watchdog.go).

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
	runTTL                 = 2 * time.Minute // default ttl of the lease
	minRunTTL              = 3 * time.Second
	defaultGrace           = 5 * time.Second
	releaseTime            = 10 * time.Second // for the release of the slot
	releaseTimeAfterSignal = 2 * time.Second  // for the release after a signal
)

// A childState is a change of the command between stopped and running.
type childState int

const (
	stateStopped childState = iota // by Ctrl-Z or SIGSTOP
	stateContinued
)

// A runner runs one command under a lease.
type runner struct {
	*session
	*terminal
	options      acquireOptions
	grace        time.Duration // between the signal that asks the command to end and SIGKILL
	leaveRunning bool          // do not end the processes that the command leaves running
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
	if err != nil {
		return r.reportCannotStart(err)
	}
	w := r.newWaitDisplay(r.options, runForm)
	g, err := r.client.acquire(ctx, r.options, w)
	if err != nil && ctx.Err() != nil {
		w.interrupted()
	}
	w.done()
	if err != nil {
		return hintNoSlot(err, r.options)
	}
	tag := fmt.Sprintf("(%d-%s)", g.Fence, rand.Text())
	h := &heldRun{runner: r, grant: g, signals: signals, since: time.Now(), tag: tag}
	return h.hold(path)
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
	r.say("call-me: cannot run %s: %s", printable(r.argv[0]), printable(plainExecError(err)))
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitError(exitNotFound)
	}
	return exitError(exitNotRunnable)
}

// plainExecError returns the text of err without the command's path and the name of the
// system call.
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

// A heldRun is a runner that has its slot.
type heldRun struct {
	*runner
	grant       grant
	since       time.Time // when the slot was acquired
	signals     chan os.Signal
	tag         string // in runTagsVariable: the fence and a random text, unique among all servers
	watchdog    *watchdog
	deadline    atomic.Pointer[time.Time] // the deadline of the command; see renewer.deadline
	firstSignal syscall.Signal            // the first signal that asked to end; zero if none
	endBy       time.Time                 // end of the command's grace; zero if it was not asked to end
	lost        error                     // why the lease is lost; nil while it is held
}

// hold starts the watchdog, runs the command, renews the lease meanwhile and releases
// the slot. If the lease is lost, the error is an exitError with exitNotHeld. Otherwise
// it is that of command, or exitOwnFailure if the watchdog cannot be started.
func (h *heldRun) hold(path string) error {
	renewing, stop := context.WithCancel(context.Background())
	defer stop()
	r := &renewer{ttl: h.options.ttl, grace: h.grace, renew: h.renew, onDeadline: h.reportDeadline}
	var err error
	h.watchdog, err = startWatchdog(h.watchdogConfig(r.shortGrace()))
	if err != nil {
		h.release()
		h.say("call-me: cannot start the watchdog: %v", err)
		return exitError(exitOwnFailure)
	}
	defer h.watchdog.dismiss()
	lost := make(chan error, 1)
	h.reportDeadline(r.deadline(h.grant.sent)) // before the command exists
	go func() { lost <- r.run(renewing, h.grant.sent) }()
	err = h.command(path, lost, r.shortGrace())
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

// command starts the command, waits until it has ended, and ends the processes that it
// leaves running, unless leaveRunning is set. It receives from lost why the lease is
// lost; the command then has shortGrace to end. If a signal that asks to end arrived
// before, command returns its exitError without starting the command. Errors: those of
// cannotStart and code.
func (h *heldRun) command(path string, lost <-chan error, shortGrace time.Duration) error {
	select {
	case s := <-h.signals: // arrived while the slot was acquired
		number := s.(syscall.Signal)
		if slices.Contains(endSignals, number) {
			h.firstSignal = number
			return exitError(128 + int(number))
		}
	default:
	}
	p, err := startProcess(path, h.argv, append(os.Environ(),
		"CALL_ME_ENVIRONMENT="+h.options.environment, "CALL_ME_SLOT="+string(h.grant.Slot),
		fmt.Sprint("CALL_ME_FENCE=", h.grant.Fence), "CALL_ME_HOLDER="+h.options.holder,
		runTagsVariable+"="+os.Getenv(runTagsVariable)+h.tag), h.watchdog.setGroup)
	if err != nil {
		h.watchdog.clearGroup()
		return h.reportCannotStart(err)
	}
	h.await(p, lost, shortGrace)
	if !h.leaveRunning {
		h.endLeftovers(p, lost)
	}
	h.watchdog.clearGroup() // before reap, after which the system may reuse the command's process id
	return h.code(p.reap())
}

// await waits until the command has ended. It passes signals on to the command. If the
// lease is lost, it sends SIGTERM, and SIGKILL after shortGrace. After a signal that
// asks to end, it sends SIGKILL after the grace. It sets firstSignal, endBy and lost.
func (h *heldRun) await(p *process, lost <-chan error, shortGrace time.Duration) {
	var kill <-chan time.Time
	for {
		select {
		case <-p.ended:
			// The command may have ended after the deadline while call-me was stopped.
			if h.lost == nil && isPast(*h.deadline.Load(), time.Now()) {
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
		case err := <-lost:
			h.lost = err
			h.say("call-me: lost %s: %s; ending %s", h.grant.Slot, h.whyLost(), printable(h.argv[0]))
			p.signal(syscall.SIGTERM)
			kill, h.endBy = time.After(shortGrace), time.Now().Add(shortGrace)
		case m := <-p.states:
			if m == stateStopped {
				h.say("call-me: %s is stopped, the lease is renewed; "+
					"to go on: kill -CONT -- -%d; Ctrl-C ends it", printable(h.argv[0]), p.pid())
			}
		case <-kill:
			p.signal(syscall.SIGKILL)
		}
	}
}

// whyLost returns how the lease ended, and the holder of the slot now, as a text for
// people.
func (h *heldRun) whyLost() string {
	var reply *apiError
	if errors.Is(h.lost, errDeadline) || !errors.As(h.lost, &reply) {
		return printable(h.lost.Error())
	}
	text := "the lease is over"
	if e := reply.Ended; e != nil {
		text = "the lease "
		switch e.How {
		case "forced":
			text += "was ended by force by " + cmp.Or(e.By.String(), "somebody who gave no name")
		case "released":
			text += "was released"
		default:
			text += e.How.String()
		}
		text += " at " + clockTime(e.At)
	}
	for _, l := range reply.HeldBy {
		if l.Slot == h.grant.Slot {
			return text + "; " + holderName(l) + " has it now"
		}
	}
	return text
}

// endLeftovers ends the processes that still run in the command's group, and on Linux
// also its descendants outside of the group. If the command was asked to end, they have
// the rest of its grace, and may start the processes that they need to end. Otherwise
// they have a whole grace. A further signal that asks to end, or the loss of the lease,
// ends the grace at once.
func (h *heldRun) endLeftovers(p *process, lost <-chan error) {
	names := p.leftoverNames()
	if len(names) == 0 {
		return
	}
	h.say("call-me: ending what %s left running: %s",
		printable(h.argv[0]), printable(strings.Join(names, ", ")))
	grace, asked := h.grace, !h.endBy.IsZero()
	if asked {
		grace = time.Until(h.endBy)
		if h.lost != nil || h.firstSignal == syscall.SIGTERM {
			p.markGroupAsked()
		}
	}
	p.endLeftovers(grace, !asked, func() bool {
		select {
		case s := <-h.signals:
			return slices.Contains(endSignals, s.(syscall.Signal))
		case err := <-lost:
			h.lost = err
			h.say("call-me: lost %s: %s", h.grant.Slot, h.whyLost())
			return true
		default:
			return false
		}
	})
}

// code returns the error for the state of the ended command: nil for exit code zero, else
// an exitError. The code is 128+n if signal n ended the command; after a signal that
// asked call-me to end, n is that signal.
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

// renew makes one attempt to renew the lease. If the server rejects the key, renew reads
// the key again for the next attempt, since the operator may have changed it. The error
// is errNotCallMe for a response with another fence, or one of do.
func (h *heldRun) renew(ctx context.Context) error {
	var lease leaseJSON
	values := requestSelector(h.options.environment, h.grant.id)
	values.Set("ttl", h.options.ttl.String()) // undoes a change of the ttl by call-me renew
	err := h.client.do(ctx, "PUT", "/maybe", values, &lease)
	if refusesKey(err) {
		h.client.readKey()
	}
	if err == nil && lease.Fence != h.grant.Fence {
		return errNotCallMe
	}
	return err
}

// reportDeadline stores the deadline of the command and sends it to the watchdog.
func (h *heldRun) reportDeadline(deadline time.Time) {
	h.deadline.Store(&deadline)
	h.watchdog.setDeadline(deadline)
}

// release releases the slot within releaseTime, and prints the result. After a signal,
// earlier or meanwhile, it has releaseTimeAfterSignal. The renewer still renews the lease meanwhile.
// If the lease was lost without notice, release sets h.lost.
func (h *heldRun) release() {
	limit := releaseTime
	if h.firstSignal != 0 {
		limit = releaseTimeAfterSignal
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	go func() {
		select {
		case <-h.signals:
			time.AfterFunc(releaseTimeAfterSignal, cancel)
		case <-ctx.Done():
		}
	}()
	err := h.client.endRequest(ctx, h.options.environment, h.grant.id)
	if errors.Is(err, errNotHeld) { // no renewal has reported the loss
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

// abandon ends the request of a lost lease, within releaseTimeAfterSignal. Errors are ignored: the
// lease has ended already, or ends soon.
func (h *heldRun) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeAfterSignal)
	defer cancel()
	h.client.endRequest(ctx, h.options.environment, h.grant.id)
}
