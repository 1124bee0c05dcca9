package main

// The server's log: one line for each change of state, as text or as JSON, by the handlers
// of log/slog. Logging never blocks: the lines are collected in memory, and one goroutine
// writes them. The keeper's observer and the log of net/http are here too.

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxField  = 256             // bytes of one field; a longer one is cut
	maxLines  = 20_000          // lines in memory that are not written yet; further ones are dropped
	flushTime = 2 * time.Second // how long flush waits, in case w is a pipe without a reader
)

// newLog returns a log that writes to w and never blocks. The caller calls flush at the
// end. It returns when every line is written, or after flushTime. Lines that are logged
// after flush are dropped.
func newLog(w io.Writer, form logForm) (log *slog.Logger, flush func()) {
	lines := &lineWriter{out: w, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	lines.notices = slog.New(newLogHandler(form, &lines.pending))
	go lines.writeAll()
	return slog.New(newLogHandler(form, lines)), lines.flush
}

// newLogHandler returns slog's handler for a form. Every text in a line is passed through
// tidyText or tidyJSON.
func newLogHandler(form logForm, w io.Writer) slog.Handler {
	if form == logJSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: tidyJSON.attr})
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: tidyText.attr})
}

// A lineWriter takes one line with each Write, and writes the lines to out in a goroutine
// of its own. While maxLines are not written yet, further lines are dropped and counted.
// After them one line with their number is written. Errors of out are ignored.
type lineWriter struct {
	out     io.Writer
	notices *slog.Logger  // writes to pending
	wake    chan struct{} // has a value when there may be something to write
	ended   chan struct{} // closed when writeAll has returned

	mu      sync.Mutex
	pending bytes.Buffer
	lines   int  // in pending
	dropped int  // after those in pending
	closed  bool // no further line is taken
}

// Write adds a line. It never blocks, and its error is always nil.
func (w *lineWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lines == maxLines || w.closed {
		w.dropped++
		return len(line), nil
	}
	w.lines++
	w.pending.Write(line)
	w.wakeUp()
	return len(line), nil
}

// wakeUp wakes writeAll, which takes the lines at once or after its current write.
func (w *lineWriter) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// writeAll writes the pending lines whenever there are some, and returns after those that
// are pending at flush.
func (w *lineWriter) writeAll() {
	defer close(w.ended)
	for range w.wake {
		lines, last := w.take()
		w.out.Write(lines)
		if last {
			return
		}
	}
}

// take removes the pending lines and returns them, with a notice about dropped ones. last
// reports whether there will be no more.
func (w *lineWriter) take() (lines []byte, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dropped > 0 {
		w.notices.Warn("lines were dropped here: nobody has read the log", "lines", w.dropped)
	}
	lines = w.pending.Bytes()
	w.pending, w.lines, w.dropped = bytes.Buffer{}, 0, 0
	return lines, w.closed
}

// flush ends the lineWriter: it returns when the pending lines are written, or after
// flushTime.
func (w *lineWriter) flush() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wakeUp()
	select {
	case <-w.ended:
	case <-time.After(flushTime):
	}
}

// A tidier returns a text in the form in which the log may show it.
type tidier func(text string) string

// attr is a ReplaceAttr function of slog. It tidies texts and the texts of errors, the
// message included, and returns any other value unchanged.
func (tidy tidier) attr(_ []string, a slog.Attr) slog.Attr {
	if err, isError := a.Value.Any().(error); isError {
		a.Value = slog.StringValue(err.Error())
	}
	if a.Value.Kind() == slog.KindString {
		a.Value = slog.StringValue(tidy(a.Value.String()))
	}
	return a
}

// tidyText breaks commands of CI systems in a text, and cuts the text to maxField bytes.
// slog's text handler itself quotes what is not printable.
var tidyText tidier = func(text string) string { return shorten(breakCommands(text), maxField) }

// tidyJSON is tidyText for slog's JSON handler. It also spells out what is not printable:
// the handler does not escape all characters that some readers show as the end of a line,
// or that reverse its direction.
var tidyJSON tidier = func(text string) string {
	return shorten(spellOut(breakCommands(text)), maxField)
}

// A keeperLog is the observer of the keeper: it updates the metrics, and logs one line for
// each change of state.
type keeperLog struct {
	*metrics
	log *slog.Logger
}

// failed logs that saving begins to fail.
func (l keeperLog) failed(err error) { l.log.Error("storing failed", "error", err) }

// recovered logs that saving works again.
func (l keeperLog) recovered() { l.log.Info("storing works again") }

