package main

// What a client that waits for a slot prints: who holds the slots, the position in the
// queue, and what changes. In a log it prints a line at least every longQuietTime. On a
// terminal it prints the same lines at the beginning, and then one line that it redraws
// every second.

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// The longest times without a line in a log: until the first line that only says that the wait
// goes on, and after it. Some CI systems stop a job that prints nothing for ten minutes.
const (
	shortQuietTime = 4 * time.Minute
	longQuietTime  = 8 * time.Minute
)

// A resultForm is how the lease of a request is printed.
type resultForm int

const (
	plainForm resultForm = iota // the two lines of 2019
	quietForm                   // the slot's name
	jsonForm                    // the lease
	runForm                     // one line on stderr, before run starts its command
)

// A waitDisplay is the acquireListener of one request: it prints how the request goes.
// Its methods may be called by several goroutines; its own redraws the line.
type waitDisplay struct {
	*terminal
	options acquireOptions
	form    resultForm
	columns int // the width of the terminal; zero if stderr is a log
	started time.Time
	stop    chan struct{} // closed by done
	ended   chan struct{} // closed when tick has returned
	granted grantedJSON   // set by acquired for runForm
	waited  time.Duration // for the leases; set with granted

	mu          sync.Mutex // guards the fields below
	lastPrinted time.Time  // when the last line was printed; zero if none was
	lastReply   *errorJSON // the last answer of a poll; nil if the server has not answered yet
	isRepeating bool       // tick has printed a line in the log
	isRetrying  bool       // the server has not answered since retrying printed its error
	live        bool       // the redrawn line is on the screen
	outputErr   error      // why the lease could not be printed on stdout
}

// newWaitDisplay returns a display for one request and starts its goroutine, which done
// ends. In a CI job stderr counts as a log, also where it is a terminal.
func (t *terminal) newWaitDisplay(options acquireOptions, form resultForm) *waitDisplay {
	w := &waitDisplay{
		terminal: t,
		options:  options,
		form:     form,
		started:  t.now(),
		stop:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	if !inCI(t.getenv) {
		w.columns = width(t.err)
	}
	go w.tick()
	return w
}

// done ends the goroutine of the display and clears the redrawn line.
func (w *waitDisplay) done() {
	close(w.stop)
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
}

// tick redraws the line on a terminal every second. In a log it prints a line when
// shortQuietTime has passed without one, and then each longQuietTime. It does nothing before
// the first line, and returns when stop is closed.
func (w *waitDisplay) tick() {
	defer close(w.ended)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		switch {
		case w.lastPrinted.IsZero():
		case w.columns > 0:
			w.draw()
		case w.isRetrying: // retrying is called again and again
		case w.now().Sub(w.lastPrinted) >= w.quietTime():
			w.isRepeating = true
			w.printLine("still waiting after %s, %s", w.elapsed(), w.stateText())
		}
		w.mu.Unlock()
	}
}

// quietTime returns after which time without a line tick prints one.
func (w *waitDisplay) quietTime() time.Duration {
	if w.isRepeating {
		return longQuietTime
	}
	return shortQuietTime
}

// elapsed returns for how long the request has been waiting.
func (w *waitDisplay) elapsed() string { return durationText(w.now().Sub(w.started)) }

// printLine prints a line in the place of the redrawn one, which the next tick draws
// again below it. The callers of printLine, clear and draw hold mu.
func (w *waitDisplay) printLine(format string, args ...any) {
	w.clear()
	w.say(format, args...)
	w.lastPrinted = w.now()
}

// clear clears the redrawn line.
func (w *waitDisplay) clear() {
	if w.live {
		fmt.Fprint(w.err, clearLine)
		w.live = false
	}
}

// draw draws the line with the time that has passed, cut to the width of the terminal.
func (w *waitDisplay) draw() {
	text := fmt.Sprintf("waiting %s for %s, %s", w.elapsed(), w.options.label(), w.stateText())
	fmt.Fprint(w.err, clearLine+fitColumns(printable(text), w.columns-1))
	w.live = true
}

// stateText returns the position and the holders that the server has sent last.
func (w *waitDisplay) stateText() string {
	switch {
	case w.lastReply == nil:
		return "the server has not answered yet"
	case w.isRetrying:
		return "the server does not answer"
	}
	return fmt.Sprintf("%s; %s", positionText(*w.lastReply), w.whoHas())
}

// holderSince returns, after a space, since when the first holder has its slot, and the
// link of its job; empty if nobody has a slot.
func (w *waitDisplay) holderSince() string {
	if len(w.lastReply.HeldBy) == 0 {
		return ""
	}
	l := w.lastReply.HeldBy[0]
	text := fmt.Sprintf(" since %s (%s)", clockTime(l.Since), secondsText(l.HeldSeconds))
	if l.URL != "" {
		text += " " + l.URL.String()
	}
	return text
}

