package main

// A run whose lease changes hands: the slot of a command that has failed is kept under the
// name of the holder, and a lease that was handed over is not renewed any more.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxCommandText is the largest number of bytes of a command in a reason.
const maxCommandText = 100

// signalTime is how long run waits for a signal of its own after a command that has ended as
// by one: a cancel signals both, and call-me may hear of the command first.
const signalTime = 200 * time.Millisecond

// leaseTime is how far the deadline is of a command whose lease was handed over: it has none.
const leaseTime = 10 * 365 * 24 * time.Hour

// goesOn reports whether err, why a renewal has failed, is that all leases were handed over.
// The command goes on then, without a lease and without a deadline.
func (h *heldRun) goesOn(err error) bool {
	if !isHandedOver(err) {
		return false
	}
	var reply *apiError
	errors.As(err, &reply)
	h.isHanded = true
	h.reportDeadline(commandDeadline{at: clockNow().Add(leaseTime)})
	words, lease := endWords(*reply.Ended), "the lease is"
	if n := len(h.grant.all()); n > 1 {
		words, lease = wasOrWere(n)+strings.TrimPrefix(words, "was"), "the leases are"
	}
	h.say("call-me: %s %s; %s goes on, %s not renewed any more", h.grant.label(),
		printable(words), printable(h.argv[0]), lease)
	return true
}

// A handedList is the environments of a run whose leases were handed over, while it has
// others, and the fences of single leases of which that is so. Several goroutines may use it.
type handedList struct {
	mu     sync.Mutex
	names  []string
	fences []uint64
}

// addFence adds the fence of a lease that was handed over, while another of its environment is
// held.
func (l *handedList) addFence(fence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fences = append(l.fences, fence)
}

// missing returns the leases of the environments which the answer to their renewal does not
// have, without those of the list. It reports false if the answer has another lease.
func (l *handedList) missing(own grantedJSON, names []string, renewed grantedJSON) ([]leaseJSON, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := own.only(names).Leases
	for _, r := range renewed.all() {
		i := slices.IndexFunc(left, func(l leaseJSON) bool { return l.Fence == r.Fence })
		if i < 0 {
			return nil, false
		}
		left = slices.Delete(left, i, i+1)
	}
	isHanded := func(lease leaseJSON) bool { return slices.Contains(l.fences, lease.Fence) }
	return slices.DeleteFunc(left, isHanded), true
}

// add adds the environment that err names, if err is that its lease was handed over, and
// reports whether a lease of the other names is left.
func (l *handedList) add(err error, all []string) bool {
	var reply *apiError
	if !isHandedOver(err) || !errors.As(err, &reply) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, string(reply.Environment))
	return len(l.without(all)) > 0
}

// left returns the names without those of the list; all if none would be left.
func (l *handedList) left(all []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if names := l.without(all); len(names) > 0 {
		return names
	}
	return all
}

// without is left without its exception. The caller holds mu.
func (l *handedList) without(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(l.names, n) })
}

// checkMissing asks how leases ended that a renewal of the request left out, because others of
// the same environment live. The error is that of the first that was not handed over.
func (h *heldRun) checkMissing(ctx context.Context, missing []leaseJSON) error {
	for _, l := range missing {
		values := requestSelector(string(l.Environment), h.grant.id)
		values.Set("fence", strconv.FormatUint(l.Fence, 10))
		var renewed grantedJSON
		err := h.client.do(ctx, h.client.callLimit(), "PUT", "/maybe", values, &renewed)
		if !isHandedOver(err) {
			return err
		}
		h.handed.addFence(l.Fence)
	}
	return nil
}

// hasFailed reports whether the command was run and has failed by itself: not by a signal
// that asked call-me to end, and not because its lease was lost. err is that of command.
func (h *heldRun) hasFailed(err error) bool {
	var code exitError
	if !errors.As(err, &code) || !h.hasEnded || h.firstSignal != 0 || h.lost != nil {
		return false
	}
	wait := time.Duration(0)
	if slices.ContainsFunc(endSignals, func(s syscall.Signal) bool { return int(code) == 128+int(s) }) {
		wait = signalTime
	}
	select {
	case s := <-h.signals:
		if number := s.(syscall.Signal); slices.Contains(endSignals, number) {
			h.firstSignal = number
			return false
		}
	case <-time.After(wait):
	}
	return true
}

// keepSlot keeps the slot for h.keep under the name of the holder, and prints how it is given
// back. If that fails within releaseTime, nothing is released: the lease ends after its ttl.
func (h *heldRun) keepSlot(code error) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	names := h.options.names()
	selected := requestSelector(names[0], h.grant.id, names[1:]...)
	holder := string(h.grant.all()[0].Holder) // as the server has it: with what a token proves
	kept := handOver{to: holder, ttl: h.keep, reason: h.keepReason(code)}
	report, err := h.client.handOver(ctx, selected, kept, nil)
	switch {
	case errors.Is(err, errNotHeld): // no renewal has reported the loss
		h.lost = err
		h.say("call-me: lost %s while %s ran: %s", h.lostLabel(), printable(h.argv[0]), h.whyLost())
	case err != nil:
		h.say("call-me: could not keep %s: %s; it comes free when its lease ends, in %s at the latest",
			h.grant.label(), printable(err.Error()), durationText(h.options.ttl))
	case report.endedNothing():
		h.say("call-me: %s %s handed over before", h.grant.label(), wasOrWere(len(h.grant.all())))
	default:
		h.say("call-me: %s has failed; %s %s kept for you until %s (%s)", printable(h.argv[0]),
			h.grant.label(), isOrAre(len(h.grant.all())), clockTime(h.now().Add(report.ttl)),
			durationText(report.ttl))
		h.say("hint: to give it back: call-me release %s --holder %s", printable(h.options.words()),
			printable(quote(holder)))
	}
}

// keepReason returns the reason of a slot that is kept: the exit code and the command. Everyone
// sees it, so a command that has the API key in it is left out.
func (h *heldRun) keepReason(code error) string {
	text := fmt.Sprintf("kept: exit %d", exitCode(code))
	var words []string
	for _, word := range h.argv {
		words = append(words, quote(word))
	}
	command := strings.Join(words, " ")
	key, token := h.client.key.Load(), h.client.lastToken()
	if key != nil && strings.Contains(command, *key) || token != "" && strings.Contains(command, token) {
		return text
	}
	return text + "; " + shorten(command, maxCommandText)
}
