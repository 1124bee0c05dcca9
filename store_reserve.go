package main

// What the store does when the disk is full: it has set space aside, and uses it
// up for what takes more away than it adds.

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The file sets space aside for the day when the disk is full: a release
// needs fresh pages too, and what deleting frees can be used only by the next
// transaction. It is in pieces, four to a page of 4 kB: what is free in a file
// that has been full is single pages, and a larger value needs a run of them, as
// do larger pieces: bbolt leaves up to four together, also where they do not fit
// into one page.
const (
	reserveSize  = 64 << 10
	reservePiece = 900
)

const reservePieces = reserveSize / reservePiece

// saveTight saves on a full disk: writes that take more away than they add.
// It uses the reserve up.
func (s *store) saveOnFullDisk(counter uint64, writes []write) error {
	if s.reserved {
		if err := s.update(dropReserve); err != nil {
			return err
		}
		s.reserved = false
	}
	return s.save(counter, writes)
}

// reserve sets space aside again. Its error is errNoSpace while there is none,
// or as with save.
func (s *store) reserve() error {
	if s.reserved {
		return nil
	}
	err := s.update(putReserve)
	s.reserved = err == nil
	return err
}

// putReserve sets aside what a transaction needs, in pages that are half full.
func putReserve(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(reserveBucket))
	b.FillPercent = 1
	piece := make([]byte, reservePiece)
	for i := range reservePieces {
		if err := b.Put(binary.BigEndian.AppendUint16(nil, uint16(i)), piece); err != nil {
			return err
		}
	}
	return nil
}

func dropReserve(tx *bbolt.Tx) error {
	if err := tx.DeleteBucket([]byte(reserveBucket)); err != nil {
		return err
	}
	_, err := tx.CreateBucket([]byte(reserveBucket))
	return err
}

// isFull reports whether a write did not find space, so that nothing was
// stored. A sync that fails for space is not that: what it was to make
// durable has been written, and bbolt shows it.
func isDiskFull(err error) bool {
	var write *fs.PathError
	if !errors.As(err, &write) || write.Op != "write" {
		return errors.Is(err, bolterrors.ErrMaxSizeReached)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
