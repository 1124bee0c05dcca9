package main

// The state of all environments. With many leases it is larger than any other answer: it is
// decoded while it arrives, and the time limit is one of silence.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// stateTime is the time limit for the whole state of one server, which gives up earlier.
const stateTime = 2 * time.Minute

// environments returns the state of one environment, or of all if name is empty. It makes
// one attempt, and gives a server up when nothing arrives for callLimit. An answer that is
// cut short is errUnreachable, and nothing of it is returned. Its other errors are those of
// do.
func (c *client) environments(ctx context.Context, name string) (all environmentsJSON, err error) {
	values := url.Values{}
	if name != "" {
		values.Set("environment", name)
	}
	err = c.turn(ctx, func(to *address) error {
		all, err = c.environmentsOf(ctx, to, values)
		return err
	})
	return all, err
}

// environmentsOf gets the state from one server.
func (c *client) environmentsOf(
	ctx context.Context, to *address, values url.Values,
) (environmentsJSON, error) {
	none := environmentsJSON{}
	limited, cancel := context.WithTimeout(ctx, stateTime)
	defer cancel()
	silence := time.AfterFunc(c.callLimit(), cancel)
	defer silence.Stop()
	response, err := c.send(limited, to, http.MethodGet, "/environments", values)
	if err != nil {
		return none, c.silenceError(ctx, limited, to, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || !isJSON(response) {
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		return none, c.parseResponse(to, response, body, environmentsIn(values), &environmentsJSON{})
	}
	body := &arrivingBody{body: response.Body, arrived: func() { silence.Reset(c.callLimit()) }}
	all, err := decodeEnvironments(json.NewDecoder(body))
	switch {
	case err == nil:
		return all, nil
	case limited.Err() != nil:
		return none, c.silenceError(ctx, limited, to, err)
	case body.err != nil:
		return none, c.wayError(ctx, to, response.Request, body.err)
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return none, fmt.Errorf("%w %s: its answer was cut short", errUnreachable, to.base)
	}
	return none, fmt.Errorf("%s %w: %s", to.base, errNotCallMe, responseText(response))
}

// silenceError returns the error for err, the error of a call whose context is limited: ctx's
// if ctx has ended, errUnreachable if only limited has, because nothing arrived, or else err.
func (c *client) silenceError(ctx, limited context.Context, to *address, err error) error {
	switch {
	case ctx.Err() == context.Canceled:
		return ctx.Err()
	case limited.Err() != nil:
		return fmt.Errorf("%w %s: %s", errUnreachable, to.base, netErrorText(context.DeadlineExceeded))
	}
	return err
}

// An arrivingBody is the body of a response. It calls arrived when something has arrived,
// and keeps the error with which reading failed; nil at the end of the body.
type arrivingBody struct {
	body    io.Reader
	arrived func()
	err     error
}

// Read implements io.Reader.
func (b *arrivingBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.arrived()
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// errOtherJSON is the error of decodeEnvironments for JSON that is no list of environments.
var errOtherJSON = errors.New("this is no list of environments")

// decodeEnvironments reads the answer one environment at a time, to its end. Fields that it does not
// know are skipped. The errors are errOtherJSON, those of the decoder, and
// io.ErrUnexpectedEOF if the answer is not complete.
func decodeEnvironments(d *json.Decoder) (all environmentsJSON, err error) {
	if err := expect(d, json.Delim('{')); err != nil {
		return all, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return all, err
		}
		switch key {
		case "environments":
			all.Environments, err = decodeList(d)
		case "pause":
			err = d.Decode(&all.Pause)
		default:
			err = d.Decode(&json.RawMessage{})
		}
		if err != nil {
			return all, err
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return all, err
	}
	_, err = d.Token()
	switch {
	case err == io.EOF && all.Environments != nil:
		return all, nil
	case err == nil || err == io.EOF:
		return all, errOtherJSON
	}
	return all, err
}

// decodeList reads the list of environments.
func decodeList(d *json.Decoder) ([]environmentJSON, error) {
	list := []environmentJSON{}
	if err := expect(d, json.Delim('[')); err != nil {
		return nil, err
	}
	for d.More() {
		var one environmentJSON
		if err := d.Decode(&one); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, expect(d, json.Delim(']'))
}

// expect reads a token, and returns errOtherJSON if it is another one.
func expect(d *json.Decoder, want json.Token) error {
	got, err := d.Token()
	if err == nil && got != want {
		return errOtherJSON
	}
	return err
}
