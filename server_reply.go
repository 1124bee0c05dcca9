package main

// Answers: what goes out, whether it is a yes or a refusal with its reasons.

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

// refuse answers an error. Those that the table does not know are ours, and
// only the log may see them.
func (s *server) respondError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	var told replyError
	if errors.As(err, &told) && errors.Is(err, errUndeclared) {
		err = s.undeclared(told.name)
	}
	body := errorJSON{Code: status, Message: untrusted(err.Error())}
	if errors.As(err, &told) {
		body = told.json(status, time.Now())
	}
	switch status {
	case http.StatusInternalServerError:
		s.log.Error("answering failed", "method", r.Method, "path", r.URL.Path, "error", err)
		body.Message = untrusted(errInternal.Error())
	case http.StatusUnauthorized:
		if !fromScript(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="call-me", charset="UTF-8"`)
		}
	case http.StatusRequestEntityTooLarge: // what is left of it is not read
		w.Header().Set("Connection", "close")
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
		if errors.Is(err, errStopping) {
			w.Header().Set("Connection", "close")
		}
	}
	writeJSON(w, status, body)
}

// fromScript reports whether the status page's script sends the call, or its
// event stream. The script shows itself that the key is not accepted; with
// WWW-Authenticate in the answer the browser would ask for a login first.
func fromScript(r *http.Request) bool {
	return r.Header.Get("X-Requested-With") == "call-me" || r.Header.Get("Accept") == "text/event-stream"
}

// A refusal is an answer of the keeper that is an error.
type replyError struct {
	name string
	reply
}

func (r replyError) Error() string { return r.err.Error() }

func (r replyError) Unwrap() error { return r.err }

func (r replyError) json(status int, now time.Time) errorJSON {
	return errorJSON{Code: status, Message: untrusted(r.message(now)), Environment: untrusted(r.name), Position: r.position,
		HeldBy: leasesToJSON(r.name, r.held, now), Ended: endToJSON(r.ended)}
}

// message says what and why in one line.
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
	for i, l := range r.held {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(r.held)-i)
			break
		}
		b.WriteString(map[bool]string{true: "; held by ", false: ", "}[i == 0])
		fmt.Fprintf(&b, "%s since %s", cmp.Or(l.holder, "somebody who gave no name"), wireTime(l.since).Format(time.RFC3339))
	}
	return b.String()
}

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

// allowed is the status of a call of 2019: this one, or no.
func status2019(yes bool, status int) int {
	if yes {
		return status
	}
	return http.StatusForbidden
}

// writeEmpty answers as in 2019: a status and nothing else.
func writeEmpty(w http.ResponseWriter, status int) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.WriteHeader(status)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, body any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return err
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(b.Bytes())
	return nil
}

func leaseToJSON(environment string, l *lease, now time.Time) leaseJSON {
	j := leaseJSON{Environment: untrusted(environment), Slot: untrusted(l.slot), Holder: untrusted(l.holder), URL: untrusted(l.url),
		Reason: untrusted(l.reason), Fence: l.fence, Since: wireTime(l.since), TTLSeconds: l.ttl.Seconds(), WaitedSeconds: l.waited.Seconds(), HeldSeconds: max(0, now.Sub(l.since).Seconds())}
	if !l.deadline.IsZero() {
		until := wireTime(now.Add(l.deadline.Sub(now)))
		j.Until = &until
	}
	return j
}

func leasesToJSON(environment string, leases []lease, now time.Time) []leaseJSON {
	all := make([]leaseJSON, len(leases))
	for i := range leases {
		all[i] = leaseToJSON(environment, &leases[i], now)
	}
	return all
}

// viewToJSON lists the declared slots, and after them those that have a lease
// though they are not declared.
func viewToJSON(v view, now time.Time) environmentJSON {
	j := environmentJSON{Environment: untrusted(v.name), Free: max(0, len(v.slots)-len(v.leases)), Slots: []slotJSON{}, Queue: []waiterJSON{}}
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
	for i, p := range v.queue {
		j.Queue = append(j.Queue, waiterJSON{Position: i + 1, Holder: untrusted(p.holder), URL: untrusted(p.url), Reason: untrusted(p.reason),
			Since: wireTime(p.since), WaitedSeconds: max(0, now.Sub(p.since).Seconds()), Connected: p.connected})
	}
	return j
}

func endToJSON(e *event) *endJSON {
	if e == nil {
		return nil
	}
	return &endJSON{How: untrusted(e.kind.String()), At: wireTime(e.at), Slot: untrusted(e.slot), By: untrusted(e.by)}
}

func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
