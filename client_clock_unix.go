//go:build linux || darwin

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock returns the time since an unknown moment, in which the machine may have been
// suspended. All processes have the same moment.
func bootClock() time.Duration { return readClock(clockWithSuspension) }

// systemSuspended returns for how long the machine was suspended since it was started.
// The result is too small by the time between the two readings.
func systemSuspended() time.Duration {
	with := readClock(clockWithSuspension)
	return with - readClock(clockWithoutSuspension)
}

// readClock returns the time of a clock of the system's.
func readClock(id int32) time.Duration {
	var t unix.Timespec
	unix.ClockGettime(id, &t)
	return time.Duration(t.Nano())
}