// replied logs the changes of a batch and its refused renewals, with the time at.
func (l keeperLog) replied(at time.Time, changes []change, refused []refusedRenewal) {
	for i, c := range changes {
		isGranted := c.oldWaiter != nil && i+1 < len(changes) && changes[i+1].newLease != nil
		if !isGranted { // the event of the grant is logged
			l.change(at, c)
		}
	}
	for _, r := range refused {
		e := &event{environment: r.environment, id: r.renewal.id, holder: r.renewal.holder,
			origin: r.renewal.by}
		l.event(at, "renewal refused", e, slog.Any("error", r.err))
	}
}

// change logs one change: an event, a waiter that has entered the queue, a waiter without
// an id that has left it, or a lease with a new ttl. It logs nothing for other
// changes: an event of the same batch stands for them.
func (l keeperLog) change(at time.Time, c change) {
	switch {
	case c.event != nil:
		l.event(at, c.event.kind.String(), c.event)
	case c.newWaiter != nil && c.oldWaiter == nil:
		w := c.newWaiter
		l.event(at, "in the queue",
			&event{environment: c.environment.name, id: w.id, holder: w.holder, origin: w.origin})
	case c.oldWaiter != nil && c.newWaiter == nil && !c.oldWaiter.isStored(): // it makes no event
		l.event(at, "left the queue",
			&event{environment: c.environment.name, holder: c.oldWaiter.holder, origin: c.oldWaiter.origin})
	case c.newLease != nil && c.oldLease != nil:
		n := c.newLease
		e := &event{environment: c.environment.name, slot: n.slot, id: n.id, holder: n.holder, fence: n.fence,
			origin: n.origin.endedBy(c.by), byKey: c.by.key}
		l.event(at, "renewed", e, slog.Duration("ttl", n.ttl))
	}
}

// event logs one line at level Info with the time at: what has happened, the fields of e
// that are not empty, and more. The id of the request is replaced by its requestTag.
func (l keeperLog) event(at time.Time, what string, e *event, more ...slog.Attr) {
	h := l.log.Handler()
	if !h.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	for _, a := range []struct{ name, text string }{
		{"environment", e.environment}, {"slot", e.slot}, {"holder", e.holder}, {"verified", e.verified},
		{"key", e.key}, {"request", requestTag(e.id)}, {"by", e.by}, {"by_key", e.byKey}, {"from", e.from},
		{"to", e.to}, {"why", e.why},
	} {
		if a.text != "" {
			attrs = append(attrs, slog.String(a.name, a.text))
		}
	}
	if e.kind == eventPaused || e.kind == eventResumed {
		attrs = append(attrs, pauseAttrs(e)...)
	}
	if e.fence != 0 {
		attrs = append(attrs, slog.Uint64("fence", e.fence))
	}
	r := slog.NewRecord(at, slog.LevelInfo, what, 0)
	r.AddAttrs(append(attrs, more...)...)
	h.Handle(context.Background(), r)
}

// pauseAttrs returns what a line has of a pause besides the fields of other events.
func pauseAttrs(e *event) []slog.Attr {
	var attrs []slog.Attr
	if e.environment == everywhere {
		attrs = append(attrs, slog.Bool("all", true))
	}
	if e.reason != "" {
		attrs = append(attrs, slog.String("reason", e.reason))
	}
	return attrs
}

// requestTag returns 8 hexadecimal digits that distinguish requests in the log without
// their ids, which are secret. It returns an empty text for an empty id. The tag of an id
// is another one after each start of the server, so that a reader of the log cannot find
// an id that is easy to guess by trying.
func requestTag(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(requestTagSalt+id)))[:8]
}

// requestTagSalt is the random part of what requestTag hashes.
var requestTagSalt = rand.Text()

// A slogWriter writes the lines that net/http logs, about broken connections and panics,
// to the log. Clients without a key can cause such lines, so it writes at most 20 lines at
// once and one a second, and drops the others.
type slogWriter struct {
	log   *slog.Logger
	often *rate.Limiter
}

// newSlogWriter returns a slogWriter with a limit of its own.
func newSlogWriter(log *slog.Logger) slogWriter { return slogWriter{log, rate.NewLimiter(1, 20)} }

// Write logs one line at level Warn, or drops it. Its error is always nil.
func (w slogWriter) Write(line []byte) (int, error) {
	if w.often.Allow() {
		w.log.Warn("http", "message", strings.TrimSpace(string(line)))
	}
	return len(line), nil
}
