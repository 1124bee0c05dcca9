package main

// How leases, places and events stand in the file: their keys, their values,
// and the checksum that each value begins with. A record's fields are listed
// once, for writing and reading alike; a new field goes to the end of its
// list, and reads as zero from records that are older.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"strings"
	"time"
)

// The buckets of the file.
const (
	metaBucket    = "meta"    // "state" -> header
	leaseBucket   = "leases"  // environment \0 slot -> lease
	lineBucket    = "line"    // environment \0 number -> place
	historyBucket = "history" // number -> event
	reserveBucket = "reserve" // number -> bytes that mean nothing, see storefull.go
)

// recordBuckets are the ones whose values the header's sum covers.
var recordBuckets = []string{leaseBucket, lineBucket, historyBucket}

// A write puts a value under a key of a bucket; a nil value deletes the key.
type write struct {
	bucket     string
	key, value []byte
}

// latestWrites returns the last write of each key, in the order in which these
// came: a batch that ends a lease and grants the slot again writes one key twice.
func latestWrites(writes []write) []write {
	type name struct{ bucket, key string }
	last := map[name]int{}
	for i, w := range writes {
		last[name{w.bucket, string(w.key)}] = i
	}
	var latest []write
	for i, w := range writes {
		if last[name{w.bucket, string(w.key)}] == i {
			latest = append(latest, w)
		}
	}
	return latest
}

// format is the version of what is described here. A file of a later version is
// refused. The file of 2019 has no header; it is written anew.
const format = 1

// A header describes the whole file.
type header struct {
	format  uint64
	counter uint64 // the largest number given so far
	sum     uint64 // of all records' checksums, modulo 2^64: a lost record shows
}

var errDamaged = errors.New("the file is damaged")

var crcTable = crc64.MakeTable(crc64.ECMA)

// checksumSize is how many bytes of a value its checksum takes.
const checksumSize = 8

// A coder carries the fields of one record to or from bytes: the same calls
// in the same order do either. Its error, if any, is that of the first field
// that could not be read.
type coder struct {
	bytes   []byte
	reading bool
	err     error
}

func (c *coder) number(n *uint64) {
	if !c.reading {
		c.bytes = binary.AppendUvarint(c.bytes, *n)
		return
	}
	if len(c.bytes) == 0 { // written before this field existed
		*n = 0
		return
	}
	v, size := binary.Uvarint(c.bytes)
	if size <= 0 {
		c.err, c.bytes = errDamaged, nil
		return
	}
	*n, c.bytes = v, c.bytes[size:]
}

func (c *coder) text(s *string) {
	n := uint64(len(*s))
	c.number(&n)
	switch {
	case !c.reading:
		c.bytes = append(c.bytes, *s...)
	case n > uint64(len(c.bytes)):
		c.err, c.bytes = errDamaged, nil
	default:
		*s, c.bytes = string(c.bytes[:n]), c.bytes[n:]
	}
}

func (c *coder) duration(d *time.Duration) {
	n := uint64(*d)
	if c.number(&n); c.reading { // readers may look at what is being written
		*d = time.Duration(n)
	}
}

// instant keeps a time as nanoseconds since 1970; the monotonic reading is
// lost, as it means nothing to another process.
func (c *coder) instant(t *time.Time) {
	var n uint64
	if !c.reading {
		n = uint64(t.UnixNano())
	}
	c.number(&n)
	if c.reading {
		*t = time.Unix(0, int64(n))
	}
}

func (q *request) code(c *coder) {
	c.text(&q.id)
	c.text(&q.holder)
	c.text(&q.url)
	c.text(&q.reason)
	c.duration(&q.ttl)
}

func (l *lease) code(c *coder) {
	l.request.code(c)
	c.number(&l.fence)
	c.instant(&l.since)
	c.duration(&l.waited)
	c.duration(&l.ttl)
}

func (p *place) code(c *coder) {
	p.request.code(c)
	c.instant(&p.since)
}

func (e *event) code(c *coder) {
	kind := uint64(e.kind)
	if c.number(&kind); c.reading {
		e.kind = eventKind(kind)
	}
	c.instant(&e.at)
	for _, s := range []*string{&e.environment, &e.slot, &e.id, &e.holder, &e.url, &e.reason, &e.by, &e.from} {
		c.text(s)
	}
	c.number(&e.fence)
	c.duration(&e.waited)
	c.duration(&e.held)
}

func (h *header) code(c *coder) {
	c.number(&h.format)
	c.number(&h.counter)
	c.number(&h.sum)
}

// seal makes the value of a record: the checksum over bucket, key and fields,
// then the fields.
func seal(bucket string, key []byte, code func(*coder)) []byte {
	c := coder{bytes: make([]byte, checksumSize, 128)}
	code(&c)
	binary.BigEndian.PutUint64(c.bytes, recordChecksum(bucket, key, c.bytes[checksumSize:]))
	return c.bytes
}

// unseal reads a record back; errDamaged when the checksum does not fit.
func unseal(bucket string, key, value []byte, code func(*coder)) error {
	if len(value) < checksumSize || checksumOf(value) != recordChecksum(bucket, key, value[checksumSize:]) {
		return fmt.Errorf("reading %s %q: %w", bucket, key, errDamaged)
	}
	c := coder{bytes: value[checksumSize:], reading: true}
	if code(&c); c.err != nil {
		return fmt.Errorf("reading %s %q: %w", bucket, key, c.err)
	}
	return nil
}

