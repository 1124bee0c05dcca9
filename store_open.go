package main

// Opening and checking an existing file. bbolt trusts what it maps, so the pages are
// checked first (store_check.go). The commands serve and check use the same functions.
//
// Not here: making a new file, which is in store_new.go.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockWait is how long opening a file waits for another process to release its lock.
// It is long enough for a server that is being stopped. It is short enough that the
// operator sees errInUse soon.
const lockWait = time.Second

// openStore opens the database at path for reading and writing. It makes a new one if
// there is no file, or an empty file. It rewrites a file of 2019 in the present
// format. It holds an exclusive lock on the file until close. It returns errInUse if
// another process holds the lock, and errDamaged if the file is not sound. Every
// error names the path. A file that openStore rejects before it writes is unchanged.
func openStore(path string) (s *store, err error) {
	defer func() {
		if err == nil {
			return
		}
		if s != nil && s.db != nil {
			s.db.Close()
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = missingFolderError(filepath.Dir(path))
		}
		s, err = nil, fmt.Errorf("opening database %q: %w", path, err)
	}()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // rewrite must replace the file, not a symbolic link to it
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
		return s, err
	}
	err = guardBolt(func() error { return s.readExisting(file) })
	if err != nil {
		return s, err
	}
	s.removeTemporary()
	if s.header.format == 0 {
		return s, s.takeOver2019()
	}
	return s, nil
}

// inspectFile checks the pages of the file without writing to it. If each is not nil,
// inspectFile then calls each for every record, as load does. It holds a shared lock
// on the file, so that no server changes the file meanwhile. It returns errInUse if a
// server holds the lock, and otherwise the errors of checkSound, readHeader and load.
func inspectFile(path string, each func(bucket string, key, value []byte) error) error {
	var file *os.File
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		file = f
		return f, err
	}
	db, err := openBoltFile(path, &bbolt.Options{ReadOnly: true, OpenFile: openFile})
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

// openBolt opens the file at path with bbolt for writing, and returns the file that
// bbolt uses. create is os.O_CREATE to make a file that does not exist, or zero. If
// another process replaced the file while openBolt waited for the lock, openBolt opens
// the new file instead. Its errors are those of openBoltFile and of the system.
func openBolt(path string, create int) (db *bbolt.DB, file *os.File, err error) {
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag&^os.O_CREATE|create, mode)
		file = f
		return f, err
	}
	for {
		db, err := openMapped(path, &bbolt.Options{FreelistType: bbolt.FreelistMapType, OpenFile: openFile})
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

// openBoltFile calls bbolt.Open with lockWait as its timeout. It returns errInUse after
// that time, the system's own error if a system call failed, and otherwise an error
// that wraps errDamaged.
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
	case err != nil && !errors.As(err, &system) && isForeign(path):
		return nil, notDatabase{}
	case err != nil && !errors.Is(err, errDamaged) && !errors.As(err, &system): // bbolt's error
		return nil, fmt.Errorf("%w: %v", errDamaged, err)
	}
	return db, err
}

// A notDatabase is the error of opening a file that is not one of call-me's. It is an
// errDamaged with another text: a file that was overwritten looks the same.
type notDatabase struct{}

func (notDatabase) Error() string { return "it is not a database of call-me" }

func (notDatabase) Is(target error) bool { return target == errDamaged }

// isForeign reports whether a file has neither of bbolt's two meta pages, whatever the size
// of its pages. It is false if the file cannot be read, and if the first one has zeros, which
// a power failure leaves behind.
func isForeign(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	for at := int64(0); at <= boltLargestPage; at = max(512, 2*at) {
		b := make([]byte, 4)
		_, err := file.ReadAt(b, at+boltHeader)
		switch {
		case errors.Is(err, io.EOF):
			return true
		case err != nil, nativeEndian.Uint32(b) == boltMagic, at == 0 && nativeEndian.Uint32(b) == 0:
			return false
		}
	}
	return true
}

// readExisting reads the header of the open file and makes durable what the file
// shows. It fills a file that has no buckets yet. It sets s.header and s.reserved. Its
// errors are those of readHeader, update and the system.
func (s *store) readExisting(file *os.File) error {
	blank := false
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		blank = isBlank(tx)
		if blank {
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

// syncAgain makes durable what the file shows. A server that was killed may have written
// a meta page that it did not sync, or whose sync failed. After a failed sync the system
// treats pages as clean that may not be on the disk. syncAgain writes both meta pages
// again and syncs the file and its folder. The other pages need no second write, because
// bbolt syncs the pages of a transaction before it writes the meta page that refers to
// them. An empty transaction is not enough: it writes only one of the two meta pages,
// and the other could be older on the disk than bbolt ever leaves it.
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

// takeOver2019 rewrites a file of the call-me of 2019 in the present format. It closes
// the file if that fails.
func (s *store) takeOver2019() error {
	var records []write
	counter, err := s.load(func(bucket string, key, value []byte) error {
		records = append(records, write{bucket, bytes.Clone(key), bytes.Clone(value)})
		return nil
	})
	if err != nil {
		return err
	}
	return s.rewrite(counter, records)
}

// readHeader returns the header of a file of call-me. The format is zero for a file of
// 2019. The error is errDamaged if the header is not valid or a bucket is missing, and
// a plain error if another program or a later version of call-me made the file.
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
	h, err = decodeHeader(meta.Get(headerKey))
	if err != nil {
		return h, err
	}
	if h.format != fileFormat {
		return h, fmt.Errorf("its format is %d, this call-me knows %d; use the newer call-me that made it",
			h.format, fileFormat)
	}
	for _, name := range append([]string{reserveBucket}, recordBuckets...) {
		if tx.Bucket([]byte(name)) == nil {
			return h, fmt.Errorf("%w: bucket %q is missing", errDamaged, name)
		}
	}
	return h, nil
}

// A recordCount is the number of records of each kind in a file.
type recordCount struct{ leases, waiters, events int }

// checkFile checks every page and decodes every record of the file at path, without
// changing it. It returns nil if a server could start on the file, errInUse while a
// server uses the file, and errDamaged if the file is not what a server wrote. A
// folder and an empty file are errors. The count includes the records read before an
// error; a file of 2019 has only leases.
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
		case endBucket:
			_, err = decodeEnd(key, value)
		case pauseBucket:
			_, err = decodePause(key, value)
		}
		return err
	})
	return n, err
}

// A missingFolderError is the error of a file in a folder that does not exist.
type missingFolderError string

func (e missingFolderError) Error() string {
	return fmt.Sprintf("the folder %q does not exist", string(e))
}
