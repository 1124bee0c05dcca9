package main

// Parked calls: callers who wait in line for minutes. net/http would keep
// buffers and a goroutine with a deep stack for each, some 35 kB; so their
// connections are taken out of its hands, or the front's, while they wait. Two
// goroutines that do little are left. After the answer the front attends to the
// connection.

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A parked call is in line, and its connection is ours.
type parked struct {
	*server
	call  *call
	until time.Time
	key   keySum
	conn  net.Conn
	early []byte    // what the caller has sent beyond the call
	close bool      // the caller wants no further answer
	in    *entrance // of conn
}

// parkedRequest is what every parked call looks like to the log.
var parkedRequest = &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/maybe"}}

// park takes a waiting call over and reports whether it did: its handler then
// returns, and the answer comes from here. Only HTTP/1.1 can be taken over.
func (s *server) park(w http.ResponseWriter, r *http.Request, c *call, until time.Time) bool {
	in := entranceFor(r)
	if in == nil || in.front == nil || r.ProtoMajor != 1 || r.ProtoMinor == 0 {
		return false
	}
	s.outside.Add(1)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.outside.Done()
		return false
	}
	p := &parked{server: s, call: c, until: until, key: keySumOf(r), conn: conn, close: r.Close || len(r.TransferEncoding) > 0, in: in}
	if n := buffered.Reader.Buffered(); n > 0 {
		p.early, _ = buffered.Reader.Peek(n)
	}
	go p.wait() // #nosec G118 -- it outlives its handler
	return true
}

// wait answers the call when the keeper does, and then lets net/http go on
// with the connection.
func (p *parked) wait() {
	ctx, end := p.keys.while(context.Background(), p.key)
	next := make(chan []byte, 1) // the first of what the caller sends next; empty: the caller has left
	if len(p.early) > 0 {
		next <- p.early
	} else {
		go p.listen(next, end)
	}
	a := p.stay(ctx, p.call, p.until)
	end() // the next call on this connection shows its own key
	if errors.Is(a.err, errGone) || !p.answer(a) {
		p.outside.Done()
		p.conn.Close()
		return
	}
	p.outside.Done()
	p.goOn(next)
}

// listen hears the caller leave, or begin the next call.
func (p *parked) listen(next chan<- []byte, leaves func()) {
	b := make([]byte, 1)
	n, _ := p.conn.Read(b)
	if n == 0 {
		leaves()
	}
	next <- b[:n]
}

// answer writes the answer, and reports whether the connection stays open.
func (p *parked) answer(a answer) bool {
	w := &heldAnswer{header: http.Header{}}
	if err := p.answerRequest(w, p.call, a); err != nil {
		p.refuse(w, parkedRequest, err)
	}
	p.metrics.answered(parkedRequest.URL.Path, parkedRequest.Method, w.code)
	var text bytes.Buffer
	last := w.write(&text, p.close || a.err != nil && statusOf(a.err) == http.StatusServiceUnavailable)
	p.conn.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := p.conn.Write(text.Bytes())
	return err == nil && !last
}

// goOn lets the front attend to the connection again as soon as the next call
// begins.
func (p *parked) goOn(next <-chan []byte) {
	p.conn.SetDeadline(time.Now().Add(idleTime))
	p.in.ends()
	var begun []byte
	select {
	case begun = <-next:
	case <-p.keeper.stopped:
	}
	if len(begun) == 0 {
		p.conn.Close()
		return
	}
	p.conn.SetDeadline(time.Time{})
	if !p.in.front.enters() {
		p.conn.Close()
		return
	}
	p.in.front.attend(p.in, begun) // of what net/http had read before, nothing is left
}

// A begunConnection is one from which something has been read already.
type begunConnection struct {
	net.Conn
	begun []byte
}

func (c *begunConnection) Read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *begunConnection) CloseWrite() error { return closeWrite(c.Conn) }
