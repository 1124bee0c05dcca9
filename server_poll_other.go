//go:build !linux

package main

// hasLeft cannot be told here: a caller who leaves without an id, and has sent
// something behind its request, keeps its lease until it is released or forced.
func (c *connection) hasLeft() bool { return false }

// hasUnread cannot be told here either: at the limit of connections, one whose
// request has arrived and has not been read for a while may be closed.
func (c *connection) hasUnread() bool { return false }
