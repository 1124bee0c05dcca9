package main

// The errors that both ends know, and the one table that gives each its HTTP status
// and its exit code. Nothing here depends on another file.

import (
	"errors"
	"fmt"
	"net/http"
)

// What a caller can be told besides the refusals of the rules and the keeper.
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
	errInternal    = errors.New("internal error")
	errUsage       = errors.New("usage")
	errLost        = errors.New("the slot was lost")
)

// The refusals of the rules. api.go says which status and exit code each has.
var (
	errNoSlot    = errors.New("no free slot")
	errNotHeld   = errors.New("not yours")                     // renew or end what the caller does not hold
	errSeveral   = errors.New("several leases match")          // name the slot
	errEnded     = errors.New("this request has ended")        // the id is closed
	errDifferent = errors.New("this id asked for other terms") // same id, other holder, ttl, reason or url
)

// What the keeper answers besides the refusals of the rules.
var (
	errUndeclared = errors.New("no such environment")
	errStopping   = errors.New("the server is stopping")
	errBusy       = errors.New("too many are waiting")
	errUnknown    = errors.New("the disk failed: it is unknown whether this took effect") // retry with the same id
	errFull       = errors.New("the server's disk is full: nothing new is taken in")
	errGone       = errors.New("the caller has left")
)

// What opening and saving can end with, besides errDamaged and plain errors.
var (
	errNoSpace = errors.New("no space left for the database")
	errInUse   = errors.New("in use by another server")

	// errReplaced is that the database file was deleted, cut off, written to or
	// replaced while the server used it.
	errReplaced = errors.New("the database file is not as the server left it")
)

var errDamaged = errors.New("the file is damaged")

// Exit codes of the client. 128+n is added by main for signal n.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitNoSlot  = 75 // EX_TEMPFAIL of sysexits.h: try again later
	exitNotHeld = 76
)

// Exit codes of run besides those of the other commands, as the shell's.
const (
	exitOwnFailure  = 125
	exitNotRunnable = 126
	exitNotFound    = 127
)

// failures maps errors to statuses and exit codes. The first row that fits
// counts, in either direction; status 0: never sent.
var failures = []struct {
	err    error
	status int
	exit   int
}{
	{errNoSlot, http.StatusForbidden, exitNoSlot},
	{errNotHeld, http.StatusConflict, exitNotHeld},
	{errEnded, http.StatusGone, exitNotHeld},
	{errLost, 0, exitNotHeld},
	{errUndeclared, http.StatusNotFound, exitFailed},
	{errNotFound, http.StatusNotFound, exitFailed},
	{errKey, http.StatusUnauthorized, exitFailed},
	{errMalformed, http.StatusBadRequest, exitFailed},
	{errParameter, http.StatusUnprocessableEntity, exitFailed},
	{errSeveral, http.StatusUnprocessableEntity, exitFailed},
	{errDifferent, http.StatusUnprocessableEntity, exitFailed},
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

// statusOf returns the status that tells the error; 500 for one that the
// table does not know.
func statusOf(err error) int {
	for _, f := range failures {
		if f.status != 0 && errors.Is(err, f.err) {
			return f.status
		}
	}
	return http.StatusInternalServerError
}

// failureOf returns the error that a status tells; nil for an unknown one.
func failureOf(status int) error {
	for _, f := range failures {
		if f.status == status {
			return f.err
		}
	}
	return nil
}

// exitCode returns what the process ends with: 0 for nil.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	if failed := (runError{}); errors.As(err, &failed) {
		return exitOwnFailure
	}
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.exit
		}
	}
	return exitFailed
}

// An exitError ends the process with its code, and says nothing.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// A usageError is a mistake of the one who typed the command, errUsage.
type usageError string

func (e usageError) Error() string { return string(e) }

func (e usageError) Is(target error) bool { return target == errUsage }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// A runError is why a command was not run, with a code that is not one of the
// command's own.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// A hinted error knows what to type next.
type hinted struct {
	error
	hint string
}

func hint(err error, text string) error { return hinted{err, text} }

func (h hinted) Unwrap() error { return h.error }
