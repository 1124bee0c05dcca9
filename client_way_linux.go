package main

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall does not have.
const tcpUserTimeout = 18

// limitUnacknowledged makes the system close a connection when the other end has not
// acknowledged what was sent for vanishTime. TCP keep-alive does not notice that: it sends
// no probe while something is not acknowledged. A system without such a limit has none.
func limitUnacknowledged(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(vanishTime.Milliseconds()))
	})
}
