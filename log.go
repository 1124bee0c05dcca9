package main

// The server's log: one line for each change of state, as text or as JSON.
// Whoever logs never waits for the lines to be written: they gather in memory,
// and a goroutine of the log's own writes them.

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	maxField  = 256             // bytes of one field; longer ones are cut
	maxLines  = 20_000          // that wait to be written; further ones are dropped, and counted
	flushTime = 2 * time.Second // for the last lines to be written, when nobody may be reading them
)

// logForm is how a log looks.
type logForm string

const (
	logText logForm = "text"
	logJSON logForm = "json"
)

func (f *logForm) Decode(text string) error {
	if *f = logForm(text); *f != logText && *f != logJSON {
		return errors.New("neither text nor json")
	}
	return nil
}

// newLog makes a log that writes to w. Call flush at the end: it returns when
// everything is written, or after flushTime.
func newLog(w io.Writer, form logForm) (log *slog.Logger, flush func()) {
	b := &backlog{out: bufio.NewWriter(w), wake: make(chan struct{}, 1), ended: make(chan struct{})}
	b.handler, b.tidy = slog.NewTextHandler(b.out, nil), tidyText
	if form == logJSON {
		b.handler, b.tidy = slog.NewJSONHandler(b.out, nil), tidyJSON
	}
	go b.writeAll()
	return slog.New(logHandler{b, b.handler}), b.flush
}

// A backlog holds the lines that are to be written.
type backlog struct {
	out     *bufio.Writer
	handler slog.Handler // writes to out
	tidy    func(text string) string
	wake    chan struct{}
	ended   chan struct{}

	mu      sync.Mutex
	lines   []logLine
	spare   []logLine // takes the next lines, while lines are being written
	dropped int       // since the last line that found room
	closed  bool
}

// A logLine is put into words by the goroutine that writes it.
type logLine struct {
	slog.Record
	handler slog.Handler
	dropped int // lines that were lost just before it
}

// add takes a line, or drops it when too many wait. It never blocks.
func (b *backlog) add(r slog.Record, h slog.Handler) {
	b.mu.Lock()
	if len(b.lines) == maxLines || b.closed {
		b.dropped++
		b.mu.Unlock()
		return
	}
	b.lines = append(b.lines, logLine{r, h, b.dropped})
	b.dropped = 0
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// writeAll writes lines as they come, until flush.
func (b *backlog) writeAll() {
	defer close(b.ended)
	for range b.wake {
		lines, dropped, last := b.take()
		for _, l := range lines {
			b.sayDropped(l.dropped)
			l.handler.Handle(context.Background(), b.tidied(l.Record))
		}
		b.sayDropped(dropped)
		b.out.Flush()
		clear(lines)
		b.spare = lines[:0]
		if last {
			return
		}
	}
}

// take returns the lines that have gathered, and how many were dropped after
// them; last: there will be no more.
func (b *backlog) take() (lines []logLine, dropped int, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines, b.lines = b.lines, b.spare
	dropped, b.dropped = b.dropped, 0
	return lines, dropped, b.closed
}

func (b *backlog) sayDropped(n int) {
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines were dropped here: nobody has read the log", 0)
	r.AddAttrs(slog.Int("lines", n))
	b.handler.Handle(context.Background(), r)
}

func (b *backlog) flush() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	select {
	case <-b.ended:
	case <-time.After(flushTime):
	}
}

// A logHandler hands records to the backlog.
type logHandler struct {
	*backlog
	to slog.Handler
}

func (h logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.to.Enabled(ctx, level)
}

func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	h.add(r, h.to)
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.backlog, h.to.WithAttrs(h.tidyAttrs(attrs))}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.backlog, h.to.WithGroup(name)}
}

