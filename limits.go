package main

// The limits of what may be sent, and the checks and the repairs of names, ids, texts and
// durations that the server, the client and the configuration share. Errors of the checks
// are errParameter.

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The limits of what is sent, in bytes unless they are durations.
const (
	maxHeader      = 16 << 10 // of a request, its first line included
	maxURL         = 8 << 10
	maxBody        = 64 << 10 // of a request, and of an answer that is only looked at for an error
	maxEnvironment = 128      // the name
	minID          = 8
	maxID          = 128
	maxHolder      = 256
	maxLink        = 2 << 10
	maxReason      = 1 << 10
	maxSupersede   = 256
	maxPriority    = 100 // and the smallest is -maxPriority
	minTTL         = time.Second
	maxTTL         = 30 * 24 * time.Hour
	maxWait        = 5 * time.Minute  // of one poll; a longer one is shortened
	headerTime     = 5 * time.Second  // for the header of a request to arrive
	bodyTime       = 5 * time.Second  // for the body of a request to arrive
	copyPart       = 32 << 10         // of a copy that a reader must accept within writeTime
	copySilence    = 30 * time.Second // without a byte from the server while a copy is downloaded
)

// Numbers of waiters, files and events.
const (
	maxWaiting  = 20_000  // that may wait at once
	maxFiles    = 1 << 20 // that may be open if the system's limit is higher or unknown
	defaultPage = 100     // events in an answer of GET /history
	maxPage     = 1000    // the same, at most
)

// maxWaiters returns the number of callers that may wait at once: maxWaiting, or the limit
// of open files less 200 for other connections and files if that is smaller. It is at
// least 1.
func maxWaiters() int { return min(maxWaiting, max(1, openFiles()-200)) }

// maxConnections returns the number of connections that the server accepts at once: the
// limit of open files less 50, so that files remain for the database, a copy of it and
// the keys. It is at least 10.
func maxConnections() int { return max(10, openFiles()-50) }

// checkEnvironment returns an error unless name can be the name of an environment: 1 to
// maxEnvironment bytes of UTF-8 without control characters and without white space at
// either end, that cannot be mistaken for another name or for a command of a CI system.
func checkEnvironment(name string) error {
	trimmed := strings.TrimFunc(name, unicode.IsSpace)
	switch {
	case len(name) == 0 || len(name) > maxEnvironment || !utf8.ValidString(name):
		return fmt.Errorf("%w: environment must be 1 to %d bytes of UTF-8", errParameter, maxEnvironment)
	case strings.ContainsFunc(name, unicode.IsControl) || trimmed != name:
		return fmt.Errorf("%w: environment must have no control characters, and no space at either end",
			errParameter)
	}
	if err := checkUnmistakable(name); err != nil {
		return fmt.Errorf("%w: environment cannot be %q: %v", errParameter, name, err)
	}
	return nil
}

// checkID returns an error unless id is empty or can be the id of a request: minID to maxID
// printable ASCII characters without a command of a CI system.
func checkID(id string) error {
	if id == "" {
		return nil
	}
	isPrintable := !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
	if len(id) < minID || len(id) > maxID || !isPrintable {
		return fmt.Errorf("%w: id must be %d to %d printable ASCII characters", errParameter, minID, maxID)
	}
	if err := checkNoCommand(id); err != nil {
		return fmt.Errorf("%w: id cannot be used: %v", errParameter, err)
	}
	return nil
}

// checkHolder returns an error unless holder is empty, or at most maxHolder bytes of UTF-8 with
// more than white space and without a command of a CI system. Clients other than call-me print
// the holder unchanged in the logs of other jobs.
func checkHolder(holder string) error {
	if err := checkText("holder", holder, maxHolder); err != nil {
		return err
	}
	if holder != "" && strings.TrimSpace(holder) == "" {
		return fmt.Errorf("%w: holder must not be only white space", errParameter)
	}
	if err := checkNoCommand(holder); err != nil {
		return fmt.Errorf("%w: holder cannot be %q: %v", errParameter, holder, err)
	}
	return nil
}

// checkText returns an error, with the name of the parameter, unless text is at most most
// bytes of UTF-8.
func checkText(name, text string, most int) error {
	if len(text) > most || !utf8.ValidString(text) {
		return fmt.Errorf("%w: %s must be at most %d bytes of UTF-8", errParameter, name, most)
	}
	return nil
}

