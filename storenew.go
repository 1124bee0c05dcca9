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
func (s *store) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), globQuote(filepath.Base(s.path))+".*.tmp"))
	for _, name := range left {
		os.Remove(name)
	}
}

func globQuote(name string) string {
	return strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[", "\\", "\\\\").Replace(name)
}

// create makes a new file where there is none. It is complete, synced and locked
// before publish, which is os.Link, gives it its name: a power failure leaves
// the whole file or none. Of two servers that do this at once, only one
// succeeds.
func (s *store) create(publish func(from, to string) error) error {
	err := s.replace(header{format: format}, nil, publish)
	switch {
	case errors.Is(err, fs.ErrExist):
		return errInUse
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM): // no links on this file system
		return s.createOver()
	}
	return err
}

// createOver makes a new file in the place of an empty one, which is locked
// until it is replaced.
func (s *store) createOver() error {
	release, err := holdEmpty(s.path)
	if err != nil {
		return err
	}
	defer release()
	return s.replace(header{format: format}, nil, os.Rename)
}

// rewrite replaces the file by a new one with exactly these records. The old
// one stays as it is when that fails; only one of format 1, on a full disk, is
// changed instead.
func (s *store) rewrite(counter uint64, records []write) error {
	err := s.replace(header{format: format, counter: counter}, records, os.Rename)
	if err != nil && isFull(err) && s.header.format == 1 {
		err = s.upgrade()
	}
	if err != nil {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// upgrade makes a file of format 1 one of today's, without a journal.
func (s *store) upgrade() error {
	h := s.header
	h.format = format
	err := s.update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(journalBucket)); err != nil {
			return err
		}
		return put(tx, &h, nil)
	})
	if err == nil {
		s.header, s.journal = h, &journal{}
		s.lookAtReserve()
	}
	return err
}

// lacks reports that the file has no journal, or must not use it, because the
// disk has once been too small or too full.
func (s *store) lacks() bool { return false }

// regain gives the file what it lacks, if there is space for it now.
func (s *store) regain(counter uint64, records []write) error {
	err := s.replaceWith(journalSectors, header{format: format, counter: counter}, records, os.Rename)
	if err != nil && !isFull(err) {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// replace builds a file aside, publishes it under the store's path, and takes
// it in place of the one that was open. The lock on it is never let go. On a
// disk that is too small for a journal the file has none.
func (s *store) replace(h header, records []write, publish func(from, to string) error) error {
	err := s.replaceWith(journalSectors, h, records, publish)
	if err != nil && isFull(err) {
		err = s.replaceWith(0, h, records, publish)
	}
	return err
}

func (s *store) replaceWith(sectors int, h header, records []write, publish func(from, to string) error) error {
	aside, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*.tmp")
	if err != nil {
		return err
	}
	aside.Close()
	defer os.Remove(aside.Name())
	if err := fill(aside.Name(), sectors, &h, records); err != nil {
		return err
	}
	db, file, err := openBolt(aside.Name(), 0)
	if err != nil {
		return err
	}
	j, err := findJournal(db, file, h.sectors)
	if err == nil {
		err = publish(aside.Name(), s.path)
	}
	if err != nil {
		db.Close()
		return err
	}
	if s.db != nil && !s.broken {
		s.db.Close()
	}
	s.db, s.header, s.journal, s.pending = db, h, j, nil
	s.reserved, s.doubtful, s.broken = true, false, false
	return syncFolder(s.path)
}

// writeCopy fills the empty file at path with a database of exactly these
// records, and makes it durable.
func writeCopy(path string, counter uint64, records []write) error {
	err := fill(path, journalSectors, &header{format: format, counter: counter}, records)
	if err != nil && isFull(err) {
		if err := os.Truncate(path, 0); err != nil {
			return err
		}
		err = fill(path, 0, &header{format: format, counter: counter}, records)
	}
	return err
}

// emptySize is about how many bytes a file without records has. bbolt maps a
// new file anew each time it has doubled, and copies what is going to be in it.
func emptySize(sectors int) int {
	return reservePieces(sectors)*1024 + journalSize(uint64(sectors)) + 32<<10
}

// fillPieces is how many pieces of the reserve go into the file at once: bbolt
// keeps as many buffers as there are pages in its largest transaction.
const fillPieces = 64

// fill makes the empty file at path a database with exactly these records, and
// durable. The file is closed again: what bbolt has mapped and buffered of it is
// no longer needed.
func fill(path string, sectors int, h *header, records []write) error {
	h.sectors = uint64(sectors)
	db, file, err := openBolt(path, emptySize(sectors))
	if err != nil {
		return err
	}
	db.NoSync = true // until it is whole
	err = guard(func() error { return fillBuckets(db, sectors, h, records) })
	if err == nil {
		err = formatJournal(db, file, h.sectors)
	}
	if err == nil {
		err = db.Sync()
	}
	return errors.Join(err, db.Close())
}

func fillBuckets(db *bbolt.DB, sectors int, h *header, records []write) error {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range append([]string{metaBucket, journalBucket, reserveBucket}, recordBuckets...) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if sectors == 0 {
			return nil
		}
		return tx.Bucket([]byte(journalBucket)).Put(sectorsKey, make([]byte, journalSize(h.sectors)))
	})
	for from, all := 0, reservePieces(sectors); err == nil && from < all; from += fillPieces {
		err = db.Update(func(tx *bbolt.Tx) error { return putReserve(tx, from, min(from+fillPieces, all)) })
	}
	if err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error { return put(tx, h, records) })
}

func formatJournal(db *bbolt.DB, file *os.File, sectors uint64) error {
	j, err := findJournal(db, file, sectors)
	if err != nil {
		return err
	}
	return j.format()
}

// syncFolder makes a new name durable. Windows cannot, and need not.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) && os.PathSeparator == '/' {
		return err
	}
	return nil
}
