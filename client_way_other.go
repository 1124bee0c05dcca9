//go:build !linux

package main

import "syscall"

// limitUnacknowledged does nothing. The poll of a client then ends pollGrace after its wait.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
