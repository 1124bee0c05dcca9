package main

// What stands between call-me and stdout or stderr: whatever is printed, by
// whichever command, goes through an output. So no line can be taken for a
// command by a CI system, not even one that is composed of harmless parts, or
// that shows what the user has typed.

import (
	"bytes"
	"io"
	"os"
	"sync"
	"unicode"
	"unicode/utf8"
)

// An output writes lines to a log or a terminal. It breaks commands of CI
// systems by a backslash, and replaces control characters by "?". It may be
// used by several goroutines.
type output struct {
	to         io.Writer
	isTerminal bool // lets the sequences by which call-me itself draws pass

	mu      sync.Mutex
	scan    commandScanner
	partial []byte // the beginning of a character that the last Write ended with
}

func newOutput(w io.Writer) *output {
	return &output{to: w, isTerminal: isTerminal(w)}
}

// drawing is what call-me sends to a terminal besides text: colours, and the
// ways to draw one line or the whole screen anew. They take no place on a line.
var ownSequences = []string{"\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[36m", clearLine, clearScreen}

const (
	clearLine   = "\r\x1b[K"
	clearScreen = "\x1b[H\x1b[2J"
)

// Write writes all of p, or nothing of it is known to be written. A sequence of
// drawing must not be split over two calls; a character may be.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := append(o.partial, p...)
	var b bytes.Buffer
	for len(text) > 0 {
		if sequence := o.drawingAt(text); sequence != "" {
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

// drawingAt returns the sequence that the text begins with; empty if none.
func (o *output) drawingAt(text []byte) string {
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

// fileOf returns the file that a writer writes to; nil if none.
func fileOf(w io.Writer) *os.File {
	if o, isOutput := w.(*output); isOutput {
		w = o.to
	}
	file, _ := w.(*os.File)
	return file
}
