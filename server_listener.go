package main

// The listener: a limit on the number of connections, and the choice of the connection
// that is closed to make room for a new one. The limits on what is sent over a
// connection are in server_run.go and limits.go.

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A connection without a key is not closed before it has been quiet for this long: its
// request may be under way, when many clients connect at once. The time is
// keylessQuietEach for every connection that may be without a key, and maxKeylessQuiet
// at most. Accept blocks for up to this time, so it is shorter where fewer connections
// are allowed: at least 1,000 connections a second are accepted, even if no client sends
// a key.
const (
	maxKeylessQuiet  = 2 * time.Second
	keylessQuietEach = time.Millisecond
	keylessFactor    = 8 // one connection in keylessFactor may be without a key
)

// A limitedListener accepts a limited number of connections. At most one eighth of the
// limit may be without a key. A connection is without a key until a request with a valid
// key has arrived on it. At the limit, Accept closes the connection without a key that
// has been quiet for the longest time. If there is none, it closes the connection with a
// key that has been idle for the longest time. While every connection has a key and a
// request under way, Accept blocks.
type limitedListener struct {
	net.Listener
	limit int // connections that may be open at once

	mu      sync.Mutex
	changed sync.Cond // broadcast when a connection may be accepted or closed
	open    int       // connections that are open
	keyless list.List // of *connection without a key, the longest quiet first
	idle    list.List // of *connection with a key and without a request, the longest idle first
	closed  bool
}

// newLimitedListener returns a listener that accepts the connections of l, and keeps at
// most the given number of them open. Closing it closes l.
func newLimitedListener(l net.Listener, most int) *limitedListener {
	limited := &limitedListener{Listener: l, limit: most}
	limited.changed.L = &limited.mu
	return limited
}

// A connection is an accepted connection of a limitedListener. The listener's mu guards
// its fields, but for guard. A nil *connection stands for one of another listener.
type connection struct {
	net.Conn
	listener *limitedListener
	isKeyed  bool          // a request with a valid key has arrived on it
	since    time.Time     // when it was last moved to a list or out of one
	in       *list.List    // the list that it is in; nil while it has a key and a request
	element  *list.Element // its element of in
	isClosed bool

	guard atomic.Pointer[func() bool] // asked before each write; nil if all may be written
}

// Accept returns the next connection. At the limit it first closes another one, or
// blocks until another one is closed. It returns net.ErrClosed after Close, and the
// errors of the inner listener.
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

// isFull reports whether a further connection would exceed a limit. The caller holds mu.
func (l *limitedListener) isFull() bool {
	return l.open >= l.limit || l.keyless.Len() >= l.keylessLimit()
}

// keylessLimit returns how many connections may be without a key: at least one.
func (l *limitedListener) keylessLimit() int { return max(1, l.limit/keylessFactor) }

// makeRoom closes one connection, or blocks until something has changed. The caller holds
// mu and checks isFull again. A connection without a key that has unread bytes counts as
// active now, because its request has arrived and the server has not read it yet.
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
	if !c.isKeyed && c.hasUnread() {
		c.moveTo(&l.keyless)
	}
	quiet := min(maxKeylessQuiet, time.Duration(l.keylessLimit())*keylessQuietEach)
	if rest := quiet - time.Since(c.since); rest > 0 && !c.isKeyed {
		defer time.AfterFunc(rest, l.wake).Stop()
		l.changed.Wait()
		return
	}
	c.remove()
	c.Conn.Close()
}

// wake unblocks makeRoom.
func (l *limitedListener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

// Close unblocks Accept and closes the inner listener. Accepted connections stay open.
func (l *limitedListener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// moveTo moves the connection to the end of one of the listener's lists, or out of all
// lists if to is nil. Its quiet time begins anew. The caller holds mu.
func (c *connection) moveTo(to *list.List) {
	if c.in != nil {
		c.in.Remove(c.element)
	}
	c.in, c.since = to, time.Now()
	if to != nil {
		c.element = to.PushBack(c)
	}
}

// remove takes the connection out of its list and of the count of open connections. It
// does not close the connection. A second call has no effect. The caller holds mu.
func (c *connection) remove() {
	if !c.isClosed {
		c.isClosed = true
		c.moveTo(nil)
		c.listener.open--
		c.listener.changed.Broadcast()
	}
}

// Close closes the connection and makes room for another one.
func (c *connection) Close() error {
	c.listener.mu.Lock()
	c.remove()
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// setGuard has mayWrite asked before each write from now on; not if it is nil. It has no effect
// on a nil connection.
func (c *connection) setGuard(mayWrite func() bool) {
	switch {
	case c == nil:
	case mayWrite == nil:
		c.guard.Store(nil)
	default:
		c.guard.Store(&mayWrite)
	}
}

// Write writes to the connection, unless its guard is against it: then it returns errNotLeader.
func (c *connection) Write(p []byte) (int, error) {
	if mayWrite := c.guard.Load(); mayWrite != nil && !(*mayWrite)() {
		return 0, errNotLeader
	}
	return c.Conn.Write(p)
}

// showedKey records that a request with a valid key has arrived on the connection. It has
// no effect on a nil connection and on a closed one.
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

// changeState is the ConnState function of the http.Server: it moves a connection between
// the lists. Each change of state is activity of a connection without a key.
func changeState(conn net.Conn, state http.ConnState) {
	c := connectionOf(conn)
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

// connectionKey is the context key of the connection of a request.
type connectionKey struct{}

// withConnection is the ConnContext function of the http.Server: it adds the connection
// to the context of its requests.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(conn))
}

// connectionFor returns the connection of a request, nil if it was not accepted by a
// limitedListener.
func connectionFor(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

// connectionOf returns the connection that conn is, or that is below it with TLS, and nil
// for one of another listener.
func connectionOf(conn net.Conn) *connection {
	if encrypted, isTLS := conn.(*tls.Conn); isTLS {
		conn = encrypted.NetConn()
	}
	c, _ := conn.(*connection)
	return c
}
