package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// hasLeft reports whether the caller has closed its end of the connection.
// net/http notices that only of a caller who has sent nothing behind the
// request.
func (c *connection) hasLeft() bool {
	return c.polls(unix.POLLRDHUP, unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR)
}

// hasUnread reports whether something has arrived that nobody has read yet.
func (c *connection) hasUnread() bool { return c.polls(unix.POLLIN, unix.POLLIN) }

// polls asks the system for events of the connection, and reports whether one
// of the wanted has happened. It does not wait, and is false for a nil
// connection and for one that is no socket.
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
