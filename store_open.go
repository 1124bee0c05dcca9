package main

// Opening a file that is there, with all doubt: bbolt trusts what it maps.

import (
	"bytes"
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
	} else if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
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
		return s, s.createInPlace()
	}
	if err := inspectFile(path, nil); err != nil {
		return nil, err
	}
	db, file, err := openBolt(path, 0)
	if err != nil {
		return nil, err
	}
	if err := s.hold(db, file); err != nil {
		db.Close()
		return nil, err
	}
	err = guardBolt(func() error { return s.readExisting(file) })
	if err != nil {
		db.Close()
		return nil, err
	}
	s.removeTemporary()
	if s.header.format == 0 {
		return s, s.takeOver2019()
	}
	return s, nil
}

// inspect looks at the file without writing to it, and calls each, if it is not
// nil, for every record as load does. It shares the file's lock with other
// readers, so that no server changes it meanwhile.
func inspectFile(path string, each func(bucket string, key, value []byte) error) error {
	var file *os.File
	db, err := openBoltFile(path, &bbolt.Options{ReadOnly: true, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
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
	err = guardBolt(func() error { return checkSound(file, info.Size()) })
	if err != nil || each == nil {
		return err
	}
	return guardBolt(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			h, err := readHeader(tx)
			if err != nil {
				return err
			}
			return loadRecords(tx, h, each)
		})
	})
}

// openBolt opens a file for writing: an existing one, or with os.O_CREATE as
// flag any. When the file was replaced while we waited for its lock, it begins
// anew.
func openBolt(path string, create int) (db *bbolt.DB, file *os.File, err error) {
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag&^os.O_CREATE|create, mode)
		file = f
		return f, err
	}
	for {
		db, err := openBoltFile(path, &bbolt.Options{FreelistType: bbolt.FreelistMapType, OpenFile: openFile})
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

func openBoltFile(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	options.Timeout = lockWait
	err = guardBolt(func() (err error) {
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

// takeUp reads the header of the open file, fills a file that has nothing in it
// yet, and makes sure that what it shows is on the disk.
func (s *store) readExisting(file *os.File) error {
	blank := false
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		if blank = isBlank(tx); blank {
			return nil
		}
		s.header, err = readHeader(tx)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.syncAgain(file); err != nil {
		return err
	}
	if blank {
		h := header{format: fileFormat}
		if err := s.update(func(tx *bbolt.Tx) error { return fillBuckets(tx, &h, nil) }); err != nil {
			return err
		}
		s.header = h
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(reserveBucket)); b != nil {
			key, _ := b.Cursor().First()
			s.reserved = key != nil
		}
		return nil
	})
}

// syncAgain makes durable what a killed server has written and not synced, or
// synced in vain: after a sync that failed, the system takes pages to be on the
// disk that may not be. bbolt syncs a transaction's pages before it writes the
// meta page that makes them count, so only the meta pages are written once
// more. An empty transaction would not do: it writes one of the two meta pages,
// and the other one could then be older on the disk than bbolt ever leaves it.
func (s *store) syncAgain(file *os.File) error {
	meta := make([]byte, 2*s.db.Info().PageSize)
	if _, err := file.ReadAt(meta, 0); err != nil {
		return err
	}
	if _, err := file.WriteAt(meta, 0); err != nil {
		return err
	}
	if err := s.db.Sync(); err != nil {
		return err
	}
	return syncFolder(s.path)
}

// takeOver2019 writes a file of the call-me of 2019 anew, in today's form.
func (s *store) takeOver2019() error {
	var records []write
	counter, err := s.load(func(bucket string, key, value []byte) error {
		records = append(records, write{bucket, bytes.Clone(key), bytes.Clone(value)})
		return nil
	})
	if err == nil {
		err = s.rewrite(counter, records)
	}
	if err != nil {
		s.db.Close()
	}
	return err
}

// readHeader returns the header of a file of call-me's: with format 0 for one of
// 2019. Its error says what else the file is.
func readHeader(tx *bbolt.Tx) (h header, err error) {
	meta := tx.Bucket([]byte(metaBucket))
	switch {
	case meta == nil && tx.Bucket([]byte(bucket2019)) != nil:
		return header{}, nil
	case meta == nil && tx.Bucket([]byte(leaseBucket)) == nil:
		return h, errors.New("this bbolt file is not call-me's")
	case meta == nil:
		return h, fmt.Errorf("%w: bucket %q is missing", errDamaged, metaBucket)
	}
	if h, err = decodeHeader(meta.Get(headerKey)); err != nil {
		return h, err
	}
	if h.format != fileFormat {
		return h, fmt.Errorf("its format is %d, this call-me knows %d; use the newer call-me that made it", h.format, fileFormat)
	}
	for _, name := range append([]string{reserveBucket}, recordBuckets...) {
		if tx.Bucket([]byte(name)) == nil {
			return h, fmt.Errorf("%w: bucket %q is missing", errDamaged, name)
		}
	}
	return h, nil
}

// A recordCount says how many records a file has.
type recordCount struct{ leases, waiters, events int }

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
	err = inspectFile(path, func(bucket string, key, value []byte) (err error) {
		switch bucket {
		case leaseBucket:
			n.leases++
			_, _, err = decodeLease(key, value)
		case queueBucket:
			n.waiters++
			_, _, err = decodeWaiter(key, value)
		case historyBucket:
			n.events++
			_, err = decodeEvent(key, value)
		}
		return err
	})
	return n, err
}