// tidied returns a line as it is written: every text in it tidy. A handler could
// do so itself, by ReplaceAttr, but takes a quarter longer.
func (b *backlog) tidied(r slog.Record) slog.Record {
	t := slog.NewRecord(r.Time, r.Level, b.tidy(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if e := eventOf(a); e != nil { // as tidyAttr would, without a group in between
			e.tell(func(a slog.Attr) { t.AddAttrs(b.tidyAttr(a)) })
		} else {
			t.AddAttrs(b.tidyAttr(a))
		}
		return true
	})
	return t
}

func eventOf(a slog.Attr) *event {
	if a.Key != "" || a.Value.Kind() != slog.KindLogValuer {
		return nil
	}
	e, _ := a.Value.Any().(*event)
	return e
}

func (b *backlog) tidyAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(b.tidy(a.Value.String()))
	case slog.KindAny:
		if err, isError := a.Value.Any().(error); isError {
			a.Value = slog.StringValue(b.tidy(err.Error()))
		}
	case slog.KindGroup:
		a.Value = slog.GroupValue(b.tidyAttrs(a.Value.Group())...)
	}
	return a
}

func (b *backlog) tidyAttrs(attrs []slog.Attr) []slog.Attr {
	all := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		all[i] = b.tidyAttr(a)
	}
	return all
}

// tidyText cuts a long text and breaks commands of CI systems in it. The text
// handler itself quotes what is not printable.
func tidyText(text string) string { return shorten(breakCommands(text), maxField) }

// tidyJSON does the same, and spells out what is not printable: JSON leaves
// characters as they are that end a line, or turn it around, for some readers.
func tidyJSON(text string) string { return shorten(spellOut(breakCommands(text)), maxField) }

func spellOut(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !isVisible(r) }) && utf8.ValidString(text) {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// shorten cuts a text to so many bytes, and marks that it did.
func shorten(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	end := most - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// tell gives what the log says of an event, attribute by attribute.
func (e *event) tell(add func(slog.Attr)) {
	for _, a := range [...]struct{ name, text string }{{"environment", e.environment}, {"slot", e.slot}, {"holder", e.holder},
		{"request", nickname(e.id)}, {"by", e.by}, {"from", e.from}} {
		if a.text != "" {
			add(slog.String(a.name, a.text))
		}
	}
	if e.fence != 0 {
		add(slog.Uint64("fence", e.fence))
	}
}

// LogValue is what any log says of an event: never its id.
func (e event) LogValue() slog.Value {
	var known []slog.Attr
	e.tell(func(a slog.Attr) { known = append(known, a) })
	return slog.GroupValue(known...)
}

// nickname tells requests apart in the log without giving their ids away. It is
// another one after each start: whoever reads the log cannot try out ids that
// are easy to guess.
func nickname(id string) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(nicknameSalt+id)))[:8]
}

var nicknameSalt = rand.Text()

// logChange tells a change that has been committed.
func (k *keeper) logChange(c change, now time.Time) {
	switch {
	case c.event != nil:
		k.logEvent(now, c.event.kind.String(), c.event)
	case c.newPlace != nil && c.oldPlace == nil:
		p := c.newPlace
		k.logEvent(now, "in line", &event{environment: c.environment.name, id: p.id, holder: p.holder})
	case c.oldPlace != nil && c.newPlace == nil && !c.oldPlace.kept(): // it leaves no event
		k.logEvent(now, "out of line", &event{environment: c.environment.name, holder: c.oldPlace.holder})
	case c.newLease != nil && c.oldLease != nil:
		l := c.newLease
		k.logEvent(now, "renewed", &event{environment: c.environment.name, slot: l.slot, id: l.id, holder: l.holder, fence: l.fence}, slog.Duration("ttl", l.ttl))
	}
}

// logEvent does what Logger.Info would, but does not look for the line of code
// that has called it, which takes as long as all else.
func (k *keeper) logEvent(now time.Time, what string, e *event, more ...slog.Attr) {
	to := k.log.Handler()
	if !to.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(now, slog.LevelInfo, what, 0)
	r.AddAttrs(slog.Any("", e))
	r.AddAttrs(more...)
	to.Handle(context.Background(), r)
}

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
