package main

// Text of others: what somebody else has written and call-me shows, in a job's
// log, in JSON, on the page. CI systems read commands out of logs, and
// terminals out of control characters; here is the one place that knows what
// must not reach them. terminal_output.go applies it to everything that is
// printed.

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// foreign is text of somebody else: a holder, a reason, a link, a name, a
// message of the server. It cannot be printed raw by accident: every verb of
// fmt, html/template and encoding/json shows it in its harmless form.
// Comparisons and conversions to string use the text as it was sent.
type foreign string

// String returns the text on one line, without anything that a terminal or a
// CI system takes for a command: white space becomes a space, invisible
// characters become "?", and a command is broken by a backslash.
func (f foreign) String() string { return breakCommands(visible(string(f))) }

// MarshalJSON returns the text unchanged in meaning: what String replaces or
// breaks is escaped by \u.
func (f foreign) MarshalJSON() ([]byte, error) {
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

var _ json.Marshaler = foreign("")

// printable is the harmless form of a text that is composed of several.
func printable(text string) string { return foreign(text).String() }

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

// breakCommands puts a backslash into each command that a CI system would read
// in the text. The text may have several lines.
func breakCommands(text string) string {
	if !hasCommand(text) {
		return text
	}
	var b strings.Builder
	var scan commandScanner
	for _, r := range text {
		if scan.next(r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// hasCommand reports whether a CI system would read a command in the text.
func hasCommand(text string) bool {
	var scan commandScanner
	for _, r := range text {
		if scan.next(r) {
			return true
		}
	}
	return false
}

// hasControlString reports whether the text has the beginning of a control
// string: Buildkite's links, images and time stamps (OSC, APC), Jenkins'
// console notes, and the like.
func hasControlString(text string) bool {
	return controlString.MatchString(text)
}

var controlString = regexp.MustCompile("\x1b[\\]_P^X]|\x1b\\[8m|[\u0090\u0098\u009d-\u009f]")

// A commandScanner reads lines as CI systems do, and tells before which
// character a command must be broken. The zero scanner is at the start of a
// line.
//
// The rules, from the sources of the readers:
//
//   - "##vso[" (Azure Pipelines), "##[" (GitHub Actions, act, Gitea) and
//     "##teamcity[" are found anywhere in a line. Any word between is taken.
//   - "::" (GitHub Actions, act, Gitea) begins a line, after white space.
//   - "---", "+++", "~~~" and "^^^" (Buildkite) begin a line.
//   - "section_start:" and "section_end:" (GitLab), "travis_fold:" and
//     "travis_time:" (Travis) are found anywhere.
//
// Azure's and GitHub's readers compare by culture: they skip characters that
// Unicode's collation ignores. The invisible ones are replaced before a text is
// printed; of the others, marks for the most part, none ends a command here.
type commandScanner struct {
	begun  bool   // something other than white space stands on the line
	lead   rune   // the character that the line begins with, while it repeats; else zero
	count  int    // how often lead stands there
	hashes int    // number signs before here, with nothing but a word after them
	word   []byte // the last characters, as many as the longest keyword has; zero for one that is not ASCII
}

// lineCommands are the characters by which commands begin at the start of a
// line, with how many it takes.
var lineCommands = map[rune]int{':': 2, '-': 3, '+': 3, '~': 3, '^': 3}

// keywords begin a command anywhere, followed by a colon.
var keywords = []string{"section_start", "section_end", "travis_fold", "travis_time"}

const longestKeyword = len("section_start")

// next takes the next character, and reports whether it would complete the
// beginning of a command.
func (s *commandScanner) next(r rune) (breaks bool) {
	if r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029' {
		*s = commandScanner{word: s.word[:0]}
		return false
	}
	if isIgnoredByCollation(r) {
		return false
	}
	anywhere := s.nextAnywhere(r)
	return s.nextAtStart(r) || anywhere
}

// isIgnoredByCollation reports whether comparisons of text by culture may skip
// a visible character. It is true of all that do so in ICU 72, and of more.
func isIgnoredByCollation(r rune) bool {
	return unicode.In(r, unicode.M, unicode.Lm) || r == 0x180a || r == 0x1cd3 || r == 0xfe73
}

// nextAtStart follows the start of a line.
func (s *commandScanner) nextAtStart(r rune) (breaks bool) {
	switch {
	case !s.begun && unicode.IsSpace(r):
		return false
	case !s.begun:
		s.begun, s.lead, s.count = true, r, 1
		return false
	case s.lead == 0 || r != s.lead:
		s.lead = 0
		return false
	}
	s.count++
	return s.count == lineCommands[r]
}

// nextAnywhere follows the commands that may stand anywhere.
func (s *commandScanner) nextAnywhere(r rune) (breaks bool) {
	isWord := r == '_' || r == '.' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r)
	switch {
	case r == '[':
		breaks = s.hashes >= 2
	case r == ':':
		breaks = slices.ContainsFunc(keywords, func(k string) bool { return strings.HasSuffix(string(s.word), k) })
	}
	switch {
	case r == '#':
		s.hashes++
	case !isWord || s.hashes < 2:
		s.hashes = 0
	}
	if r > unicode.MaxASCII {
		r = 0
	}
	if len(s.word) == longestKeyword {
		s.word = slices.Delete(s.word, 0, 1)
	}
	s.word = append(s.word, byte(unicode.ToLower(r)))
	return breaks
}

// checkUnmistakable returns why a name could be mistaken for another name, or
// for a command: nil if it could not.
func checkUnmistakable(name string) error {
	switch {
	case strings.ContainsFunc(name, func(r rune) bool { return !isVisible(r) }):
		return errors.New("it has an invisible character")
	case !norm.NFC.IsNormalString(name):
		return errors.New("it is not in the composed form of Unicode (NFC)")
	}
	return checkNoCommand(name)
}

// checkNoCommand returns an error if a CI system or a terminal would read
// a command in the text.
func checkNoCommand(text string) error {
	if hasCommand(text) || hasControlString(text) {
		return errors.New("a CI system would take it for a command")
	}
	return nil
}
