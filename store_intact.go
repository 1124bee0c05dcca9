package main

// Whether the file at the store's path is still the one that the store writes. It
// can be deleted, cut off, written to or replaced while a server uses it, and bbolt
// does not notice.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// A fileMark is what the file showed after the last commit.
type fileMark struct {
	info  os.FileInfo // of the open file
	size  int64       // in bytes; the file never shrinks while it is open
	metas []byte      // both meta pages: each commit writes one of them
}

// hold makes an open file the store's, and notes what it shows.
func (s *store) hold(db *bbolt.DB, file *os.File) error {
	s.db, s.file, s.mark = db, file, fileMark{}
	s.isMapped = db.AllocSize == growBy // see openMapped
	return s.remember()
}

// remember notes what the file shows now.
func (s *store) remember() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.mark.info, s.mark.size = info, info.Size()
	s.mark.metas, err = s.readMetas()
	return err
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
	if err := s.checkName(); err != nil {
		return err
	}
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", errReplaced, err)
	}
	if info.Size() < s.mark.size {
		return fmt.Errorf("%w: it was cut off, %d bytes are left of %d", errReplaced, info.Size(), s.mark.size)
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

// checkName returns nil if the path names the open file, otherwise an error as of
// checkIntact. A database that stands there instead, and that no server uses, gets a
// second name, so that a rewrite does not destroy it.
func (s *store) checkName() error {
	named, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("%w: %w", errReplaced, err)
	}
	if os.SameFile(named, s.mark.info) {
		return nil
	}
	other, err := s.openOther()
	if err != nil {
		return err
	}
	if other == nil {
		return fmt.Errorf("%w: another file has its name", errReplaced)
	}
	defer other.Close()
	kept := fmt.Sprintf("%s.replaced-%d", s.path, time.Now().UnixNano())
	if err := os.Link(s.path, kept); err != nil {
		return fmt.Errorf("%w: another database has its name: %w", errReplaced, err)
	}
	return fmt.Errorf("%w: another database has its name, and is kept as %q", errReplaced, kept)
}

// openOther opens the file at the path, with a shared lock, if it is not the store's own.
// It returns nil without an error if there is none, or none that a server could use. It
// returns errInUse if another server uses the file, or might: a file that may not be read
// is of a server of another user.
func (s *store) openOther() (*bbolt.DB, error) {
	named, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case s.mark.info != nil && os.SameFile(named, s.mark.info), !named.Mode().IsRegular(), named.Size() == 0:
		return nil, nil
	}
	other, err := openBoltFile(s.path, &bbolt.Options{ReadOnly: true})
	switch {
	case errors.Is(err, errInUse), errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("database %q: %w", s.path, errInUse)
	case errors.Is(err, errDamaged), errors.Is(err, fs.ErrNotExist):
		return nil, nil
	}
	return other, err
}

// claimPath makes sure that no other server uses the file at the path, until release is
// called. Its errors are those of openOther.
func (s *store) claimPath() (release func(), err error) {
	other, err := s.openOther()
	if err != nil || other == nil {
		return func() {}, err
	}
	return func() { other.Close() }, nil
}
