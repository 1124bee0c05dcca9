package main

// Text of others: what somebody else has written and call-me shows, in a job's
// log, in JSON, on the page. CI systems read commands out of logs, and
// terminals out of control characters; here is the one place that knows what
// must not reach them. terminal_output.go applies it to everything that is
// printed.

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xrash/smetrics"
)

// foreign is text of somebody else: a holder, a reason, a link, a name, a
// message of the server. It cannot be printed raw by accident: every verb of
// fmt, html/template and encoding/json shows it in its harmless form.
// Comparisons and conversions to string use the text as it was sent.
type untrusted string

// String returns the text on one line, without anything that a terminal or a
// CI system takes for a command: white space becomes a space, invisible
// characters become "?", and a command is broken by a backslash.
func (f untrusted) String() string { return breakCommands(visible(string(f))) }

// MarshalJSON returns the text unchanged in meaning: what String replaces or
// breaks is escaped by \u.
func (f untrusted) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, len(f)+2), '"')
	var scan commandScanner
	for _, r := range string(f) {
		switch breaks := scan.next(r); {
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

// appendEscaped appends a character as JSON escapes it, in two halves where it
// does not fit into 16 bits.
func appendEscaped(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		return fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}

var _ json.Marshaler = untrusted("")

// printable is the harmless form of a text that is composed of several.
func printable(text string) string { return untrusted(text).String() }

// visible puts a text on one line and replaces what cannot be seen. A character
// that .NET's comparisons of text ignore could hide a command from us.
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

// isVisible reports whether a character takes a place of its own on the screen:
// letters, marks, numbers, punctuation, symbols and the ASCII space, but none
// of those that Unicode lets programs ignore or that look like nothing.
func isVisible(r rune) bool {
	return unicode.IsPrint(r) && !strings.ContainsRune(blanks, r) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// blanks are symbols to Unicode, and empty on the screen: the Braille pattern
// without dots, the null notehead, blank hieroglyphs, the filler of Khitan, and
// what stands for an object.
const blanks = "\u2800\U0001d159\U00013441\U00013442\U00016fe4\ufffc"

// shorten cuts a text to so many bytes, and marks that it did.
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

func spellOut(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !isVisible(r) }) && utf8.ValidString(text) {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// quote makes a word that a shell takes as it is.
func quote(word string) string {
	special := func(r rune) bool {
		return !strings.ContainsRune("-_./:@%+=,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	if word != "" && !strings.ContainsFunc(word, special) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// spell shows a duration as people say it: 2h, 3m12s, 5s.
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

func secondsText(s float64) string { return durationText(time.Duration(s * float64(time.Second))) }

func ordinal(n int) string {
	suffix := "th"
	if n/10%10 != 1 && n%10 >= 1 && n%10 <= 3 {
		suffix = [...]string{"st", "nd", "rd"}[n%10-1]
	}
	return fmt.Sprint(n, suffix)
}

// inLine says a position in words.
func queuePosition(position int) string {
	switch {
	case position == 1:
		return "next in the queue"
	case position <= 0:
		return "in the queue"
	}
	return ordinal(position) + " in the queue"
}

// clock shows a time of day in the local zone, with the date unless it is
// today.
func clockTime(t time.Time) string {
	local := t.Local()
	if local.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return local.Format("15:04:05 MST")
	}
	return local.Format("2006-01-02 15:04:05 MST")
}

// didYouMean proposes the known name that is nearest to a wrong one, as the
// end of a sentence; nothing when none is near.
func didYouMean(wrong string, known []string) string {
	if near := nearest(wrong, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// maxCorrected is the length of the longest text, in bytes, that nearest compares.
const maxCorrected = 128

// nearest returns the known name that needs the fewest changed letters, or
// nothing when that are too many.
func nearest(wrong string, known []string) string {
	if len(wrong) > maxCorrected {
		return ""
	}
	best, least := "", len(wrong)/3+2
	for _, name := range known {
		if d := smetrics.WagnerFischer(wrong, name, 1, 1, 1); d < least {
			best, least = name, d
		}
	}
	return best
}
