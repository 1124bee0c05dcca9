package main

// The listener: how many connections there may be, and which one is closed to
// make room for another.

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// How long a connection without a key is left alone at least: its request may
// be on its way, from a crowd of callers that arrive at once. For so long Accept
// waits, so the time is shorter where fewer connections are allowed: some 1,000
// a second are accepted at least, whatever strangers do.
const (
	maxKeylessQuiet  = 2 * time.Second
	keylessQuietEach = time.Millisecond
	keylessFactor    = 8 // one of so many connections may be without a key
)

// A limitedListener accepts a limited number of connections. An eighth of them
// at most may be without a key: that have not sent a request with a valid key.
// When there are too many, the one without a key that has been quiet longest is
// closed, and if there is none the one with a key that has been idle longest.
// While every connection has a request under way, Accept waits.
type limitedListener struct {
	net.Listener
	most int

	mu      sync.Mutex
	changed sync.Cond // there may be room, or something to close
	open    int
	keyless list.List // of *connection, the longest quiet first
	idle    list.List // of *connection with a key and without a request
	closed  bool
}

func newLimitedListener(l net.Listener, most int) *limitedListener {
	limited := &limitedListener{Listener: l, most: most}
	limited.changed.L = &limited.mu
	return limited
}

// A connection is one of a limitedListener. The listener's mu guards its
// fields.
type connection struct {
	net.Conn
	listener *limitedListener
	isKeyed  bool // a request on it has shown a valid key
	since    time.Time
	in       *list.List // that it is in; nil: it has a key and a request
	element  *list.Element
	isClosed bool
}

func (l *limitedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && l.isFull() {
		l.makeRoom()
	}
	if l.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	l.open++
	accepted := &connection{Conn: c, listener: l}
	accepted.moveTo(&l.keyless)
	return accepted, nil
}

func (l *limitedListener) isFull() bool {
	return l.open >= l.most || l.keyless.Len() >= l.mostKeyless()
}

func (l *limitedListener) mostKeyless() int { return max(1, l.most/keylessFactor) }

// makeRoom closes a connection, or waits until there may be room without that.
// The caller holds mu.
func (l *limitedListener) makeRoom() {
	first := l.keyless.Front()
	if first == nil {
		first = l.idle.Front()
	}
	if first == nil {
		l.changed.Wait()
		return
	}
	c := first.Value.(*connection)
	if !c.isKeyed && c.hasUnread() { // the server is behind, not the caller
		c.moveTo(&l.keyless)
	}
	peace := min(maxKeylessQuiet, time.Duration(l.mostKeyless())*keylessQuietEach)
	if rest := peace - time.Since(c.since); rest > 0 && !c.isKeyed {
		defer time.AfterFunc(rest, l.wake).Stop()
		l.changed.Wait()
		return
	}
	c.remove()
	c.Conn.Close()
}

// wake lets Accept look again.
func (l *limitedListener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

func (l *limitedListener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// moveTo puts the connection at the end of one of the listener's lists; nil:
// of none. The caller holds mu.
func (c *connection) moveTo(to *list.List) {
	if c.in != nil {
		c.in.Remove(c.element)
	}
	c.in, c.since = to, time.Now()
	if to != nil {
		c.element = to.PushBack(c)
	}
}

// remove takes the connection out of the count. The caller holds mu.
func (c *connection) remove() {
	if !c.isClosed {
		c.isClosed = true
		c.moveTo(nil)
		c.listener.open--
		c.listener.changed.Broadcast()
	}
}

func (c *connection) Close() error {
	c.listener.mu.Lock()
	c.remove()
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// showedKey notes that a request on the connection has a valid key.
func (c *connection) showedKey() {
	if c == nil {
		return
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if !c.isClosed {
		c.isKeyed = true
		c.moveTo(nil)
		c.listener.changed.Broadcast()
	}
}

// changeState notes what net/http says of a connection.
func changeState(of net.Conn, state http.ConnState) {
	c := connectionOf(of)
	if c == nil {
		return
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	switch {
	case c.isClosed:
	case !c.isKeyed:
		c.moveTo(&c.listener.keyless)
	case state == http.StateIdle:
		c.moveTo(&c.listener.idle)
		c.listener.changed.Broadcast()
	case state == http.StateActive:
		c.moveTo(nil)
	}
}

// connectionKey finds the connection in the context of a request.
type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(c))
}

// connectionFor returns the connection of a request; nil if it came in by
// another listener.
func connectionFor(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

func connectionOf(of net.Conn) *connection {
	if encrypted, isTLS := of.(*tls.Conn); isTLS {
		of = encrypted.NetConn()
	}
	c, _ := of.(*connection)
	return c
}
