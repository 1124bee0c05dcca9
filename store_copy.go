package main

// A copy of the file while it is used: the pages of one read transaction, which bbolt
// leaves as they are until it ends. The copy has the counter that the caller wants.
//
// Not here: who reads it, and for how long (server_backup.go).

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
)

// mapSize is how many bytes of addresses bbolt maps for the file, however small it is. To
// map more, bbolt waits until all read transactions have ended. That must not happen
// while somebody reads a copy. Memory is used for what is read only. It is zero, which is
// about the size of the file, where addresses are few, and on Windows, where bbolt makes
// the file as large as the map.
var mapSize = func() int64 {
	if math.MaxInt == math.MaxInt32 || runtime.GOOS == "windows" {
		return 0
	}
	return 4 << 30
}()

// growBy is how many bytes the file grows by, beyond what is needed. They take no space on
// the disk before they are written.
const growBy = 1 << 20

// openMapped calls openBoltFile with mapSize, or without it if there are not enough
// addresses.
func openMapped(path string, options *bbolt.Options) (*bbolt.DB, error) {
	options.InitialMmapSize = int(mapSize)
	db, err := openBoltFile(path, options)
	if errors.Is(err, syscall.ENOMEM) {
		options.InitialMmapSize = 0
		db, err = openBoltFile(path, options)
	}
	if err == nil && options.InitialMmapSize > 0 {
		db.AllocSize = growBy
	}
	return db, err
}

// A boltCopy is a copy of a bbolt file that is read.
type boltCopy struct {
	patient bool
	largest int64       // the size of the file from which on the rest is moved aside
	ending  atomic.Bool // moveAside stops

	mu    sync.Mutex
	tx    *bbolt.Tx // nil once it has ended
	from  io.Reader // nil once the copy has ended
	aside *os.File  // what is left of it; nil as long as there is a transaction
}

// maxGrowth is by how many bytes the file may grow while it is read as a copy.
const maxGrowth = 16 << 20

// openCopy implements copyableStore. Its errors are errDamaged, those of checkIntact and of
// reading the file, and errNoCopy if the file has a header of another length.
func (s *store) openCopy(counter uint64) (from io.ReadCloser, size int64, patient bool, err error) {
	if s.panicked || s.saveFailed {
		return nil, 0, false, errDamaged
	}
	if err := s.checkIntact(); err != nil {
		return nil, 0, false, err
	}
	s.endCopy()
	h := s.header
	h.counter = counter
	c := &boltCopy{}
	err = guardBolt(func() (err error) {
		c.tx, err = s.db.Begin(false)
		if err != nil {
			return err
		}
		size = c.tx.Size()
		c.patient = s.isMapped && size <= mapSize/2
		c.largest = min(s.mark.size+max(s.mark.size, maxGrowth), mapSize/4*3)
		c.from, err = s.copyReader(c.tx, encodeHeader(&h).value)
		return err
	})
	if err != nil {
		c.Close()
		return nil, 0, false, err
	}
	s.copied = c
	return c, size, c.patient, nil
}

// copyReader returns a reader of the file as the transaction has it, with another header.
func (s *store) copyReader(tx *bbolt.Tx, newHeader []byte) (io.Reader, error) {
	pageSize := int64(s.db.Info().PageSize)
	// The meta pages are the transaction's, not those of the file, which change.
	metas := &firstBytes{most: int(2 * pageSize)}
	if _, err := tx.WriteTo(metas); !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("%w: the meta pages: %w", errDamaged, err)
	}
	placed, err := placeMetas(metas.bytes)
	if err != nil {
		return nil, err
	}
	meta := tx.Bucket([]byte(metaBucket))
	oldHeader := meta.Get(headerKey)
	if len(oldHeader) != len(newHeader) {
		return nil, errNoCopy
	}
	id := int64(meta.Root())
	if id == 0 { // a bucket this small is in the page of its parent
		id = int64(tx.Cursor().Bucket().Root())
	}
	page := make([]byte, pageSize)
	if _, err := s.file.ReadAt(page, id*pageSize); err != nil {
		return nil, err
	}
	if !bytes.Contains(page, oldHeader) {
		return nil, errNoCopy
	}
	page = bytes.ReplaceAll(page, oldHeader, newHeader)
	after := (id + 1) * pageSize
	return io.MultiReader(
		bytes.NewReader(placed),
		io.NewSectionReader(s.file, 2*pageSize, (id-2)*pageSize),
		bytes.NewReader(page),
		io.NewSectionReader(s.file, after, tx.Size()-after)), nil
}

