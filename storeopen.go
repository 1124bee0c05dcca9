package main

// Opening a file that is there, with all doubt: bbolt trusts what it maps.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long opening waits for another process to let go of the
// file: long enough for one that is being stopped, short enough to be told.
const lockWait = time.Second

// openStore opens the database at path, and makes it where there is none. It
// holds the file against every other process until close. The errors say
// what is wrong with the path; errInUse and errDamaged can be told apart. A
// file that is refused is left as it was.
func openStore(path string) (s *store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening database %q: %w", path, err)
		}
	}()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a new file must take the place of the old one, not of a link to it
	} else if _, err := os.Lstat(path); err == nil {
		return nil, errors.New("it is a link to nowhere")
	}
	s = &store{path: path}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return s, s.create(os.Link)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case info.Size() == 0:
		return s, s.createOver()
	}
	if err := inspect(path); err != nil {
		return nil, err
	}
	db, file, err := openBolt(path, 0)
	if err != nil {
		return nil, err
	}
	s.db = db
	err = guard(s.readHeader)
	if err == nil {
		err = guard(func() error { return s.readJournal(file) })
	}
	if err == nil {
		err = syncFolder(path) // a server that was killed may not have done so
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	s.sweep()
	return s, nil
}

// inspect looks at the file without writing to it. It shares the file's lock
// with other readers, so that no server changes it meanwhile.
func inspect(path string) error {
	var file *os.File
	db, err := open(path, &bbolt.Options{ReadOnly: true, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		file = f
		return f, err
	}})
	if err != nil {
		return err
	}
	defer db.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return guard(func() error { return checkSound(file, info.Size()) })
}

// openBolt opens an existing file for writing, and maps at least so many bytes
// of it. When the file was replaced while we waited for its lock, it begins
// anew.
func openBolt(path string, size int) (db *bbolt.DB, file *os.File, err error) {
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag&^os.O_CREATE, mode)
		file = f
		return f, err
	}
	for {
		db, err := open(path, &bbolt.Options{FreelistType: bbolt.FreelistMapType, InitialMmapSize: size, OpenFile: openFile})
		if err != nil {
			return nil, nil, err
		}
		locked, err := file.Stat()
		if err != nil {
			db.Close()
			return nil, nil, err
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(locked, named) {
			return db, file, nil
		}
		db.Close()
	}
}

func open(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	options.Timeout = lockWait
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	var system syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, errInUse
	case err != nil && !errors.Is(err, errDamaged) && !errors.As(err, &system): // it is not the system that refuses
		return nil, fmt.Errorf("%w: %v", errDamaged, err)
	}
	return db, err
}

func (s *store) readHeader() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		switch {
		case meta == nil && tx.Bucket([]byte(bucket2019)) != nil:
			s.header = header{} // format 0
			return nil
		case meta == nil && tx.Bucket([]byte(leaseBucket)) == nil:
			return errors.New("this bbolt file is not call-me's")
		case meta == nil:
			return fmt.Errorf("%w: bucket %q is missing", errDamaged, metaBucket)
		}
		if err := unseal(metaBucket, stateKey, meta.Get(stateKey), s.header.code); err != nil {
			return err
		}
		buckets := []string{leaseBucket, lineBucket, historyBucket, reserveBucket, journalBucket}
		switch {
		case s.header.format > format:
			return fmt.Errorf("its format is %d, this call-me knows %d; use the newer call-me that made it", s.header.format, format)
		case s.old():
			buckets = recordBuckets
		}
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return fmt.Errorf("%w: bucket %q is missing", errDamaged, name)
			}
		}
		return nil
	})
}

// readJournal takes up what the journal holds, and what is set aside for it.
// What a server left that was killed, it may not have synced, or in vain: it
// may be told only after a sync that works. Of bbolt's pages that is true only
// for those that it syncs last.
func (s *store) readJournal(file *os.File) error {
	if s.old() {
		return nil
	}
	j, err := findJournal(s.db, file, s.header.sectors)
	if err != nil {
		return err
	}
	groups, err := j.read(s.header.settled)
	if err != nil {
		return err
	}
	for _, g := range groups {
		s.header.counter = g.counter
		s.pending = append(s.pending, g.writes...)
	}
	s.journal = j
	s.lookAtReserve()
	meta := make([]byte, 2*s.db.Info().PageSize)
	if _, err := file.ReadAt(meta, 0); err != nil {
		return err
	}
	if err := writeBack(file, 0, meta); err != nil {
		return err
	}
	return s.db.Sync()
}

// findJournal returns the journal of an open database, which has so many
// sectors. Its size is known from the header, which has a checksum, as the
// page in which it stands has none.
func findJournal(db *bbolt.DB, file *os.File, sectors uint64) (*journal, error) {
	j := &journal{file: file, sectors: int(sectors)}
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(journalBucket))
		value := b.Get(sectorsKey)
		if sectors == 0 && value == nil {
			return nil
		}
		from, size, err := onlyValue(file, uint64(db.Info().PageSize), uint64(b.Root()))
		if err == nil && (sectors == 0 || size != len(value) || size != journalSize(sectors)) {
			err = unsound("its journal has %d bytes", len(value))
		}
		j.offset = (from + journalSector - 1) / journalSector * journalSector
		return err
	})
	return j, err
}

// journalSize is how many bytes a journal has: a sector more than it uses, as
// they may not begin where one does.
func journalSize(sectors uint64) int { return int(sectors+1) * journalSector }
