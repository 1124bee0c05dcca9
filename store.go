package main

// The store: one bbolt file. This file reads and writes records as bytes: bucket,
// key, value and the value's checksum. record.go defines what the bytes mean.
// store_open.go opens and checks an existing file, store_check.go checks its pages,
// store_new.go makes a new file, and store_reserve.go handles a full disk. Only the
// store*.go files import bbolt.
//
// Not here: the state. The keeper holds it in memory, and the file makes it durable.

import (
	"cmp"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// bucket2019 is the bucket in which the call-me of 2019 stored its locks. A key is
// the name of an environment, its value is "locked".
const bucket2019 = "environments"

// A store is an open database file. It implements recoverableStore. Only one
// goroutine at a time may call its methods.
type store struct {
	path       string // with symbolic links resolved
	db         *bbolt.DB
	file       *os.File  // the database file; db closes it
	mark       fileMark  // what the file showed after the last commit
	header     header    // as of the last successful commit
	reserved   bool      // the reserve is in the file
	saveFailed bool      // a save failed: the page cache may show data that is not on the disk
	panicked   bool      // bbolt panicked: it may still hold its locks, so it is never called again
	isMapped   bool      // mapSize counts for db
	copied     *boltCopy // the last copy; it may be closed; nil if it has ended for sure
}

// load calls each for every record, bucket by bucket, in the order of the keys. The
// key and the value are valid only during the call. load stops at the first error of
// each and returns it. It returns errDamaged if a value is too short for its checksum,
// or if the sum of the checksums is not the header's. The counter is the largest
// number that was saved; it is zero for a file of 2019.
func (s *store) load(each func(bucket string, key, value []byte) error) (counter uint64, err error) {
	err = guardBolt(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return loadRecords(tx, s.header, each) })
	})
	if err != nil {
		return 0, fmt.Errorf("reading database %q: %w", s.path, err)
	}
	return s.header.counter, nil
}

// loadRecords calls each for every record that tx shows, and compares the sum of the
// checksums with that of h. Its errors are those of load. With format 0 in h it reads
// a file of 2019.
func loadRecords(tx *bbolt.Tx, h header, each func(bucket string, key, value []byte) error) error {
	if h.format == 0 {
		return load2019(tx, each)
	}
	sum := uint64(0)
	for _, name := range recordBuckets {
		err := tx.Bucket([]byte(name)).ForEach(func(key, value []byte) error {
			if len(value) < checksumSize {
				return fmt.Errorf("%w: %s %q", errDamaged, name, key)
			}
			sum += checksumOf(value)
			return each(name, key, value)
		})
		if err != nil {
			return err
		}
	}
	if sum != h.sum {
		return fmt.Errorf("%w: records are missing or do not belong together", errDamaged)
	}
	return nil
}

// load2019 calls each for every lock in a file of the call-me of 2019. It passes the
// lock as the record of a lease without a holder, granted now. The fences count from
// 1. The keeper's numbers begin at the current Unix time in milliseconds, so every
// later fence is larger.
func load2019(tx *bbolt.Tx, each func(bucket string, key, value []byte) error) error {
	now, fence := time.Now(), uint64(0)
	return tx.Bucket([]byte(bucket2019)).ForEach(func(name, _ []byte) error {
		fence++
		record := encode2019Lock(string(name), fence, now)
		return each(record.bucket, record.key, record.value)
	})
}

// save stores the writes and the counter in one transaction. It returns nil once they
// are on the disk. After errNoSpace nothing was stored. After any other error it is
// unknown what is on the disk, and the page cache may show data that is not there.
// Every later save then returns errDamaged, until rewrite succeeds. The ends of the steps
// do not matter.
func (s *store) save(counter uint64, writes []write, _ []int) error {
	h := s.header
	h.counter = counter
	writes = latestWrites(writes)
	err := s.update(func(tx *bbolt.Tx) error { return putRecords(tx, &h, writes) })
	if err == nil {
		s.header = h
	}
	return err
}

// confirm returns nil if the file is intact. bbolt's lock excludes every other process
// from it, but not from its name. The errors are those of checkIntact.
func (s *store) confirm() error { return s.checkIntact() }

// exclusive always returns true, because of the lock that confirm describes.
func (s *store) exclusive() bool { return true }

// isReserveMissing reports whether the reserve is not in the file.
func (s *store) isReserveMissing() bool { return !s.reserved }

// update runs f in a read-write transaction and commits it. Its errors are those of
// save. After a failed commit or a panic it returns errDamaged without calling f.
func (s *store) update(f func(tx *bbolt.Tx) error) error {
	if s.panicked || s.saveFailed {
		return errDamaged
	}
	if err := s.checkIntact(); err != nil {
		s.saveFailed = true
		return fmt.Errorf("saving: %w", err)
	}
	s.limitGrowth()
	s.panicked = true // remains true if bbolt panics
	err := guardBolt(func() error {
		err := s.db.Update(f)
		s.panicked = false
		return err
	})
	if s.panicked {
		s.endCopy()
	}
	switch {
	case err == nil:
		err = cmp.Or(s.remember(), s.checkName())
	case isDiskFull(err):
		return fmt.Errorf("%w: %v", errNoSpace, err)
	}
	if err != nil {
		s.saveFailed = true
		return fmt.Errorf("saving: %w", err)
	}
	return nil
}

// guardBolt calls f and returns its error. If f panics, or accesses mapped memory that
// the system cannot read, guardBolt returns an error that wraps errDamaged. It does
// not guard goroutines that f starts.
func guardBolt(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}

// putRecords applies the writes in their order, updates the sum in h accordingly, and
// stores h. A write without a value deletes its key, if the key is there.
func putRecords(tx *bbolt.Tx, h *header, writes []write) error {
	for _, w := range writes {
		b := tx.Bucket([]byte(w.bucket))
		if w.bucket == historyBucket || w.bucket == endBucket {
			b.FillPercent = 0.9 // each new key is larger than all others, so pages can be filled
		}
		before := b.Get(w.key)
		if before != nil {
			h.sum -= checksumOf(before)
		}
		var err error
		switch {
		case w.value != nil:
			h.sum += checksumOf(w.value)
			err = b.Put(w.key, w.value)
		case before != nil:
			err = b.Delete(w.key)
		}
		if err != nil {
			return err
		}
	}
	w := encodeHeader(h)
	return tx.Bucket([]byte(w.bucket)).Put(w.key, w.value)
}

// close closes the file and releases the lock on it. A copy that is read ends. After a
// panic of bbolt it closes nothing, since bbolt may hold its locks; the lock then lasts
// until the process ends.
func (s *store) close() error {
	s.endCopy()
	if s.panicked {
		return nil
	}
	return s.db.Close()
}
