package main

// What call-me prints for people: errors with their hints, holders and leases, on
// stderr. The lines that the client of 2019 printed on stdout are the same to the byte.
// terminal_wait.go has what a waiting client prints, terminal_table.go has the tables of
// status and history, terminal_output.go filters everything that is printed.

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// A terminal prints on stdout and stderr, each of which is a person's terminal, the log
// of a job, or a file.
type terminal struct {
	out, err io.Writer // stdout and stderr, each an *output
	now      func() time.Time
	getenv   func(string) string
}

// newTerminal returns a terminal on the streams of this process.
func newTerminal() *terminal { return newTerminalOn(os.Stdout, os.Stderr) }

// newTerminalOn returns a terminal on the given writers. Terminals are made only here,
// so that everything printed passes through an output.
func newTerminalOn(out, err io.Writer) *terminal {
	return &terminal{out: newOutput(out), err: newOutput(err), now: time.Now, getenv: os.Getenv}
}

// say prints a line on stderr. The format has no newline.
func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// fail prints an error on stderr after "call-me: ". For an apiError with holders it
// prints these, one after the other, instead of the server's message, which has them in
// one line. The hint of a hinted error follows, with "hint: " before its first line.
func (t *terminal) fail(err error) {
	var answer *apiError
	if errors.As(err, &answer) && len(answer.HeldBy) > 0 && !errors.Is(err, errSeveral) {
		t.say("call-me: %s", printable(errorText(err, answer)))
		t.holders(answer.HeldBy)
	} else {
		t.say("call-me: %s", printable(err.Error()))
	}
	var h hinted
	if !errors.As(err, &h) {
		return
	}
	prefix := "hint: "
	for line := range strings.SplitSeq(h.hint, "\n") {
		t.say("%s%s", prefix, printable(line))
		prefix = "      "
	}
}

// errorText returns the text of an apiError without its holders, and how the caller's own
// request ended if the server says so. err is the error that answer was found in.
func errorText(err error, answer *apiError) string {
	text := ""
	switch {
	case errors.Is(err, errNoSlot):
		text = "no free slot on " + answer.Environment.String()
	case errors.Is(err, errNotHeld):
		text = "you hold no slot on " + answer.Environment.String()
	default:
		return answer.Message.String()
	}
	if e := answer.Ended; e != nil {
		text += fmt.Sprintf("; yours %s at %s", e.How, clockTime(e.At))
	}
	return text
}

// holders prints the leases on stderr: the slot and its holder, since when and until
// when, the reason and the link. After three leases it prints how many more there are.
func (t *terminal) holders(leases []leaseJSON) {
	for i, l := range leases {
		if i == 3 {
			t.say("and %d more; see: call-me status %s", len(leases)-i, quote(l.Environment.String()))
			return
		}
		t.say("%s is held by %s", l.Slot, holderName(l))
		since := fmt.Sprintf("since %s (%s)", clockTime(l.Since), secondsText(l.HeldSeconds))
		if l.Until != nil {
			since += ", until " + clockTime(*l.Until) + " at the latest"
		}
		t.say("  %s", since)
		if l.Reason != "" {
			t.say("  reason: %s", l.Reason)
		}
		if l.URL != "" {
			t.say("  %s", l.URL)
		}
	}
}

// leaseSentence returns a sentence for the holder of a lease: until when it lasts, and the
// command that renews it, or releases it if it has no end.
func leaseSentence(l leaseJSON) string {
	environment := quote(l.Environment.String())
	if l.Until == nil {
		return fmt.Sprintf("%s is yours until you release it: call-me release %s", l.Slot, environment)
	}
	return fmt.Sprintf("%s is yours until %s (%s); for longer: call-me renew %s",
		l.Slot, clockTime(*l.Until), secondsText(l.TTLSeconds), environment)
}

// released prints on stdout that a slot was released. The text is that of 2019, which
// had no newline at its end. A newline follows if stdout is a terminal, or the same file
// as stderr: otherwise the next line of stderr would continue this one.
func (t *terminal) released(environment string) {
	fmt.Fprintf(t.out, "slot has been freed for environment: %s", environment)
	if isTerminal(t.out) || sameFile(t.out, t.err) {
		fmt.Fprintln(t.out)
	}
}

// sameFile reports whether two writers write to the same file. It is false if one of
// them does not write to a file.
func sameFile(a, b io.Writer) bool {
	fileA, fileB := fileOf(a), fileOf(b)
	if fileA == nil || fileB == nil {
		return false
	}
	infoA, errA := fileA.Stat()
	infoB, errB := fileB.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// json prints a value on stdout as indented JSON, with a newline at its end.
func (t *terminal) json(value any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// isTerminal reports whether w writes to a terminal.
func isTerminal(w io.Writer) bool {
	file := fileOf(w)
	return file != nil && term.IsTerminal(int(file.Fd()))
}

// width returns the width of the terminal that w writes to, in columns; zero if w is not
// a terminal. It is 80 if the system does not know the width or reports less than 20.
func width(w io.Writer) int {
	if !isTerminal(w) {
		return 0
	}
	columns, _, err := term.GetSize(int(fileOf(w).Fd()))
	if err != nil || columns < 20 {
		return 80
	}
	return columns
}

// The colours of a terminal, by their numbers in ANSI sequences. Zero is the terminal's
// own colour. Each sequence has to be listed in ownSequences.
const (
	bold   = 1
	green  = 32
	yellow = 33
	cyan   = 36
)

// coloured reports whether w is a terminal that shows colours and the user has not
// turned them off with NO_COLOR (https://no-color.org) or TERM=dumb.
func (t *terminal) coloured(w io.Writer) bool {
	return isTerminal(w) && t.getenv("NO_COLOR") == "" && t.getenv("TERM") != "dumb"
}

// paint returns the text with the sequences that colour it.
func paint(colour int, text string) string {
	if colour == 0 || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}

// holderName returns the holder of a lease for a sentence, also if it has no name.
func holderName(l leaseJSON) string {
	return cmp.Or(l.Holder.String(), "somebody who gave no name")
}

// fitColumns cuts a text that is wider than the given number of columns, and ends it
// with "…". Each rune counts as one column. The text is unchanged if columns is not
// positive.
func fitColumns(text string, columns int) string {
	runes := []rune(text)
	if columns <= 0 || len(runes) <= columns {
		return text
	}
	return string(runes[:columns-1]) + "…"
}
