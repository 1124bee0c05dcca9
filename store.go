package main

// The store: one bbolt file. Its keys, values and their checksums are what the
// store knows; what they mean is record.go's. How the file is opened is in
// store_open.go, how one is made in store_new.go, and what is done when the disk is
// full in store_reserve.go: nothing else imports bbolt.
//
// Not here: the state. It lives in memory, with the keeper, and the file is
// what makes it durable.

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

// bucket2019 is where the call-me of 2019 kept its locks: name -> "locked".
const bucket2019 = "environments"

// A store is the open file. Its methods are for one goroutine at a time.
type store struct {
	path       string // without symbolic links
	db         *bbolt.DB
	file       *os.File // the database; closed by db
	mark       fileMark
	header     header
	reserved   bool // the reserve is in the file
	saveFailed bool // a save has failed: what the system shows of the file cannot be trusted
	panicked   bool // bbolt panicked: its locks may be held for ever, so it is never called again
}

// load calls each for every record, bucket by bucket in the order of the
// keys; key and value are valid only during the call. It returns the largest
// number that was saved, and the first error of each, or errDamaged when the
// records are not those that were stored.
func (s *store) load(each func(bucket string, key, value []byte) error) (counter uint64, err error) {
	err = guardBolt(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return loadRecords(tx, s.header, each) })
	})
	if err != nil {
		return 0, fmt.Errorf("reading database %q: %w", s.path, err)
	}
	return s.header.counter, nil
}

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

// load2019 reads the locks of a file that the call-me of 2019 wrote, as
// leases without a holder. Their fences are below any that will be given.
func load2019(tx *bbolt.Tx, each func(bucket string, key, value []byte) error) error {
	now, fence := time.Now(), uint64(0)
	return tx.Bucket([]byte(bucket2019)).ForEach(func(name, _ []byte) error {
		fence++
		record := encode2019Lock(string(name), fence, now)
		return each(record.bucket, record.key, record.value)
	})
}

// save stores the writes and the counter in one transaction, and returns nil
// once they are on the disk. After errNoSpace nothing was stored. After any
// other error it is unknown what is on the disk, and what the system shows of
// it cannot be trusted: nothing is saved any more before rewrite.
func (s *store) save(counter uint64, writes []write) error {
	h := s.header
	h.counter = counter
	err := s.update(func(tx *bbolt.Tx) error { return putRecords(tx, &h, writes) })
	if err == nil {
		s.header = h
	}
	return err
}

// confirm returns nil: bbolt's lock on the file keeps everybody else out.
func (s *store) confirm() error { return nil }

// exclusive is true because of that lock.
func (s *store) exclusive() bool { return true }

// isTight reports whether the reserve is not in the file.
func (s *store) isReserveMissing() bool { return !s.reserved }

// update commits one transaction. Its errors are those of save.
func (s *store) update(f func(tx *bbolt.Tx) error) error {
	if s.panicked || s.saveFailed {
		return errDamaged
	}
	if err := s.checkIntact(); err != nil {
		s.saveFailed = true
		return fmt.Errorf("saving: %w", err)
	}
	s.panicked = true // stays so when bbolt panics
	err := guardBolt(func() error {
		err := s.db.Update(f)
		s.panicked = false
		return err
	})
	switch {
	case err == nil:
		err = s.remember()
	case isDiskFull(err):
		return fmt.Errorf("%w: %v", errNoSpace, err)
	}
	if err != nil {
		s.saveFailed = true
		return fmt.Errorf("saving: %w", err)
	}
	return nil
}

// guard turns a panic of bbolt, or a fault in the memory that it maps, into
// errDamaged.
func guardBolt(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}

// put applies the writes and keeps the header's sum up to date.
func putRecords(tx *bbolt.Tx, h *header, writes []write) error {
	for _, w := range writes {
		b := tx.Bucket([]byte(w.bucket))
		if w.bucket == historyBucket {
			b.FillPercent = 0.9 // its keys only grow
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

// close lets go of the file.
func (s *store) close() error {
	if s.panicked {
		return nil
	}
	return s.db.Close()
}
