package main

// A run that has its slot: it starts the watchdog, runs the command, passes signals on,
// ends what the command leaves running, and releases the slot.
//
// Not here: the wait for the slot (run.go).

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A heldRun is a runner that has its slot.
type heldRun struct {
	*runner
	grant        grant
	since        time.Time // when the slot was acquired
	signals      chan os.Signal
	tag          string // in runTagsVariable: the fence and a random text, unique among all servers
	watchdog     *watchdog
	deadline     atomic.Pointer[commandDeadline] // see renewer.deadline
	lastDeadline time.Time                       // of the longest hold as the grant had it; zero if none
	firstSignal  syscall.Signal                  // the first signal that asked to end; zero if none
	endBy        time.Time                       // end of the command's grace; zero if not asked to end
	lost         error                           // why the lease is lost; nil while it is held
	isHanded     bool                            // all leases were handed over to other holders
	handed       handedList                      // the environments of those that were, while others are held
	hasEnded     bool                            // the command was run, and has ended
	remaining    bool                            // processes of the command that cannot be ended run on
	reported     map[string]bool                 // the processes that reportForeign has printed
}

// hold starts the watchdog, runs the command, renews the lease meanwhile and releases
// the slot. If processes of the command remain, the slot is left to the watchdog. If the
// lease is lost, the error is an exitError with exitNotHeld. Otherwise it is that of
// command, or exitOwnFailure if the watchdog cannot be started.
//
// Nothing is printed before the watchdog knows the lease, because stderr may be a pipe
// that is closed or that nobody reads.
func (h *heldRun) hold(path string, w *waitDisplay) error {
	renewing, stop := context.WithCancel(context.Background())
	defer stop()
	r := &renewer{ttl: h.options.ttl, grace: h.grace, renew: h.renew, onDeadline: h.reportDeadline}
	limit, longest := h.grant.limit(h.grant.sent)
	if !limit.IsZero() {
		r.limit, r.ttl = limit, min(r.ttl, longest)
		h.lastDeadline = r.deadline(limit)
		warning := time.AfterFunc(h.lastDeadline.Sub(clockNow())-longest/5, h.warnOfLimit)
		defer warning.Stop()
	}
	var err error
	h.watchdog, err = startWatchdog(h.watchdogConfig(r.shortGrace()))
	if err == nil {
		h.client.onToken(h.watchdog.setToken)
		h.reportDeadline(r.newest(h.grant.sent)) // before the command exists
	}
	w.done()
	if err != nil {
		h.release()
		h.say("call-me: cannot start the watchdog: %v", err)
		return exitError(exitOwnFailure)
	}
	lost := make(chan error, 1)
	w.printGranted()
	go func() { lost <- r.run(renewing, h.grant.sent) }()
	err = h.command(path, lost, r.shortGrace())
	if !h.remaining {
		switch {
		case h.isHanded:
		case h.lost != nil:
			h.abandon()
		case h.keep > 0 && h.hasFailed(err):
			h.keepSlot(err)
		default:
			h.release()
		}
		h.watchdog.dismiss()
	}
	if h.lost != nil {
		return exitError(exitNotHeld)
	}
	return err
}

// warnOfLimit prints when the command will be ended because the longest hold is over.
func (h *heldRun) warnOfLimit() {
	end := h.deadline.Load()
	if end.at.After(h.lastDeadline) { // the lease was handed over
		return
	}
	last := h.lastDeadline
	if end.isLast {
		last = end.at
	}
	h.say("call-me: %s will have been held for as long as it may be: %s is asked to end in %s",
		h.grant.label(), printable(h.argv[0]), durationText(last.Sub(clockNow())))
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
	p, err := startProcess(path, h.argv, h.commandEnvironment(), h.watchdog.setGroup)
	if err != nil {
		h.watchdog.clearGroup()
		return h.reportCannotStart(err)
	}
	ended := h.await(p, lost, shortGrace)
	if ended && !h.leaveRunning {
		h.endLeftovers(p, lost)
	}
	var names []string
	if ended && !h.leaveRunning {
		names = lastingLeftovers(p)
	}
	h.remaining = !ended || len(names) > 0
	if h.remaining {
		if !ended {
			names = p.foreignNames()
		}
		sayCannotEnd(h.terminal, names, h.grant.label(), h.options.ttl)
		h.watchdog.takeOver(p)
	} else {
		h.watchdog.clearGroup() // before reap, after which the system may reuse the command's process id
	}
	if !ended {
		return exitError(exitOwnFailure)
	}
	err, h.hasEnded = h.code(p.reap()), true
	if h.remaining {
		err = h.codeWithRemaining(err)
	}
	return err
}

// sayCannotEnd prints that processes of a command cannot be ended, and what becomes of
// the slot.
func sayCannotEnd(t *terminal, names []string, slot string, ttl time.Duration) {
	t.say("call-me: cannot end %s; %s is not released: it comes free when that has ended, "+
		"or when the lease ends, in %s at the latest",
		printable(strings.Join(names, ", ")), slot, durationText(ttl))
}

