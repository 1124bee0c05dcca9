//go:build unix

package main

// Which files of notes are the user's own, on systems with owners and permissions.

import (
	"io/fs"
	"os"
	"syscall"
)

// noteFlags are the flags with which a file is opened: a link is an error, and a pipe does
// not block.
const noteFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// isPrivate reports whether a file belongs to this user, and others have no permissions.
func isPrivate(info fs.FileInfo) bool {
	system, isStat := info.Sys().(*syscall.Stat_t)
	return isStat && int(system.Uid) == os.Geteuid() && info.Mode().Perm()&0o077 == 0
}
