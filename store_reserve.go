package main

// The reserve: space in the file that the store uses when the disk is full, for writes
// that delete more than they add.
//
// Not here: when it is used. The keeper decides that (keeper_recovery.go).

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The size of the reserve and of one of its values, in bytes. A release needs free
// pages too, and pages that a transaction frees can be used only by the next one. The
// reserve is stored as pieces, four to a page of 4 kB. A value that is larger than a
// page needs a run of free pages, but a file that was full has mostly single free
// pages. Larger pieces would need runs as well: bbolt keeps up to four keys together
// in a node, even if they do not fit into one page.
const (
	reserveSize  = 64 << 10
	reservePiece = 900
)

// reservePieces is the number of values in the reserve.
const reservePieces = reserveSize / reservePiece

// saveOnFullDisk is save for a full disk. The writes must delete more than they add. It
// drops the reserve in a transaction of its own first, if the reserve is in the file.
// Its errors are those of save.
func (s *store) saveOnFullDisk(counter uint64, writes []write, ends []int) error {
	if s.reserved {
		if err := s.update(dropReserve); err != nil {
			return err
		}
		s.reserved = false
	}
	return s.save(counter, writes, ends)
}

// reserve stores the reserve, if it is not in the file. It returns errNoSpace while the
// disk is full. Its other errors are those of save.
func (s *store) reserve() error {
	if s.reserved {
		return nil
	}
	err := s.update(putReserve)
	s.reserved = err == nil
	return err
}

// putReserve stores the pieces of the reserve. It fills each page, so that the reserve
// takes reservePieces/4 pages of 4 kB.
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

// dropReserve deletes the reserve. The pages become free with the next transaction.
func dropReserve(tx *bbolt.Tx) error {
	if err := tx.DeleteBucket([]byte(reserveBucket)); err != nil {
		return err
	}
	_, err := tx.CreateBucket([]byte(reserveBucket))
	return err
}

// isDiskFull reports whether err says that a write found no space: the disk is full, or
// a quota, a limit of the file's size or bbolt's maximum size is reached. Nothing was
// stored in that case. A sync that fails for lack of space does not count, because the
// data was written before and bbolt shows it.
func isDiskFull(err error) bool {
	var write *fs.PathError
	if !errors.As(err, &write) || write.Op != "write" {
		return errors.Is(err, bolterrors.ErrMaxSizeReached)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
