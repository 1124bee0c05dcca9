package main

// The front: it stands between the door and net/http, and attends to each
// connection for as long as it brings quick calls. quick.go says what those
// are and reads them.

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// deadlineSlack is how much earlier than it should a deadline may be, so that
// not every call has to set two.
const deadlineSlack = time.Second

// A front answers the quick calls by itself. To net/http it is a listener, by
// which all other connections come.
type front struct {
	*door
	calls   quickHandlers
	outside *sync.WaitGroup // counts the connections that are attended to
	others  chan accepted

	mu       sync.Mutex
	attended map[*attendance]bool
}

// What Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// newFront lets the server answer what comes in by the door.
func newFront(d *door, s *server) *front {
	f := &front{door: d, calls: quickHandlers{}, outside: &s.outside, others: make(chan accepted), attended: map[*attendance]bool{}}
	for method, h := range s.maybe() {
		f.calls[method] = quickHandler{method, s.answering(quickPath, h)}
	}
	go f.acceptAll()
	return f
}

func (f *front) acceptAll() {
	for {
		c, err := f.door.Accept()
		if err != nil {
			if !f.pass(nil, err) {
				return
			}
			continue
		}
		e := c.(*entrance)
		if e.front = f; f.enters() {
			go f.attend(e, nil)
		} else {
			e.Close()
		}
	}
}

// Accept returns the next connection that is net/http's.
func (f *front) Accept() (net.Conn, error) {
	select {
	case a := <-f.others:
		return a.conn, a.err
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// pass gives a connection to net/http, or an error. When net/http takes none
// any more, it closes the connection and reports false.
func (f *front) pass(c net.Conn, err error) bool {
	select {
	case f.others <- accepted{c, err}:
		return true
	case <-f.closed:
		if c != nil {
			c.Close()
		}
		return false
	}
}

// enters counts a connection that is to be attended to; false: it is too late.
func (f *front) enters() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closing() {
		return false
	}
	f.outside.Add(1)
	return true
}

// forget ends the attention to a connection.
func (f *front) forget(a *attendance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attended, a)
}

// Close lets nobody in any more. Connections that are attended to end as soon
// as they have no call under way.
func (f *front) Close() error {
	err := f.door.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for a := range f.attended {
		a.SetReadDeadline(time.Unix(1, 0)) // wakes those that wait for a call
	}
	return err
}

func (f *front) closing() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

// attend answers the calls of a connection, of which something may have been
// read already, until it has ended or is in other hands. It has been counted by
// enters.
func (f *front) attend(e *entrance, begun []byte) {
	defer f.outside.Done()
	if f.tls != nil || !noticesLeaving || len(begun) > quickSize {
		f.pass(&begunConnection{e, begun}, nil)
		return
	}
	a := newAttendance(e, begun)
	f.mu.Lock()
	f.attended[a] = true
	f.mu.Unlock()
	end := a.answerAll(f)
	f.forget(a)
	switch end {
	case isOver:
		e.Close()
	case isOther:
		e.SetDeadline(time.Time{})
		f.pass(&begunConnection{e, bytes.Clone(a.buffer[:a.read])}, nil)
	}
}

// How an attendance ends.
type attendanceEnd int

const (
	isOver  attendanceEnd = iota // nothing more will be read or answered
	isOther                      // the next call is not a quick one
	isTaken                      // somebody else answers
)

// An attendance is what is kept of a connection that is attended to.
type attendance struct {
	*entrance
	read    int    // so many bytes of buffer have been read, and not answered yet
	unread  []byte // those beyond the call that is being answered
	buffer  [quickSize]byte
	request http.Request
	body    bytes.Reader // of request
	answer  quickAnswer

	served   bool // a call has been answered
	hurried  bool // readBy is for a call that has begun, or the first
	readBy   time.Time
	writeBy  time.Time
	outgoing bytes.Buffer
}

func newAttendance(e *entrance, begun []byte) *attendance {
	a := &attendance{entrance: e}
	a.read = copy(a.buffer[:], begun)
	a.answer = quickAnswer{heldAnswer{header: http.Header{}}, a, false}
	about := http.Request{URL: &url.URL{Path: quickPath}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, RemoteAddr: e.RemoteAddr().String()}
	a.request = *about.WithContext(context.WithValue(context.Background(), entranceKey{}, e))
	return a
}

// answerAll answers one call after the other.
func (a *attendance) answerAll(f *front) attendanceEnd {
	for {
		var call quickCall
		for what := partly; what == partly; {
			if what = call.read(a.buffer[:a.read], f.calls); what == partly {
				switch err := a.hear(f); {
				case err == io.EOF && a.read > 0:
					what = other
				case err != nil:
					return isOver
				}
			}
			if what == other {
				return isOther
			}
		}
		a.unread = a.buffer[call.size:a.read]
		call.fill(&a.request, &a.body)
		call.handler.ServeHTTP(&a.answer, &a.request)
		switch {
		case a.answer.taken:
			return isTaken
		case !a.tell(f.closing()):
			return isOver
		}
		a.ends()
		a.served, a.hurried = true, false
		a.read = copy(a.buffer[:], a.unread)
	}
}

// hear reads on: nil when there was something. A call that has begun must be
// there soon, as must the first one.
func (a *attendance) hear(f *front) error {
	switch now := time.Now(); {
	case !a.hurried && (a.read > 0 || !a.served):
		a.hurried, a.readBy = true, now.Add(headerTime)
		a.SetReadDeadline(a.readBy)
	case a.served && a.read == 0 && a.readBy.Sub(now) < idleTime-deadlineSlack:
		a.hurried, a.readBy = false, now.Add(idleTime)
		a.SetReadDeadline(a.readBy)
	}
	if f.closing() { // after the deadline: Close sets one that has passed
		return net.ErrClosed
	}
	n, err := a.Read(a.buffer[a.read:])
	if a.read += n; n > 0 {
		return nil
	}
	return err
}

// tell sends the answer, and reports whether the connection stays open.
func (a *attendance) tell(last bool) bool {
	last = a.answer.write(&a.outgoing, last)
	if now := time.Now(); a.writeBy.Sub(now) < answerTime-deadlineSlack {
		a.writeBy = now.Add(answerTime)
		a.SetWriteDeadline(a.writeBy)
	}
	_, err := a.Conn.Write(a.outgoing.Bytes()) // past retell: it is no answer of net/http
	a.answer.reset()
	empty(&a.outgoing)
	return err == nil && !last
}
