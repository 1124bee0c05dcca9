package main

// The errors that server and client share, the table of their HTTP statuses and exit
// codes, and the kinds of errors that end the process. This file uses no other file of
// the package: the mutation test compiles the rules with it alone.

import (
	"errors"
	"fmt"
	"net/http"
)

// The errors of the HTTP API and of the client, besides those of the rules, the keeper and
// the store.
var (
	errKey         = errors.New("missing or wrong API key")
	errMalformed   = errors.New("malformed request")
	errParameter   = errors.New("bad parameter")
	errNotFound    = errors.New("not found")
	errMethod      = errors.New("method not allowed")
	errTooLarge    = errors.New("too large")
	errLongURL     = errors.New("the URL is too long")
	errTooMany     = errors.New("too many wrong keys")
	errUnavailable = errors.New("the server cannot answer now")
	errForbidden   = errors.New("the key may not do this")
	errInternal    = errors.New("internal error")
	errUsage       = errors.New("usage")
	errLost        = errors.New("the slot was lost")
	errSuperseded  = errors.New("a newer request has taken its place")
	errRemoved     = errors.New("it was removed from the queue")
)

// The errors that a result of a rule may have.
var (
	errNoSlot    = errors.New("no free slot")
	errNotHeld   = errors.New("not yours") // the caller does not hold what it names
	errOtherKey  = fmt.Errorf("%w: it was taken with another key", errNotHeld)
	errSeveral   = errors.New("several leases match")          // the caller has to name the slot
	errEnded     = errors.New("this request has ended")        // the id is closed
	errDifferent = errors.New("this id asked for other terms") // same id, other holder, ttl, reason or url
	errSlots     = errors.New("there are no such slots")       // more than are declared, or one that is not
	errOver      = errors.New("the lease is over")             // that a request would take over
	errPaused    = errors.New("it is paused")                  // what is paused or taken over

	errNotWaiting = errors.New("no request with this number waits")
)

// The errors that a reply of the keeper may have besides those of the rules. After
// errUnknown the caller may repeat its call with the same id.
var (
	errUndeclared = errors.New("no such environment")
	errWithdrawn  = fmt.Errorf("%w: it is not declared any more", errUndeclared) // while the call waited
	errStopping   = errors.New("the server is stopping")
	errBusy       = errors.New("too many are waiting")
	errUnknown    = errors.New("the disk failed: it is unknown whether this took effect")
	errFull       = errors.New("the server's disk is full: nothing new is taken in")
	errGone       = errors.New("the caller has left")
)

// The errors of opening, saving and checking a file, besides those of the system.
var (
	errNoSpace = errors.New("no space left for the database")
	errInUse   = errors.New("in use by another server")
	errDamaged = errors.New("the stored state is damaged")
	errNoCopy  = errors.New("the file cannot be copied now")

	// Those of a store that several servers share.
	errEtcdFailed  = errors.New("etcd failed or is full: it is unknown whether this took effect")
	errStoreAway   = errors.New("etcd does not answer")
	errNotLeader   = errors.New("this server does not lead any more")
	errTwin        = errors.New("another server leads that has the address of this one")
	errHung        = errors.New("the keeper hangs")
	errNewerFormat = errors.New("it was written by a newer call-me")
	errForeign     = errors.New("the keys are not call-me's, or a move was not finished")

	// errSetBack is that leases may be missing that somebody was told of. A restart of the server
	// is how an operator accepts that.
	errSetBack = errors.New("etcd has lost its state, or has an older one than before: restore a backup, " +
		"or restart all servers to go on with what is there")

	// errReplaced is that the database file was deleted, cut off, written to or
	// replaced while the server used it.
	errReplaced = errors.New("the database file is not as the server left it")
)

// The exit codes of the commands. A command that was ended by signal n has 128+n, which
// execute returns.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitNoSlot  = 75 // EX_TEMPFAIL of sysexits.h: try again later
	exitNotHeld = 76 // the lease is over, or was never the caller's

	exitSuperseded = 77 // a newer request has taken the place of this one
)

