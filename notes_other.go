//go:build !unix

package main

// Which files of notes are the user's own, on systems where the folder decides that.

import "io/fs"

// noteFlags are the flags with which a file is opened, besides those of its use.
const noteFlags = 0

// isPrivate returns true: the folders of caches and temporary files are the user's.
func isPrivate(fs.FileInfo) bool { return true }
