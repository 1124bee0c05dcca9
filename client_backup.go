package main

// The client of call-me backup, which downloads a copy of the server's file.

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

// backup downloads a copy of the server's file into a temporary file beside path,
// and calls publish with the temporary file's name once it is complete and durable.
// The temporary file is removed if publish does not rename it. If a download fails,
// backup repeats it for up to maxFirstResponse, and calls onRetry before the first repetition
// in a row. It returns errors of the file system and of publish at once. Errors: these,
// those of do, and ctx's.
func (c *client) backup(
	ctx context.Context, path string, publish func(temporary string) error, onRetry func(error),
) error {
	r := &retrier{started: time.Now(), deadline: time.Now().Add(maxFirstResponse), onRetry: onRetry}
	for {
		err := c.fetchCopy(ctx, path, publish)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case refusesKey(err) && c.hasNewKey():
			continue
		}
		if err := r.wait(ctx, err); err != nil {
			return err
		}
	}
}

// fetchCopy makes one attempt of backup, with a temporary file of its own.
func (c *client) fetchCopy(ctx context.Context, path string, publish func(temporary string) error) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	defer temporary.Close()
	if err := c.download(ctx, temporary); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return publish(temporary.Name())
}

// download writes a copy to the writer. It gives up when the server has sent nothing for
// copySilence. Errors: those of do and of the writer.
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
	contentType := response.Header.Get("Content-Type")
	if response.StatusCode != http.StatusOK || contentType != "application/octet-stream" {
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		if isPlainToTLS(response, body) {
			return secureError(c.base)
		}
		return parseResponse(response, body, "", nil)
	}
	part := make([]byte, copyPart)
	for {
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
		silence.Reset(copySilence)
	}
}
