package main

import "golang.org/x/sys/unix"

// The clocks of the system. Go's monotonic clock is the second one.
const (
	clockWithSuspension    = unix.CLOCK_MONOTONIC_RAW
	clockWithoutSuspension = unix.CLOCK_UPTIME_RAW
)
