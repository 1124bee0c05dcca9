package main

// Making a file: it is written aside, whole, and then takes its name.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.etcd.io/bbolt"
)

// sweep removes what a server left aside that was killed while it wrote the
// file anew. We hold the lock: nobody is writing one.
func (s *store) removeTemporary() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), globQuote(filepath.Base(s.path))+".*.tmp"))
	for _, name := range left {
		os.Remove(name)
	}
}

func globQuote(name string) string {
	return strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[", "\\", "\\\\").Replace(name)
}

// create makes a new file where there is none. It is complete, synced and locked
// before link, which is os.Link, gives it its name: a power failure leaves the
// whole file or none. Of two servers that do this at once, one succeeds.
func (s *store) create(link func(from, to string) error) error {
	err := s.replace(header{format: fileFormat}, nil, link)
	switch {
	case errors.Is(err, fs.ErrExist):
		return errInUse
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM): // no links on this file system
		return s.createInPlace()
	}
	return err
}

// createInPlace makes a file where there is an empty one, or none on a file
// system without links. Of two servers that do this at once, one gets bbolt's
// lock on the file. A power failure within bbolt's first write may leave a file
// that is refused; it holds no records yet.
func (s *store) createInPlace() error {
	db, file, err := openBolt(s.path, os.O_CREATE)
	if err != nil {
		return err
	}
	h := header{format: fileFormat}
	err = guardBolt(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			if !isBlank(tx) {
				return errInUse // another server was faster, and has ended since
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

// isBlank reports whether there is nothing at all in the file.
func isBlank(tx *bbolt.Tx) bool {
	key, _ := tx.Cursor().First()
	return key == nil
}

// rewrite replaces the file by a new one with exactly these records. The old
// one stays as it is when that fails.
func (s *store) rewrite(counter uint64, records []write) error {
	err := s.replace(header{format: fileFormat, counter: counter}, records, os.Rename)
	if err != nil {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// replace builds a file aside, publishes it under the store's path, and takes
// it in place of the one that was open. The lock on it is never let go.
func (s *store) replace(h header, records []write, publish func(from, to string) error) error {
	aside, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*.tmp")
	if err != nil {
		return err
	}
	aside.Close()
	defer os.Remove(aside.Name())
	if err := fillFile(aside.Name(), &h, records); err != nil {
		return err
	}
	db, file, err := openBolt(aside.Name(), 0)
	if err != nil {
		return err
	}
	release, err := s.claimPath()
	if err != nil {
		db.Close()
		return err
	}
	defer release()
	if err := publish(aside.Name(), s.path); err != nil {
		db.Close()
		return err
	}
	if s.db != nil && !s.panicked {
		s.db.Close()
	}
	s.header = h
	s.reserved, s.saveFailed, s.panicked = true, false, false
	return errors.Join(s.hold(db, file), syncFolder(s.path))
}

// writeCopy fills the empty file at path with a database of exactly these
// records, and makes it durable.
func writeCopy(path string, counter uint64, records []write) error {
	return fillFile(path, &header{format: fileFormat, counter: counter}, records)
}

// fill makes the empty file at path a database with exactly these records, and
// durable. The file is closed again: what bbolt has mapped and buffered of it is
// no longer needed.
func fillFile(path string, h *header, records []write) error {
	db, _, err := openBolt(path, 0)
	if err != nil {
		return err
	}
	db.NoSync = true // until it is whole
	err = guardBolt(func() error {
		return db.Update(func(tx *bbolt.Tx) error { return fillBuckets(tx, h, records) })
	})
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, db.Close())
}

// fillBuckets makes all that a file has.
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

// syncFolder makes a new name durable. Windows cannot, and need not.
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
