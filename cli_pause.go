package main

// The commands pause and resume.

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"
)

// pausedSlotFlag is the slot that pause and resume mean.
var pausedSlotFlag = &cli.StringFlag{Name: "slot", Usage: "only this slot of the environment"}

func pauseCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "give nobody new a slot: for maintenance, or a freeze",
		ArgsUsage: "ENV | --all",
		Description: `
   Nobody new gets a slot. Holders keep theirs, and waiters stay in the queue and are told why.
   If the same holder pauses again, the pause is changed.

   call-me pause uat --for 2h --reason "database upgrade" --wait
   call-me pause uat --slot blue
   call-me pause --all --reason "freeze for the release"`,
		Flags: append(configFlags("reason", "holder"),
			pausedSlotFlag,
			boolFlag("all", "all environments of the server, also those that come later"),
			&cli.StringFlag{Name: "for",
				Usage: "it ends by itself after this time (default: when it is resumed)"},
			boolFlag("wait", "return when the last holder has gone"),
			boolFlag("force", "replace the pause of somebody else"),
		),
		Action: func(c *cli.Context) error {
			s, target, err := pauseSession(c, t)
			if err != nil {
				return err
			}
			o := pauseOptions{holder: s.holder, reason: tidyReason(s.config.Reason), force: c.Bool("force")}
			if text := c.String("for"); text != "" {
				if o.length, err = parseTTL(text); err != nil {
					return usagef("--for: %q is not a duration such as 90s or 2h, from %v to %v",
						text, minTTL, durationText(maxTTL))
				}
			}
			return pauseSlots(c.Context, t, s, target, o, c.Bool("wait"))
		},
	}
}

func resumeCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "end a pause",
		ArgsUsage: "ENV | --all",
		Description: `
   Ends exactly the pause that is named, whoever has made it, and says what is still paused:
   all environments, the environment, and its slots are paused and resumed each for itself.

   call-me resume uat
   call-me resume uat --slot blue
   call-me resume --all`,
		Flags: append(configFlags("holder"),
			pausedSlotFlag,
			boolFlag("all", "the pause of all environments"),
		),
		Action: func(c *cli.Context) error {
			s, target, err := pauseSession(c, t)
			if err != nil {
				return err
			}
			ended, err := s.client.resume(c.Context, target, s.holder, s.reportRetry)
			if err != nil {
				return err
			}
			t.resumed(target, ended)
			return nil
		},
	}
}

// pauseSession returns the session of pause or resume, and what it names. Its errors are those of
// newSession, and usage errors.
func pauseSession(c *cli.Context, t *terminal) (*session, pauseTarget, error) {
	name, command := c.Args().First(), "call-me "+c.Command.Name
	switch {
	case c.Bool("all") && name != "":
		return nil, pauseTarget{}, withHint(usagef("--all is every environment, and not only %q", name),
			command+" --all, or "+command+" "+quote(name))
	case c.Bool("all") && c.IsSet("slot"):
		return nil, pauseTarget{}, withHint(usagef("--all and --slot exclude each other"),
			command+" uat --slot "+quote(c.String("slot")))
	case c.Args().Len() > 1:
		return nil, pauseTarget{}, withHint(
			usagef("%s takes one environment, but got %q too", c.Command.Name, c.Args().Get(1)),
			"one call for each, or all of them: "+command+" --all")
	}
	s, err := newSession(c, t, !c.Bool("all"))
	return s, pauseTarget{name, c.String("slot")}, err
}

// pauseSlots pauses the target, prints it, and with wait returns when the last holder has gone.
// An interrupt ends the wait, and the pause stays. Errors: those of client.pause, with a hint,
// and of client.waitForHolders.
func pauseSlots(
	ctx context.Context, t *terminal, s *session, target pauseTarget, o pauseOptions, wait bool,
) error {
	made, err := s.client.pause(ctx, target, o, s.reportRetry)
	if errors.Is(err, errPaused) {
		return withHint(err, "to replace it: call-me pause "+targetWords(target)+" --force")
	}
	if err != nil {
		return err
	}
	t.paused(target, made, wait)
	if !wait {
		return nil
	}
	held := func(leases []leaseJSON) { t.holders(leases) }
	report := func(err error, until time.Time) { s.reportRetry(err, until) }
	err = s.client.waitForHolders(ctx, target, held, report)
	switch {
	case ctx.Err() != nil:
		t.say("interrupted: %s stays paused", pausedName(made.Pause))
	case errors.Is(err, errResumed):
		return withHint(err, "who has ended it: call-me history")
	case err == nil:
		t.say("nobody holds a slot of it")
	}
	return err
}
