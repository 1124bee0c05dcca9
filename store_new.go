package main

// Making a database file. The file is written completely under a temporary name in
// the same folder, and then gets its own name by a link or a rename.
//
// Not here: opening an existing file, which is in store_open.go.

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
)

// removeTemporary removes the temporary files of a server that was killed while it
// rewrote the file. The caller must hold the lock on the file, so that no other server
// is writing a temporary file. Errors are ignored.
func (s *store) removeTemporary() {
	folder, base := filepath.Split(s.path)
	entries, _ := os.ReadDir(cmp.Or(folder, "."))
	for _, e := range entries {
		if isTemporary(base, e) {
			os.Remove(filepath.Join(folder, e.Name()))
		}
	}
}

// isTemporary reports whether createTemporary has made an entry of the folder for the file
// called base. Other files, such as call-me.db.copy.tmp, are somebody's.
func isTemporary(base string, e fs.DirEntry) bool {
	number, hasPrefix := strings.CutPrefix(e.Name(), base+".")
	number, hasSuffix := strings.CutSuffix(number, temporarySuffix)
	_, err := strconv.ParseUint(number, 10, 64)
	return hasPrefix && hasSuffix && err == nil && e.Type().IsRegular()
}

// temporarySuffix ends the names of temporary files.
const temporarySuffix = ".call-me-temporary"

// createTemporary creates an empty file beside path, for a file that will be renamed to
// it, or sent. A server that starts on path removes what was left of these.
func createTemporary(path string) (*os.File, error) {
	return os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+temporarySuffix)
}

// create makes a new database at a path that has no file. The file is complete, synced
// and locked before link gives it its name. link is os.Link, except in tests. A power
// failure leaves either the complete file or none. If two servers call create at
// once, one succeeds and the other gets errInUse. On a file system without links,
// create calls createInPlace.
func (s *store) create(link func(from, to string) error) error {
	err := s.replace(header{format: fileFormat}, nil, link)
	switch {
	case s.db != nil: // the link was made
		return err
	case errors.Is(err, fs.ErrExist):
		return errInUse
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM): // the file system has no links
		return s.createInPlace()
	}
	return err
}

// createInPlace makes a database of an empty file, or makes a new file on a file system
// without links. If two servers call it at once, one gets bbolt's lock on the file and
// the other gets errInUse. A power failure during bbolt's first write may leave a file
// that openStore rejects; such a file has no records.
func (s *store) createInPlace() error {
	db, file, err := openBolt(s.path, os.O_CREATE)
	if err != nil {
		return err
	}
	h := header{format: fileFormat}
	err = guardBolt(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			if !isBlank(tx) {
				return errInUse // another server filled the file and has ended since
			}
			return fillBuckets(tx, &h, nil)
		})
	})
	if err == nil {
		err = syncFolder(s.path)
	}
	if err != nil {
		db.Close()
		return err
	}
	s.header, s.reserved = h, true
	return s.hold(db, file)
}

// isBlank reports whether the file has no bucket.
func isBlank(tx *bbolt.Tx) bool {
	key, _ := tx.Cursor().First()
	return key == nil
}

// rewrite replaces the file with a new one that has exactly these records and this
// counter. The new file is durable when rewrite returns nil. After an error before the
// rename the old file is unchanged.
func (s *store) rewrite(counter uint64, records []write) error {
	err := s.replace(header{format: fileFormat, counter: counter}, records, os.Rename)
	if err != nil {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// replace makes a new file under a temporary name, calls publish to give it the
// store's path, and uses it instead of the file that was open. If publish or a step
// before it fails, replace removes the new file and leaves the store unchanged, but on
// Windows the store has no open file then. After an error of the folder's sync the store
// uses the new file already.
func (s *store) replace(h header, records []write, publish func(from, to string) error) error {
	temporary, err := createTemporary(s.path)
	if err != nil {
		return err
	}
	temporary.Close()
	defer os.Remove(temporary.Name())
	if err := fillFile(temporary.Name(), &h, records); err != nil {
		return err
	}
	release, err := s.claimPath()
	if err != nil {
		return err
	}
	defer release()
	db, file, err := s.publish(temporary.Name(), publish)
	if err != nil {
		return err
	}
	s.closeFile()
	s.header = h
	s.reserved, s.saveFailed, s.panicked = true, false, false
	return errors.Join(s.hold(db, file), syncFolder(s.path))
}

// publish gives a new file the store's path and opens it. The store holds a lock on the
// file before it has its name. On Windows neither a file that is open nor the one whose
// name it gets can be renamed: the store closes its file first and opens the new one
// afterwards. A server that opens the file meanwhile keeps it, and publish fails.
func (s *store) publish(temporary string, publish func(from, to string) error) (*bbolt.DB, *os.File, error) {
	if runtime.GOOS == "windows" {
		s.closeFile()
		err := publish(temporary, s.path)
		os.Remove(temporary) // after a link: not possible once the file is open
		if err != nil {
			return nil, nil, err
		}
		return openBolt(s.path, 0)
	}
	db, file, err := openBolt(temporary, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := publish(temporary, s.path); err != nil {
		db.Close()
		return nil, nil, err
	}
	return db, file, nil
}

// closeFile closes the file that was open, if there is one that can be closed, and ends a
// copy that is read.
func (s *store) closeFile() {
	s.endCopy()
	if s.db != nil && !s.panicked {
		s.db.Close()
	}
}

// writeCopy makes the empty file at path a database with exactly these records and
// this counter, and makes it durable.
func writeCopy(path string, counter uint64, records []write) error {
	return fillFile(path, &header{format: fileFormat, counter: counter}, records)
}

// fillFile makes the empty file at path a database with the counter and format of h
// and exactly these records. It sets the sum of h. It syncs and closes the file, which
// frees the memory that bbolt used for it. It does not sync the folder.
func fillFile(path string, h *header, records []write) error {
	db, _, err := openBolt(path, 0)
	if err != nil {
		return err
	}
	db.NoSync = true // db.Sync below is enough, since nobody uses the file before
	err = guardBolt(func() error {
		return db.Update(func(tx *bbolt.Tx) error { return fillBuckets(tx, h, records) })
	})
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, db.Close())
}

// fillBuckets makes the buckets of a new file, and stores the reserve, the records and
// the header h, whose sum it sets.
func fillBuckets(tx *bbolt.Tx, h *header, records []write) error {
	for _, name := range append([]string{metaBucket, reserveBucket}, recordBuckets...) {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	if err := putReserve(tx); err != nil {
		return err
	}
	return putRecords(tx, h, records)
}

// syncFolder syncs the folder of path, which makes a new name in it durable. It
// returns nil on Windows and on file systems that cannot sync a folder.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	err = folder.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) || os.PathSeparator != '/' {
		return nil
	}
	return err
}
