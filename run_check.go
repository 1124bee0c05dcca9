//go:build linux || darwin

package main

// What is checked before run waits in the queue, so that nobody waits for a slot with
// which nothing can be done.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// sparedFiles is how many files run opens at most, besides those that it has from its
// caller: connections, pipes, the terminal, /proc.
const sparedFiles = 16

// checkSystem returns an error if run could not start its command whatever the command
// is: without /proc or with too low a limit of open files.
func checkSystem() error {
	if _, err := ownBinary(); err != nil {
		return err
	}
	var files []*os.File
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	for range sparedFiles {
		file, err := os.Open(os.DevNull)
		if err != nil {
			return withHint(fmt.Errorf("run needs %d more open files: %w", sparedFiles, err), "ulimit -n 256")
		}
		files = append(files, file)
	}
	return nil
}

// checkFormat returns an error if the file at path is a text that the system does not
// execute: without "#!" and an interpreter at its beginning, or with one that is missing.
// It returns nil for what it cannot read or does not know.
func checkFormat(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	begin := make([]byte, 256)
	n, err := io.ReadFull(file, begin)
	if n == 0 && err != io.EOF || bytes.IndexByte(begin[:n], 0) >= 0 {
		return nil
	}
	line, isScript := bytes.CutPrefix(begin[:n], []byte("#!"))
	if !isScript {
		if hasHandler(path) {
			return nil
		}
		return fmt.Errorf("%w; its first line must be #! and an interpreter, such as #!/bin/sh",
			syscall.ENOEXEC)
	}
	line, _, complete := bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || !complete && len(words) == 1 {
		return nil
	}
	if _, err := exec.LookPath(words[0]); err != nil && filepath.IsAbs(words[0]) {
		for errors.Unwrap(err) != nil { // down to the system's, without the path
			err = errors.Unwrap(err)
		}
		return fmt.Errorf("its interpreter %s: %w", words[0], err)
	}
	return nil
}

// hasHandler reports whether Linux has a handler for the extension of the path, as
// binfmt_misc registers them.
func hasHandler(path string) bool {
	handlers, _ := filepath.Glob("/proc/sys/fs/binfmt_misc/*")
	for _, handler := range handlers {
		text, _ := os.ReadFile(handler)
		for line := range strings.Lines(string(text)) {
			extension, found := strings.CutPrefix(strings.TrimSpace(line), "extension ")
			if found && strings.HasSuffix(path, extension) {
				return true
			}
		}
	}
	return false
}
