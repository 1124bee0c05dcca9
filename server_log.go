package main

// The server's log: one line for each change of state, as text or as JSON, by
// log/slog's own handlers. Logging never blocks: the lines gather in memory, and
// a goroutine writes them.

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
	maxField  = 256             // bytes of one field; longer ones are cut
	maxLines  = 20_000          // that wait to be written; further ones are dropped
	flushTime = 2 * time.Second // for the last lines to be written, when nobody may be reading them
)

// newLog makes a log that writes to w and never blocks. Call flush at the end:
// it returns when everything is written, or after flushTime.
func newLog(w io.Writer, form logForm) (log *slog.Logger, flush func()) {
	lines := &lineWriter{out: w, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	lines.notices = slog.New(newLogHandler(form, &lines.pending))
	go lines.writeAll()
	return slog.New(newLogHandler(form, lines)), lines.flush
}

// newLogHandler returns slog's own handler for a form. Every text in a queue is tidied.
func newLogHandler(form logForm, w io.Writer) slog.Handler {
	if form == logJSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: tidyJSON.attr})
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: tidyText.attr})
}

// A lineWriter takes one line with each Write, and writes the lines in a
// goroutine of its own. Write never blocks and never fails: while maxLines wait
// to be written, further ones are dropped, and counted.
type lineWriter struct {
	out     io.Writer
	notices *slog.Logger // writes to pending
	wake    chan struct{}
	ended   chan struct{}

	mu      sync.Mutex
	pending bytes.Buffer
	lines   int // in pending
	dropped int // after those in pending
	closed  bool
}

func (w *lineWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lines == maxLines || w.closed {
		w.dropped++
		return len(line), nil
	}
	w.lines++
	w.pending.Write(line)
	w.rouse()
	return len(line), nil
}

func (w *lineWriter) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// writeAll writes lines as they come, until flush.
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

// take returns the lines that have gathered; last: there will be no more.
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

func (w *lineWriter) flush() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.rouse()
	select {
	case <-w.ended:
	case <-time.After(flushTime):
	}
}

// A tidier returns a text as it may stand in the log.
type tidier func(text string) string

// attr is a ReplaceAttr of slog: it tidies texts and errors, the message
// included, and leaves everything else.
func (tidy tidier) attr(_ []string, a slog.Attr) slog.Attr {
	if err, isError := a.Value.Any().(error); isError {
		a.Value = slog.StringValue(err.Error())
	}
	if a.Value.Kind() == slog.KindString {
		a.Value = slog.StringValue(tidy(a.Value.String()))
	}
	return a
}

// tidyText cuts a long text and breaks commands of CI systems in it. The text
// handler itself quotes what is not printable.
var tidyText tidier = func(text string) string { return shorten(breakCommands(text), maxField) }

// tidyJSON does the same, and spells out what is not printable: JSON leaves
// characters as they are that end a line, or turn it around, for some readers.
var tidyJSON tidier = func(text string) string {
	return shorten(spellOut(breakCommands(text)), maxField)
}

// A keeperLog is the keeper's observer: it counts in metrics, and writes a line for
// each change of state.
type keeperLog struct {
	*metrics
	log *slog.Logger
}

// failed logs that saving has begun to fail.
func (l keeperLog) failed(err error) { l.log.Error("storing failed", "error", err) }

// recovered logs that saving works again.
func (l keeperLog) recovered() { l.log.Info("storing works again") }

// answered logs the changes of a batch and the renewals that it refused.
func (l keeperLog) answered(at time.Time, changes []change, refused []refusedRenewal) {
	for _, c := range changes {
		l.change(at, c)
	}
	for _, r := range refused {
		e := &event{environment: r.environment, id: r.renewal.id, holder: r.renewal.holder}
		l.event(at, "renewal refused", e, slog.Any("error", r.err))
	}
}

func (l keeperLog) change(at time.Time, c change) {
	switch {
	case c.event != nil:
		l.event(at, c.event.kind.String(), c.event)
	case c.newWaiter != nil && c.oldWaiter == nil:
		w := c.newWaiter
		l.event(at, "in the queue", &event{environment: c.environment.name, id: w.id, holder: w.holder})
	case c.oldWaiter != nil && c.newWaiter == nil && !c.oldWaiter.isStored(): // it leaves no event
		l.event(at, "left the queue", &event{environment: c.environment.name, holder: c.oldWaiter.holder})
	case c.newLease != nil && c.oldLease != nil:
		n := c.newLease
		e := &event{environment: c.environment.name, slot: n.slot, id: n.id, holder: n.holder, fence: n.fence}
		l.event(at, "renewed", e, slog.Duration("ttl", n.ttl))
	}
}

// event writes one line: what has happened, then what the log may say of the event,
// which never includes its id.
func (l keeperLog) event(at time.Time, what string, e *event, more ...slog.Attr) {
	h := l.log.Handler()
	if !h.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(at, slog.LevelInfo, what, 0)
	for _, a := range []struct{ name, text string }{
		{"environment", e.environment}, {"slot", e.slot}, {"holder", e.holder},
		{"request", requestTag(e.id)}, {"by", e.by}, {"from", e.from},
	} {
		if a.text != "" {
			r.AddAttrs(slog.String(a.name, a.text))
		}
	}
	if e.fence != 0 {
		r.AddAttrs(slog.Uint64("fence", e.fence))
	}
	r.AddAttrs(more...)
	h.Handle(context.Background(), r)
}

// requestTag tells requests apart in the log without giving their ids away. It is
// another one after each start: whoever reads the log cannot try out ids that
// are easy to guess.
func requestTag(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(requestTagSalt+id)))[:8]
}

var requestTagSalt = rand.Text()

// A slogWriter takes what net/http logs: broken connections and panics. Of
// what strangers can cause it lets only so much through.
type slogWriter struct {
	log   *slog.Logger
	often *rate.Limiter
}

func newSlogWriter(log *slog.Logger) slogWriter { return slogWriter{log, rate.NewLimiter(1, 20)} }

func (w slogWriter) Write(line []byte) (int, error) {
	if w.often.Allow() {
		w.log.Warn("http", "message", strings.TrimSpace(string(line)))
	}
	return len(line), nil
}
