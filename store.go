package main

// The file: one bbolt database. Nothing else imports bbolt. The store knows
// keys, values and their checksums; what they mean is record.go's.
//
// Not here: the state. It lives in memory, with the keeper, and the file is
// what makes it durable.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// What opening and saving can end with, besides errDamaged and plain errors.
var (
	errNoSpace = errors.New("no space left for the database")
	errInUse   = errors.New("in use by another server")
)

// lockWait is how long opening waits for another process to let go of the
// file: long enough for one that is being stopped, short enough to be told.
const lockWait = time.Second

// The file sets space aside for the day when the disk is full: a release
// needs fresh pages too, and what deleting frees can be used only by the next
// transaction. It is in pieces, four to a page of 4 kB: what is free in a file
// that has been full is single pages, and a larger value needs a run of them.
const (
	reserveSize  = 64 << 10
	reservePiece = 900
)

// settlePiece is how many writes of the journal are settled at once on a disk
// that is too full for more: each may need a page or two.
const settlePiece = 8

// mostKept is for how many writes memory is kept until the next settle: a
// journal that is full holds about a quarter of it.
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
	} else if _, err := os.Lstat(path); err == nil {
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
		return s, s.create(os.Rename)
	}
	if err := inspect(path); err != nil {
		return nil, err
	}
	db, file, err := openBolt(path, 0)
	if err != nil {
		return nil, err
	}
	s.db = db
	err = guard(s.readHeader)
	if err == nil {
		err = guard(func() error { return s.readJournal(file) })
	}
	if err == nil {
		err = syncFolder(path) // a server that was killed may not have done so
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	s.sweep()
	return s, nil
}

// sweep removes what a server left aside that was killed while it wrote the
// file anew. We hold the lock: nobody is writing one.
func (s *store) sweep() {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), globQuote(filepath.Base(s.path))+".*.tmp"))
	for _, name := range left {
		os.Remove(name)
	}
}

func globQuote(name string) string {
	return strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[", "\\", "\\\\").Replace(name)
}

// create makes a new file. It is complete, synced and locked before publish
// gives it its name: a power failure leaves the whole file or none. Of two
// servers that do this at once, link lets only one succeed.
func (s *store) create(publish func(from, to string) error) error {
	err := s.replace(header{format: format}, nil, publish)
	switch {
	case errors.Is(err, fs.ErrExist):
		return errInUse
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM): // no links on this file system
		return s.replace(header{format: format}, nil, os.Rename)
	}
	return err
}

// inspect looks at the file without writing to it. It shares the file's lock
// with other readers, so that no server changes it meanwhile.
func inspect(path string) error {
	var file *os.File
	db, err := open(path, &bbolt.Options{ReadOnly: true, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
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
	return guard(func() error { return checkSound(file, info.Size()) })
}

// openBolt opens an existing file for writing, and maps at least so many bytes
// of it. When the file was replaced while we waited for its lock, it begins
// anew.
func openBolt(path string, size int) (db *bbolt.DB, file *os.File, err error) {
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag&^os.O_CREATE, mode)
		file = f
		return f, err
	}
	for {
		db, err := open(path, &bbolt.Options{FreelistType: bbolt.FreelistMapType, InitialMmapSize: size, OpenFile: openFile})
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

func open(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	options.Timeout = lockWait
	err = guard(func() (err error) {
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

func (s *store) readHeader() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		switch {
		case meta == nil && tx.Bucket([]byte(bucket2019)) != nil:
			s.header = header{} // format 0
			return nil
		case meta == nil && tx.Bucket([]byte(leaseBucket)) == nil:
			return errors.New("this bbolt file is not call-me's")
		case meta == nil:
			return fmt.Errorf("%w: bucket %q is missing", errDamaged, metaBucket)
		}
		if err := unseal(metaBucket, stateKey, meta.Get(stateKey), s.header.code); err != nil {
			return err
		}
		buckets := []string{leaseBucket, lineBucket, historyBucket, reserveBucket, journalBucket}
		switch {
		case s.header.format > format:
			return fmt.Errorf("its format is %d, this call-me knows %d; use the newer call-me that made it", s.header.format, format)
		case s.old():
			buckets = recordBuckets
		}
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return fmt.Errorf("%w: bucket %q is missing", errDamaged, name)
			}
		}
		return nil
	})
}

