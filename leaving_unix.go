//go:build unix

package main

import (
	"errors"
	"syscall"
)

// noticesLeaving: hasLeft can tell.
const noticesLeaving = true

// hasLeft reports whether the other end has closed the connection, without
// reading what it may have sent.
func hasLeft(c syscall.Conn) (left bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) { // not Read: that does nothing after a deadline, and waits for whoever reads
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		left = err == nil && n == 0 || err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	return left || err != nil
}
