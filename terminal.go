package main

// What people read: the lines of request, release and run, and the tables.
// stdout is that of 2019, to the byte; everything more goes to stderr.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
)

// repeatTime is how often a waiting client says something at the least: some
// CI systems stop a job that is silent for ten minutes.
const repeatTime = time.Minute

// A terminal speaks to the person, or to the job's log.
type terminal struct {
	out, err io.Writer
	now      func() time.Time
}

func newTerminal() *terminal { return &terminal{out: os.Stdout, err: os.Stderr, now: time.Now} }

func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// fail tells an error, and what to type next where that is known.
func (t *terminal) fail(err error) {
	t.say("call-me: %s", printable(err.Error()))
	var h hinted
	if errors.As(err, &h) {
		t.say("hint: %s", printable(h.hint))
	}
}

// A waiter is the listener of one request: it says what changes, and
// something at least once a minute.
type waiter struct {
	*terminal
	asking  asking
	started time.Time
	said    time.Time
	last    string // what was said of the line
}

func (t *terminal) waiter(a asking) *waiter { return &waiter{terminal: t, asking: a, started: t.now()} }

func (w *waiter) waiting(refused refusalJSON) {
	now := w.now()
	if w.said.IsZero() {
		fmt.Fprintf(w.out, "waiting for free slot on environment: %s\n", w.asking.environment)
		w.own(refused)
	}
	state := w.state(refused)
	switch {
	case w.said.IsZero():
		w.holders(refused, now)
		w.say("you are %s", inLine(refused.Position))
	case state != w.last, now.Sub(w.said) >= repeatTime:
		w.say("still waiting after %s, %s; held by %s", spell(now.Sub(w.started)), inLine(refused.Position), holderNames(refused.HeldBy))
	default:
		return
	}
	w.said, w.last = now, state
}

// state is what makes it worth to say something.
func (w *waiter) state(refused refusalJSON) string {
	var b strings.Builder
	fmt.Fprint(&b, refused.Position)
	for _, l := range refused.HeldBy {
		fmt.Fprint(&b, " ", l.Fence)
	}
	return b.String()
}

func (w *waiter) holders(refused refusalJSON, now time.Time) {
	for _, l := range refused.HeldBy {
		w.say("%s is held by %s since %s%s", printable(l.Slot), holderName(l), clock(l.Since), held(l))
		if l.Reason != "" {
			w.say("  reason: %s", printable(l.Reason))
		}
		if l.URL != "" {
			w.say("  %s", printable(l.URL))
		}
	}
	if len(refused.HeldBy) == 0 {
		w.say("nobody holds it; those ahead of you in line are served first")
	}
}

// own tells of a lease that this very holder has: a step that is run again
// would wait for itself.
func (w *waiter) own(refused refusalJSON) {
	for _, l := range refused.HeldBy {
		if l.Holder != "" && l.Holder == w.asking.holder {
			w.say("you have %s yourself: %s took it at %s, and it waits for its own release", printable(l.Slot), holderName(l), clock(l.Since))
			w.say("hint: to go on with it: call-me request %s --again; to give it back: call-me release %s", quote(w.asking.environment), quote(w.asking.environment))
			return
		}
	}
}

func (w *waiter) troubled(err error) { w.say("%s; trying again", printable(err.Error())) }

func (w *waiter) startedAnew(why refusalJSON) {
	what := "the request ended"
	if why.Ended != nil {
		what = fmt.Sprintf("the request %s at %s", why.Ended.How, clock(why.Ended.At))
	}
	w.say("%s before we heard of it; back to the end of the line", what)
}

func (w *waiter) confirmed(lease leaseJSON, id string, waited time.Duration) {
	fmt.Fprintf(w.out, "acquired slot for environment: %s\n", w.asking.environment)
	fmt.Fprintf(w.out, "waited %s\n", waited)
	w.yours(lease)
}

// yours says until when the lease lasts, and how to change that.
func (t *terminal) yours(l leaseJSON) {
	if l.Until == nil {
		t.say("%s is yours until you release it: call-me release %s", printable(l.Slot), quote(l.Environment))
		return
	}
	t.say("%s is yours until %s (%s); for longer: call-me renew %s", printable(l.Slot), clock(*l.Until), seconds(l.TTLSeconds), quote(l.Environment))
}

// released prints the line of 2019, which ended without a newline. Where a
// person or one log shows both streams, the line is ended for them.
func (t *terminal) released(environment string) {
	fmt.Fprintf(t.out, "slot has been freed for environment: %s", environment)
	if out, isFile := t.out.(*os.File); isFile && (term.IsTerminal(int(out.Fd())) || sameFile(out, t.err)) {
		fmt.Fprintln(t.out)
	}
}

func sameFile(out *os.File, other io.Writer) bool {
	file, isFile := other.(*os.File)
	if !isFile {
		return false
	}
	a, errA := out.Stat()
	b, errB := file.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// table prints who holds what, and who is in line.
func (t *terminal) table(all environmentsJSON) {
	rows := [][]string{{"ENVIRONMENT", "SLOT", "HOLDER", "SINCE", "UNTIL"}}
	for _, e := range all.Environments {
		for _, s := range e.Slots {
			row := []string{e.Environment, s.Slot, "free", "", ""}
			if l := s.Lease; l != nil {
				row = []string{e.Environment, s.Slot, holderName(*l), clock(l.Since), "released"}
				if l.Until != nil {
					row[4] = clock(*l.Until)
				}
			}
			rows = append(rows, row)
		}
		for _, p := range e.Line {
			rows = append(rows, []string{e.Environment, inLine(p.Position), cmp.Or(printable(p.Holder), "somebody"), clock(p.Since), ""})
		}
	}
	if len(rows) == 1 {
		t.say("no environment is in use")
		return
	}
	printTable(t.out, rows)
}

func printTable(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

func holderName(l leaseJSON) string { return cmp.Or(printable(l.Holder), "somebody who gave no name") }

func holderNames(leases []leaseJSON) string {
	var names []string
	for _, l := range leases {
		names = append(names, holderName(l))
	}
	return cmp.Or(strings.Join(names, ", "), "nobody")
}

func held(l leaseJSON) string {
	text := " (" + seconds(l.HeldSeconds) + ")"
	if l.Until != nil {
		text += ", until " + clock(*l.Until) + " at the latest"
	}
	return text
}

// inLine says a position in the line in words.
func inLine(position int) string {
	switch {
	case position == 1:
		return "next in line"
	case position <= 0:
		return "in line"
	case position%100/10 != 1 && position%10 <= 3 && position%10 > 0:
		return fmt.Sprintf("%d%s in line", position, [...]string{"", "st", "nd", "rd"}[position%10])
	}
	return fmt.Sprintf("%dth in line", position)
}

// clock shows a time of day in the local zone, with the date unless it is
// today.
func clock(t time.Time) string {
	local := t.Local()
	if local.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return local.Format("15:04:05 MST")
	}
	return local.Format("2006-01-02 15:04:05 MST")
}

func seconds(s float64) string { return spell(time.Duration(s * float64(time.Second))) }

// spell shows a duration as people say it: 2h, 3m12s, 5s.
func spell(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// printable makes text from elsewhere harmless: nothing in it moves the
// cursor, starts a line or turns the direction.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// quote makes a word that a shell takes as it is.
func quote(word string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("-_./:@%+=,", r) || unicode.IsLetter(r) || unicode.IsDigit(r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
