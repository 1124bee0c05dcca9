package main

// The store: one bbolt file. Its keys, values and their checksums are what the
// store knows; what they mean is record.go's. How the file is opened is in
// storeopen.go, how one is made in storenew.go, and what is done when the disk is
// full in storefull.go: nothing else imports bbolt.
//
// Not here: the state. It lives in memory, with the keeper, and the file is
// what makes it durable.

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// What opening and saving can end with, besides errDamaged and plain errors.
var (
	errNoSpace = errors.New("no space left for the database")
	errInUse   = errors.New("in use by another server")
)

// mostKept is for how many writes lists keep their memory. A full journal holds
// a few thousand.
const mostKept = 1 << 14

// The keys of metaBucket and journalBucket.
var stateKey, sectorsKey = []byte("state"), []byte("sectors")

// bucket2019 is where the call-me of 2019 kept its locks: name -> "locked".
const bucket2019 = "environments"

// A store is the open file. Its methods are for one goroutine at a time.
type store struct {
	path     string
	db       *bbolt.DB
	header   header
	journal  *journal
	pending  []write         // what the journal holds
	settling []write         // memory for what a settle stores
	seen     map[string]bool // memory for latest
	reserved bool            // the reserve is in the file, or a part that is enough without a journal
	doubtful bool            // reading or a save has failed: what the system shows of the file cannot be trusted
	broken   bool            // bbolt panicked: its locks may be held for ever, so it is never called again
}

// load calls each for every record, bucket by bucket in the order of the
// keys; key and value are valid only during the call. It returns the first
// error of each, or errDamaged when the records are not those that were
// stored.
func (s *store) load(each func(bucket string, key, value []byte) error) error {
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if s.header.format == 0 {
				return load2019(tx, each)
			}
			sum := uint64(0)
			for _, name := range recordBuckets {
				pending := s.latest(slices.DeleteFunc(slices.Clone(s.pending), func(w write) bool { return w.bucket != name }))
				slices.SortFunc(pending, func(a, b write) int { return bytes.Compare(a.key, b.key) })
				givePending := func(before []byte) error { // nil: all that is left
					for len(pending) > 0 && (before == nil || bytes.Compare(pending[0].key, before) < 0) {
						w := pending[0]
						if pending = pending[1:]; w.value == nil {
							continue
						}
						if err := each(name, w.key, w.value); err != nil {
							return err
						}
					}
					return nil
				}
				err := tx.Bucket([]byte(name)).ForEach(func(key, value []byte) error {
					if len(value) < checksumSize {
						return fmt.Errorf("%w: %s %q", errDamaged, name, key)
					}
					sum += checksumOf(value)
					if err := givePending(key); err != nil || len(pending) > 0 && bytes.Equal(pending[0].key, key) {
						return err
					}
					return each(name, key, value)
				})
				if err == nil {
					err = givePending(nil)
				}
				if err != nil {
					return err
				}
			}
			if sum != s.header.sum {
				return fmt.Errorf("%w: records are missing or do not belong together", errDamaged)
			}
			return nil
		})
	})
	if err != nil {
		s.doubtful = true
		return fmt.Errorf("reading database %q: %w", s.path, err)
	}
	return nil
}

// load2019 reads the locks of a file that the call-me of 2019 wrote, as
// leases without a holder. Their fences are below any that will be given.
func load2019(tx *bbolt.Tx, each func(bucket string, key, value []byte) error) error {
	now, fence := time.Now(), uint64(0)
	return tx.Bucket([]byte(bucket2019)).ForEach(func(name, _ []byte) error {
		fence++
		record := leaseRecord(string(name), &lease{slot: string(name), fence: fence, since: now})
		return each(record.bucket, record.key, record.value)
	})
}

// old reports that the file has an earlier form, and must be written anew
// before anything can be saved.
func (s *store) old() bool { return s.header.format < format }

