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
	journalBucket = "journal" // "sectors" -> what was saved last, see journal.go
	reserveBucket = "reserve" // number -> bytes that mean nothing, see storefull.go
)

// recordBuckets are the ones whose values the header's sum covers.
var recordBuckets = []string{leaseBucket, lineBucket, historyBucket}

// A write puts a value under a key of a bucket; a nil value deletes the key.
type write struct {
	bucket     string
	key, value []byte
}

// format is the version of what is described here. A file of a later one is
// refused, one of an earlier one is written anew: 1 had no journal, 0 is that
// of 2019.
const format = 2

// A header describes the whole file.
type header struct {
	format  uint64
	counter uint64 // the largest number given so far
	sum     uint64 // of all records' checksums, modulo 2^64: a lost record shows
	sectors uint64 // of the journal
	settled uint64 // the number of the last group of the journal that is among the records
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

// blob is a text whose bytes, when read, stay those of the coder.
func (c *coder) blob(b *[]byte) {
	n := uint64(len(*b))
	c.number(&n)
	switch {
	case !c.reading:
		c.bytes = append(c.bytes, *b...)
	case n > uint64(len(c.bytes)):
		c.err, c.bytes = errDamaged, nil
	default:
		*b, c.bytes = c.bytes[:n:n], c.bytes[n:]
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
	c.number(&h.sectors)
	c.number(&h.settled)
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

func leaseKey(environment, slot string) []byte { return []byte(environment + "\x00" + slot) }

func lineKey(environment string, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(environment+"\x00"), number)
}

func eventKey(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

func leaseRecord(environment string, l *lease) write {
	key := leaseKey(environment, l.slot)
	return write{leaseBucket, key, seal(leaseBucket, key, l.code)}
}

func placeRecord(environment string, p *place) write {
	key := lineKey(environment, p.number)
	return write{lineBucket, key, seal(lineBucket, key, p.code)}
}

func eventRecord(e *event) write {
	key := eventKey(e.number)
	return write{historyBucket, key, seal(historyBucket, key, e.code)}
}

// addTo appends what the change means for the file; nothing for what is in
// memory only.
func (c change) addTo(writes []write) []write {
	switch {
	case c.event != nil:
		return append(writes, eventRecord(c.event))
	case c.newLease != nil:
		return append(writes, leaseRecord(c.environment.name, c.newLease))
	case c.oldLease != nil:
		return append(writes, write{leaseBucket, leaseKey(c.environment.name, c.oldLease.slot), nil})
	case c.newPlace != nil && c.newPlace.kept():
		return append(writes, placeRecord(c.environment.name, c.newPlace))
	case c.oldPlace != nil && c.oldPlace.kept():
		return append(writes, write{lineBucket, lineKey(c.environment.name, c.oldPlace.number), nil})
	}
	return writes
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
