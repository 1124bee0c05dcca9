package main

// What is stored of leases, waiters, pauses and events: their keys, their values, and the
// checksum that each value begins with. The fields of a record are listed once, for
// encoding and decoding. A new field goes to the end of its list; a record that ends
// before the field decodes with the field's zero value.
//
// Not here: how the records get to the disk (store.go), and when (keeper.go).

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"strings"
	"time"
)

// The buckets of the file, with their keys and values. Numbers in keys are 8 bytes,
// big-endian.
const (
	metaBucket    = "meta"    // "state" -> header
	leaseBucket   = "leases"  // environment \0 slot -> lease
	queueBucket   = "queue"   // environment \0 number -> waiter
	historyBucket = "history" // number -> event
	endBucket     = "ends"    // number -> end whose event is not in the history, but which is remembered
	pauseBucket   = "pauses"  // environment \0 slot -> pause; both are empty for that of all environments
	reserveBucket = "reserve" // number (2 bytes) -> bytes without a meaning, see store_reserve.go
)

// recordBuckets are the buckets whose values the header's sum covers.
var recordBuckets = []string{leaseBucket, queueBucket, historyBucket, endBucket, pauseBucket}

// A write puts a value under a key of a bucket; a nil value deletes the key.
type write struct {
	bucket     string
	key, value []byte
}

// latestWrites returns the last write of each key, in the order of writes. A batch that
// ends a lease and grants the slot again writes one key twice.
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

// fileFormat is the version of the format that this file describes. A file of a later
// version is refused. A file of 2019 has no header; it is rewritten.
const fileFormat = 1

// A header describes the whole file.
type header struct {
	format  uint64 // fileFormat; zero for a file of 2019
	counter uint64 // the largest number given so far: invariant 5 across restarts
	sum     uint64 // of the checksums of all records, modulo 2^64: shows that a record is lost
}

// headerKey is the key of the header in metaBucket.
var headerKey = []byte("state")

var crcTable = crc64.MakeTable(crc64.ECMA)

// checksumSize is the size of the checksum at the start of a value, in bytes.
const checksumSize = 8

// The methods that follow list the fields of the records. The order and the types are those
// of the files that exist: only add fields, at the end.

func (c *codec) request(q *request) {
	c.text(&q.id)
	c.text(&q.holder)
	c.text(&q.url)
	c.text(&q.reason)
	c.duration(&q.ttl)
}

func (c *codec) lease(l *lease) {
	c.request(&l.request)
	c.number(&l.fence)
	c.instant(&l.since)
	c.duration(&l.waited)
	c.duration(&l.ttl)
	c.needs(&l.request)
	c.supersede(&l.request)
	c.duration(&l.longest)
	c.maker(&l.request)
}

func (c *codec) waiter(w *waiter) {
	c.request(&w.request)
	c.instant(&w.since)
	c.needs(&w.request)
	c.signed(&w.rank)
	c.supersede(&w.request)
	c.number(&w.place)
	c.maker(&w.request)
}

// maker are the fields of a request that say who made it, and how long its key allows it to
// have a slot.
func (c *codec) maker(q *request) {
	c.origin(&q.origin)
	c.duration(&q.keyHold)
}

func (c *codec) origin(o *origin) {
	c.text(&o.key)
	c.text(&o.verified)
	c.text(&o.from)
}

// supersede are the fields of a request that newer requests compare.
func (c *codec) supersede(q *request) {
	c.text(&q.supersede)
	c.number(&q.first)
}

func (c *codec) pause(p *pause) {
	c.text(&p.by)
	c.text(&p.reason)
	c.instant(&p.since)
	c.duration(&p.length)
	if p.length > 0 {
		c.instant(&p.until)
	}
	c.text(&p.key)
}

// needs are the fields of a request that say what it needs, and how soon.
func (c *codec) needs(q *request) {
	priority := int64(q.priority)
	c.signed(&priority)
	if c.decoding { // not while encoding: readers may read it at the same time
		q.priority = int(priority)
	}
	c.duration(&q.maxHold)
	c.text(&q.slot)
	count := uint64(len(q.needs))
	c.number(&count)
	if !c.decoding {
		for _, n := range q.needs {
			c.text(&n.environment)
			c.text(&n.slot)
		}
		return
	}
	for ; count > 0 && len(c.bytes) > 0; count-- {
		var n need
		c.text(&n.environment)
		c.text(&n.slot)
		q.needs = append(q.needs, n)
	}
	if count > 0 {
		c.fail()
	}
}

