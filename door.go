package main

// The door: the listener that every connection comes in by. It counts them,
// encrypts them where there is a certificate, turns away who speaks the wrong
// protocol, and makes net/http's own answers look like all others.

import (
	"bytes"
	"container/list"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// tlsHandshake is the first byte of a connection that speaks TLS.
const tlsHandshake = 0x16

// settleTime is how long a connection without a call is left in peace at
// least, so that its caller can begin one.
const settleTime = 500 * time.Millisecond

// A door lets in so many connections at a time. When they are so many, one
// that has no call under way makes room for the next: it has not shown a key
// yet, or has had its answer. Where all have one, the next waits outside.
type door struct {
	net.Listener
	tls    *tls.Config // nil: plain HTTP
	log    *slog.Logger
	often  *rate.Limiter // of lines that strangers cause
	room   chan struct{}
	closed chan struct{}
	once   sync.Once

	opened time.Time
	mu     sync.Mutex
	inside list.List // of *entrance; those in front have been looked at longest ago
}

func newDoor(l net.Listener, c *certificate, most int, log *slog.Logger) *door {
	return &door{Listener: l, tls: c.config(), log: log, often: rate.NewLimiter(1, 20),
		room: make(chan struct{}, most), closed: make(chan struct{}), opened: time.Now()}
}

func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !d.waitForRoom() {
		c.Close()
		return nil, net.ErrClosed
	}
	var inner net.Conn = &threshold{Conn: c, door: d}
	if d.tls != nil {
		inner = tls.Server(inner, d.tls)
	}
	return d.admit(&entrance{Conn: inner, door: d, outer: c}), nil
}

// waitForRoom takes a place for one more connection; false: the door is
// closed.
func (d *door) waitForRoom() bool {
	for {
		select {
		case d.room <- struct{}{}:
			return true
		default:
			d.makeRoom()
		}
		again := time.NewTimer(settleTime / 10)
		select {
		case d.room <- struct{}{}:
			again.Stop()
			return true
		case <-d.closed:
			again.Stop()
			return false
		case <-again.C:
		}
	}
}

// makeRoom ends the first connection that has had no call under way for
// settleTime.
func (d *door) makeRoom() {
	d.mu.Lock()
	var out *entrance
	for range d.inside.Len() {
		first := d.inside.Front()
		e := first.Value.(*entrance)
		if time.Since(d.opened)-time.Duration(e.since.Load()) >= settleTime && e.state.CompareAndSwap(quiet, turnedOut) {
			out = e
			break
		}
		d.inside.MoveToBack(first)
	}
	d.mu.Unlock()
	if out != nil {
		out.leave()
		out.outer.Close()
	}
}

// admit lets a connection in, and fills in how it leaves.
func (d *door) admit(e *entrance) *entrance {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.inside.PushBack(e)
	e.since.Store(int64(time.Since(d.opened)))
	e.leave = sync.OnceFunc(func() {
		d.mu.Lock()
		d.inside.Remove(at)
		d.mu.Unlock()
		<-d.room
	})
	return e
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// complain logs what a stranger did.
func (d *door) complain(what string, from net.Addr) {
	if d.often.Allow() {
		d.log.Warn(what, "from", from.String())
	}
}

// A threshold looks at the first byte of a connection: who speaks TLS to a
// plain port, or plain HTTP to a TLS port, is told so and turned away.
type threshold struct {
	net.Conn
	door   *door
	looked bool
}

func (t *threshold) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if t.looked || n == 0 {
		return n, err
	}
	t.looked = true
	var wrong string
	switch secure := t.door.tls != nil; {
	case !secure && p[0] == tlsHandshake:
		wrong = "this port speaks plain HTTP: use http://"
	case secure && p[0] >= 'A' && p[0] <= 'Z':
		wrong = "this port speaks HTTPS: use https://"
	default:
		return n, err
	}
	t.door.complain("turned away: "+wrong, t.RemoteAddr())
	t.Conn.Write(errorAnswer(http.StatusBadRequest, http.StatusText(http.StatusBadRequest), wrong))
	return 0, io.EOF
}

