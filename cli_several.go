package main

// Commands for several environments: the words of the command line that name them, the slots
// that --slot asks for in each, and the notes of a request for several.

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// takesSeveral reports whether the command takes several environments.
func takesSeveral(command *cli.Command) bool {
	return slices.Contains([]string{"request", "run", "release", "renew"}, command.Name)
}

// environmentWords returns the arguments of a command that name environments, and for run
// the words of the command that it starts, which follow the first "--".
func environmentWords(c *cli.Context) (names, argv []string) {
	words := c.Args().Slice()
	if c.Command.Name != "run" {
		return words, nil
	}
	return cutWords(words)
}

// cutWords returns the words before the first "--", and those after it.
func cutWords(words []string) (before, after []string) {
	i := slices.Index(words, "--")
	if i < 0 {
		return words, nil
	}
	return words[:i], words[i+1:]
}

// beginsCommand reports whether the words after the first environment of run are the command
// that it starts. Without a "--" among them they are. With one, the words before it are further
// environments, unless the first of them is a path or a program and may be meant: what follows
// the "--" is no program, or the server does not know all these words as environments. So
// "run uat npm test -- --grep x" starts npm, and "run uat perf -- ./x" holds perf, on every machine.
func beginsCommand(run *cli.Command, words []string) bool {
	before, after := cutWords(words)
	isPath := slices.ContainsFunc([]string{"./", "../", "/", "~/", `.\`, `..\`}, func(prefix string) bool {
		return strings.HasPrefix(words[0], prefix)
	})
	switch {
	case after == nil || isPath:
		return true
	case !isProgram(words[0]) || takesNoDashes(before):
		return false
	case len(after) == 0 || !isProgram(after[0]):
		return true
	}
	names, areNames := namesAmong(run, before)
	return !areNames || !areKnown(names)
}

// isProgram reports whether a word is the name or the path of a program that can be started.
func isProgram(word string) bool {
	_, err := exec.LookPath(word)
	return err == nil
}

// takesNoDashes reports whether the words are no beginning of a command because their program
// does not take a "--" after them: "test", and "perf" without one of its own commands. Both
// programs are widely installed, and both are usual names of environments.
func takesNoDashes(words []string) bool {
	isCommandOfPerf := len(words) > 1 && slices.Contains([]string{"stat", "record", "trace"}, words[1])
	return words[0] == "test" || words[0] == "perf" && !isCommandOfPerf
}

// namesAmong returns the words that are no flags of run and no values of such flags. It reports
// false if there is another flag among them, or a word that is no name of an environment.
func namesAmong(run *cli.Command, words []string) (names []string, areNames bool) {
	for len(words) > 0 {
		used := words[:1]
		if strings.HasPrefix(words[0], "-") {
			var err error
			if used, err = flagAndValue(run, words); err != nil {
				return nil, false
			}
		} else if checkEnvironment(words[0]) != nil {
			return nil, false
		} else {
			names = append(names, words[0])
		}
		words = words[len(used):]
	}
	return names, true
}

// areKnown reports whether the server knows all the environments. It is false without a
// configuration, and if the server does not answer within a minute: the command itself
// then fails.
func areKnown(names []string) bool {
	var config clientConfig
	if readConfig(&config) != nil {
		return false
	}
	client, err := newClient(config)
	return err == nil && client.knows(context.Background(), names)
}

// notEnvironment is the key of the app's metadata for the word before a "--" that beginsCommand
// has taken for a program, though it may have been meant as an environment.
const notEnvironment = "not an environment"

// sayNotEnvironment prints how a word before "--" was read, if that may be a mistake.
func sayNotEnvironment(c *cli.Context, t *terminal, first string) {
	word, _ := c.App.Metadata[notEnvironment].(string)
	if word == "" {
		return
	}
	t.say("call-me: %s is the command, since there is a program of that name; "+
		"to hold an environment of that name, name it first: call-me run %s %s -- ...",
		printable(word), printable(quote(word)), printable(quote(first)))
}

// slotNeeds returns the slots that the environments and the values of --slot name. A value is
// NAME=SLOT; for one environment it may be the slot alone. The n-th value for a name is for the
// n-th time that the name is given. Its errors are usage errors.
func slotNeeds(names, slots []string) ([]slotNeed, error) {
	var needs []slotNeed
	for _, name := range names {
		needs = append(needs, slotNeed{environment: name})
	}
	for _, value := range slots {
		i := slices.IndexFunc(needs, func(n slotNeed) bool {
			return n.slot == "" && strings.HasPrefix(value, n.environment+"=")
		})
		switch {
		case i >= 0:
			needs[i].slot = strings.TrimPrefix(value, needs[i].environment+"=")
			if needs[i].slot == "" {
				return nil, withHint(usagef("--slot %q names no slot", value), "--slot "+quote(value+"blue"))
			}
		case len(needs) == 1 && needs[0].slot == "":
			needs[0].slot = value
		case len(needs) == 1:
			name := quote(names[0])
			return nil, withHint(usagef("%q is one slot of %q too many", value, names[0]),
				fmt.Sprintf("for two slots: call-me request %s %s --slot %s --slot %s", name, name,
					quote(names[0]+"="+needs[0].slot), quote(names[0]+"="+value)))
		default:
			return nil, withHint(usagef("--slot %q is for none of the environments", value),
				"with several it is NAME=SLOT: --slot "+quote(names[0]+"=blue"))
		}
	}
	return needs, nil
}

// notebooks are the notes of a request: the same note in the notebook of each environment that
// it asks for.
type notebooks map[string]*notebook

// notebooksOf returns the notebooks of the session's environments.
func notebooksOf(s *session, t *terminal) notebooks {
	books := notebooks{}
	for _, n := range s.needs {
		if books[n.environment] == nil {
			books[n.environment] = notebookOf(s, t, n.environment)
		}
	}
	return books
}

// The methods implement acquireNotes.

func (b notebooks) asked(id string) { b.each(func(_ string, n *notebook) { n.asked(id) }) }

func (b notebooks) refused(id string) { b.each(func(_ string, n *notebook) { n.refused(id) }) }

func (b notebooks) dropped(id string) { b.each(func(_ string, n *notebook) { n.dropped(id) }) }

func (b notebooks) granted(id string, leases []leaseJSON) {
	b.each(func(name string, n *notebook) {
		for _, l := range leases {
			if string(l.Environment) == name {
				n.granted(id, l.Fence)
			}
		}
	})
}

func (b notebooks) has(fence uint64) bool {
	found := false
	b.each(func(_ string, n *notebook) { found = found || n.has(fence) })
	return found
}

// each calls f for each environment and its notebook, in the order of the names.
func (b notebooks) each(f func(name string, n *notebook)) {
	var names []string
	for name := range b {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f(name, b[name])
	}
}

// releaseAll releases the leases of all selectors. Those that the newest notes of their
// environments name as one request are ended in one call, the others one after the other.
// An error holds up none of the further ones: it is printed, and the exit code is that of the
// first.
func releaseAll(ctx context.Context, t *terminal, s *session, all []leaseSelector, force bool) error {
	if len(all) == 1 {
		return releaseSlot(ctx, t, s, all[:1], force, "")
	}
	var order []string
	groups := map[string][]leaseSelector{}
	for i, which := range all {
		group := fmt.Sprint(i)
		newest, isNoted := notebookOf(s, t, which.environment).newest()
		if isNoted && newest.state == noteGranted && newest.id != "" && !force && which.slot == "" {
			group = "id " + newest.id
		}
		if groups[group] == nil {
			order = append(order, group)
		}
		if !slices.Contains(environmentsOf(groups[group]), which.environment) {
			groups[group] = append(groups[group], which)
		}
	}
	code := 0
	for _, group := range order {
		err := releaseSlot(ctx, t, s, groups[group], force, "\n")
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			t.fail(err)
			if code == 0 {
				code = exitCode(err)
			}
		}
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// environmentsOf returns the environments of the selectors.
func environmentsOf(all []leaseSelector) []string {
	var names []string
	for _, which := range all {
		names = append(names, which.environment)
	}
	return names
}

// renewAll renews the lease of each selector, in their order, with the ttl, or with their own if
// ttl is nil. It stops at the first that is not held. Errors: those of session.renew.
func renewAll(
	ctx context.Context, s *session, all []leaseSelector, ttl *time.Duration, report onRetry,
) (renewed grantedJSON, err error) {
	for _, which := range all {
		lease, err := s.renew(ctx, which, ttl, report)
		if err != nil {
			return renewed, hintNotHeld(err, which)
		}
		renewed.Leases = append(renewed.Leases, lease)
	}
	renewed.leaseJSON = renewed.Leases[0]
	if len(all) == 1 {
		renewed.Leases = nil
	}
	return renewed, nil
}

// renewAgain renews what the holder has of a request, for request --again. It reports false if
// it has none of it. If it has only a part, the error wraps errNotHeld: to wait for the rest
// while it has that part could be to wait in a circle.
func renewAgain(
	ctx context.Context, s *session, options acquireOptions, report onRetry,
) (held grantedJSON, found bool, err error) {
	var lost error
	for _, which := range s.leaseSelectors() {
		which.fence = 0
		lease, err := s.renew(ctx, which, &options.ttl, report)
		if allowed, mayBegin := options.withAllowedTTL(err); mayBegin {
			options = allowed
			lease, err = s.renew(ctx, which, &options.ttl, report)
		}
		switch {
		case errors.Is(err, errNotHeld):
			lost = err
		case err != nil:
			return held, false, err
		default:
			held.Leases = append(held.Leases, lease)
		}
	}
	switch {
	case len(held.Leases) == 0:
		return held, false, nil
	case lost != nil:
		var names []string
		for _, l := range held.Leases {
			names = append(names, quote(l.Environment.String()))
		}
		return held, false, withHint(lost,
			"you have only a part; first give it back: call-me release "+strings.Join(names, " "))
	}
	held.leaseJSON = held.Leases[0]
	if options.needs == nil {
		held.Leases = nil
	}
	return held, true, nil
}
