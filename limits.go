package main

// The limits of what may be sent, and the checks that the server, the client and
// the configuration share.

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The limits of what is sent, in bytes unless they are durations.
const (
	maxHeader      = 16 << 10
	maxURL         = 8 << 10
	maxBody        = 64 << 10
	maxEnvironment = 128
	minID          = 8
	maxID          = 128
	maxHolder      = 256
	maxLink        = 2 << 10
	maxReason      = 1 << 10
	minTTL         = time.Second
	maxTTL         = 30 * 24 * time.Hour
	maxWait        = 5 * time.Minute
	bodyTime       = 5 * time.Second // for a body to arrive
	mostWaiters    = 20_000
	mostFiles      = 1 << 20 // where the system names no limit
	defaultPage    = 100     // events in an answer of GET /history
	largestPage    = 1000    // the same, at the most

	headerTime  = 5 * time.Second  // for the header of a request to arrive
	copyPart    = 256 << 10        // bytes of a copy that a reader must take within answerTime
	copySilence = 30 * time.Second // of the server, while a copy is downloaded
)

// maxWaiters is how many may wait at once: mostWaiters, or what the limit on
// open files allows, less 200 for everybody else.
func maxWaiters() int { return min(mostWaiters, max(1, openFiles()-200)) }

// maxConnections leaves enough files for the database, a copy of it and the
// keys, whatever comes in.
func maxConnections() int { return max(10, openFiles()-50) }

func checkEnvironment(name string) error {
	trimmed := strings.TrimFunc(name, unicode.IsSpace)
	switch {
	case len(name) == 0 || len(name) > maxEnvironment || !utf8.ValidString(name):
		return fmt.Errorf("%w: environment must be 1 to %d bytes of UTF-8", errParameter, maxEnvironment)
	case strings.ContainsFunc(name, unicode.IsControl) || trimmed != name:
		return fmt.Errorf("%w: environment must have no control characters, and no space at either end", errParameter)
	}
	if err := checkUnmistakable(name); err != nil {
		return fmt.Errorf("%w: environment cannot be %q: %v", errParameter, name, err)
	}
	return nil
}

func checkID(id string) error {
	if id == "" {
		return nil
	}
	printable := !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
	if len(id) < minID || len(id) > maxID || !printable {
		return fmt.Errorf("%w: id must be %d to %d printable ASCII characters", errParameter, minID, maxID)
	}
	if err := checkNoCommand(id); err != nil {
		return fmt.Errorf("%w: id cannot be used: %v", errParameter, err)
	}
	return nil
}

// checkHolder refuses what another job's log would show as a command: clients
// that do not know better print it as it is.
func checkHolder(holder string) error {
	if err := checkText("holder", holder, maxHolder); err != nil {
		return err
	}
	if err := checkNoCommand(holder); err != nil {
		return fmt.Errorf("%w: holder cannot be %q: %v", errParameter, holder, err)
	}
	return nil
}

func checkText(name, text string, most int) error {
	if len(text) > most || !utf8.ValidString(text) {
		return fmt.Errorf("%w: %s must be at most %d bytes of UTF-8", errParameter, name, most)
	}
	return nil
}

func checkLink(link string) error {
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || len(link) > maxLink || !utf8.ValidString(link) {
		return fmt.Errorf("%w: url must be an http or https link of at most %d bytes", errParameter, maxLink)
	}
	return nil
}

// tidyReason makes any text a reason: a deploy must not fail for its comment,
// often a commit message. Bytes that are not UTF-8 are replaced, commands of
// CI systems are broken, and what exceeds maxReason is cut off between two
// characters.
func tidyReason(reason string) string {
	reason = breakCommands(strings.ToValidUTF8(reason, "\ufffd"))
	reason = controlString.ReplaceAllString(reason, "?")
	return shorten(reason, maxReason)
}

// tidyLink leaves a link out that is too long or holds a command.
func tidyLink(link string) string {
	if len(link) > maxLink || checkNoCommand(link) != nil {
		return ""
	}
	return link
}

// parseTTL reads a duration of 1 s to 30 days, or 0, which says so and is not
// less than a nanosecond.
func parseTTL(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d == 0 && strings.ContainsAny(text, "-123456789") || d != 0 && (d < minTTL || d > maxTTL) {
		return 0, errParameter
	}
	return d, nil
}

// parseAge reads a duration that may be in days: 7d.
func parseAge(text string) (time.Duration, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, errParameter
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errParameter
	}
	return d, nil
}