// await waits until the command has ended, and then returns true. It passes signals on to
// the command. If the lease is lost, it sends SIGTERM, and SIGKILL after shortGrace. After
// a signal that asks to end, it sends SIGKILL after the grace. It sets firstSignal, endBy
// and lost. It returns false if the command runs as another user, so that it cannot be
// ended, and a signal asks to end after the grace.
func (h *heldRun) await(p *process, lost <-chan error, shortGrace time.Duration) (ended bool) {
	var kill <-chan time.Time
	killed := false
	for {
		select {
		case <-p.ended:
			// The command may have ended after the deadline while call-me was stopped.
			if deadline := h.deadline.Load(); h.lost == nil && isPast(deadline.at, clockNow()) {
				h.lost = errDeadline
				if deadline.isLast {
					h.lost = errLongestHold
				}
				h.say("call-me: lost %s: %s", h.lostLabel(), h.whyLost())
			}
			return true
		case s := <-h.signals:
			number := s.(syscall.Signal)
			p.signal(number)
			if slices.Contains(endSignals, number) {
				h.reportForeign(p)
				if killed && p.isForeign() {
					return false
				}
				if h.firstSignal == 0 {
					h.firstSignal = number
				}
				if kill == nil {
					kill, h.endBy = time.After(h.grace), time.Now().Add(h.grace)
				}
			}
		case err := <-lost:
			if h.goesOn(err) {
				continue
			}
			h.lost = err
			h.say("call-me: lost %s: %s; ending %s", h.lostLabel(), h.whyLost(), printable(h.argv[0]))
			p.signal(syscall.SIGTERM)
			h.reportForeign(p)
			kill, h.endBy = time.After(shortGrace), time.Now().Add(shortGrace)
		case m := <-p.states:
			switch m {
			case stateNeedsTerminal:
				h.say("call-me: %s waits for the terminal, the lease is renewed; to go on: fg",
					printable(h.argv[0]))
			case stateStopped:
				h.say("call-me: %s is stopped, the lease is renewed; "+
					"to go on: kill -CONT -- -%d; Ctrl-C ends it", printable(h.argv[0]), p.pid())
			}
		case <-kill:
			killed = true
			p.signal(syscall.SIGKILL)
		}
	}
}

// reportForeign prints the processes of the command that call-me may not signal, each once.
func (h *heldRun) reportForeign(p *process) {
	for _, name := range p.foreignNames() {
		if !h.reported[name] {
			h.say("call-me: cannot signal %s; waiting until it ends", printable(name))
		}
		if h.reported == nil {
			h.reported = map[string]bool{}
		}
		h.reported[name] = true
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
			text += "was ended by force by " + cmp.Or(e.By.String(), "an unnamed caller")
		case "released":
			text += "was released"
		case endedByTakeover, endedByHandOver:
			text += endWords(*e)
		default:
			text += e.How.String()
		}
		text += " at " + clockTime(e.At)
	}
	for _, l := range reply.HeldBy {
		isSlot := func(own leaseJSON) bool {
			return own.Environment == l.Environment && own.Slot == l.Slot && own.Fence != l.Fence
		}
		if slices.ContainsFunc(h.grant.all(), isSlot) {
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
			if h.goesOn(err) {
				return false
			}
			h.lost = err
			h.say("call-me: lost %s: %s", h.lostLabel(), h.whyLost())
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

// codeWithRemaining returns exitOwnFailure in the place of an err of code that would say
// that all of the command has ended: zero, or 128+n after a signal to call-me. An exit
// code with which the command itself reports a failure stays.
func (h *heldRun) codeWithRemaining(err error) error {
	if err == nil || h.firstSignal != 0 && err == exitError(128+int(h.firstSignal)) {
		return exitError(exitOwnFailure)
	}
	return err
}

// reportDeadline stores the deadline of the command and sends it to the watchdog.
func (h *heldRun) reportDeadline(deadline commandDeadline) {
	h.deadline.Store(&deadline)
	h.watchdog.setDeadline(deadline.at)
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
	report, err := h.client.releaseRequest(ctx, h.options.names(), h.grant.id, nil)
	if errors.Is(err, errNotHeld) { // no renewal has reported the loss
		h.lost = err
		h.say("call-me: lost %s while %s ran: %s", h.lostLabel(), printable(h.argv[0]), h.whyLost())
		return
	}
	if err != nil {
		h.say("call-me: could not release %s: %s; it comes free when its lease ends, in %s at the latest",
			h.grant.label(), printable(err.Error()), durationText(h.options.ttl))
		return
	}
	if report.endedNothing() {
		h.say("call-me: %s %s handed over or released before", h.grant.label(), wasOrWere(len(h.grant.all())))
		return
	}
	h.say("call-me: released %s, held for %s", h.grant.label(), durationText(time.Since(h.since)))
}

// abandon ends the request of a lost lease after settleTime, within releaseTimeAfterSignal. Of
// several leases it gives back those that are not lost. Errors are ignored: the leases have
// ended already, or end soon.
func (h *heldRun) abandon() {
	time.Sleep(settleTime)
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeAfterSignal)
	defer cancel()
	err := h.client.endRequest(ctx, h.options.environment, h.grant.id, h.options.names()[1:]...)
	_, held := h.splitLost()
	if held != "" && (err == nil || errors.Is(err, errNotHeld)) {
		h.say("call-me: released %s", held)
	}
}