// checksumOf returns the checksum that a value begins with.
func checksumOf(value []byte) uint64 { return binary.BigEndian.Uint64(value) }

func recordChecksum(bucket string, key, fields []byte) uint64 {
	sum := crc64.Update(0, crcTable, []byte(bucket))
	sum = crc64.Update(sum, crcTable, key)
	return crc64.Update(sum, crcTable, fields)
}

// A scribe makes writes. Their keys and values lie behind one another in pieces
// of memory for many.
type scribe struct {
	writes []write
	coder
}

// A scribe's piece of memory, and how much must be left of it for it to be begun
// upon, in bytes. What a record needs beyond that is found elsewhere.
const (
	scribePiece = 4 << 10
	scribeLeast = 512
)

// begin returns where the next key is to be written.
func (s *scribe) begin() int {
	if cap(s.bytes)-len(s.bytes) < scribeLeast {
		s.bytes = make([]byte, 0, scribePiece)
	}
	return len(s.bytes)
}

// put writes a record under the key that begins there.
func (s *scribe) put(bucket string, from int, record interface{ code(*coder) }) {
	key, at := s.key(from), len(s.bytes)
	s.bytes = append(s.bytes, make([]byte, checksumSize)...)
	record.code(&s.coder)
	value := s.bytes[at:len(s.bytes):len(s.bytes)]
	binary.BigEndian.PutUint64(value, recordChecksum(bucket, key, value[checksumSize:]))
	s.writes = append(s.writes, write{bucket, key, value})
}

// del deletes the record under the key that begins there.
func (s *scribe) del(bucket string, from int) {
	s.writes = append(s.writes, write{bucket, s.key(from), nil})
}

func (s *scribe) key(from int) []byte { return s.bytes[from:len(s.bytes):len(s.bytes)] }

func (s *scribe) leaseKey(environment, slot string) int {
	from := s.begin()
	s.bytes = append(append(append(s.bytes, environment...), 0), slot...)
	return from
}

func (s *scribe) lineKey(environment string, number uint64) int {
	from := s.begin()
	s.bytes = binary.BigEndian.AppendUint64(append(append(s.bytes, environment...), 0), number)
	return from
}

func (s *scribe) eventKey(number uint64) int {
	from := s.begin()
	s.bytes = binary.BigEndian.AppendUint64(s.bytes, number)
	return from
}

func (s *scribe) lease(environment string, l *lease) {
	s.put(leaseBucket, s.leaseKey(environment, l.slot), l)
}

func (s *scribe) place(environment string, p *place) {
	s.put(lineBucket, s.lineKey(environment, p.number), p)
}

func (s *scribe) event(e *event) { s.put(historyBucket, s.eventKey(e.number), e) }

// change writes what a change means for the file; nothing for what is in memory
// only.
func (s *scribe) change(c change) {
	switch {
	case c.event != nil:
		s.event(c.event)
	case c.newLease != nil:
		s.lease(c.environment.name, c.newLease)
	case c.oldLease != nil:
		s.del(leaseBucket, s.leaseKey(c.environment.name, c.oldLease.slot))
	case c.newPlace != nil && c.newPlace.kept():
		s.place(c.environment.name, c.newPlace)
	case c.oldPlace != nil && c.oldPlace.kept():
		s.del(lineBucket, s.lineKey(c.environment.name, c.oldPlace.number))
	}
}

// drop deletes an event.
func (s *scribe) drop(e *event) { s.del(historyBucket, s.eventKey(e.number)) }

func leaseRecord(environment string, l *lease) write {
	var s scribe
	s.lease(environment, l)
	return s.writes[0]
}

func placeRecord(environment string, p *place) write {
	var s scribe
	s.place(environment, p)
	return s.writes[0]
}

func eventRecord(e *event) write {
	var s scribe
	s.event(e)
	return s.writes[0]
}

// readLease, readPlace and readEvent undo leaseRecord, placeRecord and
// eventRecord. Their error is errDamaged.
func readLease(key, value []byte) (environment string, l *lease, err error) {
	environment, slot, found := strings.Cut(string(key), "\x00")
	if !found {
		return "", nil, fmt.Errorf("reading lease %q: %w", key, errDamaged)
	}
	l = &lease{slot: slot}
	return environment, l, unseal(leaseBucket, key, value, l.code)
}

func readPlace(key, value []byte) (environment string, p *place, err error) {
	name := len(key) - 9
	if name < 0 || key[name] != 0 {
		return "", nil, fmt.Errorf("reading place %q: %w", key, errDamaged)
	}
	p = &place{number: binary.BigEndian.Uint64(key[name+1:])}
	return string(key[:name]), p, unseal(lineBucket, key, value, p.code)
}

func readEvent(key, value []byte) (*event, error) {
	if len(key) != 8 {
		return nil, fmt.Errorf("reading event %q: %w", key, errDamaged)
	}
	e := &event{number: binary.BigEndian.Uint64(key)}
	return e, unseal(historyBucket, key, value, e.code)
}