// save stores the writes and the counter, and returns nil once they are on the
// disk: in the journal, or, when that is full, with all that it holds, where
// they belong. After errNoSpace nothing was stored. After any other error it
// is unknown what is on the disk, and what the system shows of it cannot be
// trusted: call rewrite before the next save.
func (s *store) save(counter uint64, writes []write) error {
	if s.broken {
		return errDamaged
	}
	fits, err := s.journal.add(entries{counter, writes})
	switch {
	case err == nil && !fits, err != nil && isFull(err):
		return s.settle(counter, writes)
	case err == nil:
		err = s.db.Sync()
	}
	if err != nil {
		s.doubtful = true
		return fmt.Errorf("saving: %w", err)
	}
	s.header.counter = counter
	s.pending = append(s.pending, writes...)
	return nil
}

// settle stores what the journal holds, the writes and the counter in one
// transaction, and empties the journal. Its errors are those of save.
func (s *store) settle(counter uint64, writes []write) error {
	h := s.header
	h.counter, h.settled = counter, s.journal.group
	s.settling = append(append(s.settling, s.pending...), writes...)
	err := s.update(func(tx *bbolt.Tx) error { return put(tx, &h, s.latest(s.settling)) })
	s.settling = emptied(s.settling, mostKept)
	if err == nil {
		s.header, s.pending = h, emptied(s.pending, mostKept)
		s.journal.reset()
	}
	return err
}

// latest moves the last write to each key to the end of the list, in the order
// in which they came, and returns these.
func (s *store) latest(writes []write) []write {
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	var name []byte
	first := len(writes)
	for _, w := range slices.Backward(writes) {
		name = append(append(append(name[:0], w.bucket...), 0), w.key...)
		if !s.seen[string(name)] {
			s.seen[string(name)] = true
			first--
			writes[first] = w
		}
	}
	if len(s.seen) > mostKept {
		s.seen = nil
	}
	clear(s.seen)
	return writes[first:]
}

// emptied empties a list, and keeps its memory unless that is for more than most.
func emptied[T any](list []T, most int) []T {
	if cap(list) > most {
		return nil
	}
	clear(list)
	return list[:0]
}

// update commits one transaction.
func (s *store) update(f func(tx *bbolt.Tx) error) error {
	if s.broken {
		return errDamaged
	}
	s.broken = true // stays so when bbolt panics
	err := guard(func() error {
		err := s.db.Update(f)
		s.broken = false
		return err
	})
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w: %v", errNoSpace, err)
	}
	s.doubtful = true
	return fmt.Errorf("saving: %w", err)
}

// guard turns a panic of bbolt, or a fault in the memory that it maps, into
// errDamaged.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}

// put applies the writes and keeps the header's sum up to date.
func put(tx *bbolt.Tx, h *header, writes []write) (err error) {
	buckets := map[string]*bbolt.Bucket{}
	var newest []byte // event
	for _, w := range writes {
		b := buckets[w.bucket]
		if b == nil {
			b = tx.Bucket([]byte(w.bucket))
			buckets[w.bucket] = b
		}
		if w.bucket == historyBucket {
			b.FillPercent = 0.9 // its keys only grow
			if newest == nil {
				newest, _ = b.Cursor().Last()
			}
		}
		var before []byte
		if w.bucket == historyBucket && bytes.Compare(w.key, newest) > 0 {
			newest = w.key
		} else if before = b.Get(w.key); before != nil {
			h.sum -= checksumOf(before)
		}
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
	return tx.Bucket([]byte(metaBucket)).Put(stateKey, seal(metaBucket, stateKey, h.code))
}

// close settles what the journal holds and lets go of the file. What cannot
// be settled stays in the journal.
func (s *store) close() error {
	if s.broken {
		return nil
	}
	var err error
	if len(s.pending) > 0 && !s.doubtful {
		if err = s.settle(s.header.counter, nil); errors.Is(err, errNoSpace) {
			err = nil
		}
	}
	if s.broken {
		return err
	}
	return errors.Join(err, s.db.Close())
}