// checkLink returns an error unless link is empty or an http or https URL with a host, of at
// most maxLink bytes of UTF-8.
func checkLink(link string) error {
	if link == "" {
		return nil
	}
	u, err := url.Parse(link)
	isURL := err == nil && u.Hostname() != "" && (u.Scheme == "http" || u.Scheme == "https")
	if !isURL || len(link) > maxLink || !utf8.ValidString(link) {
		return fmt.Errorf("%w: url must be an http or https link of at most %d bytes", errParameter, maxLink)
	}
	return nil
}

// tidyReason makes any text a valid reason: a reason is often a commit message, and must
// not make a deployment fail. Bytes that are not UTF-8 are replaced, commands of CI
// systems are broken, and a text over maxReason bytes is shortened between two characters.
func tidyReason(reason string) string {
	reason = breakCommands(strings.ToValidUTF8(reason, "\ufffd"))
	reason = controlString.ReplaceAllString(reason, "?")
	return shorten(reason, maxReason)
}

// tidyLink returns the link, or an empty one if it is longer than maxLink or has a command of
// a CI system.
func tidyLink(link string) string {
	if len(link) > maxLink || checkNoCommand(link) != nil {
		return ""
	}
	return link
}

// parseTTL returns a duration from minTTL to maxTTL, or zero, for a lease without end. It
// reads what parseDuration reads. A text such as "-0s" or "0.1ns", which Go reads as zero,
// is an error. Its errors continue "TEXT is".
func parseTTL(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	isRoundedToZero := d == 0 && strings.ContainsAny(text, "-123456789")
	switch {
	case err != nil:
		return 0, err
	case isRoundedToZero, d != 0 && d < minTTL:
		return 0, errors.New("too short; the shortest ttl is 1s, and 0 is a lease without end")
	case d > maxTTL:
		return 0, errors.New("too long; the longest ttl is 30d")
	}
	return d, nil
}

// maxDays is the largest number of days that parseDuration reads.
const maxDays = 36500

// parseDuration returns a duration that is zero or more: one of Go, such as 90s or 1h30m, or
// a number of days of 24 hours, such as 7d. Its errors continue "TEXT is", and say what to
// write instead.
func parseDuration(text string) (time.Duration, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.Atoi(days)
		if err == nil && n >= 0 && n <= maxDays {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, durationMistake(text)
	case d < 0:
		return 0, negative(text)
	}
	return d, nil
}

// negative returns the error for a duration that is less than zero.
func negative(text string) error {
	return fmt.Errorf("negative; write %s", strings.TrimLeft(text, " -"))
}

// looseDuration matches a number with any unit, or with none.
var looseDuration = regexp.MustCompile(`^\s*([-+]?)(\d{1,6}(?:\.\d+)?)\s*([A-Za-z]*)\.?\s*$`)

// unitNames matches units as people write them, and has the unit of each that
// parseDuration reads. A week has none.
var unitNames = []struct {
	pattern *regexp.Regexp
	unit    string
}{
	{regexp.MustCompile(`(?i)^s(ecs?|econds?)?$`), "s"},
	{regexp.MustCompile(`(?i)^m(ins?|inutes?)?$`), "m"},
	{regexp.MustCompile(`(?i)^h(rs?|ours?)?$`), "h"},
	{regexp.MustCompile(`(?i)^d(ays?)?$`), "d"},
	{regexp.MustCompile(`(?i)^w(ks?|eeks?)?$`), ""},
}

// durationMistake returns the error for a text that is no duration. The text that it
// proposes is the one that was meant, if that can be seen.
func durationMistake(text string) error {
	const generic = "not a duration; write for example 90s, 10m, 2h or 1d"
	parts := looseDuration.FindStringSubmatch(text)
	if parts == nil {
		return errors.New(generic)
	}
	sign, number, name := parts[1], parts[2], parts[3]
	switch {
	case sign == "-":
		return negative(text)
	case name == "":
		return fmt.Errorf("a number without a unit; write %[1]ss, %[1]sm or %[1]sh", number)
	}
	for _, n := range unitNames {
		if !n.pattern.MatchString(name) {
			continue
		}
		written := number + n.unit
		if weeks, err := strconv.Atoi(number); n.unit == "" && err == nil {
			written = strconv.Itoa(7*weeks) + "d"
		}
		if written == text { // too long, or with a fraction of a day
			break
		}
		if _, err := parseDuration(written); err == nil {
			return fmt.Errorf("not a duration; write %s", written)
		}
	}
	return errors.New(generic)
}
