package main

// The client of GET /events: it hears of every change at the server as it happens.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// eventSilence is the longest time without a byte of the stream: two and a half beats of
// the server. A proxy may keep a connection open that has no server behind it any more.
const eventSilence = 38 * time.Second

// follow sends to changed after each change at the server, until ctx or the connection
// ends, or nothing has arrived for eventSilence. It never blocks: without a receiver or
// room in the channel the notification is dropped. Beats, which keep the connection open,
// are no changes. The error is never nil: it is one of do.
func (c *client) follow(ctx context.Context, changed chan<- struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(eventSilence, cancel)
	defer silence.Stop()
	return c.turn(ctx, func(to *address) error {
		silence.Reset(c.callLimit())
		response, err := c.send(ctx, to, http.MethodGet, "/events", url.Values{})
		if err != nil {
			return err
		}
		defer response.Body.Close()
		contentType := response.Header.Get("Content-Type")
		if response.StatusCode != http.StatusOK || contentType != "text/event-stream" {
			body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
			return c.parseResponse(to, response, body, []string{""}, nil)
		}
		readEvents(response.Body, changed, func() { silence.Reset(eventSilence) })
		return fmt.Errorf("%w %s: the connection has ended", errUnreachable, to.base)
	})
}

// readEvents reads a stream of events until it ends. It sends to changed after each event
// but beats, as follow does, and calls alive after each line.
func readEvents(stream io.Reader, changed chan<- struct{}, alive func()) {
	lines := bufio.NewScanner(stream)
	kind := ""
	for lines.Scan() {
		alive()
		field, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case field == "": // a comment line, or the end of an event
			kind = ""
		case field == "event":
			kind = strings.TrimSpace(value)
		case field == "data" && kind != "beat":
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}
