package main

// call-me backup: the client downloads a copy of the server's file.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// backup writes a copy of the server's file to path. Whatever stands there is
// replaced by the whole copy, or left as it is. It tries for up to a minute.
func (c *client) backup(ctx context.Context, path string, tell func(error)) (recordCount, error) {
	p := &retrier{started: time.Now(), deadline: time.Now().Add(firstAnswer), onRetry: tell}
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
		if err := p.wait(ctx, err); err != nil {
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
		return parseResponse(response, body, "", nil)
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