func (t *threshold) CloseWrite() error { return closeWrite(t.Conn) }

// closeWrite ends one direction, so that who still sends can read the answer.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// What an entrance is used for.
const (
	quiet     = iota // no call is under way that has shown a key
	calling          // one is
	turnedOut        // none will be: it has made room
)

// An entrance is a connection as the front and net/http see it.
type entrance struct {
	net.Conn
	door  *door
	front *front   // attends to it
	outer net.Conn // without TLS
	leave func()
	heard atomic.Bool
	state atomic.Int32
	since atomic.Int64 // that it is quiet, in nanoseconds after door.opened
}

// begins is called when a call has shown its key. It reports whether the
// connection is still there for an answer.
func (e *entrance) begins() bool {
	return e == nil || e.state.CompareAndSwap(quiet, calling) || e.state.Load() == calling
}

// ends is called when the call has been answered.
func (e *entrance) ends() {
	if e != nil {
		e.since.Store(int64(time.Since(e.door.opened)))
		e.state.CompareAndSwap(calling, quiet)
	}
}

// hungUp reports whether the caller has closed the connection, as far as that
// can be seen without reading from it.
func (e *entrance) hungUp() bool {
	if e == nil {
		return false
	}
	outer, ok := e.outer.(syscall.Conn)
	return ok && hasLeft(outer)
}

// entranceKey finds the entrance in the context of a call.
type entranceKey struct{}

// entranceFor returns what a call came in by; nil: not by a door.
func entranceFor(r *http.Request) *entrance {
	e, _ := r.Context().Value(entranceKey{}).(*entrance)
	return e
}

// entranceOf returns what a connection came in by; nil: not by a door.
func entranceOf(c net.Conn) *entrance {
	if begun, ok := c.(*begunConnection); ok {
		c = begun.Conn
	}
	e, _ := c.(*entrance)
	return e
}

// Read tells the log when a connection never got as far as HTTP.
func (e *entrance) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if e.door.tls == nil || e.heard.Swap(true) || err == nil {
		return n, err
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		e.door.complain("no TLS connection: "+err.Error(), e.RemoteAddr())
	}
	return n, err
}

// Write passes everything on as it is, but for the answers that net/http
// gives to what is no HTTP: those are text.
func (e *entrance) Write(p []byte) (int, error) {
	if answer := retell(p); answer != nil {
		if _, err := e.Conn.Write(answer); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return e.Conn.Write(p)
}

func (e *entrance) CloseWrite() error { return closeWrite(e.Conn) }

func (e *entrance) Close() error {
	e.leave()
	return e.Conn.Close()
}

// ownHeader follows the status in each answer that net/http makes itself
// (errorHeaders in net/http/server.go), and in no other.
const ownHeader = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// retell returns such an answer as ours; nil for all others.
func retell(p []byte) []byte {
	if !bytes.HasPrefix(p, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(p, []byte("HTTP/1.1 5")) {
		return nil
	}
	line, rest, _ := bytes.Cut(p, []byte("\r\n"))
	if !strings.HasPrefix("\r\n"+string(rest[:min(len(rest), len(ownHeader))]), ownHeader) {
		return nil
	}
	status, detail, detailed := strings.Cut(string(line[len("HTTP/1.1 "):]), ": ")
	code, err := strconv.Atoi(status[:min(3, len(status))])
	if err != nil {
		return nil
	}
	var message string
	switch code {
	case http.StatusBadRequest:
		message = errMalformed.Error()
	case http.StatusRequestHeaderFieldsTooLarge:
		message = fmt.Sprintf("%v: a header has %d bytes at most", errTooLarge, maxHeader)
	default:
		message = strings.ToLower(http.StatusText(code))
	}
	if detailed {
		message += ": " + detail
	}
	return errorAnswer(code, http.StatusText(code), message)
}

// errorAnswer is a whole HTTP answer, after which the connection is closed.
func errorAnswer(code int, status, message string) []byte {
	body, _ := json.Marshal(refusalJSON{Code: code, Message: foreign(message)}) // cannot fail
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", code, status, len(body)+1, body)
}
