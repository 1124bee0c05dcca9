package main

// The journal: what was saved last, in the order in which it was saved. It is
// a strip of sectors inside the database, written in place and synced once,
// where a transaction of bbolt writes pages all over the file and syncs twice.
// The groups in it are moved to where they belong, all in one transaction,
// when it is full; until then the state is what the buckets hold, and these
// groups upon it.
//
// A disk writes a sector whole or not at all. So each sector has a checksum
// and the number of its group, and a group that a power failure cut short
// (some of its sectors are still what they were) differs from a damage (a
// sector that is nothing that was ever written).

import (
	"encoding/binary"
	"io"
	"slices"
)

const (
	journalAtOnce = 64                   // so many sectors are read, or made, at once
	journalSector = 512                  // bytes
	journalHead   = checksumSize + 8 + 2 // the group's number; the bytes that follow, twice, plus one in its last sector
	journalSpace  = journalSector - journalHead
)

// journalSectors is how many sectors a new journal has; none where the disk
// has no space for it. Tests that wait for it to be full take fewer.
var journalSectors = 0

// A journal writes groups behind one another. A group has the number after
// that of the one before, also when that one could not be written.
type journal struct {
	file    journalFile
	offset  int64  // of the first sector in the file
	sectors int    // how many there are; with none it is always full
	group   uint64 // the number of the last group
	next    int    // the sector that follows it
	closed  bool   // nothing is written into it: there would be no room to settle it in
	payload coder
	buffer  []byte
}

type journalFile interface {
	io.ReaderAt
	io.WriterAt
}

// entries are what one group saves.
type entries struct {
	counter uint64
	writes  []write
}

func (e *entries) code(c *coder) {
	n := uint64(len(e.writes))
	c.number(&e.counter)
	if c.number(&n); c.reading {
		if n > uint64(len(c.bytes)) {
			c.err = errDamaged
			return
		}
		e.writes = make([]write, n)
	}
	for i := range e.writes {
		e.writes[i].code(c)
	}
}

func (w *write) code(c *coder) {
	n := uint64(slices.Index(recordBuckets, w.bucket))
	if c.number(&n); c.reading {
		if n >= uint64(len(recordBuckets)) {
			c.err, c.bytes = errDamaged, nil
			return
		}
		w.bucket = recordBuckets[n]
	}
	c.blob(&w.key)
	c.blob(&w.value)
	if c.reading && len(w.value) == 0 {
		w.value = nil
	}
}

// add writes a group behind the others, and reports false when there is no
// room for it. It is not durable before a sync. After an error it is unknown
// how much of it was written; the journal has no room any more until reset.
func (j *journal) add(e entries) (bool, error) {
	j.payload.bytes = j.payload.bytes[:0]
	e.code(&j.payload)
	payload := j.payload.bytes
	if n := max(1, (len(payload)+journalSpace-1)/journalSpace); j.closed || n > j.sectors-j.next {
		return false, nil
	}
	j.group++
	first := j.next
	j.buffer = j.buffer[:0]
	for more := true; more; j.next++ {
		part := payload[:min(len(payload), journalSpace)]
		payload = payload[len(part):]
		more = len(payload) > 0
		j.buffer = appendSector(j.buffer, j.next, j.group, part, !more)
	}
	if _, err := j.file.WriteAt(j.buffer, j.offset+int64(first)*journalSector); err != nil {
		j.next = j.sectors
		return true, err
	}
	return true, nil
}

// reset begins at the first sector again: the groups so far are settled.
func (j *journal) reset() { j.next = 0 }

func appendSector(b []byte, at int, group uint64, part []byte, last bool) []byte {
	from, size := len(b), uint16(len(part))*2
	if last {
		size++
	}
	b = append(b, make([]byte, checksumSize)...)
	b = binary.BigEndian.AppendUint64(b, group)
	b = binary.BigEndian.AppendUint16(b, size)
	b = append(b, part...)
	b = append(b, make([]byte, journalSpace-len(part))...)
	binary.BigEndian.PutUint64(b[from:], sectorChecksum(at, b[from:]))
	return b
}

func sectorChecksum(at int, sector []byte) uint64 {
	return recordChecksum(journalBucket, binary.BigEndian.AppendUint16(nil, uint16(at)), sector[checksumSize:])
}

// format fills a new strip with sectors of no group.
func (j *journal) format() error {
	b := make([]byte, 0, journalAtOnce*journalSector)
	for at := 0; at < j.sectors; {
		first := at
		for b = b[:0]; at < min(first+journalAtOnce, j.sectors); at++ {
			b = appendSector(b, at, 0, nil, true)
		}
		if _, err := j.file.WriteAt(b, j.offset+int64(first)*journalSector); err != nil {
			return err
		}
	}
	return nil
}

// read returns the groups after the settled one, and goes on behind them. A
// last group that is there in part only was never answered, and is left out.
// The others are written once more, for the next sync: a server that was killed
// may not have synced them, or in vain. The error is errDamaged, or the file's.
func (j *journal) read(settled uint64) (groups []entries, err error) {
	j.group, j.next = settled, 0
	b := make([]byte, journalAtOnce*journalSector)
	var payload, counts []byte // of one group; the sectors of all groups
	newest := uint64(0)
	for at := range j.sectors {
		if at%journalAtOnce == 0 {
			b = b[:min(journalAtOnce, j.sectors-at)*journalSector]
			if _, err := j.file.ReadAt(b, j.offset+int64(at)*journalSector); err != nil {
				return nil, err
			}
		}
		s := b[at%journalAtOnce*journalSector:][:journalSector]
		group, size := binary.BigEndian.Uint64(s[checksumSize:]), binary.BigEndian.Uint16(s[checksumSize+8:])
		if checksumOf(s) != sectorChecksum(at, s) || size/2 > journalSpace {
			return nil, unsound("sector %d of its journal is not valid", at)
		}
		newest = max(newest, group)
		if group != j.group+1 || at != j.next+len(payload)/journalSpace {
			continue
		}
		payload, counts = append(payload, s[journalHead:][:size/2]...), append(counts, s...)
		if size%2 == 0 {
			continue
		}
		e, c := entries{}, coder{bytes: payload, reading: true}
		if e.code(&c); c.err != nil || len(c.bytes) > 0 {
			return nil, unsound("group %d of its journal cannot be read", group)
		}
		groups, payload = append(groups, e), nil
		j.group, j.next = group, at+1
	}
	switch {
	case newest > j.group+1:
		return nil, unsound("group %d of its journal is missing", j.group+1)
	case newest > j.group: // parts of it may not be mixed with another group of its number
		j.group, j.next = newest, j.sectors
	}
	return groups, writeBack(j.file, j.offset, counts)
}

// writeBack writes what was just read. After a sync that failed the system
// takes it to be on the disk, where it may not be.
func writeBack(file io.WriterAt, offset int64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := file.WriteAt(b, offset)
	return err
}