func (c *codec) event(e *event) {
	kind := uint64(e.kind)
	c.number(&kind)
	if c.decoding {
		e.kind = eventKind(kind)
	}
	c.instant(&e.at)
	c.text(&e.environment)
	c.text(&e.slot)
	c.text(&e.id)
	c.text(&e.holder)
	c.text(&e.url)
	c.text(&e.reason)
	c.text(&e.by)
	c.text(&e.from)
	c.number(&e.fence)
	c.duration(&e.waited)
	c.duration(&e.held)
	c.text(&e.to)
	c.text(&e.why)
	c.text(&e.byURL)
	c.text(&e.key)
	c.text(&e.verified)
	c.text(&e.byKey)
}

func (c *codec) end(e *requestEnd) {
	kind := uint64(e.kind)
	c.number(&kind)
	if c.decoding {
		e.kind = eventKind(kind)
	}
	c.instant(&e.at)
	for _, d := range []*digest{&e.id, &e.holder, &e.fence, &e.slot, &e.holderAndSlot} {
		c.number((*uint64)(d))
	}
}

func (c *codec) header(h *header) {
	c.number(&h.format)
	c.wideNumber(&h.counter) // so that a copy may have another one, see store.openCopy
	c.number(&h.sum)
}

// encode returns the value of a record: the checksum of bucket, key and fields, then the
// fields.
func encode(bucket string, key []byte, fields func(*codec)) []byte {
	c := codec{bytes: make([]byte, checksumSize, 128)}
	fields(&c)
	binary.BigEndian.PutUint64(c.bytes, recordChecksum(bucket, key, c.bytes[checksumSize:]))
	return c.bytes
}

// decode reverses encode. Its error is errDamaged, with bucket and key, if the checksum is
// wrong or a field cannot be decoded.
func decode(bucket string, key, value []byte, fields func(*codec)) error {
	if len(value) < checksumSize || checksumOf(value) != recordChecksum(bucket, key, value[checksumSize:]) {
		return damagedRecord(bucket, key)
	}
	c := codec{bytes: value[checksumSize:], decoding: true}
	fields(&c)
	if c.err != nil {
		return damagedRecord(bucket, key)
	}
	return nil
}

// damagedRecord returns errDamaged with the bucket and the key.
func damagedRecord(bucket string, key []byte) error {
	return fmt.Errorf("reading %s %q: %w", bucket, key, errDamaged)
}

// checksumOf returns the checksum that a value begins with. It panics if the value is
// shorter than checksumSize.
func checksumOf(value []byte) uint64 { return binary.BigEndian.Uint64(value) }

// recordChecksum returns the checksum of a record. It covers bucket and key, so that a value
// under another key is found damaged.
func recordChecksum(bucket string, key, fields []byte) uint64 {
	sum := crc64.Update(0, crcTable, []byte(bucket))
	sum = crc64.Update(sum, crcTable, key)
	return crc64.Update(sum, crcTable, fields)
}

// leaseKey returns the key of a lease in leaseBucket, and of a pause in pauseBucket. Neither
// name has a zero byte.
func leaseKey(environment, slot string) []byte { return []byte(environment + "\x00" + slot) }

// waiterKey returns the key of a waiter in queueBucket. The waiters of an environment are
// in the order of their numbers.
func waiterKey(environment string, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(environment+"\x00"), number)
}

