package main

// How call-me speaks: lines for people on stderr, and how times, places and
// text from elsewhere are shown. stdout is that of 2019, to the byte.
// terminal_wait.go has what a waiting client says, terminal_table.go the tables.

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

// A terminal speaks to the person, or to the job's log.
type terminal struct {
	out, err io.Writer
	now      func() time.Time
	getenv   func(string) string
}

func newTerminal() *terminal { return newTerminalOn(os.Stdout, os.Stderr) }

// newTerminalOn is the only way to a terminal: what is printed on it passes
// through an output.
func newTerminalOn(out, err io.Writer) *terminal {
	return &terminal{out: newOutput(out), err: newOutput(err), now: time.Now, getenv: os.Getenv}
}

func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// fail tells an error, who is in the way where the server said so, and what
// to type next where that is known.
func (t *terminal) fail(err error) {
	var refused *apiError
	var h hinted
	if errors.As(err, &refused) && len(refused.HeldBy) > 0 && !errors.Is(err, errSeveral) {
		t.say("call-me: %s", printable(reason(err, refused)))
		t.holders(refused.HeldBy)
	} else {
		t.say("call-me: %s", printable(err.Error()))
	}
	if errors.As(err, &h) {
		for i, line := range strings.Split(h.hint, "\n") {
			t.say("%s%s", map[bool]string{true: "hint: ", false: "      "}[i == 0], printable(line))
		}
	}
}

// reason is the refusal without the holders that the server lists in it.
func reason(err error, refused *apiError) string {
	text := ""
	switch {
	case errors.Is(err, errNoSlot):
		text = "no free slot on " + refused.Environment.String()
	case errors.Is(err, errNotHeld):
		text = "you hold no slot on " + refused.Environment.String()
	default:
		return refused.Message.String()
	}
	if e := refused.Ended; e != nil {
		text += fmt.Sprintf("; yours %s at %s", e.How, clockTime(e.At))
	}
	return text
}

// holders says who has the slots: three of them at the most.
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

// yours says until when a lease lasts, and how to change that.
func yours(l leaseJSON) string {
	if l.Until == nil {
		return fmt.Sprintf("%s is yours until you release it: call-me release %s", l.Slot, quote(l.Environment.String()))
	}
	return fmt.Sprintf("%s is yours until %s (%s); for longer: call-me renew %s", l.Slot, clockTime(*l.Until), secondsText(l.TTLSeconds), quote(l.Environment.String()))
}

// released prints the queue of 2019, which ended without a newline. Where a
// person or one log shows both streams, the line is ended for them.
func (t *terminal) released(environment string) {
	fmt.Fprintf(t.out, "slot has been freed for environment: %s", environment)
	if isTerminal(t.out) || sameFile(t.out, t.err) {
		fmt.Fprintln(t.out)
	}
}

// sameFile reports whether two writers write to one file.
func sameFile(a, b io.Writer) bool {
	fileA, fileB := fileOf(a), fileOf(b)
	if fileA == nil || fileB == nil {
		return false
	}
	infoA, errA := fileA.Stat()
	infoB, errB := fileB.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// json prints a value for programs.
func (t *terminal) json(value any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func isTerminal(w io.Writer) bool {
	file := fileOf(w)
	return file != nil && term.IsTerminal(int(file.Fd()))
}

// width is that of the terminal, in columns; 0: w is none.
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

// Colours of a terminal, by their ANSI numbers.
const (
	bold   = 1
	green  = 32
	yellow = 33
	cyan   = 36
)

// coloured reports whether w shows colours, and the person wants them
// (https://no-color.org).
func (t *terminal) coloured(w io.Writer) bool {
	return isTerminal(w) && t.getenv("NO_COLOR") == "" && t.getenv("TERM") != "dumb"
}

func paint(colour int, text string) string {
	if colour == 0 || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}

func holderName(l leaseJSON) string {
	return cmp.Or(l.Holder.String(), "somebody who gave no name")
}

// fit cuts a text to so many columns.
func fitColumns(text string, columns int) string {
	letters := []rune(text)
	if columns <= 0 || len(letters) <= columns {
		return text
	}
	return string(letters[:columns-1]) + "…"
}
