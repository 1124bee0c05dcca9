package main

// The filter between call-me and the streams stdout and stderr. Everything that any
// command prints goes through an output. So a CI system finds no command in a line, even
// if the line is composed of harmless parts or repeats what the user has typed. The
// rules for commands are in text_commands.go.

import (
	"bytes"
	"io"
	"os"
	"sync"
	"unicode"
	"unicode/utf8"
)

// An output writes text to a log or a terminal. It breaks commands of CI systems with a
// backslash, and replaces white space other than newline and tab by a space and
// invisible characters by "?". Several goroutines may use it.
type output struct {
	to         io.Writer
	isTerminal bool // ownSequences are written unchanged

	mu      sync.Mutex
	scan    commandScanner
	partial []byte // the incomplete character at the end of the last Write
}

// newOutput returns an output that writes to w.
func newOutput(w io.Writer) *output {
	o := &output{to: w, isTerminal: isTerminal(w)}
	if o.isTerminal {
		enableSequences(fileOf(w))
	}
	return o
}

// ownSequences are the control sequences that call-me sends to a terminal: colours, and
// those that clear a line or the screen. They take no column.
var ownSequences = []string{"\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[36m", clearLine, clearScreen}

// The sequences that clear the line with the cursor, and the screen. After either the
// cursor is at the beginning of what was cleared.
const (
	clearLine   = "\r\x1b[K"
	clearScreen = "\x1b[H\x1b[2J"
)

// Write writes all of p, filtered. On an error it returns zero, although a part may have
// been written. A character may be split over two calls: its first bytes are written
// with the rest. A sequence of ownSequences must not be split.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := append(o.partial, p...)
	var b bytes.Buffer
	for len(text) > 0 {
		if sequence := o.sequenceAt(text); sequence != "" {
			b.WriteString(sequence)
			text = text[len(sequence):]
			if sequence == clearLine || sequence == clearScreen {
				o.scan = commandScanner{}
			}
			continue
		}
		if !utf8.FullRune(text) {
			break
		}
		r, size := utf8.DecodeRune(text)
		o.writeRune(&b, r)
		text = text[size:]
	}
	o.partial = bytes.Clone(text)
	if _, err := o.to.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeCommand writes a line that a CI system reads as a command: its beginning as it is, and the
// text after it filtered. It is called at the start of a line.
func (o *output) writeCommand(begin, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b bytes.Buffer
	b.WriteString(begin)
	o.scan = commandScanner{begun: true}
	for _, r := range text {
		o.writeRune(&b, r)
	}
	o.writeRune(&b, '\n')
	_, _ = o.to.Write(b.Bytes())
}

// sequenceAt returns the one of ownSequences that the text begins with; empty if there is
// none, or if the output is not a terminal. The text is not empty.
func (o *output) sequenceAt(text []byte) string {
	if !o.isTerminal || text[0] != '\r' && text[0] != '\x1b' {
		return ""
	}
	for _, sequence := range ownSequences {
		if bytes.HasPrefix(text, []byte(sequence)) {
			return sequence
		}
	}
	return ""
}

// writeRune writes a character to b, or what replaces it, with a backslash before the one
// that would complete a command.
func (o *output) writeRune(b *bytes.Buffer, r rune) {
	switch {
	case r == '\n' || r == '\t' || isVisible(r):
	case unicode.IsSpace(r):
		r = ' '
	default:
		r = '?'
	}
	if o.scan.next(r) {
		b.WriteByte('\\')
	}
	b.WriteRune(r)
}

// fileOf returns the file that w, or the output w, writes to; nil if it does not write to
// a file.
func fileOf(w io.Writer) *os.File {
	if o, isOutput := w.(*output); isOutput {
		w = o.to
	}
	file, _ := w.(*os.File)
	return file
}
