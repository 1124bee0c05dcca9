//go:build unix

package main

import "syscall"

// openFiles returns the number of files and connections that this process may have open, at
// most maxFiles. Go raises the soft limit to the hard one when a process starts.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return maxFiles
	}
	return int(min(maxFiles, uint64(limit.Cur)))
}
