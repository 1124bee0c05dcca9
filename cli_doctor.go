package main

// The command doctor: what a job needs to know before its first request, one line each.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func doctorCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "check the way to the server, the key, and who this job is",
		Description: `
   Prints a line for each server of HOST, its clock, the key with its role and limits, the holder that
   this job would be with the variables that it is made of, and what that holder has. Changes nothing,
   and never prints the key. Exits with 1 if something is wrong.

   call-me doctor`,
		UsageText: variables(&clientConfig{}),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("doctor takes no argument, but got %q", c.Args().First())
			}
			s, err := newSession(c, t, false)
			if err != nil {
				return err
			}
			return examineAll(c.Context, t, s)
		},
	}
}

// examineAll prints what doctor has found. The error is exitError(exitFailed) if something
// is wrong, which it has printed then.
func examineAll(ctx context.Context, t *terminal, s *session) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t.out, "%-7s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	isWell, isServed := true, false
	wrong := func(name string, err error) {
		isWell = false
		var h hinted
		text := "WRONG: " + err.Error()
		if errors.As(err, &h) {
			text += "; hint: " + strings.ReplaceAll(h.hint, "\n", " ")
		}
		line(name, "%s", text)
	}
	for _, report := range s.client.examine(ctx) {
		if report.err != nil {
			wrong("server", report.err)
			continue
		}
		proxy := cmp.Or(report.proxy, "none")
		line("server", "%s answers; %s, proxy: %s, API version %s",
			report.base, report.protocol, proxy, report.version)
		if report.isTimed {
			line("clock", "%s", clockText(report.ahead))
		}
		if report.keyErr != nil {
			wrong("key", report.keyErr)
			continue
		}
		line("release", "%s; this client is %s", cmp.Or(report.release, "not told"), version())
		rights := ""
		if report.key != nil {
			rights = "; " + report.key.text()
		}
		line("key", "accepted, from %s%s", s.client.keyVariable(), rights)
		isServed = true
	}
	line("holder", "%s, from %s", s.holder, holderSource(s))
	if isServed {
		all, err := s.client.environments(ctx, "")
		if err != nil {
			wrong("holds", err)
		} else {
			line("holds", "%s", heldText(all, s.holder))
		}
	}
	if !isWell {
		return exitError(exitFailed)
	}
	return nil
}

// clockText says how far the server's clock is from the local one. A difference is not
// wrong: leases are durations, and only the times that are shown differ.
func clockText(ahead time.Duration) string {
	switch {
	case ahead.Abs() < 2*time.Second:
		return "the server's is the same as this machine's"
	case ahead > 0:
		return "the server's is " + durationText(ahead) + " ahead of this machine's; no lease is affected"
	}
	return "the server's is " + durationText(-ahead) + " behind this machine's; no lease is affected"
}

// holderSource returns what the session's holder is made of: the names of variables, or the
// user and the machine.
func holderSource(s *session) string {
	if s.config.Holder != "" {
		return "CALL_ME_HOLDER"
	}
	var read []string
	holder, _ := whoAmI(func(name string) string {
		value := os.Getenv(name)
		if value != "" && !slices.Contains(read, name) {
			read = append(read, name)
		}
		return value
	})
	if holder == userAtHost(os.Getenv) || len(read) == 0 {
		return "the user and the machine: no CI system is recognised"
	}
	return strings.Join(read, ", ")
}

// heldText returns the slots that the holder has and the queues that it is in.
func heldText(all environmentsJSON, holder string) string {
	var texts []string
	for _, e := range all.Environments {
		for _, slot := range e.Slots {
			if slot.Lease == nil || string(slot.Lease.Holder) != holder {
				continue
			}
			text := fmt.Sprintf("%s since %s", slot.Slot, clockTime(slot.Lease.Since))
			if slot.Slot != e.Environment {
				text = fmt.Sprintf("%s of %s since %s", slot.Slot, e.Environment, clockTime(slot.Lease.Since))
			}
			texts = append(texts, text)
		}
		for _, w := range e.Queue {
			if string(w.Holder) == holder {
				texts = append(texts, fmt.Sprintf("%s for %s", queuePosition(w.Position), e.Environment))
			}
		}
	}
	return cmp.Or(strings.Join(texts, "; "), "nothing")
}
