package main

import "golang.org/x/sys/unix"

// The clocks of the system. Go's monotonic clock is the second one.
const (
	clockWithSuspension    = unix.CLOCK_BOOTTIME
	clockWithoutSuspension = unix.CLOCK_MONOTONIC
)
