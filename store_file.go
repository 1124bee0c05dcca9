package main

// The check of a file that no server uses: the one that a server makes of its
// file when it starts.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A recordCount says how many records a file has.
type recordCount struct{ leases, places, events int }

// checkFile reads a whole file, and changes nothing. It returns nil if a server
// could start on the file, errInUse while one does, and errDamaged if the file is
// not what a server has written.
func checkFile(path string) (n recordCount, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return n, err
	case info.IsDir():
		return n, errors.New("it is a folder")
	case info.Size() == 0:
		return n, errors.New("it is empty")
	}
	err = inspect(path, func(bucket string, key, value []byte) (err error) {
		switch bucket {
		case leaseBucket:
			n.leases++
			_, _, err = decodeLease(key, value)
		case lineBucket:
			n.places++
			_, _, err = decodePlace(key, value)
		case historyBucket:
			n.events++
			_, err = decodeEvent(key, value)
		}
		return err
	})
	return n, err
}

// checkError says what can be done about an error of checkFile.
func checkError(err error, path string) error {
	err = fmt.Errorf("checking %q: %w", path, err)
	switch {
	case errors.Is(err, errInUse):
		return hint(err, "stop the server, or check a copy: call-me backup call-me-copy.db")
	case errors.Is(err, errDamaged):
		return hint(err, "the file was left as it is; restore a copy, or move it away to begin without leases")
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "call-me must be able to read the file")
	}
	return err
}
