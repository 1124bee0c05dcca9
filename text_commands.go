package main

// Commands of CI systems within text: how they are found and broken. The rules come
// from the sources of the programs that read logs.

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

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
//     "##teamcity[" are found anywhere in a queue. Any word between is taken.
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
