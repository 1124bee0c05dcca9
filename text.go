package main

// Text: how text of others is shown in the log of a job, in JSON and on the page, and
// how durations, times, positions and words for a shell are written. CI systems find
// commands in logs, and terminals find them in control characters: this file and
// text_commands.go decide what must not reach them. terminal_output.go applies the rules
// to everything that is printed.

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xrash/smetrics"
)

// An untrusted text was written by others: a holder, a reason, a link, a name, a message
// of the server. The verbs of fmt for text, html/template and encoding/json show it in its
// harmless form, so it is not printed raw by accident. Comparisons and conversions to
// string use the text as it was sent.
type untrusted string

// String returns the text on one line, without anything that a terminal or a
// CI system takes for a command: white space becomes a space, invisible
// characters become "?", and a command is broken by a backslash.
func (u untrusted) String() string { return breakCommands(visible(string(u))) }

// MarshalJSON returns a JSON string with the same text. Characters that String would
// replace, or precede with a backslash, are escaped by \u. Bytes that are not UTF-8
// become U+FFFD. It returns no error.
func (u untrusted) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, len(u)+2), '"')
	var scan commandScanner
	for _, r := range string(u) {
		breaks := scan.next(r)
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case breaks || !isVisible(r) || r == utf8.RuneError:
			b = appendEscaped(b, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"'), nil
}

// appendEscaped appends a character as JSON escapes it, as a surrogate pair if it does
// not fit into 16 bits.
func appendEscaped(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		return fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}

var _ json.Marshaler = untrusted("")

// printable returns the harmless form of a text of which parts may be untrusted, as
// untrusted.String does.
func printable(text string) string { return untrusted(text).String() }

// visible returns the text on one line: white space becomes a space, and other invisible
// characters become "?". Otherwise a character that .NET ignores when it compares text
// could hide a command from commandScanner.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case isVisible(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, text)
}

// isVisible reports whether a character can be seen: it is a letter, mark, number,
// punctuation, symbol or the ASCII space, and neither one that Unicode lets programs
// ignore nor one of blanks.
func isVisible(r rune) bool {
	if r <= unicode.MaxASCII {
		return unicode.IsPrint(r) // the tables have no such character
	}
	return unicode.IsPrint(r) && !strings.ContainsRune(blanks, r) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// blanks are characters that unicode.IsPrint accepts and that are empty on the screen: the
// Braille pattern without dots, the null notehead, two blank hieroglyphs, the filler of
// Khitan, and the object replacement character.
const blanks = "\u2800\U0001d159\U00013441\U00013442\U00016fe4\ufffc"

// shorten cuts a text that is longer than most bytes, between two characters, and ends it
// with "…". The result has at most most bytes, the three of the mark included.
func shorten(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	end := most - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// shortenHolder returns a holder that the server accepts, with at most the given number of
// bytes. It returns the name itself if that is one. Otherwise it replaces characters that
// are not printable, cuts the name if it is too long, and appends a tilde and 16 digits of
// its SHA-256 sum, so that distinct names stay distinct.
func shortenHolder(name string, most int) string {
	tidy := printable(strings.ToValidUTF8(name, "?"))
	if tidy == name && len(name) <= most {
		return name
	}
	end := fmt.Sprintf("~%x", sha256.Sum256([]byte(name)))[:17]
	name = tidy
	if len(name)+len(end) <= most {
		return name + end
	}
	most -= len(end)
	for !utf8.RuneStart(name[most]) {
		most--
	}
	return name[:most] + end
}

// spellOut returns the text with invisible characters and bytes that are not UTF-8
// escaped as in Go, such as \u200b. A text without any is unchanged; in one with some,
// backslashes are escaped too.
func spellOut(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !isVisible(r) }) && utf8.ValidString(text) {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// inBrackets returns a reason as it follows a name in a sentence; empty if there is none.
func inBrackets(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// quote returns the word as a POSIX shell has to read it, in single quotes unless it has
// only letters, digits and -_./:@%+=, characters. An empty word is quoted.
func quote(word string) string {
	special := func(r rune) bool {
		return !strings.ContainsRune("-_./:@%+=,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// andText returns the words of a list for a sentence: "a", "a and b", "a, b and c".
func andText(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// isOrAre returns the verb of a sentence about so many things.
func isOrAre(n int) string {
	if n > 1 {
		return "are"
	}
	return "is"
}

// wasOrWere returns the verb of a sentence about so many things that have been.
func wasOrWere(n int) string {
	if n > 1 {
		return "were"
	}
	return "was"
}

// durationText returns a duration rounded to seconds, without the units that are zero at
// its end: 2h, 3m12s, 5s.
func durationText(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// secondsText does the same as durationText for a number of seconds.
func secondsText(s float64) string { return durationText(seconds(s)) }

// seconds returns a duration of so many seconds.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// ordinal returns 1st, 2nd, 3rd, 4th, 11th and so on. n is not negative.
func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 && n%10 >= 1 && n%10 <= 3 {
		suffix = [...]string{"st", "nd", "rd"}[n%10-1]
	}
	return fmt.Sprint(n, suffix)
}

// queuePosition returns a position in the queue in words: "next in the queue" for 1, "2nd
// in the queue" for 2. Without a position, zero or less, it is "in the queue".
func queuePosition(position int) string {
	switch {
	case position == 1:
		return "next in the queue"
	case position <= 0:
		return "in the queue"
	}
	return ordinal(position) + " in the queue"
}

// estimateText returns an estimate of a duration in words: "about 25 min", "about 2 h 30 min",
// "about 3 d".
func estimateText(d time.Duration) string {
	const quarter, day = 15 * time.Minute, 24 * time.Hour
	minutes, quarters, days := d.Round(time.Minute)/time.Minute, d.Round(quarter)/quarter, d/day
	switch {
	case minutes < 1:
		return "less than a minute"
	case minutes < 90:
		return fmt.Sprintf("about %d min", minutes)
	case days >= 2:
		return fmt.Sprintf("about %d d", days)
	case quarters%4 == 0:
		return fmt.Sprintf("about %d h", quarters/4)
	}
	return fmt.Sprintf("about %d h %d min", quarters/4, quarters%4*15)
}

// clockTime returns a time of day in the local zone, to the second and with the zone, and
// with the date before it unless that is today.
func clockTime(t time.Time) string {
	local := t.Local()
	if local.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return local.Format("15:04:05 MST")
	}
	return local.Format("2006-01-02 15:04:05 MST")
}

// didYouMean returns the end of a sentence that proposes the known name most similar to a
// wrong one; empty if none is similar.
func didYouMean(wrong string, known []string) string {
	if near := nearest(wrong, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// maxCorrected is the length of the longest text, in bytes, that nearest compares.
const maxCorrected = 128

// nearest returns the known name with the smallest edit distance from a wrong one, the
// first of several. It is empty if the distance is over a third of the length of wrong
// in bytes plus one, or if wrong is longer than maxCorrected.
func nearest(wrong string, known []string) string {
	if len(wrong) > maxCorrected {
		return ""
	}
	best, bound := "", len(wrong)/3+2
	for _, name := range known {
		if d := smetrics.WagnerFischer(wrong, name, 1, 1, 1); d < bound {
			best, bound = name, d
		}
	}
	return best
}
