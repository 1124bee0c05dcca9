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

// settlePiece is how many writes of the journal are settled at once on a disk
// that is too full for more: each may need a page or two.
const settlePiece = 8

// saveTight saves on a full disk: writes that take more away than they add.
// It uses the reserve up, for what the journal holds too.
func (s *store) saveTight(counter uint64, writes []write) error {
	if s.reserved {
		if err := s.update(dropReserve); err != nil {
			return err
		}
		s.reserved, s.journal.closed = false, true
	}
	if err := s.settleInPieces(); err != nil {
		return err
	}
	return s.settle(counter, writes)
}

// settleInPieces moves what the journal holds to where it belongs, so that
// what one piece frees serves the next. The journal counts as settled only
// with the next settle; until then its writes would be done once more.
func (s *store) settleInPieces() error {
	s.pending = s.latest(s.pending)
	for size := len(s.pending); len(s.pending) > 0; {
		h, piece := s.header, s.pending[:min(size, len(s.pending))]
		switch err := s.update(func(tx *bbolt.Tx) error { return put(tx, &h, piece) }); {
		case errors.Is(err, errNoSpace) && size > settlePiece:
			size = max(size/4, settlePiece)
		case err != nil:
			return err
		default:
			s.header, s.pending = h, s.pending[len(piece):]
		}
	}
	s.pending = nil // and what they were in
	return nil
}

// reserve sets space aside again: for the journal too, or, where that does not
// fit, without it, and then the journal stays closed. Its error is errNoSpace
// while there is none, or as with save.
func (s *store) reserve() error {
	if err := s.settleInPieces(); err != nil {
		return err
	}
	put := func(sectors int) error {
		return s.update(func(tx *bbolt.Tx) error { return putReserve(tx, 0, reservePieces(sectors)) })
	}
	err := errNoSpace
	if !s.reserved { // else it would need its space twice
		err = put(s.journal.sectors)
	}
	if errors.Is(err, errNoSpace) {
		err = put(0)
	}
	if err == nil {
		s.lookAtReserve()
	}
	return err
}

// lookAtReserve notes how much is set aside: with less than the journal needs
// nothing more goes into it.
func (s *store) lookAtReserve() {
	s.db.View(func(tx *bbolt.Tx) error {
		key, _ := tx.Bucket([]byte(reserveBucket)).Cursor().Last()
		s.reserved = key != nil
		s.journal.closed = key == nil || int(binary.BigEndian.Uint16(key))+1 < reservePieces(s.journal.sectors)
		return nil
	})
}

func reservePieces(sectors int) int {
	return (reserveSize + 2*sectors*journalSector) / reservePiece
}

// putReserve sets aside what a transaction needs, and a place for all that a
// journal holds, in pages that are half full.
func putReserve(tx *bbolt.Tx, from, to int) error {
	b := tx.Bucket([]byte(reserveBucket))
	b.FillPercent = 1
	piece := make([]byte, reservePiece)
	for i := from; i < to; i++ {
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
func isFull(err error) bool {
	var write *fs.PathError
	if !errors.As(err, &write) || write.Op != "write" {
		return errors.Is(err, bolterrors.ErrMaxSizeReached)
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
