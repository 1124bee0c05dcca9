package main

// GET /backup: a copy of the database file. It is written from the committed state in
// memory, and the database file is not read, so that a copy delays no commit. The client's
// side is in client_backup.go.

import (
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

// backup answers GET /backup: a copy of the database file. It is errUnavailable while
// another copy is made or sent, and if the disk has no space for a copy. A client must
// read copyPart bytes within writeTime. If it does not, the response ends early, which
// the client notices by Content-Length.
func (s *server) backup(w http.ResponseWriter, r *http.Request) error {
	if _, err := readQuery(w, r); err != nil {
		return err
	}
	if !s.copying.TryLock() {
		return fmt.Errorf("%w: another copy is being made", errUnavailable)
	}
	defer s.copying.Unlock()
	file, err := s.copyAside()
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	h.Set("Content-Disposition", `attachment; filename="call-me.db"`)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	control := http.NewResponseController(w)
	for {
		control.SetWriteDeadline(time.Now().Add(writeTime))
		_, err = io.CopyN(w, file, copyPart)
		if err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		s.log.Warn("a copy was not taken to its end", "error", err)
	}
	return nil
}

// copyAside writes the committed state to a new database file beside the database, and
// returns it open at its beginning. The caller closes and removes it. If the server is
// killed before that, its next start removes the file. The error is that of copyError.
func (s *server) copyAside() (*os.File, error) {
	counter, records := s.keeper.snapshot()
	file, err := createTemporary(s.database)
	if err != nil {
		return nil, copyError(err)
	}
	if err := writeCopy(file.Name(), counter+fenceGap, records); err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, copyError(err)
	}
	return file, nil
}

// copyError returns errUnavailable if the disk is full, and else err with what was done.
func copyError(err error) error {
	if isDiskFull(err) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: its disk has no space for a copy", errUnavailable)
	}
	return fmt.Errorf("writing a copy: %w", err)
}
