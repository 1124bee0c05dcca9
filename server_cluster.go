package main

// Several servers on one etcd. One of them leads: it has a keeper, as a server on a file has.
// The others pass calls on to it (server_pass.go). When it ends, or cannot prove any more that it
// leads, its keeper is closed and another server makes one. Which that is, the etcd files decide.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// takeoverAbsence is how much longer than usually a waiter may be away after a server has begun to
// lead. A client may be in a poll of a machine that has vanished, and does not notice before the
// poll's time is over: 25 s, 3 s for the answer, and 2 s until it asks the next server.
const takeoverAbsence = 30*time.Second - maxAbsence

// lastAnswers is how long a server that is told to stop waits for the answers to what it has
// committed, before it lets another one lead. Then it may not send them any more.
const lastAnswers = 200 * time.Millisecond

// reloadPause is how long a server waits before it tries to lead again after it could not load
// the state.
const reloadPause = 5 * time.Second

// A cluster is a server among several on one etcd.
type cluster struct {
	base      *server // what does not depend on who leads: keys, metrics, log. It has no keeper
	candidate *candidate
	newKeeper func(s keeperStore) (*keeper, error)
	onLead    func(k *keeper, isProven func() bool) (stop func()) // starts what a leader does besides

	settings sync.Mutex // held while the leadership is given what base has

	info    atomic.Pointer[leaderInfo] // what this server says while it leads
	lead    atomic.Pointer[leadership] // nil unless this server leads
	other   atomic.Pointer[otherLeader]
	standby http.Handler // of the calls while this server does not lead

	transport *http.Transport // to other servers

	isAway bool // etcd did not answer; it is logged once
	twin   struct {
		term  int64 // in which a leader has the address of this server; zero if none is known to
		since time.Time
	}
}

// A leadership is what a server has while it leads.
type leadership struct {
	term      *etcdTerm
	server    *server
	handler   http.Handler
	announced leaderInfo   // what the leader's key says
	calls     sync.RWMutex // each call holds it for reading until it is answered
}

// waitForAnswers returns when nobody holds calls for reading, or after limit.
func waitForAnswers(calls *sync.RWMutex, limit time.Duration) {
	answered := make(chan struct{})
	go func() {
		calls.Lock()
		defer calls.Unlock()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(limit):
	}
}

// serveShared serves on a listener, with the state in etcd, until ctx ends. onLead is called with
// each keeper, and what it returns when that keeper is closed. reload starts to read files again.
func (s *server) serveShared(
	ctx context.Context, c serverConfig, reload func() (stop func()), listener net.Listener,
	onLead func(k *keeper, isProven func() bool) (stop func()),
) error {
	settings, err := newEtcdSettings(c)
	if err != nil {
		return err
	}
	authority, err := authorities(c.CAFile, "CALL_ME_CA_FILE")
	if err != nil {
		return err
	}
	memory := limitMemory()
	defer adjustGarbage()()
	limits := newKeeperLimits(c, memory)
	limits.absence = takeoverAbsence
	cl := &cluster{base: s, candidate: newCandidate(settings), transport: newPassTransport(authority)}
	defer cl.candidate.close()
	cl.newKeeper = func(store keeperStore) (*keeper, error) {
		return newKeeper(store, s.declared().slotsOf, limits, keeperLog{s.metrics, s.log})
	}
	cl.onLead = func(k *keeper, isProven func() bool) func() {
		logHistory(s.log, c, k, memory)
		return onLead(k, isProven)
	}
	s.leads = cl.leads
	info := leaderInfo{Name: c.Advertise[0], URL: c.Advertise[0], Version: version()}
	info.Settings, info.Slots = settingsDigests(c, s.declared(), *s.keys.keys.Load())
	cl.info.Store(&info)
	cl.standby = cl.standbyRoutes()
	if err := cl.checkEtcd(ctx, settings); err != nil {
		return err
	}
	if warning := c.unusedDB(); warning != "" {
		s.log.Warn(warning)
	}
	s.onReload = cl.reloaded
	defer reload()()
	s.log.Info("serving", "address", listener.Addr().String(), "tls", c.TLSCertificate != "",
		"store", c.Store.String(),
		"environments", s.declared().String())
	return cl.serve(ctx, listener)
}

