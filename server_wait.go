package main

// Waiting in a queue from the status page. A browser cannot ask for the slot again and again as
// a client does, at least without a script, so the server keeps the request connected for as
// long as its viewer looks at the page.

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

const (
	pageIDPrefix = "page-" // begins the ids of the requests that the page makes
	pageLookTime = 3 * time.Minute
	pagePoll     = 15 * time.Second

	// pageClaim is how long a slot that was waited for is kept until the viewer confirms.
	pageClaim = 5 * time.Minute
)

// attendance has the waiters that are kept connected, and when their viewers last looked. The
// zero value is ready to use.
type attendance struct {
	mu    sync.Mutex
	looks map[string]time.Time // by the environment and the id
}

// attend keeps the waiters of a viewer in an environment connected for the next pageLookTime,
// if the page has made their requests. Afterwards, or when the key is removed, they lose their
// place as others do whose caller has gone. It also does so after a start of the server.
func (s *server) attend(v *view, viewer string, who caller, now time.Time) {
	for _, w := range v.queue {
		isOfPage := w.holder == viewer && who.owns(w.key) && strings.HasPrefix(w.id, pageIDPrefix)
		if isOfPage && s.attendance.look(v.name, w.id, now) {
			go s.keepConnected(v.name, w.request, who)
		}
	}
}

// look notes that a viewer looks. isNew is true if the request is not kept connected yet.
func (a *attendance) look(name, id string, now time.Time) (isNew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looks == nil {
		a.looks = map[string]time.Time{}
	}
	_, isKnown := a.looks[name+"\x00"+id]
	a.looks[name+"\x00"+id] = now
	return !isKnown
}

// end reports whether nobody has looked for pageLookTime, and forgets the request then, or if
// it must.
func (a *attendance) end(name, id string, must bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	isOver := must || time.Since(a.looks[name+"\x00"+id]) > pageLookTime
	if isOver {
		delete(a.looks, name+"\x00"+id)
	}
	return isOver
}

// keepConnected asks for the slot of a waiter again and again, until the request has ended or
// nobody looks any more.
func (s *server) keepConnected(name string, req request, who caller) {
	ctx, end := s.keys.watch(context.Background(), who)
	defer end()
	for {
		c := &call{kind: callRequest, environment: name, request: req, wait: true, claim: pageClaim}
		rep := s.keeper.requestSlot(ctx, c, pagePoll)
		if s.attendance.end(name, req.id, !errors.Is(rep.err, errNoSlot)) {
			return
		}
	}
}

// isClaim reports whether a lease has come to a viewer who waited on the page, and who has not
// confirmed yet that it is wanted.
func isClaim(l leaseView) bool {
	isShorter := l.ttl == 0 || l.ttl > pageClaim
	return strings.HasPrefix(l.id, pageIDPrefix) && isShorter && l.waited > 0 && !l.deadline.IsZero() &&
		l.deadline.Sub(l.since) < pageClaim+pageLookTime/6
}
