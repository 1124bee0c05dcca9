package main

// The clock by which leases are measured. It advances while the machine is suspended, as
// the server's clock does, and nobody can set it, as the wall clock can be.

import (
	"sync"
	"time"
)

// suspension is for how long the machine has been suspended since the program started.
var suspension = struct {
	mu      sync.Mutex
	atStart time.Duration // systemSuspended when the program started
	known   time.Duration
}{atStart: systemSuspended()}

// clockNow returns the time of this clock. It is that of time.Now while the machine has
// not been suspended. Times of clockNow are compared with one another only.
func clockNow() time.Time {
	suspension.mu.Lock()
	defer suspension.mu.Unlock()
	// Less is the time between the two readings of systemSuspended.
	if s := systemSuspended() - suspension.atStart; s > suspension.known+50*time.Millisecond {
		suspension.known = s
	}
	return time.Now().Add(suspension.known)
}