// placeMetas returns the two meta pages in the order in which bbolt would have saved them: that
// of transaction n is page n%2. WriteTo has the newer one first. The next save would then
// replace it, not the older one.
func placeMetas(metas []byte) ([]byte, error) {
	first, err := readMeta(bytes.NewReader(metas), 0)
	if err != nil || first.txid%2 == 0 {
		return metas, err
	}
	middle := len(metas) / 2
	placed := slices.Concat(metas[middle:], metas[:middle])
	nativeEndian.PutUint64(placed, 0) // each begins with its number
	nativeEndian.PutUint64(placed[middle:], 1)
	return placed, nil
}

var errEnough = errors.New("enough was written")

// A firstBytes keeps the first bytes that are written to it, and then returns errEnough.
type firstBytes struct {
	bytes []byte
	most  int
}

// Write implements io.Writer.
func (f *firstBytes) Write(p []byte) (int, error) {
	n := min(len(p), f.most-len(f.bytes))
	f.bytes = append(f.bytes, p[:n]...)
	if n < len(p) {
		return n, errEnough
	}
	return n, nil
}

// Read implements io.Reader. It returns errNoCopy once the copy has ended.
func (c *boltCopy) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == nil {
		return 0, fmt.Errorf("%w: it is rewritten or closed", errNoCopy)
	}
	return c.from.Read(p)
}

// Close ends the transaction, whose pages can be used again then.
func (c *boltCopy) Close() error {
	c.ending.Store(true)
	tx := c.take()
	if tx == nil {
		return nil
	}
	return tx.Rollback()
}

// take ends the copy, and returns the transaction if there still is one. The caller ends it
// without mu: after a panic of bbolt that may take for ever.
func (c *boltCopy) take() *bbolt.Tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx := c.tx
	c.tx, c.from = nil, nil
	if c.aside != nil {
		c.aside.Close()
	}
	return tx
}

// endCopy ends the copy that is read, if there is one: bbolt.DB.Close would wait for its
// transaction. Its reader gets errNoCopy. After a panic of bbolt the transaction is left as
// it is, because bbolt may hold its locks.
func (s *store) endCopy() {
	c := s.copied
	s.copied = nil
	switch {
	case c == nil:
	case s.panicked:
		c.ending.Store(true)
		c.take()
	default:
		c.Close()
	}
}

// limitGrowth has what is left of the copy that is read moved to a temporary file, once the
// file has grown by more than maxGrowth and than its own size, or may soon outgrow the map.
// As long as a transaction is open, no page that was in use can be used again. Each save
// then also saves a longer list of such pages, and the file grows faster and faster.
func (s *store) limitGrowth() {
	c := s.copied
	if c != nil && c.patient && s.mark.size > c.largest {
		c.largest = math.MaxInt64
		go c.moveAside()
	}
}

// moveAside copies what has not been read to a temporary file without a name, from which it is
// read then, and ends the transaction. If that fails, the copy ends.
func (c *boltCopy) moveAside() {
	c.mu.Lock()
	tx, from := c.tx, c.from
	c.tx, c.from = nil, nil
	file, err := os.CreateTemp("", "call-me-backup-*.db")
	if err == nil {
		os.Remove(file.Name())
	}
	for err == nil && from != nil && !c.ending.Load() {
		_, err = io.CopyN(file, from, 1<<20)
	}
	if errors.Is(err, io.EOF) {
		_, err = file.Seek(0, io.SeekStart)
		if err == nil {
			c.from, c.aside = file, file
		}
	}
	if file != nil && c.aside == nil {
		file.Close()
	}
	c.mu.Unlock()
	if tx != nil {
		tx.Rollback()
	}
}