// The exit codes of run when its command was not run, as a shell has them. In other cases
// run has the code of its command or one of those above.
const (
	exitOwnFailure  = 125 // call-me failed
	exitNotRunnable = 126 // the command cannot be executed
	exitNotFound    = 127 // there is no such command
)

// errorTable has the HTTP status and the exit code of each error. The first row that
// matches an error, or a status, is used. A status of zero is never sent.
var errorTable = []struct {
	err    error
	status int
	exit   int
}{
	{errNoSlot, http.StatusForbidden, exitNoSlot},
	{errNotHeld, http.StatusConflict, exitNotHeld},
	{errOver, http.StatusConflict, exitNoSlot},
	{errPaused, http.StatusConflict, exitFailed},
	{errNotWaiting, http.StatusConflict, exitNotHeld},
	{errEnded, http.StatusGone, exitNotHeld},
	{errLost, 0, exitNotHeld},
	{errSuperseded, 0, exitSuperseded},
	{errRemoved, 0, exitNoSlot},
	{errUndeclared, http.StatusNotFound, exitFailed},
	{errNotFound, http.StatusNotFound, exitFailed},
	{errForbidden, http.StatusForbidden, exitFailed}, // after errNoSlot, which 403 is on /maybe
	{errKey, http.StatusUnauthorized, exitFailed},
	{errMalformed, http.StatusBadRequest, exitFailed},
	{errParameter, http.StatusUnprocessableEntity, exitFailed},
	{errSeveral, http.StatusUnprocessableEntity, exitFailed},
	{errDifferent, http.StatusUnprocessableEntity, exitFailed},
	{errSlots, http.StatusUnprocessableEntity, exitFailed},
	{errMethod, http.StatusMethodNotAllowed, exitFailed},
	{errTooLarge, http.StatusRequestEntityTooLarge, exitFailed},
	{errLongURL, http.StatusRequestURITooLong, exitFailed},
	{errTooMany, http.StatusTooManyRequests, exitFailed},
	{errUnavailable, http.StatusServiceUnavailable, exitFailed},
	{errStopping, http.StatusServiceUnavailable, exitFailed},
	{errBusy, http.StatusServiceUnavailable, exitFailed},
	{errUnknown, http.StatusServiceUnavailable, exitFailed},
	{errFull, http.StatusServiceUnavailable, exitFailed},
	{errGone, http.StatusServiceUnavailable, exitFailed},
	{errInternal, http.StatusInternalServerError, exitFailed},
	{errUsage, 0, exitUsage},
}

// statusOf returns the HTTP status for an error; 500 if failures does not have the error.
func statusOf(err error) int {
	for _, f := range errorTable {
		if f.status != 0 && errors.Is(err, f.err) {
			return f.status
		}
	}
	return http.StatusInternalServerError
}

// failureOf returns the error for an HTTP status of an answer; nil if failures does not
// have the status.
func failureOf(status int) error {
	for _, f := range errorTable {
		if f.status == status {
			return f.err
		}
	}
	return nil
}

// exitCode returns the exit code of the process for an error: zero for nil, the code of an
// exitError, exitOwnFailure for a runError, and otherwise that of failures, or exitFailed
// if failures does not have the error.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	var notRun runError
	if errors.As(err, &notRun) {
		return exitOwnFailure
	}
	for _, f := range errorTable {
		if errors.Is(err, f.err) {
			return f.exit
		}
	}
	return exitFailed
}

// An exitError ends the process with its code. It is not printed.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// A usageError is a mistake in a command line or in the configuration. errors.Is reports
// that it is errUsage, without errUsage's text in its own.
type usageError string

func (e usageError) Error() string { return string(e) }

func (e usageError) Is(target error) bool { return target == errUsage }

// usagef returns a usageError with a formatted text.
func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// A runError is a failure of run itself that has no exit code of its own in failures. Its
// exit code is exitOwnFailure, so that it differs from the command's own code 1.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// A hinted error has a hint: what the user can type or do next. terminal.fail prints it.
type hinted struct {
	error
	hint string // of one or several lines, without "hint:"
}

// withHint returns err with a hint.
func withHint(err error, text string) error { return hinted{err, text} }

func (h hinted) Unwrap() error { return h.error }
