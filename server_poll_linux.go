package main

// The state of a connection, read from the system by poll(2) without reading from the
// connection. server_poll_other.go has the same functions for other systems.

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// hasLeft reports whether the client has closed its end of the connection. net/http
// notices that only if the client has sent nothing after the request.
func (c *connection) hasLeft() bool {
	return c.polls(unix.POLLRDHUP, unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR)
}

// hasUnread reports whether bytes have arrived on the connection that the server has not
// read yet. A connection that the client has closed also counts.
func (c *connection) hasUnread() bool { return c.polls(unix.POLLIN, unix.POLLIN) }

// polls calls poll(2) with the given events, and reports whether one of the wanted events
// has occurred. It does not block. It returns false for a nil connection, for a connection
// that is no socket, and if the call fails.
func (c *connection) polls(events, wanted int16) (happened bool) {
	if c == nil {
		return false
	}
	socket, isSocket := c.Conn.(syscall.Conn)
	if !isSocket {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd), Events: events}} // #nosec G115 -- a descriptor is small
		n, err := unix.Poll(polled, 0)
		happened = err == nil && n > 0 && polled[0].Revents&wanted != 0
	})
	return happened
}
