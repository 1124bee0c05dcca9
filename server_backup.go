package main

// A copy of the file, for a backup: made by the server from what is committed,
// fetched by the client, and checked before it takes its name. The file that
// is being written is not read, so that a copy holds no commit up.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// fenceGap is how far the numbers of a copy are ahead of those it was made
// with: the fences that a restored server gives are larger than any that were
// given after the copy, unless those were four billion. 2^53 is two million
// restores away.
const fenceGap = 1 << 32

const (
	copyPart    = 256 << 10        // bytes that a reader must take within answerTime
	copySilence = 30 * time.Second // of the server, while a copy is fetched
)

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
	counter, records := s.keeper.committed()
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
	if isFull(err) || errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: its disk has no space for a copy", errUnavailable)
	}
	return fmt.Errorf("writing a copy: %w", err)
}

// committed returns the records of the committed state, and the largest number
// in it. It may be called from any goroutine: leases and places are copied
// while nothing changes, and events never do.
func (k *keeper) committed() (counter uint64, records []write) {
	type named[T any] struct {
		environment string
		of          T
	}
	var leases []named[lease]
	var places []named[place]
	k.mu.RLock()
	for name, e := range k.shown {
		for _, l := range e.leases {
			leases = append(leases, named[lease]{name, *l})
		}
		for _, p := range e.line {
			if p.kept() {
				places = append(places, named[place]{name, *p})
			}
		}
	}
	events := slices.Clone(k.past.events)
	k.mu.RUnlock()
	for _, l := range leases {
		counter = max(counter, l.of.fence)
		records = append(records, encodeLease(l.environment, &l.of))
	}
	for _, p := range places {
		counter = max(counter, p.of.number)
		records = append(records, encodePlace(p.environment, &p.of))
	}
	for _, e := range events {
		counter = max(counter, e.number)
		records = append(records, encodeEvent(e))
	}
	return max(counter, uint64(time.Now().UnixMilli())), records
}

// backup writes a copy of the server's file to path. Whatever stands there is
// replaced by the whole copy, or left as it is. It tries for up to a minute.
func (c *client) backup(ctx context.Context, path string, tell func(error)) (recordCount, error) {
	p := &patience{started: time.Now(), deadline: time.Now().Add(firstAnswer), grumble: tell}
	for {
		copied, err := c.fetchCopy(ctx, path)
		switch {
		case err == nil:
			return copied, nil
		case ctx.Err() != nil:
			return copied, ctx.Err()
		case refusesKey(err) && c.hasNewKey():
			continue
		}
		if err := p.bear(ctx, err); err != nil {
			return copied, err
		}
	}
}

func (c *client) fetchCopy(ctx context.Context, path string) (copied recordCount, err error) {
	aside, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return copied, err
	}
	defer os.Remove(aside.Name())
	defer aside.Close()
	if err := c.download(ctx, aside); err != nil {
		return copied, err
	}
	if err := aside.Sync(); err != nil {
		return copied, err
	}
	if err := aside.Close(); err != nil {
		return copied, err
	}
	if copied, err = checkFile(aside.Name()); err != nil {
		return copied, fmt.Errorf("checking the copy: %w", err)
	}
	if err := os.Rename(aside.Name(), path); err != nil {
		return copied, err
	}
	return copied, syncFolder(path)
}

// download fetches a copy. It gives up when the server is silent for too long.
func (c *client) download(ctx context.Context, to io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(copySilence, cancel)
	defer silence.Stop()
	request, err := c.newRequest(ctx, http.MethodGet, "/backup", url.Values{})
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if err := trustError(c.base, err); err != nil {
			return err
		}
		return fmt.Errorf("%w %s: %w", errUnreachable, c.base, plainNetError(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/octet-stream" {
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		if isPlainToTLS(response, body) {
			return secureError(c.base)
		}
		return understand(response, body, "", nil)
	}
	for part := make([]byte, copyPart); ; silence.Reset(copySilence) {
		n, err := response.Body.Read(part)
		if _, err := to.Write(part[:n]); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%w %s: %w", errUnreachable, c.base, plainNetError(err))
		}
	}
}
