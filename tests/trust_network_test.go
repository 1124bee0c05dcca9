package tests

// A bad network: a TCP proxy in front of the server that delays, loses and repeats messages.
// A header of each call sets its fate.

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fate is what the network does to one request and its response.
type fate string

const (
	faithful       fate = "faithful"
	delayed        fate = "delayed"          // the request arrives late
	answerDelayed  fate = "answer delayed"   // the response arrives late
	requestLost    fate = "request lost"     // the request does not arrive
	answerLost     fate = "answer lost"      // the response does not arrive
	severed        fate = "severed"          // both connections are closed during the call
	hidden         fate = "hidden"           // the caller's connection is closed, that to the server later
	repeated       fate = "repeated"         // the request arrives again later, perhaps much later
	repeatedAtOnce fate = "repeated at once" // the request arrives twice at the same time
)

var fates = []fate{faithful, delayed, answerDelayed, requestLost, answerLost, severed, hidden, repeated, repeatedAtOnce}

const fateHeader = "X-Fate"

// A badNetwork is the proxy. Its connections and its repeated messages have ended when drain
// returns.
type badNetwork struct {
	listener net.Listener
	to       string
	patience time.Duration // the longest delay
	underWay sync.WaitGroup
}

func newBadNetwork(t *testing.T, to string, patience time.Duration) *badNetwork {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &badNetwork{listener: listener, to: to, patience: patience}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			n.underWay.Go(func() { n.carry(c) })
		}
	}()
	return n
}

func (n *badNetwork) host() string { return n.listener.Addr().String() }

// drain waits until all connections and repeated messages have ended.
func (n *badNetwork) drain() { n.underWay.Wait() }

func (n *badNetwork) someTime() time.Duration { return rand.N(n.patience) + time.Millisecond }

// carry forwards one request without a body to the server, and the response to the caller,
// as the fate of the request says.
func (n *badNetwork) carry(caller net.Conn) {
	defer caller.Close()
	message := readHead(caller)
	if message == nil {
		return
	}
	f := fateOf(message)
	switch f {
	case requestLost:
		time.Sleep(n.someTime())
		return
	case delayed:
		time.Sleep(n.someTime())
	case repeated:
		n.underWay.Go(func() {
			time.Sleep(3 * n.someTime())
			n.repeat(message)
		})
	case repeatedAtOnce:
		n.underWay.Go(func() { n.repeat(message) })
	}
	server, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(message); err != nil {
		return
	}
	switch f {
	case answerLost:
		readHead(server)
		return
	case severed:
		time.Sleep(n.someTime())
		return
	case hidden:
		caller.Close()
		time.Sleep(n.someTime())
		return
	}
	left := make(chan struct{})
	go func() { // ends when the caller disconnects
		io.Copy(io.Discard, caller)
		server.Close()
		close(left)
	}()
	if f == answerDelayed {
		answer, _ := io.ReadAll(io.LimitReader(server, 1))
		time.Sleep(n.someTime())
		caller.Write(answer)
	}
	io.Copy(caller, server)
	caller.Close()
	<-left
}

// repeat sends a message to the server again, and drops the response.
func (n *badNetwork) repeat(message []byte) {
	server, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer server.Close()
	server.SetDeadline(time.Now().Add(n.patience + time.Second))
	server.Write(message)
	io.Copy(io.Discard, server)
}

// readHead reads up to the empty line. It returns nil if the connection ends before.
func readHead(c net.Conn) []byte {
	var head []byte
	b := make([]byte, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := c.Read(b)
		if head = append(head, b[:n]...); err != nil {
			return nil
		}
	}
	return head
}

func fateOf(message []byte) fate {
	_, rest, _ := strings.Cut(string(message), fateHeader+": ")
	f, _, _ := strings.Cut(rest, "\r\n")
	return fate(f)
}