// leads returns 1 while this server leads, else 0.
func (c *cluster) leads() float64 {
	if l := c.lead.Load(); l != nil && l.term.isProven() {
		return 1
	}
	return 0
}

// serve answers calls until ctx ends, or until one of listener and run fails. Another server can
// lead before the calls under way have their answers.
func (c *cluster) serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := c.base.http(c)
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	go func() { ran <- c.run(ctx) }()
	var err error
	select {
	case err = <-ran:
	case err = <-served:
		err = fmt.Errorf("serving: %w", err)
		cancel()
		<-ran
	}
	c.base.log.Info("stopping")
	limited, end := context.WithTimeout(context.Background(), stopTime)
	defer end()
	h.Shutdown(limited)
	h.Close()
	return err
}

// run leads whenever nobody else does, and follows the leader meanwhile, until ctx ends. Then it
// lets another server lead at once, and returns nil. The error is why the process should end.
func (c *cluster) run(ctx context.Context) error {
	defer func() {
		if o := c.other.Load(); o != nil {
			waitForAnswers(&o.calls, lastAnswers)
		}
		c.follow(etcdMeta{})
	}()
	notBefore := time.Now() // after a term that has failed the others come first
	for ctx.Err() == nil {
		m, err := c.candidate.look(ctx)
		if err == nil {
			c.follow(m)
		}
		err = c.checkTwin(m, err)
		if errors.Is(err, errTwin) {
			return err
		}
		if err == nil && m.leader == nil {
			err = c.mayLead(ctx, m)
		}
		if err == nil && m.leader == nil && ctx.Err() == nil && time.Now().After(notBefore) {
			info := *c.info.Load()
			info.Since = time.Now().UTC()
			var term *etcdTerm
			if term, err = c.candidate.stand(ctx, info); term != nil {
				c.logAway(nil)
				pause, err := c.serveTerm(ctx, term, info)
				if err != nil {
					return err
				}
				notBefore = time.Now().Add(pause)
				continue
			}
		}
		c.logAway(err)
		sleepUntil(ctx, c.candidate.times.poll)
	}
	return nil
}

// mayLead returns why this server must not lead, if there is a reason: a state that it cannot use, or
// a first one in an etcd of which it does not reach most members. That could be the wrong one.
func (c *cluster) mayLead(ctx context.Context, m etcdMeta) error {
	if m.invalid != nil || m.state != 0 {
		return m.invalid
	}
	hasMost, err := c.candidate.client.checkCluster(ctx, c.candidate.keys)
	if err == nil && !hasMost {
		err = fmt.Errorf("%w: most members must, to begin without a state", errStoreAway)
	}
	return err
}

// checkTwin returns an error if another server leads whose address is that of this one, and err
// otherwise, which is that of the look. After a start, the key of this server's own last life may be
// there until its lease has ended; without a quorum none ends.
func (c *cluster) checkTwin(m etcdMeta, err error) error {
	own := c.info.Load().URL
	switch {
	case err != nil || m.leader == nil || m.leader.URL != own:
		c.twin.term = 0
	case c.twin.term != m.term:
		c.twin.term, c.twin.since = m.term, time.Now()
	case time.Since(c.twin.since) > 4*c.candidate.times.ttl:
		return withHint(fmt.Errorf("%w: %s", errTwin, own),
			"give each server a CALL_ME_ADVERTISE of its own")
	}
	return err
}

