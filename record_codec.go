package main

// How one field of a record is encoded, and decoded.

import (
	"encoding/binary"
	"time"
)

// A codec encodes the fields of one record, or decodes them: the same calls in the same
// order do either. Its methods append the field to bytes, or take it from the start of
// bytes and set it.
type codec struct {
	bytes    []byte
	decoding bool
	err      error // errDamaged once a field could not be decoded; the fields after it are zero
}

// number is a field of 1 to 10 bytes, a varint.
func (c *codec) number(n *uint64) {
	if !c.decoding {
		c.bytes = binary.AppendUvarint(c.bytes, *n)
		return
	}
	if len(c.bytes) == 0 { // the record was encoded before this field existed
		*n = 0
		return
	}
	v, size := binary.Uvarint(c.bytes)
	if size <= 0 {
		c.fail()
		return
	}
	*n, c.bytes = v, c.bytes[size:]
}

// wideNumber is a number of 9 bytes, whatever its value: a varint with leading zeros, which
// number decodes too. A larger number is encoded in as many bytes.
func (c *codec) wideNumber(n *uint64) {
	if c.decoding {
		c.number(n)
		return
	}
	for i := range 8 {
		c.bytes = append(c.bytes, byte(*n>>(7*i))|0x80)
	}
	c.bytes = append(c.bytes, byte(*n>>56)&0x7f)
}

// fail sets the error. Nothing is left to decode.
func (c *codec) fail() { c.err, c.bytes = errDamaged, nil }

// signed is a field of 1 to 10 bytes, a zigzag varint: small numbers are short, also those
// below zero.
func (c *codec) signed(n *int64) {
	u := uint64(*n)<<1 ^ uint64(*n>>63)
	c.number(&u)
	if c.decoding {
		*n = int64(u>>1) ^ -int64(u&1)
	}
}

// text is a field of its length in bytes, a varint, and the bytes.
func (c *codec) text(s *string) {
	n := uint64(len(*s))
	c.number(&n)
	if !c.decoding {
		c.bytes = append(c.bytes, *s...)
		return
	}
	if n > uint64(len(c.bytes)) {
		c.fail()
		return
	}
	*s, c.bytes = string(c.bytes[:n]), c.bytes[n:]
}

// duration is a field of nanoseconds, a varint.
func (c *codec) duration(d *time.Duration) {
	n := uint64(*d)
	c.number(&n)
	if c.decoding { // not while encoding: readers may read *d at the same time
		*d = time.Duration(n)
	}
}

// instant is a field of nanoseconds since 1970, a varint. The time's monotonic reading is
// not stored: it has no meaning in another process.
func (c *codec) instant(t *time.Time) {
	var n uint64
	if !c.decoding {
		n = uint64(t.UnixNano())
	}
	c.number(&n)
	if c.decoding {
		*t = time.Unix(0, int64(n))
	}
}
