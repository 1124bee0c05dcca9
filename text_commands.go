package main

// Commands of CI systems in text: how they are found and broken, and the checks of names
// that must not look like one. The rules come from the sources of the programs that read
// logs.

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// breakCommands returns the text with a backslash in each command that a CI system would
// read in it. The text may have several lines and is taken to begin one.
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

// hasControlString reports whether the text has the beginning of a control string:
// Buildkite's links, images and time stamps (OSC, APC), Jenkins' console notes, or
// another one of the same kind.
func hasControlString(text string) bool {
	return controlString.MatchString(text)
}

// controlString matches ESC with ] _ P ^ or X, which begins OSC, APC, DCS, PM and SOS, ESC
// with [8m, which begins a console note of Jenkins, and the single characters for the
// same five strings.
var controlString = regexp.MustCompile("\x1b[\\]_P^X]|\x1b\\[8m|[\u0090\u0098\u009d-\u009f]")

// A commandScanner reads lines as CI systems do, and reports before which character a
// command must be broken. The zero scanner is at the start of a line.
//
// The rules, from the sources of the readers:
//
//   - "##vso[" (Azure Pipelines), "##[" (GitHub Actions, act, Gitea) and
//     "##teamcity[" are found anywhere in a line. The scanner accepts any word
//     between "##" and "[".
//   - "::" (GitHub Actions, act, Gitea) begins a line, also after white space.
//   - "---", "+++", "~~~" and "^^^" (Buildkite) begin a line.
//   - "section_start:" and "section_end:" (GitLab), "travis_fold:" and
//     "travis_time:" (Travis) are found anywhere.
//
// The readers of Azure and GitHub compare by culture: they skip characters that Unicode's
// collation ignores. The invisible ones are replaced before a text is printed. The
// scanner skips the others, most of which are marks.
type commandScanner struct {
	begun  bool // the line has a character other than white space
	lead   rune // the first such character, while only it has followed; zero after another one
	count  int  // how often lead has been read
	hashes int  // number signs just before, or before the word that is being read

	// word has the last characters, in lower case; zero for one that is not ASCII, or not read.
	word [longestKeyword]byte
}

// lineCommands are the characters that begin a command at the start of a line, with the
// number of them that is needed.
var lineCommands = map[rune]int{':': 2, '-': 3, '+': 3, '~': 3, '^': 3}

// keywords are the words that begin a command anywhere if a colon follows.
var keywords = []string{"section_start", "section_end", "travis_fold", "travis_time"}

// longestKeyword is the length of the longest of keywords, in bytes.
const longestKeyword = len("section_start")

// next reads the next character and reports whether it completes the beginning of a
// command, so that a backslash has to precede it. A character that ends a line resets the
// scanner. The scanner does not read the backslash.
func (s *commandScanner) next(r rune) (breaks bool) {
	if r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029' {
		*s = commandScanner{}
		return false
	}
	if isIgnoredByCollation(r) {
		return false
	}
	anywhere := s.nextAnywhere(r)
	return s.nextAtStart(r) || anywhere
}

// isIgnoredByCollation reports whether a comparison of text by culture may skip a visible
// character. It is true of all visible characters that ICU 72 skips, and of others.
func isIgnoredByCollation(r rune) bool {
	if r <= unicode.MaxASCII {
		return false // the tables have no such character
	}
	return unicode.In(r, unicode.M, unicode.Lm) || r == 0x180a || r == 0x1cd3 || r == 0xfe73
}

// nextAtStart is next for lineCommands.
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

// nextAnywhere is next for the commands that may stand anywhere in a line.
func (s *commandScanner) nextAnywhere(r rune) (breaks bool) {
	isWord := r == '_' || r == '.' || r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r)
	switch {
	case r == '[':
		breaks = s.hashes >= 2
	case r == ':':
		read := string(s.word[:])
		breaks = slices.ContainsFunc(keywords, func(k string) bool { return strings.HasSuffix(read, k) })
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
	copy(s.word[:], s.word[1:])
	s.word[longestKeyword-1] = byte(unicode.ToLower(r))
	return breaks
}

// checkUnmistakable returns an error if a name could be mistaken for another name, because
// it has an invisible character or is not in NFC, or for a command.
func checkUnmistakable(name string) error {
	switch {
	case strings.ContainsFunc(name, func(r rune) bool { return !isVisible(r) }):
		return errors.New("it has an invisible character")
	case !norm.NFC.IsNormalString(name):
		return errors.New("it is not in the composed form of Unicode (NFC)")
	}
	return checkNoCommand(name)
}

// checkNoCommand returns an error if a CI system or a terminal would read a command in the
// text.
func checkNoCommand(text string) error {
	if hasCommand(text) || hasControlString(text) {
		return errors.New("a CI system would take it for a command")
	}
	return nil
}