// queued implements acquireListener. It prints the first answer, and each later one with
// other holders than the answer before. A new position alone is printed in a log only:
// on a terminal the redrawn line shows it. For run this is true of new holders too.
func (w *waitDisplay) queued(reply errorJSON) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.lastReply
	w.lastReply = &reply
	if w.isRetrying && before != nil {
		w.printLine("the server answers again")
	}
	w.isRetrying = false
	if before == nil {
		w.printBegin()
		return
	}
	holdersBefore, positionsBefore := factsOf(*before)
	holders, positions := factsOf(reply)
	positionChanged, holdersChanged := positions != positionsBefore, holders != holdersBefore
	isLog := w.columns == 0
	switch {
	case w.form == runForm:
		if isLog && (positionChanged || holdersChanged) {
			w.printForRun()
		}
	case holdersChanged:
		w.clear()
		w.lackLines(reply)
		w.ownKept()
		w.printLine("you are %s, after %s", positionText(reply), w.elapsed())
	case positionChanged && isLog:
		w.printLine("you are %s now, after %s", positionText(reply), w.elapsed())
	}
}

// printForRun prints the last answer of the server in one line.
func (w *waitDisplay) printForRun() {
	who := w.whoHas()
	if w.isNamesake() && len(w.lastReply.WaitsFor) == 0 {
		who = "held by another process of yours (" + strings.TrimPrefix(who, "held by ") + ")"
	}
	w.printLine("call-me: waiting for %s, %s; %s%s", printable(w.options.label()),
		positionText(*w.lastReply), who, w.holderSince())
}

// isNamesake reports whether a slot is held by a lease with the caller's own holder.
func (w *waitDisplay) isNamesake() bool {
	isOwn := func(l leaseJSON) bool { return l.Holder != "" && string(l.Holder) == w.options.holder }
	return slices.ContainsFunc(w.lastReply.lacks(), func(l lackJSON) bool {
		return slices.ContainsFunc(l.HeldBy, isOwn)
	})
}

// printBegin prints the first answer of the server: the environment, the holders and the
// position. It adds a hint if a holder has the caller's name. The first line goes to
// stdout for plainForm, as in 2019, and everything else to stderr.
func (w *waitDisplay) printBegin() {
	if w.form == runForm {
		w.sayNested()
		w.printForRun()
		w.printPageLink()
		return
	}
	out := w.out
	if w.form != plainForm {
		out = w.err
	}
	for _, name := range w.options.names() {
		fmt.Fprintf(out, "waiting for free slot on environment: %s\n", name)
	}
	w.lackLines(*w.lastReply)
	w.ownKept()
	if w.isNamesake() {
		w.say("held by another process of yours: you wait until it gives the slot back")
		w.say("hint: if a step ended without giving it back, go on with its slot: call-me request %s --again",
			w.options.words())
	}
	if len(w.lastReply.HeldBy)+len(w.lastReply.Kept)+len(w.lastReply.WaitsFor)+len(w.lastReply.Pauses) == 0 {
		w.say("it is free, but others in the queue are served first")
	}
	w.sayNested()
	w.printLine("you are %s", positionText(*w.lastReply))
	w.printPageLink()
}

// retrying implements acquireListener. It prints why the client tries again, and until when.
func (w *waitDisplay) retrying(err error, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.printLine("%s", retryText(err, until))
	w.isRetrying = true
}

// restarted implements acquireListener. It prints how the request ended at the server.
func (w *waitDisplay) restarted(why errorJSON) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := "the request ended"
	if why.Ended != nil {
		what = fmt.Sprintf("the request %s at %s", why.Ended.How, clockTime(why.Ended.At))
	}
	w.printLine("%s before the server could say so; waiting again, at the end of the queue", what)
}

// interrupted prints that the client has left the queue after a signal.
func (w *waitDisplay) interrupted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.printLine("interrupted: left the queue of %s", w.options.label())
}

// acquired implements acquireListener. It prints the leases in the form of the display and
// sets outputErr if stdout does not accept them. For runForm it prints nothing and does not
// block, which a write may do; see printGranted.
func (w *waitDisplay) acquired(granted grantedJSON, waited time.Duration) {
	if w.form == runForm {
		w.granted, w.waited = granted, waited
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
	switch w.form {
	case quietForm:
		w.outputErr = w.slotNames(granted)
	case jsonForm:
		w.outputErr = w.jsonLeases(granted)
	default:
		for _, l := range granted.all() {
			fmt.Fprintf(w.out, "acquired slot for environment: %s\n", string(l.Environment))
		}
		_, w.outputErr = fmt.Fprintf(w.out, "waited %s\n", waited)
	}
	if w.outputErr != nil {
		return
	}
	w.say("%s", grantedSentence(granted, w.options))
	w.warnSimilar(granted.leaseJSON)
	w.summarizeGranted(granted, waited)
}

// printGranted prints the lease that acquired was called with, for runForm. It is called
// after done.
func (w *waitDisplay) printGranted() {
	w.say("call-me: acquired %s, waited %s; renewed while the command runs",
		w.granted.label(), durationText(w.waited))
	w.warnSimilar(w.granted.leaseJSON)
	w.summarizeGranted(w.granted, w.waited)
}

// warnSimilar prints a warning if the server knows an older environment with nearly the
// same name: the name may be mistyped.
func (w *waitDisplay) warnSimilar(lease leaseJSON) {
	if lease.Similar == "" {
		return
	}
	w.say("call-me: warning: %q is not %q, which this server has known for longer",
		lease.Environment, lease.Similar)
	if w.form != runForm {
		w.say("hint: if you meant %s: call-me release %s", lease.Similar, quote(lease.Environment.String()))
	}
}
