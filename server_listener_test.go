package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// With a limit of three connections, two waiting callers keep theirs, and the third one is
// closed for each new connection.
func TestAtTheConnectionLimitAConnectionWithoutACallIsClosed(t *testing.T) {
	s := newSite(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	narrow := newLimitedListener(l, 3)
	go s.http.Config.Serve(narrow)
	t.Cleanup(func() { narrow.Close() })
	few := &site{rig: s.rig, url: "http://" + l.Addr().String(), server: s.server}
	s.call("POST /maybe?environment=uat&id=holder-1")
	var waiting []*rawLine
	for i := range 2 {
		w := few.dial() // a second one now would have the first closed if it is slow to send
		w.send(fmt.Sprintf("POST /maybe?environment=uat&id=waiter-%d&wait=1m", i))
		s.connected(i + 1)
		waiting = append(waiting, w)
	}
	ends := func(what string, l *rawLine) {
		t.Helper()
		if _, err := l.answer.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("%s is still connected: %v", what, err)
		}
	}
	silent := few.dial()
	half := few.dial()
	fmt.Fprint(half, "GET /healthz HTTP/1.1\r\n")
	ends("who says nothing", silent)
	idle := few.dial()
	idle.send("GET /maybe?environment=other")
	idle.want(200, "")
	ends("who has sent half a header", half)
	next := few.dial()
	ends("who has had its answer", idle)
	next.send("POST /maybe?environment=uat&id=waiter-3&wait=1m")
	s.connected(3)
	late := few.dial() // no connection can be closed for it
	late.send("GET /maybe?environment=other")
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	waiting[0].want(201, "")
	late.want(200, "")
	ends("who has had its answer at last", waiting[0])
	s.call("DELETE /maybe?environment=uat&id=waiter-0")
	waiting[1].want(201, "")
}

func TestHasLeftReportsClosedConnections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reports closed connections")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		do   func(*net.TCPConn)
		left bool
	}{
		"who waits":              {func(*net.TCPConn) {}, false},
		"who sends on":           {func(c *net.TCPConn) { c.Write([]byte("x")) }, false},
		"who closes":             {func(c *net.TCPConn) { c.Close() }, true},
		"who ends its direction": {func(c *net.TCPConn) { c.CloseWrite() }, true},
		"who breaks off":         {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			e := &connection{Conn: conn}
			conn.SetReadDeadline(time.Unix(1, 0)) // a read deadline that has passed does not matter
			c.do(caller.(*net.TCPConn))
			if c.left {
				eventually(t, "it is noticed", e.hasLeft)
			}
			if name == "who sends on" {
				eventually(t, "it is noticed", e.hasUnread)
			}
			if got := e.hasLeft(); got != c.left {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A pipeListener is a listener whose connections are made in memory, so that they use the
// fake clock of synctest. Accept returns the connections that are sent to the channel.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	if c, open := <-l; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error   { close(l); return nil }
func (l pipeListener) Addr() net.Addr { return nil }

func TestAConnectionHasItsTimes(t *testing.T) {
	half := "GET /maybe?environment=uat HTTP/1.1\r\nHost: call-me\r\n"
	rest := "X-API-KEY: " + testKey + "\r\n\r\n"
	for name, c := range map[string]struct {
		say  func(io.Writer)
		want time.Duration // until the server closes the connection
	}{
		"who says nothing":            {func(io.Writer) {}, headerTime},
		"who begins a call":           {func(w io.Writer) { io.WriteString(w, half) }, headerTime},
		"who begins byte by byte":     {func(w io.Writer) { trickle(w, half) }, headerTime},
		"who makes a call":            {func(w io.Writer) { io.WriteString(w, half+rest) }, idleTime},
		"who begins a second one":     {func(w io.Writer) { io.WriteString(w, half+rest+half) }, headerTime},
		"who begins one after a rest": {func(w io.Writer) { io.WriteString(w, half+rest); time.Sleep(time.Minute); io.WriteString(w, half) }, time.Minute + headerTime},
		"who makes one after another": {func(w io.Writer) {
			io.WriteString(w, half)
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				io.WriteString(w, rest+half)
			}
		}, time.Minute + headerTime},
		"who makes one in a while": {func(w io.Writer) {
			for range 10 {
				io.WriteString(w, half+rest)
				time.Sleep(idleTime - time.Second)
			}
		}, 9*(idleTime-time.Second) + idleTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, "")
				s := &server{keeper: g.keeper, metrics: g.metrics, log: quietLog()}
				s.keys.set([]acceptedKey{plainKey(testKey)})
				callers := make(pipeListener)
				h := s.http(s.routes())
				go h.Serve(newLimitedListener(callers, 10))
				ours, theirs := net.Pipe()
				callers <- theirs
				start := time.Now()
				var saying sync.WaitGroup
				saying.Go(func() { c.say(ours) })
				answers, _ := io.ReadAll(ours)
				if took := time.Since(start); took != c.want {
					t.Errorf("closed after %v, want %v; it received %q", took, c.want, answers[:min(len(answers), 200)])
				}
				ours.Close()
				saying.Wait()
				h.Close()
				g.close()
			})
		})
	}
}

// trickle writes one byte of the text a second.
func trickle(w io.Writer, text string) {
	for i := range len(text) {
		io.WriteString(w, text[i:i+1])
		time.Sleep(time.Second)
	}
}