// sleepUntil returns after d, or when ctx ends.
func sleepUntil(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// logAway logs that etcd does not answer, or refuses, once until it answers again.
func (c *cluster) logAway(err error) {
	switch {
	case err != nil && !c.isAway && !errors.Is(err, context.Canceled):
		log := c.base.log
		if errors.Is(err, errNoSpace) {
			log = log.With("hint", spaceHint)
		}
		log.Warn("etcd cannot be used", "error", err)
		c.isAway = true
	case err == nil && c.isAway:
		c.base.log.Info("etcd answers again")
		c.isAway = false
	}
}

// serveTerm serves with a keeper until the term or ctx ends. It returns for how long the other servers
// come first then, or the error of a state that cannot be loaded, or errHung if the keeper cannot be
// closed: it may still use what it has. announced is what the leader's key says.
func (c *cluster) serveTerm(
	ctx context.Context, term *etcdTerm, announced leaderInfo,
) (pause time.Duration, err error) {
	loaded := context.AfterFunc(ctx, func() { term.end(errStopping) })
	k, err := c.newKeeper(term.store())
	loaded()
	if err != nil {
		if ctx.Err() == nil {
			c.base.log.Error("this server cannot lead", "error", err)
		}
		term.resign()
		if errors.Is(err, errDamaged) || errors.Is(err, errForeign) {
			return 0, withHint(err, "the keys were left as they are; "+
				"docs/two-servers.md says how to restore a backup")
		}
		return reloadPause, nil
	}
	term.expectCalls()
	s := c.base.withKeeper(k)
	stop := c.onLead(k, term.isProven)
	go c.watchSpace(term)
	c.follow(etcdMeta{})
	l := &leadership{term: term, server: s, handler: s.routes(), announced: announced}
	c.lead.Store(l)
	go c.useSettings(l) // they may have been read again; a keeper that hangs has no time for it
	c.base.log.Info("leading", "term", term.number, "leases", k.published.Load().count)
	select {
	case <-ctx.Done():
	case <-term.ctx.Done():
		c.base.log.Warn("leading no more", "term", term.number, "reason", context.Cause(term.ctx))
	}
	c.lead.Store(nil)
	closed := make(chan struct{})
	go func() { defer close(closed); k.close() }()
	select {
	case <-closed:
	case <-time.After(c.candidate.times.ttl):
		term.resign()
		return 0, errHung
	}
	waitForAnswers(&l.calls, lastAnswers)
	term.resign()
	stop()
	return 3 * c.candidate.times.poll, nil
}

// withKeeper returns a server with a keeper, and with the keys and all else of s.
func (s *server) withKeeper(k *keeper) *server {
	next := &server{keeper: k, defaultTTL: s.defaultTTL, log: s.log, metrics: s.metrics,
		trustedProxies: s.trustedProxies, leads: s.leads}
	next.declaration.Store(s.declaration.Load())
	next.keys.set(*s.keys.keys.Load())
	next.tokens.Store(s.tokens.Load())
	return next
}

// reloaded gives the leading server the settings that were read again.
func (c *cluster) reloaded(config serverConfig) {
	info := *c.info.Load()
	info.Settings, info.Slots = settingsDigests(config, c.base.declared(), *c.base.keys.keys.Load())
	c.info.Store(&info)
	if l := c.lead.Load(); l != nil {
		c.useSettings(l)
	}
}

// useSettings gives the leading server the settings that base has now, and tells the other servers
// if these are not those that it announced.
func (c *cluster) useSettings(l *leadership) {
	c.settings.Lock()
	defer c.settings.Unlock()
	l.server.keys.set(*c.base.keys.keys.Load())
	l.server.tokens.Store(c.base.tokens.Load())
	l.server.declaration.Store(c.base.declaration.Load())
	l.server.keeper.declare(c.base.declared().slotsOf)
	info := *c.info.Load()
	if info.hasSettingsOf(l.announced) {
		return
	}
	info.Since = l.announced.Since
	if err := l.term.announce(info); err != nil {
		if l.term.ctx.Err() == nil {
			c.base.log.Warn("the other servers do not know of the new settings yet", "error", err)
		}
		return
	}
	l.announced = info
}
