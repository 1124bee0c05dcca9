//go:build linux || darwin

package main

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// holdEmpty locks the empty file at path, or makes it, against every other
// server that is about to put a new file in its place. Its error is errInUse
// where one has done so, or takes longer than lockWait.
func holdEmpty(path string) (release func() error, err error) {
	empty, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			empty.Close()
		}
	}()
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(empty.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // as bbolt does
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, errInUse
		}
	}
	locked, err := empty.Stat()
	if err != nil {
		return nil, err
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(locked, named) || named.Size() > 0 {
		return nil, errInUse
	}
	return empty.Close, nil
}
