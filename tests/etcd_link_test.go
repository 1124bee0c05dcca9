//go:build unix

package tests

// Links: connections that a test can cut, hold and make lose what comes back, and those between the
// members of etcd.

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"
)

type linkState int

const (
	linkOpen     linkState = iota
	linkCut                // connections end, new ones too
	linkHeld               // nothing passes, in either direction, and no connection ends; it passes later
	linkSwallow            // what comes back is lost
	linkBackHeld           // what comes back waits
	linkGone               // nothing passes, and no connection ends; new ones do
	linkSmall              // connections end that send more than a thousand bytes at once
	linkLate               // open; but of what a connection was held with, the first part alone arrives, and it ends
)

// A link is an address that forwards connections to a target.
type link struct {
	address string

	mu      sync.Mutex
	target  string
	changed *sync.Cond
	state   linkState
	conns   map[*linked]bool
}

// linked is one connection of a link.
type linked struct {
	near, far net.Conn
	lost      bool // something was swallowed: it is not usable any more
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String(), target: target, conns: map[*linked]bool{}}
	l.changed = sync.NewCond(&l.mu)
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(near)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		l.set(linkCut)
	})
	return l
}

// set changes the state. Connections that have lost something, and those of a link that is cut, end.
func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	for c := range l.conns {
		if state == linkCut || state != linkSwallow && c.lost {
			c.near.Close()
			c.far.Close()
		}
	}
	l.changed.Broadcast()
}

// retarget ends all connections, and forwards new ones to another target.
func (l *link) retarget(target string) {
	l.set(linkCut)
	l.mu.Lock()
	l.target = target
	l.mu.Unlock()
	l.set(linkOpen)
}

// wait returns the state once something may pass.
func (l *link) wait(isBack bool) linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.state == linkHeld || l.state == linkGone || l.state == linkBackHeld && isBack {
		l.changed.Wait()
	}
	return l.state
}

func (l *link) serve(near net.Conn) {
	defer near.Close()
	if l.now() == linkGone || l.wait(false) == linkCut {
		return
	}
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	far, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	c := &linked{near: near, far: far}
	l.mu.Lock()
	l.conns[c] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
	}()
	done := make(chan struct{}, 2)
	go func() { l.copy(c, near, far, false); done <- struct{}{} }()
	go func() { l.copy(c, far, near, true); done <- struct{}{} }()
	<-done
}

func (l *link) copy(c *linked, from, to net.Conn, isBack bool) {
	part := make([]byte, 64<<10)
	for {
		n, err := from.Read(part)
		wasHeld := l.now() == linkHeld
		state := l.wait(isBack)
		if n > 1000 && !isBack && state == linkSmall {
			return
		}
		if n > 0 && isBack && state == linkSwallow {
			l.mu.Lock()
			c.lost = true
			l.mu.Unlock()
			continue
		}
		if n > 0 {
			if _, err := to.Write(part[:n]); err != nil {
				return
			}
		}
		if wasHeld && state == linkLate && !isBack { // what gives the call up does not arrive
			time.Sleep(300 * time.Millisecond)
			return
		}
		if err != nil {
			return
		}
	}
}

func (l *link) now() linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// A peerLink is an address that forwards connections to a member of etcd from the others.
type peerLink struct {
	address, target string

	mu    sync.Mutex
	conns map[net.Conn]string // with the id of the member that has made it
	isCut func(from string) bool
}

// serverFrom is the header by which a member says its id.
var serverFrom = regexp.MustCompile(`X-Server-From: (\w+)`)

func newPeerLink(t testing.TB, target string) *peerLink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l := &peerLink{address: listener.Addr().String(), target: target, conns: map[net.Conn]string{},
		isCut: func(string) bool { return false }}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(near)
		}
	}()
	return l
}

func (l *peerLink) serve(near net.Conn) {
	defer near.Close()
	first := make([]byte, 64<<10)
	n, err := near.Read(first)
	if err != nil {
		return
	}
	from := ""
	if m := serverFrom.FindSubmatch(first[:n]); m != nil {
		from = string(m[1])
	}
	l.mu.Lock()
	isCut := l.isCut(from)
	l.conns[near] = from
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, near)
		l.mu.Unlock()
	}()
	far, err := net.DialTimeout("tcp", l.target, 5*time.Second)
	if err != nil || isCut {
		return
	}
	defer far.Close()
	far.Write(first[:n])
	go func() { io.Copy(near, far); near.Close() }()
	io.Copy(far, near)
}

// cut ends the connections of which isCut says so, and those that come later.
func (l *peerLink) cut(isCut func(from string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = isCut
	for c, from := range l.conns {
		if isCut(from) {
			c.Close()
		}
	}
}

// isolate cuts a member off from the others.
func (c *etcdCluster) isolate(member int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := c.client.MemberList(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	id := ""
	for _, m := range list.Members {
		if m.Name == fmt.Sprint("m", member) {
			id = fmt.Sprintf("%x", m.ID)
		}
	}
	for i, l := range c.peers {
		l.cut(func(from string) bool { return i == member || from == id })
	}
}
