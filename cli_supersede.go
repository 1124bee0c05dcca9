package main

// The flags for newest wins, --supersede of request and run, and for the removal of a waiter,
// --waiter of release.

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// supersedeFlag makes newest win. Its value is optional, see optionalValue.
var supersedeFlag = &cli.StringFlag{
	Name: "supersede",
	Usage: "newest wins: take the place of an older request of this repository, job and branch that waits, " +
		"which ends with exit code 77; `[=KEY]` stands for job and branch: " +
		"each leg of a matrix on GitHub needs one",
}

// waiterFlag removes a waiter.
var waiterFlag = &cli.StringFlag{
	Name:  "waiter",
	Usage: "remove the request with this number from the queue, of any holder; status shows the numbers",
}

// optionalValue returns the word for a flag that may have a value after "=" and takes no further
// word. Without one the library gets an empty value. A value that is empty on the command line
// is missing: it may come from a variable that is unset.
func optionalValue(command *cli.Command, flag cli.Flag, word string) ([]string, error) {
	_, value, hasValue := strings.Cut(word, "=")
	switch {
	case !hasValue:
		return []string{word + "="}, nil
	case value == "":
		return nil, missingValue(command, flag)
	}
	return []string{word}, nil
}

// newestOf returns what --supersede asks for; nil without it. Its errors are usage errors.
func newestOf(c *cli.Context, s *session) (*newestWins, error) {
	if !c.IsSet("supersede") {
		return nil, nil
	}
	for _, other := range []string{"no-wait", "take"} {
		if c.Bool(other) {
			return nil, withHint(usagef("--supersede and --%s exclude each other", other),
				"--supersede ends who waits in the queue; it never ends who has the slot")
		}
	}
	key, err := supersedeKey(c.String("supersede"), os.Getenv)
	if err != nil {
		return nil, withHint(err,
			"say what it is about: call-me "+c.Command.Name+" "+quote(s.name)+" --supersede=deploy-main")
	}
	return &newestWins{key: key}, nil
}

// supersedeKey returns the key of a request: that of the job's series, or with a value the
// repository before the value; only the value outside of a CI job. Its error is a usage error
// if there is no value, and the variables do not tell the series.
func supersedeKey(value string, getenv func(string) string) (string, error) {
	system, repository, key := findSeries(getenv)
	switch {
	case value != "" && repository != "":
		key = repository + "/" + value
	case value != "":
		key = value
	case system == "":
		return "", usagef("--supersede without a key is for CI jobs, " +
			"which say their repository, job and branch")
	case key == "":
		return "", usagef("--supersede needs a key here: "+
			"the variables of %s do not say the repository and the branch", system)
	}
	return shortenHolder(key, maxSupersede), nil
}

// removeWaiter removes the waiter that --waiter names, and prints that. Errors: usage errors,
// and those of client.remove.
func removeWaiter(ctx context.Context, c *cli.Context, t *terminal, s *session) error {
	number, err := strconv.ParseUint(c.String("waiter"), 10, 64)
	if err != nil || number == 0 {
		return withHint(usagef("--waiter: %q is no number of a request", c.String("waiter")),
			"the numbers of those that wait: call-me status "+quote(s.name))
	}
	for _, other := range []string{"fence", "slot", "to", "ttl"} {
		if c.IsSet(other) {
			return usagef("--waiter and --%s exclude each other: a request that waits has no lease", other)
		}
	}
	if len(s.needs) > 1 {
		return withHint(usagef("--waiter is for one environment; the request leaves all its queues"),
			fmt.Sprintf("call-me release %s --waiter %d", quote(s.name), number))
	}
	which := removal{environment: s.name, number: number, by: s.holder, reason: tidyReason(s.config.Reason)}
	if err := s.client.remove(ctx, which, s.reportRetry); err != nil {
		return hintNotWaiting(err, s.name)
	}
	fmt.Fprintf(t.out, "request %d has been removed from the queue of environment: %s\n", number, s.name)
	return nil
}
