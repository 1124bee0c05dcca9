package main

// The check that a file is a sound bbolt file. bbolt trusts what it maps. On a damaged
// file it panics, sometimes in a goroutine that guardBolt cannot guard. If the newer of
// the two meta pages is damaged, it silently uses the older one. The code here reads the
// file page by page, without bbolt, and checks everything that bbolt relies on.
//
// Not here: the check of the records, which have their own checksums (record.go).
//
// The layout is that of bbolt's internal/common (page.go, meta.go, bucket.go). It has
// been stable since version 2 of the format. Integers have the machine's byte order.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// The constants of bbolt's format. Sizes and fields are in bytes.
const (
	boltMagic       = 0xED0CDAED
	boltVersion     = 2
	boltHeader      = 16 // of a page: id 8, flags 2, count 2, overflow 4
	boltElement     = 16 // of a branch: pos 4, ksize 4, page 8; of a leaf: flags 4, pos 4, ksize 4, vsize 4
	boltMeta        = 64 // of the meta data, after the header of the page
	boltBranch      = 0x01
	boltLeaf        = 0x02
	boltFreelist    = 0x10
	boltNoFreelist  = math.MaxUint64
	boltDepth       = 32 // levels of a tree at most; a tree with two keys a page has 2^32 pages then
	boltLargestPage = 16 << 20
)

// nativeEndian is the byte order of all integers in the file.
var nativeEndian = binary.NativeEndian

// A soundFile walks the pages of one file and marks those that are in use or free.
type soundFile struct {
	file      io.ReaderAt
	pageSize  uint64 // in bytes
	pageCount uint64 // number of pages that are in use or free, and of the two meta pages
	seen      []bool // by page number
}

// A boltMetaPage is the content of a meta page that the check needs.
type boltMetaPage struct {
	pageSize                   uint32 // in bytes
	root, freelist, high, txid uint64
}

// checkSound returns nil if bbolt can use the file, and otherwise an error that wraps
// errDamaged. size is the file's size in bytes. checkSound does not write.
func checkSound(file io.ReaderAt, size int64) error {
	first, err := readMeta(file, 0)
	if err != nil {
		return err
	}
	second, err := readMeta(file, int64(first.pageSize))
	if err != nil {
		return err
	}
	newest := first
	if second.txid > first.txid {
		newest = second
	}
	if first.pageSize != second.pageSize || first.txid+1 != second.txid && second.txid+1 != first.txid {
		return unsound("its two meta pages are not of one age")
	}
	if first.txid%2 != 0 { // bbolt writes the meta data of a transaction to page txid%2
		return unsound("its two meta pages are in each other's place")
	}
	f := &soundFile{file: file, pageSize: uint64(newest.pageSize), pageCount: newest.high}
	if f.pageCount > uint64(size)/f.pageSize {
		return unsound("it has been cut off: %d bytes are there, %d pages are in use", size, f.pageCount)
	}
	f.seen = make([]bool, f.pageCount)
	if err := f.tree(newest.root, nil, nil, 0); err != nil {
		return err
	}
	return f.freelist(newest.freelist)
}

