//go:build unix

package main

import "syscall"

// openFiles is how many files and connections the system lets us have. (Go
// has raised the soft limit to the hard one at start.)
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return mostFiles
	}
	return int(min(mostFiles, uint64(limit.Cur)))
}
