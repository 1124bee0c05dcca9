package main

// A copy of the file, for a backup: made by the server from what is committed,
// fetched by the client, and checked before it takes its name. The file that
// is being written is not read, so that a copy holds no commit up.

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// fenceGap is how far the numbers of a copy are ahead of those it was made
// with: the fences that a restored server gives are larger than any that were
// given after the copy, unless those were four billion. 2^53 is two million
// restores away.
const fenceGap = 1 << 32

// backup answers a copy of the file.
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
	for err == nil {
		control.SetWriteDeadline(time.Now().Add(answerTime))
		_, err = io.CopyN(w, file, copyPart)
	}
	if !errors.Is(err, io.EOF) {
		s.log.Warn("a copy was not taken to its end", "error", err)
	}
	return nil
}

// copyAside writes what is committed into a new file beside the database. The
// caller closes and removes it; a server that is killed before that removes it
// when it starts.
func (s *server) copyAside() (*os.File, error) {
	counter, records := s.keeper.snapshot()
	file, err := os.CreateTemp(filepath.Dir(s.database), filepath.Base(s.database)+".*.tmp")
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

func copyError(err error) error {
	if isDiskFull(err) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: its disk has no space for a copy", errUnavailable)
	}
	return fmt.Errorf("writing a copy: %w", err)
}