// findJournal returns the journal of an open database, which has so many
// sectors. Its size is known from the header, which has a checksum, as the
// page in which it stands has none.
func findJournal(db *bbolt.DB, file *os.File, sectors uint64) (*journal, error) {
	j := &journal{file: file, sectors: int(sectors)}
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(journalBucket))
		value := b.Get(sectorsKey)
		if sectors == 0 && value == nil {
			return nil
		}
		from, size, err := onlyValue(file, uint64(db.Info().PageSize), uint64(b.Root()))
		if err == nil && (sectors == 0 || size != len(value) || size != journalSize(sectors)) {
			err = unsound("its journal has %d bytes", len(value))
		}
		j.offset = (from + journalSector - 1) / journalSector * journalSector
		return err
	})
	return j, err
}

// journalSize is how many bytes a journal has: a sector more than it uses, as
// they may not begin where one does.
func journalSize(sectors uint64) int { return int(sectors+1) * journalSector }

// readJournal takes up what the journal holds, and what is set aside for it.
// What a server left that was killed, it may not have synced, or in vain: it
// may be told only after a sync that works. Of bbolt's pages that is true only
// for those that it syncs last.
func (s *store) readJournal(file *os.File) error {
	if s.old() {
		return nil
	}
	j, err := findJournal(s.db, file, s.header.sectors)
	if err != nil {
		return err
	}
	groups, err := j.read(s.header.settled)
	if err != nil {
		return err
	}
	for _, g := range groups {
		s.header.counter = g.counter
		s.pending = append(s.pending, g.writes...)
	}
	s.journal = j
	s.lookAtReserve()
	meta := make([]byte, 2*s.db.Info().PageSize)
	if _, err := file.ReadAt(meta, 0); err != nil {
		return err
	}
	if err := writeBack(file, 0, meta); err != nil {
		return err
	}
	return s.db.Sync()
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
	s.settling = emptied(s.settling)
	if err == nil {
		s.header, s.pending = h, emptied(s.pending)
		s.journal.reset()
	}
	return err
}

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
	return nil
}

// latest moves the last write to each key to the end of the list, in the order
// in which they came, and returns these.
func (s *store) latest(writes []write) []write {
	if len(s.seen) > mostKept || s.seen == nil {
		s.seen = map[string]bool{}
	}
	clear(s.seen)
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
	return writes[first:]
}

// emptied empties a list, and keeps its memory unless it is much.
func emptied(writes []write) []write {
	if cap(writes) > mostKept {
		return nil
	}
	clear(writes)
	return writes[:0]
}

