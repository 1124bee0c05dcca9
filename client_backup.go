package main

// The client of call-me backup, which downloads a copy of the server's file.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// backup downloads a copy of the server's file into a temporary file beside path,
// and calls publish with the temporary file's name once it is complete and durable.
// The temporary file is removed if publish does not rename it. If a download fails,
// backup repeats it for up to maxFirstResponse, and calls report as a retrier does. It
// returns errors of the file system and of publish at once. Errors: these, those of do,
// and ctx's.
func (c *client) backup(
	ctx context.Context, path string, publish func(temporary string) error, report onRetry,
) error {
	r := c.newRetrier(maxFirstResponse, report)
	renewed := false // as in try
	for {
		err := c.fetchCopy(ctx, path, publish)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case refusesKey(err) && !renewed && c.hasNewKey(ctx):
			renewed = c.tokens != nil
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
		return fmt.Errorf("cannot write %q: %w", path, withoutPath(err))
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

// withoutPath returns the cause of an error of the file system, without the system call and
// the path. It returns any other error unchanged.
func withoutPath(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// download writes a copy to the file, and cuts off what an attempt at another server has
// left in it. It gives up when the server has sent nothing for copySilence. Errors: those
// of do and of the file system.
func (c *client) download(ctx context.Context, to *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(copySilence, cancel)
	defer silence.Stop()
	return c.turn(ctx, func(from *address) error {
		silence.Reset(copySilence)
		_, err := to.Seek(0, io.SeekStart)
		if err := cmp.Or(err, to.Truncate(0)); err != nil {
			return err
		}
		response, err := c.send(ctx, from, http.MethodGet, "/backup", url.Values{})
		if err != nil {
			return err
		}
		defer response.Body.Close()
		contentType := response.Header.Get("Content-Type")
		if response.StatusCode != http.StatusOK || contentType != "application/octet-stream" {
			body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
			return c.parseResponse(from, response, body, []string{""}, nil)
		}
		return c.copyBody(ctx, from, to, response, func() { silence.Reset(copySilence) })
	})
}

// copyBody writes the body of a response to the writer, and calls alive after each part.
// Errors: that of the writer, and those of wayError.
func (c *client) copyBody(
	ctx context.Context, from *address, to io.Writer, response *http.Response, alive func(),
) error {
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
			return c.wayError(ctx, from, response.Request, err)
		}
		alive()
	}
}
