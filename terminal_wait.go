package main

// What a waiting client says. In a log: who is in the way, what changes, and
// something at least once a minute. On a terminal: the same once, and then one
// line in place with a running clock.

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// repeatTime is how often a log hears something: some CI systems stop a job
// that is silent for ten minutes, and people sooner.
const repeatTime = time.Minute

// How the result of a request is printed.
type resultForm int

const (
	plainForm resultForm = iota // the two lines of 2019
	quietForm                   // the slot's name
	jsonForm                    // the lease
	runForm                     // one line on stderr, for what is about to run
)

// A waiter is the listener of one request. Its methods may be called while
// its clock runs on another goroutine.
type waitDisplay struct {
	*terminal
	options acquireOptions
	form    resultForm
	columns int // of the terminal; 0: a log
	stop    chan struct{}
	ended   chan struct{}

	mu        sync.Mutex
	started   time.Time
	said      time.Time
	lastReply *errorJSON // the line, as last heard; nil: the server has not said anything yet
	trouble   bool       // the server has not answered since we said so
	live      bool       // the live line is on the screen
	outputErr error      // why stdout was not told of the slot
}

// waiter begins to listen. Call done at the end.
func (t *terminal) newWaitDisplay(a acquireOptions, form resultForm) *waitDisplay {
	w := &waitDisplay{terminal: t, options: a, form: form, started: t.now(), stop: make(chan struct{}), ended: make(chan struct{})}
	if !inCI(t.getenv) {
		w.columns = width(t.err)
	}
	go w.tick()
	return w
}

// done leaves the screen clean.
func (w *waitDisplay) done() {
	close(w.stop)
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
}

// tick keeps the clock running on a terminal, and a log alive.
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
		case w.said.IsZero():
		case w.columns > 0:
			w.draw()
		case w.now().Sub(w.said) >= repeatTime:
			w.printLine("still waiting after %s, %s", durationText(w.now().Sub(w.started)), w.stateText())
		}
		w.mu.Unlock()
	}
}

// line prints a line above the live one.
func (w *waitDisplay) printLine(format string, args ...any) {
	w.clear()
	w.say(format, args...)
	w.said = w.now()
}

func (w *waitDisplay) clear() {
	if w.live {
		fmt.Fprint(w.err, clearLine)
		w.live = false
	}
}

func (w *waitDisplay) draw() {
	text := fmt.Sprintf("waiting %s for %s, %s", durationText(w.now().Sub(w.started)), w.options.environment, w.stateText())
	fmt.Fprint(w.err, clearLine+fitColumns(printable(text), w.columns-1))
	w.live = true
}

// state says what the server has told last.
func (w *waitDisplay) stateText() string {
	if w.lastReply == nil {
		return "the server has not answered yet"
	}
	return fmt.Sprintf("%s; held by %s", queuePosition(w.lastReply.Position), w.holderNames())
}

func (w *waitDisplay) holderNames() string {
	if len(w.lastReply.HeldBy) == 0 {
		return "nobody, it is being handed on"
	}
	var names []string
	for _, l := range w.lastReply.HeldBy[:min(3, len(w.lastReply.HeldBy))] {
		names = append(names, holderName(l))
	}
	return strings.Join(names, ", ")
}

// since says for how long the first holder has had its slot, and its link.
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

func (w *waitDisplay) queued(refused errorJSON) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.lastReply
	w.lastReply = &refused
	if w.trouble && before != nil {
		w.printLine("the server answers again")
	}
	w.trouble = false
	switch {
	case before == nil:
		w.printBegin()
	case w.form == runForm:
		if w.columns == 0 && (before.Position != refused.Position || !sameLeases(before.HeldBy, refused.HeldBy)) {
			w.printLine("call-me: waiting for %s, %s; held by %s%s", printable(w.options.environment), queuePosition(refused.Position), w.holderNames(), w.holderSince())
		}
	case !sameLeases(before.HeldBy, refused.HeldBy):
		w.clear()
		w.holders(refused.HeldBy)
		w.printLine("you are %s, after %s", queuePosition(refused.Position), durationText(w.now().Sub(w.started)))
	case before.Position != refused.Position && w.columns == 0:
		w.printLine("you are %s now, after %s", queuePosition(refused.Position), durationText(w.now().Sub(w.started)))
	}
}

func sameLeases(a, b []leaseJSON) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Fence != b[i].Fence {
			return false
		}
	}
	return true
}

// begin says what the waiting is about.
func (w *waitDisplay) printBegin() {
	if w.form == runForm {
		w.printLine("call-me: waiting for %s, %s; held by %s%s", printable(w.options.environment), queuePosition(w.lastReply.Position), w.holderNames(), w.holderSince())
		return
	}
	out := w.out
	if w.form != plainForm {
		out = w.err
	}
	fmt.Fprintf(out, "waiting for free slot on environment: %s\n", w.options.environment)
	w.holders(w.lastReply.HeldBy)
	for _, l := range w.lastReply.HeldBy {
		if l.Holder != "" && string(l.Holder) == w.options.holder {
			w.say("that is you: a step that runs again waits for itself")
			w.say("hint: to go on with the slot: call-me request %s --again", quote(w.options.environment))
			w.say("      to give it back first: call-me release %s", quote(w.options.environment))
			break
		}
	}
	if len(w.lastReply.HeldBy) == 0 {
		w.say("it is free, but others in the queue are served first")
	}
	w.printLine("you are %s", queuePosition(w.lastReply.Position))
}

func (w *waitDisplay) retrying(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.printLine("%s; trying again", printable(err.Error()))
	w.trouble = true
}

func (w *waitDisplay) restarted(why errorJSON) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := "the request ended"
	if why.Ended != nil {
		what = fmt.Sprintf("the request %s at %s", why.Ended.How, clockTime(why.Ended.At))
	}
	w.printLine("%s before we heard of it; back to the end of the queue", what)
}

// leaves is said when the waiting is interrupted.
func (w *waitDisplay) interrupted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.printLine("interrupted: left the queue of %s", w.options.environment)
}

func (w *waitDisplay) acquired(lease leaseJSON, waited time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
	switch w.form {
	case quietForm:
		_, w.outputErr = fmt.Fprintln(w.out, lease.Slot)
	case jsonForm:
		w.outputErr = w.json(lease)
	case runForm:
		w.say("call-me: acquired %s, waited %s; renewed while the command runs", lease.Slot, durationText(waited))
		w.warnSimilar(lease)
		return
	default:
		fmt.Fprintf(w.out, "acquired slot for environment: %s\n", w.options.environment)
		_, w.outputErr = fmt.Fprintf(w.out, "waited %s\n", waited)
	}
	w.say("%s", yours(lease))
	w.warnSimilar(lease)
}

// warnSimilar warns of a name that may be mistyped.
func (w *waitDisplay) warnSimilar(lease leaseJSON) {
	if lease.Similar == "" {
		return
	}
	w.say("call-me: warning: %q is not %q, which this server has known for longer", lease.Environment, lease.Similar)
	if w.form != runForm {
		w.say("hint: if you meant %s: call-me release %s", lease.Similar, quote(lease.Environment.String()))
	}
}