// unsound returns an error that wraps errDamaged and says what is wrong.
func unsound(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// readMeta reads the meta page at the offset, in bytes. The error wraps errDamaged if the
// page is not valid. Both meta pages must be valid: a power failure during a write
// cannot damage one of them, because the 64 bytes of its content are in one sector.
func readMeta(file io.ReaderAt, offset int64) (m boltMetaPage, err error) {
	b := make([]byte, boltHeader+boltMeta)
	if _, err := file.ReadAt(b, offset); err != nil {
		return m, unsound("no meta page at byte %d: %v", offset, err)
	}
	b = b[boltHeader:]
	sum := fnv.New64a()
	sum.Write(b[:56])
	if nativeEndian.Uint32(b) != boltMagic || nativeEndian.Uint32(b[4:]) != boltVersion ||
		nativeEndian.Uint64(b[56:]) != sum.Sum64() {
		return m, unsound("the meta page at byte %d is not valid", offset)
	}
	m = boltMetaPage{
		pageSize: nativeEndian.Uint32(b[8:]),
		root:     nativeEndian.Uint64(b[16:]),
		freelist: nativeEndian.Uint64(b[32:]),
		high:     nativeEndian.Uint64(b[40:]),
		txid:     nativeEndian.Uint64(b[48:]),
	}
	if m.pageSize < 512 || m.pageSize > boltLargestPage || m.pageSize&(m.pageSize-1) != 0 {
		return m, unsound("a page size of %d", m.pageSize)
	}
	return m, nil
}

// page reads a page with its overflow pages, and marks them as seen. It returns the
// bytes of all these pages and the flags of the page. The error wraps errDamaged if the
// page is out of range, was seen before, or has another page's number.
func (f *soundFile) page(id uint64) (b []byte, flags uint16, err error) {
	if id < 2 || id >= f.pageCount {
		return nil, 0, unsound("a reference to page %d of %d", id, f.pageCount)
	}
	b = make([]byte, f.pageSize)
	if _, err := f.file.ReadAt(b, int64(id*f.pageSize)); err != nil {
		return nil, 0, unsound("page %d: %v", id, err)
	}
	pages := uint64(nativeEndian.Uint32(b[12:])) + 1
	if nativeEndian.Uint64(b) != id || pages > f.pageCount-id {
		return nil, 0, unsound("page %d says that it is page %d with %d pages",
			id, nativeEndian.Uint64(b), pages)
	}
	for i := id; i < id+pages; i++ {
		if err := f.markSeen(i); err != nil {
			return nil, 0, err
		}
	}
	flags = nativeEndian.Uint16(b[8:])
	if pages > 1 {
		b = append(b, make([]byte, (pages-1)*f.pageSize)...)
		if _, err := f.file.ReadAt(b[f.pageSize:], int64((id+1)*f.pageSize)); err != nil {
			return nil, 0, unsound("page %d: %v", id, err)
		}
	}
	return b, flags, nil
}

// markSeen marks a page as seen. Its error wraps errDamaged if the page was seen before or is
// out of range. Pages 0 and 1 are the meta pages.
func (f *soundFile) markSeen(id uint64) error {
	if id < 2 || id >= f.pageCount || f.seen[id] {
		return unsound("page %d is used twice or out of range", id)
	}
	f.seen[id] = true
	return nil
}

// tree checks the tree of pages whose root is the page id. Its first key must be first,
// which is the key in the branch page above: bbolt finds the entry of a page there by
// this key when it rewrites the page. All keys must be less than limit. A nil first or
// limit is no bound. depth is the number of levels above.
func (f *soundFile) tree(id uint64, first, limit []byte, depth int) error {
	if depth > boltDepth {
		return unsound("page %d is nested too deeply", id)
	}
	b, flags, err := f.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case boltLeaf:
		return f.leaf(b, first, limit, depth)
	case boltBranch:
		return f.branch(b, first, limit, depth)
	}
	return unsound("page %d has the type %#x", id, flags)
}

