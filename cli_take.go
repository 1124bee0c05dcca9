package main

// The flags by which a lease changes hands: request --take, release --to, and run
// --keep-on-failure.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
)

// takeFlag takes a lease over.
var takeFlag = boolFlag("take", "take the slot over from its holder, before the queue; --reason says why")

// toFlag hands a lease over.
var toFlag = &cli.StringFlag{
	Name: "to", Usage: "hand the slot over to this holder, not to the queue, with --ttl and --reason"}

// keepFlag keeps the slot of a command that fails.
var keepFlag = &cli.StringFlag{
	Name: "keep-on-failure", Usage: "when the command fails, keep the slot for so long, such as 2h"}

// checkTake returns a usage error for flags of request that --take excludes.
func checkTake(c *cli.Context, s *session) error {
	switch {
	case !c.Bool("take"):
	case len(s.needs) > 1:
		return withHint(usagef("--take is for one environment"), "call-me request "+quote(s.name)+" --take")
	case c.Bool("again"):
		return usagef("--take and --again exclude each other")
	case c.Bool("no-wait"):
		return withHint(usagef("--take and --no-wait exclude each other"), "--take never waits in the queue")
	}
	return nil
}

// takeSlot takes a lease over and prints the new one in the given form, and from whom it was
// taken. It returns the errors of client.takeOver with a hint, and an error if stdout did not
// accept the result; the slot is given back then.
func takeSlot(ctx context.Context, t *terminal, s *session, options acquireOptions, form resultForm) error {
	w := t.newWaitDisplay(options, form)
	defer w.done()
	g, taken, err := s.client.takeOver(ctx, options, w)
	if err != nil {
		return hintNotTaken(err, options)
	}
	if w.outputErr != nil {
		s.client.endOnce(options.environment, g.id)
		options.notes.refused(g.id)
		return fmt.Errorf("the slot was given back, because its name could not be written to stdout: %w",
			w.outputErr)
	}
	t.tookOver(taken)
	return nil
}

// hintNotTaken adds a hint for a caller who could not take a slot over.
func hintNotTaken(err error, o acquireOptions) error {
	var over overError
	isOver := errors.As(err, &over)
	switch {
	case isOver && len(over.HeldBy) > 0:
		return withHint(err, "to take over what is held now: call-me request "+o.words()+" --take")
	case isOver, errors.Is(err, errFree):
		return withHint(err, "to take a slot: call-me request "+o.words())
	}
	return err
}

// handOverOf returns the hand-over that --to, --ttl and --reason of release ask for; the zero
// one without --to. Its errors are usage errors.
func handOverOf(c *cli.Context, s *session) (handOver, error) {
	if !c.IsSet("to") {
		what := "--to"
		for _, name := range []string{"ttl", "reason"} {
			if name == "reason" && c.Bool("force") {
				continue
			}
			if name == "reason" {
				what = "--to and --force"
			}
			if c.IsSet(name) {
				return handOver{}, withHint(usagef("release has --%s for %s only", name, what),
					"call-me release "+quote(s.name)+" --to ann --"+name+" ...")
			}
		}
		return handOver{}, nil
	}
	if c.Bool("force") {
		return handOver{}, withHint(usagef("--to and --force exclude each other"),
			"to take it from its holder first: call-me request "+quote(s.name)+" --take")
	}
	o := s.acquireOptions()
	h := handOver{to: c.String("to"), ttl: o.ttl, anyTTL: o.anyTTL, reason: s.config.Reason}
	if err := checkHolder(h.to); err != nil {
		return h, usagef("--to: %s", withoutKind(err))
	}
	return h, nil
}

// handAll hands the leases of all selectors over, those that the newest notes of their
// environments name as one request together. It stops at the first error, which is that of
// client.handOver with a hint.
func handAll(ctx context.Context, t *terminal, s *session, all []leaseSelector, h handOver) error {
	done := map[string]bool{}
	for _, which := range all {
		if done[which.environment] && which.slot == "" {
			continue
		}
		done[which.environment] = true
		notes := notebookOf(s, t, which.environment)
		newest, isNoted := notes.newest()
		isNoted = isNoted && which.fence == 0 && which.slot == ""
		together := []string{which.environment}
		var report releaseReport
		var err error
		switch {
		case isNoted && newest.state != noteGranted:
			return withHint(
				fmt.Errorf("%w: the last request here got no slot on %s", errNotHeld, which.environment),
				"to hand over that of an earlier one, name it by --slot or --fence")
		case isNoted && newest.id != "":
			for _, other := range all {
				same, _ := notebookOf(s, t, other.environment).newest()
				if !done[other.environment] && other.slot == "" && same.id == newest.id {
					together = append(together, other.environment)
					done[other.environment] = true
				}
			}
			selected := requestSelector(together[0], newest.id, together[1:]...)
			report, err = s.client.handOver(ctx, selected, h, s.reportRetry)
		default:
			if isNoted {
				which.fence = newest.fence
			}
			report, err = s.client.handOverHeld(ctx, which, h, s.reportRetry)
		}
		if err != nil {
			return hintNotHeld(err, which)
		}
		h.ttl = report.ttl
		if isNoted {
			for _, name := range together {
				notebookOf(s, t, name).close(newest)
			}
		} else if report.fence != 0 {
			notes.closeFence(report.fence)
		}
		o := acquireOptions{environment: together[0]}
		for _, name := range together {
			o.needs = append(o.needs, slotNeed{environment: name})
		}
		t.handedOver(together, o.words(), h, report.endedNothing())
	}
	return nil
}

// keepTime returns how long run keeps the slot of a command that fails; zero if it does not.
// Its error is a usage error.
func keepTime(c *cli.Context) (time.Duration, error) {
	if !c.IsSet("keep-on-failure") {
		return 0, nil
	}
	d, err := parseTTL(c.String("keep-on-failure"))
	if err != nil || d == 0 {
		return 0, usagef("--keep-on-failure: %q is no time from %s to %s, such as 2h",
			c.String("keep-on-failure"), durationText(minTTL), durationText(maxTTL))
	}
	return d, nil
}
