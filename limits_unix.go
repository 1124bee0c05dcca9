//go:build unix

package main

import "syscall"

// maxWaiters is how many may wait at once: 20,000, or what the limit on open
// files allows, less 200 for everybody else. (Go has raised the soft limit to
// the hard one at start.)
func maxWaiters() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return mostWaiters
	}
	return int(min(mostWaiters, max(1, int64(limit.Cur)-200)))
}
