package main

// What the keeper asks of a store. It knows no store by name: the state is the
// keeper's, and a store makes it durable.

// A keeperStore keeps what must outlive the keeper. Its methods are for one
// goroutine at a time, but for exclusive.
type keeperStore interface {
	// load calls each for every record, bucket by bucket in the order of the keys;
	// key and value are valid only during the call. It returns the largest number
	// that was saved.
	load(each func(bucket string, key, value []byte) error) (counter uint64, err error)

	// save returns nil once the writes and the counter are durable. No two of the
	// writes have the same key. After errNoSpace nothing was stored. After any other
	// error it is unknown whether they were, or this server may not save any more.
	save(counter uint64, writes []write) error

	// confirm returns nil if, at some moment after the call began, nobody else could
	// change the store. A batch that saves nothing is answered after that. Where
	// exclusive is true, confirm always returns nil.
	confirm() error

	// exclusive reports whether nobody else can change the store while it is open.
	// If so, a renewal that saves nothing is answered at once, without confirm.
	exclusive() bool

	close() error
}

// A recoverableStore can be used again when its disk was full or has failed.
// With a store that is none, a keeper refuses everything after an error of save
// or confirm, until it is closed.
type recoverableStore interface {
	keeperStore

	// checkIntact returns nil if what is stored is still as the last save left it. It
	// returns errInUse if another server has taken the store, and errReplaced if the
	// store was deleted or changed: rewrite makes it good.
	checkIntact() error

	// isReserveMissing reports whether there was no space at the start for what reserve sets
	// aside.
	isReserveMissing() bool

	// saveTight is save when there is no space, for writes that take more away than
	// they add. It uses up what reserve has set aside.
	saveOnFullDisk(counter uint64, writes []write) error

	// reserve sets space aside again. Its error is errNoSpace while there is none.
	reserve() error

	// rewrite makes a new store of exactly these records. Until it has returned nil,
	// nothing else is saved after an error of save that is not errNoSpace.
	rewrite(counter uint64, records []write) error
}
