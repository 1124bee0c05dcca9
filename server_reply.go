package main

// Responses: an error as a status and JSON, the 2019 response without a body, and the
// conversion of leases, waiters and environments to JSON. The JSON types are in api.go,
// the table of errors and statuses is in errors.go.

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// respondError sends an error as its status and an errorJSON. An error that has no status
// in the table of errors is logged, and sent as errInternal without its text. 413 and a
// stopping server close the connection.
func (s *server) respondError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	var fromKeeper replyError
	if errors.As(err, &fromKeeper) && errors.Is(err, errUndeclared) {
		err = s.undeclared(fromKeeper.name)
	}
	body := errorJSON{Code: status, Message: untrusted(err.Error())}
	if errors.As(err, &fromKeeper) {
		body = fromKeeper.json(status, time.Now())
	}
	switch status {
	case http.StatusInternalServerError:
		s.log.Error("answering failed", "method", r.Method, "path", r.URL.Path, "error", err)
		body.Message = untrusted(errInternal.Error())
	case http.StatusUnauthorized:
		if !fromScript(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="call-me", charset="UTF-8"`)
		}
	case http.StatusRequestEntityTooLarge: // the rest of the body is not read
		w.Header().Set("Connection", "close")
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
		if errors.Is(err, errStopping) {
			w.Header().Set("Connection", "close")
		}
	}
	writeJSON(w, status, body)
}

// fromScript reports whether the script of the status page sends the call, or the browser
// for its event stream. The script itself shows that the key is not accepted. With
// WWW-Authenticate in the response, the browser would show its login dialog first.
func fromScript(r *http.Request) bool {
	return r.Header.Get("X-Requested-With") == "call-me" || r.Header.Get("Accept") == "text/event-stream"
}

// A replyError is a reply of the keeper with an error. It wraps that error.
type replyError struct {
	name string // of the environment
	reply
}

// Error returns the text of the error alone; message adds the state of the environment.
func (r replyError) Error() string { return r.err.Error() }

// Unwrap returns the error of the reply.
func (r replyError) Unwrap() error { return r.err }

// json returns the body of the response. Durations in it are as of now.
func (r replyError) json(status int, now time.Time) errorJSON {
	return errorJSON{
		Code:        status,
		Message:     untrusted(r.message(now)),
		Environment: untrusted(r.name),
		Position:    r.position,
		HeldBy:      leasesToJSON(r.name, r.leases, now),
		Ended:       endToJSON(r.ended),
	}
}

// message returns one line for people: the error, how and when the request ended if it
// did, and the first three leases of the environment.
func (r replyError) message(now time.Time) string {
	var b strings.Builder
	switch {
	case errors.Is(r.err, errSeveral):
		var slots []string
		for _, l := range r.several {
			slots = append(slots, l.slot)
		}
		fmt.Fprintf(&b, "several leases on %q match; name the slot: %s", r.name, strings.Join(slots, ", "))
		return b.String()
	case errors.Is(r.err, errNoSlot):
		fmt.Fprintf(&b, "no free slot on %q", r.name)
	case errors.Is(r.err, errNotHeld):
		fmt.Fprintf(&b, "you hold no slot on %q", r.name)
	default:
		b.WriteString(r.err.Error())
	}
	if r.ended != nil {
		fmt.Fprintf(&b, "; it %s at %s", endText(r.ended), wireTime(r.ended.at).Format(time.RFC3339))
	}
	for i, l := range r.leases {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(r.leases)-i)
			break
		}
		before := ", "
		if i == 0 {
			before = "; held by "
		}
		holder, since := cmp.Or(l.holder, "somebody who gave no name"), wireTime(l.since)
		fmt.Fprintf(&b, "%s%s since %s", before, holder, since.Format(time.RFC3339))
	}
	return b.String()
}

// endText returns how a lease or a request ended, as the words after "it" in message.
func endText(e *event) string {
	switch e.kind {
	case eventReleased:
		return "was released"
	case eventForced:
		return "was released by force by " + cmp.Or(e.by, "somebody who gave no name")
	case eventLeft:
		return "left the queue"
	case eventAbandoned:
		return "lost its place in the queue, because nobody asked for it any more,"
	case eventClosed:
		return "was ended before it began"
	}
	return e.kind.String()
}

// status2019 returns the status of a response to the 2019 call: the given one for yes, else
// 403.
func status2019(yes bool, status int) int {
	if yes {
		return status
	}
	return http.StatusForbidden
}

// writeEmpty sends a status without a body, as in 2019. Its error is always nil.
func writeEmpty(w http.ResponseWriter, status int) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.WriteHeader(status)
	return nil
}

// writeJSON sends a status and a body as JSON. It returns an error, and has sent nothing,
// if the body cannot be encoded. An error of the connection is ignored: the client is
// gone.
func writeJSON(w http.ResponseWriter, status int, body any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return err
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b.Bytes())
	return nil
}

// leaseToJSON returns a lease as everyone may see it, without its id. The deadline of a
// lease is a time of the monotonic clock. Until is computed from now, so that it is
// right also after the wall clock was set.
func leaseToJSON(environment string, l *lease, now time.Time) leaseJSON {
	j := leaseJSON{
		Environment:   untrusted(environment),
		Slot:          untrusted(l.slot),
		Holder:        untrusted(l.holder),
		URL:           untrusted(l.url),
		Reason:        untrusted(l.reason),
		Fence:         l.fence,
		Since:         wireTime(l.since),
		TTLSeconds:    l.ttl.Seconds(),
		WaitedSeconds: l.waited.Seconds(),
		HeldSeconds:   max(0, now.Sub(l.since).Seconds()),
	}
	if !l.deadline.IsZero() {
		until := wireTime(now.Add(l.deadline.Sub(now)))
		j.Until = &until
	}
	return j
}

// leasesToJSON returns leases of one environment in their order.
func leasesToJSON(environment string, leases []lease, now time.Time) []leaseJSON {
	all := make([]leaseJSON, len(leases))
	for i := range leases {
		all[i] = leaseToJSON(environment, &leases[i], now)
	}
	return all
}

// viewToJSON returns an environment as everyone may see it: the declared slots, after them
// the slots that have a lease although they are not declared, and the queue. Lists are
// empty rather than null.
func viewToJSON(v view, now time.Time) environmentJSON {
	j := environmentJSON{
		Environment: untrusted(v.name),
		Free:        max(0, len(v.slots)-len(v.leases)),
		Slots:       []slotJSON{},
		Queue:       []waiterJSON{},
	}
	bySlot := map[untrusted]*leaseJSON{}
	for _, l := range leasesToJSON(v.name, v.leases, now) {
		bySlot[l.Slot] = &l
	}
	for _, s := range v.slots {
		j.Slots = append(j.Slots, slotJSON{untrusted(s), bySlot[untrusted(s)]})
		delete(bySlot, untrusted(s))
	}
	for _, l := range v.leases {
		if other := bySlot[untrusted(l.slot)]; other != nil {
			j.Slots = append(j.Slots, slotJSON{untrusted(l.slot), other})
		}
	}
	for i, w := range v.queue {
		j.Queue = append(j.Queue, waiterJSON{
			Position:      i + 1,
			Holder:        untrusted(w.holder),
			URL:           untrusted(w.url),
			Reason:        untrusted(w.reason),
			Since:         wireTime(w.since),
			WaitedSeconds: max(0, now.Sub(w.since).Seconds()),
			Connected:     w.connected,
		})
	}
	return j
}

// endToJSON returns the end of a lease or request, nil for a nil event.
func endToJSON(e *event) *endJSON {
	if e == nil {
		return nil
	}
	return &endJSON{
		How:  untrusted(e.kind.String()),
		At:   wireTime(e.at),
		Slot: untrusted(e.slot),
		By:   untrusted(e.by),
	}
}

// wireTime returns a time as it is sent: in UTC, cut to milliseconds.
func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
