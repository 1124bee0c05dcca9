package main

// The interface between the keeper and its store. The keeper has the state, and a store
// makes it durable. The keeper does not know which store it has.

import "io"

// A keeperStore stores the records of a keeper. Its methods must not be called at the same
// time, except for exclusive, which may be called from any goroutine at any time.
type keeperStore interface {
	// load calls each for every record, bucket by bucket in the order of the keys. key
	// and value are valid only during the call. It returns the counter of the last
	// save. The error is the first error of each, or that of the store.
	load(each func(bucket string, key, value []byte) error) (counter uint64, err error)

	// save stores the writes and the counter, all or none of them, and returns nil once
	// they are durable (invariant 2). Of two writes with the same bucket and key the later
	// one stands. After errNoSpace nothing was stored. After any other error it is unknown
	// whether they were stored, or this server may not save any more (invariant 6).
	//
	// ends has the indexes of writes at which a step ends, in order. A store that cannot
	// store all at once stores one part after the other, and ends each part there: after a
	// failure it has some steps in their order, and no step in part. It is not errNoSpace if
	// it has any.
	save(counter uint64, writes []write, ends []int) error

	// confirm returns nil if, at some moment after the call began, no other server could
	// change the store, and it was as the last save left it. The keeper calls it for a
	// batch that saves nothing, before it replies, and so in each scanPeriod. It returns
	// errReplaced if the store was deleted or changed: rewrite makes it good. It, save
	// and rewrite return errInUse if another server has taken the store for good.
	confirm() error

	// exclusive reports whether no other server can change the store while it is open.
	// If so, the keeper replies to a renewal that saves nothing at once, without
	// confirm.
	exclusive() bool

	// close releases the store. No method but exclusive is called afterwards.
	close() error
}

// A copyableStore can be read as a whole, while it is used.
type copyableStore interface {
	keeperStore

	// openCopy returns a file of size bytes that a server can start with: what the last
	// save left, but for the counter, which is the given one. It may be read and closed by
	// any goroutine. Once the store is rewritten or closed, Read returns an error. The
	// store works as usual for as long as the copy is open if patient is true. If not, it
	// must be read as fast as the disk is. The caller closes it before it opens another.
	// The error may be any: then there is none.
	openCopy(counter uint64) (from io.ReadCloser, size int64, patient bool, err error)
}

// A recoverableStore can be used again after its disk was full or has failed. With a store
// that is not recoverable, a keeper replies errUnknown to every call after an error of save
// or confirm, until it is closed. After errNoSpace it goes on, tries each batch, and only
// those fail that save something.
type recoverableStore interface {
	keeperStore

	// isReserveMissing reports whether the space that reserve sets aside is not set
	// aside. The keeper calls it once, after load.
	isReserveMissing() bool

	// saveOnFullDisk does what save does when there is no space, for writes that delete
	// more than they add. It uses the space that reserve has set aside.
	saveOnFullDisk(counter uint64, writes []write, ends []int) error

	// reserve sets space aside again. The error is errNoSpace while there is none, or as
	// with save.
	reserve() error

	// rewrite replaces the store by a new one that has exactly these records and this
	// counter. After an error of save that is not errNoSpace the keeper saves nothing
	// until rewrite has returned nil.
	rewrite(counter uint64, records []write) error
}
