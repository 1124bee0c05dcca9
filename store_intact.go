package main

// Whether the file at the store's path is still the one that the store writes. It
// can be deleted, cut off, written to or replaced while a server uses it, and bbolt
// does not notice.

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// A fileMark is what the file showed after the last commit.
type fileMark struct {
	info  os.FileInfo // of the open file
	size  int64       // in bytes; the file never shrinks while it is open
	metas []byte      // both meta pages: each commit writes one of them
}

// hold makes an open file the store's.
func (s *store) hold(db *bbolt.DB, file *os.File) error {
	s.db, s.file = db, file
	return s.remember()
}

// remember notes what the file shows now.
func (s *store) remember() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	metas, err := s.readMetas()
	if err != nil {
		return err
	}
	s.mark = fileMark{info: info, size: info.Size(), metas: metas}
	return nil
}

// readMetas reads what counts of the two meta pages.
func (s *store) readMetas() ([]byte, error) {
	const metaSize = boltHeader + boltMeta
	metas := make([]byte, 2*metaSize)
	if _, err := s.file.ReadAt(metas[:metaSize], 0); err != nil {
		return nil, err
	}
	_, err := s.file.ReadAt(metas[metaSize:], int64(s.db.Info().PageSize))
	return metas, err
}

// checkIntact returns nil if the file at the path is as the last commit left it. It
// returns errInUse if another server has a file there, else errReplaced with what
// has happened.
func (s *store) checkIntact() error {
	named, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("%w: %w", errReplaced, err)
	}
	if !os.SameFile(named, s.mark.info) {
		release, err := s.claimPath()
		if err != nil {
			return err
		}
		release()
		return fmt.Errorf("%w: another file has its name", errReplaced)
	}
	if named.Size() < s.mark.size {
		return fmt.Errorf("%w: it was cut off, %d bytes are left of %d", errReplaced, named.Size(), s.mark.size)
	}
	metas, err := s.readMetas()
	if err != nil {
		return fmt.Errorf("%w: %w", errReplaced, err)
	}
	if !bytes.Equal(metas, s.mark.metas) {
		return fmt.Errorf("%w: another program has written to it", errReplaced)
	}
	return nil
}

// claimPath makes sure that no other server has the file at the path, until release
// is called. It returns errInUse if one has.
func (s *store) claimPath() (release func(), err error) {
	release = func() {}
	named, err := os.Stat(s.path)
	if err != nil || s.mark.info == nil || os.SameFile(named, s.mark.info) {
		return release, nil
	}
	db, err := openBoltFile(s.path, &bbolt.Options{ReadOnly: true})
	if errors.Is(err, errInUse) {
		return nil, fmt.Errorf("database %q: %w", s.path, errInUse)
	}
	if err != nil { // no server could use it
		return release, nil
	}
	return func() { db.Close() }, nil
}
