package main

// The commands release and renew, and the notes that release and request share: which request
// of this job or script a release means.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

func releaseCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give a slot back",
		ArgsUsage: "ENV...",
		Description: `
   Ends the lease of this holder, and of nobody else. Safe to repeat. If this holder had none, a line
   on stderr says so, and who has the slot now.

   call-me release uat
   call-me release uat perf
   CALL_ME_HOLDER=nightly-42 call-me release uat
   call-me release uat --force --reason "its job is dead"
   call-me release uat --to ann --ttl 2h --reason "please test"
   call-me release uat --waiter 1785312000001 --reason stuck`,
		Flags: append(configFlags("holder", "fence"),
			slotFlag,
			boolFlag("force", "end the lease of any holder; the history says who did"),
			toFlag,
			waiterFlag,
			configFlags("ttl=2h")[0], configFlags("reason")[0],
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			if c.IsSet("waiter") {
				return removeWaiter(c.Context, c, t, s)
			}
			hand, err := handOverOf(c, s)
			if err != nil {
				return err
			}
			if hand.to != "" {
				return handAll(c.Context, t, s, s.leaseSelectors(), hand)
			}
			return releaseAll(c.Context, t, s, s.leaseSelectors(), c.Bool("force"))
		},
	}
}

func renewCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "keep a slot for longer",
		ArgsUsage: "ENV...",
		Description: `
   Extends your lease: restarts its ttl, or sets a new one with --ttl.

   call-me renew uat
   call-me renew uat perf
   call-me renew uat --ttl 4h`,
		Flags: append(configFlags("ttl", "holder", "fence"),
			slotFlag,
			boolFlag("json", "print the lease as JSON"),
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			renewed, err := renewAll(c.Context, s, s.leaseSelectors(), s.config.TTL.chosen, s.reportRetry)
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return t.jsonLeases(renewed)
			}
			fmt.Fprintln(t.out, grantedSentence(renewed, s.acquireOptions()))
			return nil
		},
	}
}

// releaseSlot ends the lease that the caller means, and prints what has happened. A caller
// that names no fence, no slot and no force means the newest request of this job or
// script, by its notes: its lease, or nothing if it got none. Without notes, and after
// request --again, it means the lease of its holder. all has one selector, or those of the
// environments of one request, which is then ended in all of them. end follows what is
// printed on stdout. Errors: those of client.release and client.releaseRequest.
func releaseSlot(
	ctx context.Context, t *terminal, s *session, all []leaseSelector, force bool, end string,
) error {
	which, notes := all[0], notebookOf(s, t, all[0].environment)
	isExplicit := force || which.fence != 0 || which.slot != ""
	newest, isNoted := notes.newest()
	names := environmentsOf(all)
	var report releaseReport
	var err error
	switch {
	case isExplicit || !isNoted:
		report, err = s.client.release(ctx, which, force, tidyReason(s.config.Reason), s.reportRetry)
	case newest.state != noteGranted:
		notes.close(newest)
		t.released(which.environment, end)
		t.releasedNoRequest(which.environment, newest.state == noteAsked)
		return nil
	case newest.id == "":
		which.fence = newest.fence
		report, err = s.client.release(ctx, which, false, "", s.reportRetry)
	default:
		report, err = s.client.releaseRequest(ctx, names, newest.id, s.reportRetry)
	}
	if isNoted && !isExplicit && (err == nil || errors.Is(err, errNotHeld)) {
		for _, name := range names {
			notebookOf(s, t, name).close(newest)
		}
	}
	if err != nil && len(names) > 1 && errors.Is(err, errNotHeld) {
		return withHint(err, "the others of "+andText(names)+" are free now")
	}
	if err != nil {
		return hintNotHeld(err, which)
	}
	if report.fence != 0 {
		notes.closeFence(report.fence)
	}
	for _, name := range names {
		t.released(name, end)
	}
	if report.endedNothing() {
		all, _ := s.client.environments(ctx, "") // without it there is less to say
		t.releasedNothing(which, force, all)
	}
	return nil
}

// notebookOf returns the notes of this job or script for the session's server, holder and
// folder, and an environment. In the job of a CI system they are also those of the job and of its
// part alone: another job with the same holder has its own.
func notebookOf(s *session, t *terminal, environment string) *notebook {
	job, part, folder := jobOf(os.Getenv)
	here, err := os.Getwd()
	if err == nil {
		if real, err := filepath.EvalSymlinks(here); err == nil {
			here = real
		}
	}
	key := []string{strings.Join(s.config.Host, ","), environment, s.holder, here, job, part}
	report := func(text string) { t.say("call-me: %s", printable(text)) }
	return newNotebook(key, noteFolders(folder), job != "", report)
}

// readOnlyNotes are the notes of a run, which makes none: its command finds the run by the
// variables that run sets.
type readOnlyNotes struct{ notebooks }

func (readOnlyNotes) asked(string)                {}
func (readOnlyNotes) granted(string, []leaseJSON) {}
func (readOnlyNotes) refused(string)              {}
func (readOnlyNotes) dropped(string)              {}