// reserve sets space aside again: for the journal too, or, where that does not
// fit, without it, and then the journal stays closed. Its error is errNoSpace
// while there is none, or as with save.
func (s *store) reserve() error {
	if err := s.settleInPieces(); err != nil {
		return err
	}
	put := func(sectors int) error {
		return s.update(func(tx *bbolt.Tx) error { return putReserve(tx, sectors) })
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

func reservePieces(sectors int) int {
	return (reserveSize + 2*sectors*journalSector) / reservePiece
}

// putReserve sets aside what a transaction needs, and a place for all that a
// journal holds, in pages that are half full.
func putReserve(tx *bbolt.Tx, sectors int) error {
	b := tx.Bucket([]byte(reserveBucket))
	b.FillPercent = 1
	piece := make([]byte, reservePiece)
	for i := range reservePieces(sectors) {
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

// rewrite replaces the file by a new one with exactly these records. The old
// one stays as it is when that fails; only one of format 1, on a full disk, is
// changed instead.
func (s *store) rewrite(counter uint64, records []write) error {
	err := s.replace(header{format: format, counter: counter}, records, os.Rename)
	if err != nil && isFull(err) && s.header.format == 1 {
		err = s.upgrade()
	}
	if err != nil {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// upgrade makes a file of format 1 one of today's, without a journal.
func (s *store) upgrade() error {
	h := s.header
	h.format = format
	err := s.update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(journalBucket)); err != nil {
			return err
		}
		return put(tx, &h, nil)
	})
	if err == nil {
		s.header, s.journal = h, &journal{}
		s.lookAtReserve()
	}
	return err
}

// lacks reports that the file has no journal, or must not use it, because the
// disk has once been too small or too full.
func (s *store) lacks() bool { return s.reserved && (s.journal.sectors == 0 || s.journal.closed) }

// regain gives the file what it lacks, if there is space for it now.
func (s *store) regain(counter uint64, records []write) error {
	err := s.replaceWith(journalSectors, header{format: format, counter: counter}, records, os.Rename)
	if err != nil && !isFull(err) {
		return fmt.Errorf("writing database %q anew: %w", s.path, err)
	}
	return nil
}

// replace builds a file aside, publishes it under the store's path, and takes
// it in place of the one that was open. The lock on it is never let go. On a
// disk that is too small for a journal the file has none.
func (s *store) replace(h header, records []write, publish func(from, to string) error) error {
	err := s.replaceWith(journalSectors, h, records, publish)
	if err != nil && isFull(err) {
		err = s.replaceWith(0, h, records, publish)
	}
	return err
}

func (s *store) replaceWith(sectors int, h header, records []write, publish func(from, to string) error) error {
	aside, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*.tmp")
	if err != nil {
		return err
	}
	aside.Close()
	defer os.Remove(aside.Name())
	db, file, err := openBolt(aside.Name(), emptySize(sectors))
	if err != nil {
		return err
	}
	j, err := fill(db, file, sectors, &h, records)
	if err == nil {
		err = publish(aside.Name(), s.path)
	}
	if err != nil {
		db.Close()
		return err
	}
	if s.db != nil && !s.broken {
		s.db.Close()
	}
	s.db, s.header, s.journal, s.pending = db, h, j, nil
	s.reserved, s.doubtful, s.broken = true, false, false
	return syncFolder(s.path)
}

// writeCopy fills the empty file at path with a database of exactly these
// records, and makes it durable.
func writeCopy(path string, counter uint64, records []write) error {
	err := writeCopyWith(journalSectors, path, counter, records)
	if err != nil && isFull(err) {
		if err := os.Truncate(path, 0); err != nil {
			return err
		}
		err = writeCopyWith(0, path, counter, records)
	}
	return err
}

func writeCopyWith(sectors int, path string, counter uint64, records []write) error {
	db, file, err := openBolt(path, emptySize(sectors))
	if err != nil {
		return err
	}
	_, err = fill(db, file, sectors, &header{format: format, counter: counter}, records)
	return errors.Join(err, db.Close())
}

// emptySize is about how many bytes a file without records has. bbolt maps a
// new file anew each time it has doubled, and copies what is going to be in it.
func emptySize(sectors int) int {
	return reservePieces(sectors)*1024 + journalSize(uint64(sectors)) + 64<<10
}

// fill makes the buckets of a new file, stores the records, and returns the
// journal, which is empty.
func fill(db *bbolt.DB, file *os.File, sectors int, h *header, records []write) (*journal, error) {
	h.sectors = uint64(sectors)
	err := guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			for _, name := range append([]string{metaBucket, journalBucket, reserveBucket}, recordBuckets...) {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return err
				}
			}
			if sectors > 0 {
				if err := tx.Bucket([]byte(journalBucket)).Put(sectorsKey, make([]byte, journalSize(h.sectors))); err != nil {
					return err
				}
			}
			if err := putReserve(tx, sectors); err != nil {
				return err
			}
			return put(tx, h, records)
		})
	})
	if err != nil {
		return nil, err
	}
	j, err := findJournal(db, file, h.sectors)
	if err == nil {
		err = j.format()
	}
	if err != nil {
		return nil, err
	}
	return j, db.Sync()
}

// syncFolder makes a new name durable. Windows cannot, and need not.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) && os.PathSeparator == '/' {
		return err
	}
	return nil
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
