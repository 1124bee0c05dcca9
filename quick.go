package main

// Quick calls: those that the clients of call-me and of 2019 make all day, read
// and answered without net/http, which takes about as much of the processor for
// such a call as all else that the server does for it: a goroutine that listens
// while it is answered, deadlines that come and go, headers of every kind.
//
// What a quick call may look like is a short list. Whatever is not on it goes to
// net/http from its first byte: so nothing here knows how to refuse, and all
// that is odd, broken or hostile is net/http's.

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	quickPath = "/maybe"
	quickSize = 4 << 10 // bytes of a quick call at most, with its body
)

// quickHandlers are those of quickPath, by method.
type quickHandlers map[string]quickHandler

type quickHandler struct {
	method string
	http.Handler
}

// A quickCall is a call as it was sent. What it holds is valid until the next
// one is read.
type quickCall struct {
	handler     quickHandler
	query       []byte
	key         []byte // nil: none
	contentType []byte // nil: none
	body        []byte
	size        int // bytes of all of it
	hosts       int
	length      int // of the body; -1: not told
}

// What the beginning of a call shows it to be.
type quickness int

const (
	whole  quickness = iota // a quick call, and all of it
	partly                  // what there is of it could be one
	other                   // none
)

// read reads the call that b begins with.
func (q *quickCall) read(b []byte, handlers quickHandlers) quickness {
	*q = quickCall{length: -1}
	line, rest, what := cutLine(b)
	for first := true; what == whole && len(line) > 0; first = false {
		if first && !q.readTarget(line, handlers) || !first && !q.readHeader(line) {
			return other
		}
		line, rest, what = cutLine(rest)
	}
	switch {
	case what == partly && len(b) == quickSize, what == other, what == whole && (q.handler.Handler == nil || q.hosts != 1):
		return other
	case what == partly:
		return partly
	case q.length > len(rest): // net/http knows how long to wait for it
		return other
	}
	q.body = rest[:max(0, q.length)]
	q.size = len(b) - len(rest) + len(q.body)
	return whole
}

// cutLine cuts a line off; partly: its end is not there yet.
func cutLine(b []byte) (line, rest []byte, what quickness) {
	line, rest, found := bytes.Cut(b, []byte("\r\n"))
	if !found {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	for _, c := range line {
		if c < ' ' || c > '~' {
			return nil, nil, other
		}
	}
	if !found {
		return nil, nil, partly
	}
	return line, rest, whole
}

// readTarget reads the first line.
func (q *quickCall) readTarget(line []byte, handlers quickHandlers) bool {
	method, after, _ := bytes.Cut(line, []byte(" "))
	target, proto, _ := bytes.Cut(after, []byte(" "))
	path, query, _ := bytes.Cut(target, []byte("?"))
	if string(path) != quickPath || string(proto) != "HTTP/1.1" || bytes.IndexByte(query, '#') >= 0 {
		return false
	}
	q.handler, q.query = handlers[string(method)], query
	return q.handler.Handler != nil
}

// readHeader reads one line of the header.
func (q *quickCall) readHeader(line []byte) bool {
	name, value, found := bytes.Cut(line, []byte(":"))
	value = bytes.Trim(value, " ")
	is := func(known string) bool { return len(name) == len(known) && strings.EqualFold(string(name), known) }
	switch {
	case !found || len(value) == 0:
		return false
	case is("Host"):
		q.hosts++
		return !bytes.ContainsFunc(value, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-.:[]", r))
		})
	case is("X-API-KEY"):
		before := q.key
		q.key = value
		return before == nil
	case is("Content-Type"):
		before := q.contentType
		q.contentType = value
		return before == nil
	case is("Content-Length"):
		n, err := strconv.ParseUint(string(value), 10, 16)
		before := q.length
		q.length = int(n)
		return err == nil && before < 0
	case is("Connection"):
		return bytes.EqualFold(value, []byte("keep-alive"))
	}
	return is("User-Agent") || is("Accept") || is("Accept-Encoding") // which mean nothing to these calls
}

// fill makes the request that net/http would have made of it.
func (q *quickCall) fill(r *http.Request, body *bytes.Reader) {
	r.Method, r.RequestURI = q.handler.method, quickPath+"?"+string(q.query)
	r.URL.RawQuery = r.RequestURI[len(quickPath)+1:]
	setHeader(r.Header, keyHeader, q.key)
	setHeader(r.Header, "Content-Type", q.contentType)
	r.Body, r.ContentLength = http.NoBody, int64(len(q.body))
	if len(q.body) > 0 {
		body.Reset(q.body)
		r.Body = io.NopCloser(body)
	}
}

// setHeader makes the header one of this value, or none.
func setHeader(h http.Header, name string, value []byte) {
	before := h[name]
	switch {
	case value == nil:
		delete(h, name)
	case len(before) != 1 || before[0] != string(value):
		h[name] = []string{string(value)}
	}
}

// A heldAnswer is an answer that is put together before it is sent.
type heldAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header         { return h.header }
func (h *heldAnswer) WriteHeader(code int)        { h.code = code }
func (h *heldAnswer) Write(p []byte) (int, error) { return h.body.Write(p) }

// write puts the answer down as net/http does, and reports whether it is the
// last one on its connection.
func (h *heldAnswer) write(to *bytes.Buffer, last bool) bool {
	line := append(to.AvailableBuffer(), "HTTP/1.1 "...)
	line = strconv.AppendInt(line, int64(h.code), 10)
	line = append(append(append(line, ' '), http.StatusText(h.code)...), "\r\n"...)
	to.Write(line)
	if len(h.header) > 0 {
		h.header.Write(to)
	}
	line = append(append(to.AvailableBuffer(), "Date: "...), dateOf(time.Now())...)
	if h.code != http.StatusNoContent {
		line = strconv.AppendInt(append(line, "\r\nContent-Length: "...), int64(h.body.Len()), 10)
	}
	closes := h.header["Connection"] != nil
	if last && !closes {
		line = append(line, "\r\nConnection: close"...)
	}
	to.Write(append(line, "\r\n\r\n"...))
	to.Write(h.body.Bytes())
	return last || closes
}

// A date is the time of a second, in words.
type date struct {
	second int64
	text   string
}

// lastDate was told last.
var lastDate atomic.Pointer[date]

// dateOf puts the time into the words of HTTP, once for each second.
func dateOf(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}

// reset makes room for the next answer.
func (h *heldAnswer) reset() {
	clear(h.header)
	h.code = 0
	empty(&h.body)
}

// empty keeps the memory of small answers only.
func empty(b *bytes.Buffer) {
	if b.Reset(); b.Cap() > 4*quickSize {
		*b = bytes.Buffer{}
	}
}

// A quickAnswer is that of an attendance.
type quickAnswer struct {
	heldAnswer
	of    *attendance
	taken bool // by who has called Hijack
}

// SetReadDeadline and SetWriteDeadline need not do anything: the body is
// there, and tell sets its own.
func (*quickAnswer) SetReadDeadline(time.Time) error  { return nil }
func (*quickAnswer) SetWriteDeadline(time.Time) error { return nil }

// Hijack gives the connection away.
func (q *quickAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	q.taken = true
	q.of.front.forget(q.of) // before its deadlines are cleared: Close sets those of who is attended to
	early := bytes.Clone(q.of.unread)
	buffered := bufio.NewReaderSize(bytes.NewReader(early), len(early))
	buffered.Peek(len(early))
	q.of.SetDeadline(time.Time{})
	return q.of.entrance, bufio.NewReadWriter(buffered, bufio.NewWriterSize(q.of.entrance, 1)), nil
}
