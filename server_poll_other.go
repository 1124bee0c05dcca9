//go:build !linux

package main

// The functions of server_poll_linux.go for other systems, where they report nothing.

// hasLeft returns false. A client without an id that has sent bytes after its request and
// closes its connection keeps the lease that it is granted, until the lease is released,
// forced or expires.
func (c *connection) hasLeft() bool { return false }

// hasUnread returns false. At the limit of connections, one without a key may be closed
// although its request has arrived and the server has not read it yet.
func (c *connection) hasUnread() bool { return false }
