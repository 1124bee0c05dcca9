package main

// What call-me prints for people: errors with their hints, holders and leases, on
// stderr. The lines that the client of 2019 printed on stdout are the same to the byte.
// terminal_wait.go has what a waiting client prints, terminal_table.go has the tables of
// status and history, terminal_output.go filters everything that is printed.

import (
	"bytes"
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
	var over overError
	switch {
	case errors.As(err, &over):
		t.say("call-me: %s", printable(overText(over)))
		t.holders(over.HeldBy)
	case errors.As(err, &answer) && (errors.Is(answer, errNoSlot) || errors.Is(answer, errNotHeld)):
		t.say("call-me: %s", printable(errorText(err, answer)))
		t.lackLines(answer.errorJSON)
	default:
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
		text += fmt.Sprintf("; yours %s at %s", endWords(*e), clockTime(e.At))
	}
	return text
}

// endWords returns the words after "yours" for how a lease or a request has ended.
func endWords(e endJSON) string {
	switch e.How {
	case "released", "abandoned", "undeclared":
		return "was " + e.How.String()
	case endedByForce:
		return "was released by force by " + cmp.Or(e.By.String(), "an unnamed caller")
	case endedByTakeover:
		return "was taken over by " + cmp.Or(e.By.String(), "an unnamed caller") + inBrackets(e.Why.String())
	case endedByHandOver:
		return "was handed to " + cmp.Or(e.To.String(), "another holder") + inBrackets(e.Why.String())
	case "left":
		return "left the queue"
	}
	return e.How.String()
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
		switch {
		case l.Renewed:
			since += ", renewed while its command runs"
			if l.MaxUntil != nil {
				since += ", until " + clockTime(*l.MaxUntil) + " at the latest"
			}
		case l.Until != nil:
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
	if l.MaxUntil != nil && !l.Until.Before(*l.MaxUntil) {
		return fmt.Sprintf("%s is yours until %s: no slot is held for longer than %s here",
			l.Slot, clockTime(*l.Until), secondsText(l.MaxHoldSeconds))
	}
	return fmt.Sprintf("%s is yours until %s (%s); for longer: call-me renew %s",
		l.Slot, clockTime(*l.Until), secondsText(l.TTLSeconds), environment)
}

// released prints on stdout that a slot was released. The text is that of 2019, which
// had no newline at its end. A newline follows if stdout is a terminal, or the same file
// as stderr: otherwise the next line of stderr would continue this one. Of several releases
// each is a line, with a newline as end.
func (t *terminal) released(environment, end string) {
	fmt.Fprintf(t.out, "slot has been freed for environment: %s%s", environment, end)
	if end == "" && (isTerminal(t.out) || sameFile(t.out, t.err)) {
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

// jsonLine prints a value on stdout as one line of JSON.
func (t *terminal) jsonLine(value any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// json prints a value on stdout as indented JSON, with a newline at its end.
func (t *terminal) json(value any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// environmentsJSON prints what json prints of the environments, one at a time: all of them
// as one text would take several times the memory.
func (t *terminal) environmentsJSON(all environmentsJSON) error {
	if len(all.Environments) == 0 {
		return t.json(all)
	}
	before := "{\n  \"environments\": [\n    "
	for _, e := range all.Environments {
		var b bytes.Buffer
		b.WriteString(before)
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("    ", "  ")
		if err := encoder.Encode(e); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // the newline of the encoder
		if _, err := t.out.Write(b.Bytes()); err != nil {
			return err
		}
		before = ",\n    "
	}
	_, err := io.WriteString(t.out, "\n  ]\n}\n")
	return err
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
	return cmp.Or(l.Holder.String(), "an unnamed caller")
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
