package main

// GET /backup: a copy of the database file. It is read from the file while the server goes
// on, see store_copy.go; if the file cannot be read, it is written aside from the committed
// state in memory. The client's side is in client_backup.go.

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// fenceGap is added to the counter in a copy. A server that is restored from the copy
// gives larger fences than any that were given after the copy was made, unless those were
// more than fenceGap, about four billion. The counter reaches 2^53 after two million
// restores.
const fenceGap = 1 << 32

// copyTime is how long a client may take to read a copy that is read from the file, in all.
// The file grows meanwhile: what is deleted in it cannot be used again.
const copyTime = 60 * time.Second

// A backupCopy is a copy of the database that is sent to a client.
type backupCopy struct {
	io.ReadCloser
	size     int64     // in bytes
	deadline time.Time // until when it must be read; zero if it is a file of its own
}

// backup answers GET /backup: a copy of the database file. It is errUnavailable while
// another copy is made or sent. A client must read copyPart bytes within writeTime, and all
// within copyTime. If it does not, or if the file is rewritten meanwhile, the response ends
// early, which the client notices by Content-Length.
func (s *server) backup(w http.ResponseWriter, r *http.Request) error {
	_, err := readQuery(w, r)
	if err := cmp.Or(callerOf(r).mayAll(actionBackup), err); err != nil {
		return err
	}
	if !s.copying.TryLock() {
		return fmt.Errorf("%w: another copy is being made", errUnavailable)
	}
	defer s.copying.Unlock()
	from, err := s.openCopy()
	if err != nil {
		return err
	}
	defer from.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(from.size, 10))
	h.Set("Content-Disposition", `attachment; filename="call-me.db"`)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	if sent, err := from.send(w); err != nil {
		s.log.Warn("a copy was not taken to its end", "error", err, "bytes", sent, "of", from.size)
	}
	return nil
}

// send writes the copy to a response, and returns how many bytes were written. The error is
// that of reading, or of a client that reads too slowly or has gone.
func (c *backupCopy) send(w http.ResponseWriter) (sent int64, err error) {
	control := http.NewResponseController(w)
	part := make([]byte, min(copyPart, c.size))
	for sent < c.size {
		deadline := time.Now().Add(writeTime)
		if !c.deadline.IsZero() && c.deadline.Before(deadline) {
			deadline = c.deadline
		}
		control.SetWriteDeadline(deadline)
		part = part[:min(copyPart, c.size-sent)]
		if _, err := io.ReadFull(c, part); err != nil {
			return sent, err
		}
		n, err := w.Write(part)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// openCopy returns a copy of what is committed. That is the file itself, if it may be read
// slowly. A file that may not is copied first to a temporary file, and one that cannot be
// read is written there from memory. The caller closes the copy. The errors are errStopping
// and that of copyError.
func (s *server) openCopy() (*backupCopy, error) {
	from, err := s.keeper.openCopy(fenceGap)
	switch {
	case errors.Is(err, errNoCopy):
		return s.copyAside(func(file *os.File) error {
			counter, records := s.keeper.snapshot()
			return writeCopy(file.Name(), counter+fenceGap, records)
		})
	case err != nil:
		return nil, err
	case from.patient:
		return &backupCopy{ReadCloser: from, size: from.size, deadline: time.Now().Add(copyTime)}, nil
	}
	defer from.Close()
	return s.copyAside(func(file *os.File) error {
		_, err := io.CopyN(file, from, from.size)
		return err
	})
}

// A temporaryFile is removed when it is closed.
type temporaryFile struct{ *os.File }

// Close closes and removes the file.
func (f temporaryFile) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

// copyAside returns a copy that write has made in an empty file. The file is in the folder
// for temporary files, not on the disk of the database, which a copy could fill. The error
// is that of copyError.
func (s *server) copyAside(write func(file *os.File) error) (*backupCopy, error) {
	file, err := os.CreateTemp("", "call-me-backup-*.db")
	if err != nil {
		return nil, copyError(err)
	}
	err = write(file)
	info, errStat := file.Stat()
	_, errSeek := file.Seek(0, io.SeekStart)
	if err := errors.Join(err, errStat, errSeek); err != nil {
		temporaryFile{file}.Close()
		return nil, copyError(err)
	}
	return &backupCopy{ReadCloser: temporaryFile{file}, size: info.Size()}, nil
}

// copyError returns errUnavailable if the disk is full, or has no folder for temporary
// files, and else err with what was done.
func copyError(err error) error {
	switch {
	case isDiskFull(err), errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: its folder %q has no space for a copy", errUnavailable, os.TempDir())
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: it cannot write a copy to %q; set TMPDIR for the server",
			errUnavailable, os.TempDir())
	}
	return fmt.Errorf("writing a copy: %w", err)
}