// branch checks a branch page with the bytes b and every page below it. The other
// parameters are those of tree.
func (f *soundFile) branch(b, first, limit []byte, depth int) error {
	count := int(nativeEndian.Uint16(b[10:]))
	if count == 0 || boltHeader+count*boltElement > len(b) {
		return unsound("a branch page of %d elements", count)
	}
	keys := make([][]byte, count, count+1)
	elements := newElements(b, count, first, limit)
	for i := range keys {
		at := boltHeader + i*boltElement
		key, _, err := elements.next(at, nativeEndian.Uint32(b[at:]), nativeEndian.Uint32(b[at+4:]), 0)
		if err != nil {
			return err
		}
		keys[i] = key
	}
	keys = append(keys, limit)
	for i := range count {
		child := nativeEndian.Uint64(b[boltHeader+i*boltElement+8:])
		if err := f.tree(child, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a leaf page with the bytes b and every bucket in it. The other parameters
// are those of tree.
func (f *soundFile) leaf(b, first, limit []byte, depth int) error {
	count := int(nativeEndian.Uint16(b[10:]))
	if boltHeader+count*boltElement > len(b) {
		return unsound("a leaf page of %d elements", count)
	}
	if count == 0 && first != nil {
		return unsound("an empty page that has a key")
	}
	elements := newElements(b, count, first, limit)
	for i := range count {
		at := boltHeader + i*boltElement
		flags, pos := nativeEndian.Uint32(b[at:]), nativeEndian.Uint32(b[at+4:])
		ksize, vsize := nativeEndian.Uint32(b[at+8:]), nativeEndian.Uint32(b[at+12:])
		_, value, err := elements.next(at, pos, ksize, vsize)
		if err != nil {
			return err
		}
		switch {
		case flags > 1:
			return unsound("a leaf element of type %#x", flags)
		case flags == 1:
			if err := f.bucket(value, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks the bucket that the value of a leaf element describes. The bucket has a
// root page of its own. If the number of the root page is zero, the bucket is inline:
// the value contains a small leaf page.
func (f *soundFile) bucket(value []byte, depth int) error {
	if len(value) < 16 {
		return unsound("a bucket of %d bytes", len(value))
	}
	root, inline := nativeEndian.Uint64(value), value[16:]
	switch {
	case root != 0:
		return f.tree(root, nil, nil, depth+1)
	case len(inline) < boltHeader || nativeEndian.Uint64(inline) != 0 ||
		nativeEndian.Uint16(inline[8:]) != boltLeaf || nativeEndian.Uint32(inline[12:]) != 0:
		return unsound("an inline bucket that is no leaf page")
	case depth > boltDepth:
		return unsound("buckets are nested too deeply")
	}
	return f.leaf(inline, nil, nil, depth+1)
}

// elements are the elements of one page, which are read in their order. Each must begin
// where the one before ends or later, as bbolt writes them. If elements could share
// bytes, nested buckets could be walked over and over again.
type elements struct {
	page               []byte
	end                uint64 // offset of the end of the last element, or of the element headers
	first, last, limit []byte // keys: the required first, the last read, the exclusive upper bound
}

// newElements returns the elements of a page that has count of them. first and limit
// are those of tree.
func newElements(page []byte, count int, first, limit []byte) *elements {
	return &elements{page: page, end: uint64(boltHeader + count*boltElement), first: first, limit: limit}
}

// next returns the key and the value that begin pos bytes after the offset at. The key
// has ksize bytes and the value, which follows it, vsize bytes. The error wraps
// errDamaged if they overlap with another element, or if the key is out of order or out
// of bounds.
func (e *elements) next(at int, pos, ksize, vsize uint32) (key, value []byte, err error) {
	from := uint64(at) + uint64(pos)
	to := from + uint64(ksize) + uint64(vsize)
	if from < e.end || to > uint64(len(e.page)) {
		return nil, nil, unsound("an element outside of its page, or within another")
	}
	e.end = to
	key, value = e.page[from:from+uint64(ksize)], e.page[from+uint64(ksize):to]
	if e.last == nil && e.first != nil && !bytes.Equal(key, e.first) {
		return nil, nil, unsound("a page that does not begin with the key by which it is known")
	}
	if bytes.Compare(e.last, key) >= 0 || e.limit != nil && bytes.Compare(key, e.limit) >= 0 {
		return nil, nil, unsound("keys are out of order")
	}
	e.last = key
	return key, value, nil
}

// freelist checks the list of free pages, which begins on the page id. Each page must be
// either in use or free, and not both. tree must have marked the pages in use before.
// The list is not checked if the file has none (boltNoFreelist).
func (f *soundFile) freelist(id uint64) error {
	if id == boltNoFreelist {
		return nil
	}
	b, flags, err := f.page(id)
	if err != nil {
		return err
	}
	count, ids := uint64(nativeEndian.Uint16(b[10:])), b[boltHeader:]
	if count == math.MaxUint16 { // the count is too large for its field, and precedes the ids
		count, ids = nativeEndian.Uint64(ids), ids[8:]
	}
	if flags != boltFreelist || count > uint64(len(ids))/8 {
		return unsound("a list of free pages of type %#x with %d of them", flags, count)
	}
	before := uint64(0)
	for i := range count {
		free := nativeEndian.Uint64(ids[8*i:])
		if free <= before {
			return unsound("the list of free pages is out of order")
		}
		before = free
		if f.markSeen(free) != nil {
			return unsound("page %d is in use and free", free)
		}
	}
	for i := uint64(2); i < f.pageCount; i++ {
		if !f.seen[i] {
			return unsound("page %d is lost", i)
		}
	}
	return nil
}