// eventKey returns the key of an event in historyBucket, and of its end in endBucket. Both
// are in the order of their numbers.
func eventKey(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// encodeLease returns the write that stores a lease.
func encodeLease(environment string, l *lease) write {
	key := leaseKey(environment, l.slot)
	return write{leaseBucket, key, encode(leaseBucket, key, func(c *codec) { c.lease(l) })}
}

// encode2019Lock returns the record of a lock that the call-me of 2019 stored: a lease
// without holder and ttl.
func encode2019Lock(environment string, fence uint64, since time.Time) write {
	l := &lease{environment: environment, slot: environment, fence: fence, since: since}
	return encodeLease(environment, l)
}

// encodeWaiter returns the write that stores a waiter.
func encodeWaiter(environment string, w *waiter) write {
	key := waiterKey(environment, w.number)
	return write{queueBucket, key, encode(queueBucket, key, func(c *codec) { c.waiter(w) })}
}

// encodePause returns the write that stores a pause.
func encodePause(p *pause) write {
	key := leaseKey(p.environment, p.slot)
	return write{pauseBucket, key, encode(pauseBucket, key, func(c *codec) { c.pause(p) })}
}

// encodeEvent returns the write that stores an event.
func encodeEvent(e *event) write {
	key := eventKey(e.number)
	return write{historyBucket, key, encode(historyBucket, key, func(c *codec) { c.event(e) })}
}

// encodeEnd returns the write that stores an end.
func encodeEnd(e *requestEnd) write {
	key := eventKey(e.number)
	return write{endBucket, key, encode(endBucket, key, func(c *codec) { c.end(e) })}
}

// encodeHeader returns the write that stores the header.
func encodeHeader(h *header) write {
	return write{metaBucket, headerKey, encode(metaBucket, headerKey, func(c *codec) { c.header(h) })}
}

// encodeChange returns the write that stores a change. isStored is false if the change is
// in memory only: that of a waiter without an id.
func encodeChange(c change) (w write, isStored bool) {
	switch {
	case c.event != nil:
		return encodeEvent(c.event), true
	case c.newLease != nil:
		return encodeLease(c.environment.name, c.newLease), true
	case c.oldLease != nil:
		return write{leaseBucket, leaseKey(c.environment.name, c.oldLease.slot), nil}, true
	case c.newWaiter != nil && c.newWaiter.isStored():
		return encodeWaiter(c.environment.name, c.newWaiter), true
	case c.oldWaiter != nil && c.oldWaiter.isStored():
		return write{queueBucket, waiterKey(c.environment.name, c.oldWaiter.number), nil}, true
	}
	switch {
	case c.newPause != nil:
		return encodePause(c.newPause), true
	case c.oldPause != nil:
		return write{pauseBucket, leaseKey(c.oldPause.environment, c.oldPause.slot), nil}, true
	}
	return write{}, false
}

// deleteEvent returns the write that deletes the event with the number.
func deleteEvent(number uint64) write { return write{historyBucket, eventKey(number), nil} }

// deleteEnd returns the write that deletes the end with the number.
func deleteEnd(number uint64) write { return write{endBucket, eventKey(number), nil} }

// decodeLease reverses encodeLease. Its error is errDamaged. The lease has no deadline yet.
func decodeLease(key, value []byte) (environment string, l *lease, err error) {
	environment, slot, found := strings.Cut(string(key), "\x00")
	if !found {
		return "", nil, damagedRecord(leaseBucket, key)
	}
	l = &lease{environment: environment, slot: slot}
	return environment, l, decode(leaseBucket, key, value, func(c *codec) { c.lease(l) })
}

// decodeWaiter reverses encodeWaiter. Its error is errDamaged. The waiter is disconnected.
func decodeWaiter(key, value []byte) (environment string, w *waiter, err error) {
	end := len(key) - 9 // of the name: a zero byte and the number follow
	if end < 0 || key[end] != 0 {
		return "", nil, damagedRecord(queueBucket, key)
	}
	w = &waiter{number: binary.BigEndian.Uint64(key[end+1:])}
	return string(key[:end]), w, decode(queueBucket, key, value, func(c *codec) { c.waiter(w) })
}

// decodePause reverses encodePause. Its error is errDamaged.
func decodePause(key, value []byte) (*pause, error) {
	environment, slot, found := strings.Cut(string(key), "\x00")
	if !found {
		return nil, damagedRecord(pauseBucket, key)
	}
	p := &pause{environment: environment, slot: slot}
	return p, decode(pauseBucket, key, value, func(c *codec) { c.pause(p) })
}

// decodeEvent reverses encodeEvent. Its error is errDamaged.
func decodeEvent(key, value []byte) (*event, error) {
	if len(key) != 8 {
		return nil, damagedRecord(historyBucket, key)
	}
	e := &event{number: binary.BigEndian.Uint64(key)}
	return e, decode(historyBucket, key, value, func(c *codec) { c.event(e) })
}

// decodeEnd reverses encodeEnd. Its error is errDamaged. The end has no event.
func decodeEnd(key, value []byte) (*requestEnd, error) {
	if len(key) != 8 {
		return nil, damagedRecord(endBucket, key)
	}
	e := &requestEnd{number: binary.BigEndian.Uint64(key)}
	return e, decode(endBucket, key, value, func(c *codec) { c.end(e) })
}

// decodeHeader reverses encodeHeader. Its error is errDamaged.
func decodeHeader(value []byte) (h header, err error) {
	err = decode(metaBucket, headerKey, value, func(c *codec) { c.header(&h) })
	return h, err
}
