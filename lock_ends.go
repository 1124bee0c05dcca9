package main

// The ends of requests that the rules remember (invariant 7). An end has no text: names
// and ids are kept as digests, so that what callers send does not make it larger. What
// people see of it comes from its event, while the ring of events has that
// (lock_history.go).

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An ended request is remembered for rememberAge, if it is one of the last rememberEnds.
const (
	rememberAge  = time.Hour
	rememberEnds = 200_000
)

// endSize is the memory of a remembered end with its entries in the index, in bytes.
// TestTheSizeOfTheHistoryIsItsMemory measures it.
const endSize = 240

// A digest stands for a name of an end: the first 8 bytes of the SHA-256 of the
// environment and the name. It is stored, so it must not change. Zero stands for no name.
// A new name has the digest of one of 200,000 remembered ends by chance once in 10^13.
type digest uint64

// What a digest is of. The letters are a part of the digest.
const (
	digestOfFence         = "f"
	digestOfID            = "i"
	digestOfHolder        = "h"
	digestOfSlot          = "s"
	digestOfHolderAndSlot = "b" // both
)

// newDigest returns the digest of the texts in an environment; zero if one of them is empty.
// The texts must have no zero byte, except for the last one.
func newDigest(environment, of string, texts ...string) digest {
	if slices.Contains(texts, "") {
		return 0
	}
	sum := sha256.Sum256([]byte(environment + "\x00" + of + strings.Join(texts, "\x00")))
	return digest(binary.BigEndian.Uint64(sum[:]))
}

// fenceDigest returns the digest of a fence; zero for zero.
func fenceDigest(environment string, fence uint64) digest {
	if fence == 0 {
		return 0
	}
	return newDigest(environment, digestOfFence, strconv.FormatUint(fence, 10))
}

// A requestEnd is what is remembered of the end of a request: how and when, and digests
// of the names by which a caller asks for it. Its size does not depend on what callers
// send.
type requestEnd struct {
	number uint64 // of its event
	kind   eventKind
	at     time.Time
	event  *event // with the texts; nil if the ring does not have it

	id, holder                 digest
	fence, slot, holderAndSlot digest // of the lease; zero for a waiter
}

// newRequestEnd returns the end that an event is, which is not a grant.
func newRequestEnd(e *event) *requestEnd {
	return &requestEnd{number: e.number, kind: e.kind, at: e.at, event: e,
		id:            newDigest(e.environment, digestOfID, e.id),
		fence:         fenceDigest(e.environment, e.fence),
		holder:        newDigest(e.environment, digestOfHolder, e.holder),
		slot:          newDigest(e.environment, digestOfSlot, e.slot),
		holderAndSlot: newDigest(e.environment, digestOfHolderAndSlot, e.slot, e.holder),
	}
}

// names returns the digests under which an end is found: its id, and for a lease its fence
// and its holder, with and without the slot.
func (end *requestEnd) names() []digest {
	all := []digest{end.id}
	if end.fence != 0 {
		all = append(all, end.fence, end.holder, end.holderAndSlot)
	}
	return slices.DeleteFunc(all, func(d digest) bool { return d == 0 })
}

// remember adds an end that is later than all others, and makes it the one that its names
// stand for.
func (h *history) remember(end *requestEnd) {
	h.ends = append(h.ends, end)
	h.size += endSize
	for _, name := range end.names() {
		h.index[name] = end
	}
}

// endWithNumber returns the remembered end whose event has the number; nil if there is none.
func (h *history) endWithNumber(number uint64) *requestEnd {
	byNumber := func(end *requestEnd, n uint64) int { return cmp.Compare(end.number, n) }
	i, found := slices.BinarySearchFunc(h.ends, number, byNumber)
	if !found {
		return nil
	}
	return h.ends[i]
}

// restore makes a name of a holder stand for the latest end of a lease that has it, if
// there is one; it ignores zero. nameOf returns this name of an end. It searches all ends,
// and is called only after a failed commit.
func (h *history) restore(name digest, nameOf func(*requestEnd) digest) {
	for _, end := range slices.Backward(h.ends) {
		if name != 0 && end.fence != 0 && nameOf(end) == name {
			h.index[name] = end
			return
		}
	}
}

// forget removes an end from the index. The caller removes it from ends. Names that a
// later end has taken stay.
func (h *history) forget(end *requestEnd) {
	h.size -= endSize
	for _, name := range end.names() {
		if h.index[name] == end {
			delete(h.index, name)
		}
	}
}

// endOf returns the latest end that is remembered under a name; nil if none is. It is a
// copy: the end itself loses its event when that leaves the ring.
func (h *history) endOf(name digest, now time.Time) *requestEnd {
	end := h.index[name]
	if end == nil || !isRecent(end, now) {
		return nil
	}
	found := *end
	return &found
}

// isRecent reports whether an end is younger than rememberAge.
func isRecent(end *requestEnd, now time.Time) bool { return now.Sub(end.at) < rememberAge }

// endOfID returns the end of the request with the id; nil if that is not remembered.
func (h *history) endOfID(environment, id string, now time.Time) *requestEnd {
	return h.endOf(newDigest(environment, digestOfID, id), now)
}

// endOfLease returns the end that the selector matches; nil if that is not remembered, or
// if no end matches all of its fields. It searches by the id, else by the fence, else by
// the holder with the slot.
func (h *history) endOfLease(environment string, s selector, now time.Time) *requestEnd {
	holder := newDigest(environment, digestOfHolder, s.holder)
	slot := newDigest(environment, digestOfSlot, s.slot)
	var end *requestEnd
	switch {
	case s.id != "":
		end = h.endOfID(environment, s.id, now)
	case s.fence != 0:
		end = h.endOf(fenceDigest(environment, s.fence), now)
	case s.holder != "" && s.slot != "":
		end = h.endOf(newDigest(environment, digestOfHolderAndSlot, s.slot, s.holder), now)
	case s.holder != "":
		end = h.endOf(holder, now)
	}
	if end == nil || s.holder != "" && end.holder != holder || s.slot != "" && end.slot != slot {
		return nil
	}
	return end
}
