package main

// What a server answers that shares its state with others: what the leader does not answer itself
// is passed on to it, so that any server can be asked.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// passedHeader is the header of a call that another server has passed on. A server that does not
// lead refuses it, so that no call goes round in a circle.
const passedHeader = "Call-Me-Passed"

// idempotencyKeys are the headers with which net/http's client sends a call again that may have
// been answered. They mean nothing to call-me, whose calls are safe to send again if they have an id.
var idempotencyKeys = []string{"Idempotency-Key", "X-Idempotency-Key"}

// leaderSilence is for how long a leader that does not answer counts as reachable.
const leaderSilence = 5 * time.Second

// errNoLeader is the answer while no server can answer.
var errNoLeader = fmt.Errorf("%w: no server leads at the moment; try again with the same id", errUnavailable)

// An otherLeader is another server that leads.
type otherLeader struct {
	term  int64
	url   string
	info  atomic.Pointer[leaderInfo] // another one when it has read its settings again
	proxy *httputil.ReverseProxy

	ctx      context.Context // ends when it leads no more: then the calls that it was passed end
	stop     context.CancelFunc
	calls    sync.RWMutex // each call that is passed holds it for reading until it is answered
	answered atomic.Int64 // when it last answered, in Unix nanoseconds
}

// follow notes who leads, by what was read of etcd: nobody, this server, or another.
func (c *cluster) follow(m etcdMeta) {
	before := c.other.Load()
	isOther := m.leader != nil && m.leader.URL != c.info.Load().URL
	if before != nil && isOther && before.term == m.term && before.url == m.leader.URL {
		if !before.info.Swap(m.leader).hasSettingsOf(*m.leader) {
			c.compare(*m.leader)
		}
		return
	}
	var next *otherLeader
	if isOther {
		target, err := url.Parse(m.leader.URL)
		if err == nil {
			next = &otherLeader{term: m.term, url: m.leader.URL, proxy: c.newProxy(target)}
			next.info.Store(m.leader)
			next.ctx, next.stop = context.WithCancel(context.Background())
			go c.watch(next, target)
			c.base.log.Info("standing by", "leader", m.leader.Name, "url", m.leader.URL)
			c.compare(*m.leader)
		}
	}
	c.other.Store(next)
	if before != nil {
		before.stop()
	}
}

// compare logs what is not the same on the leader and this server.
func (c *cluster) compare(leader leaderInfo) {
	own := c.info.Load()
	switch {
	case leader.Slots != own.Slots:
		c.base.log.Error("the leader has other environments than this server", "leader", leader.Name)
	case leader.Settings != own.Settings:
		c.base.log.Warn("the leader has other settings than this server: keys, facts, ttl or limits",
			"leader", leader.Name)
	}
}

// newProxy returns what passes calls on to a server.
func (c *cluster) newProxy(target *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: c.transport,
		ErrorLog:  newErrorLog(c.base.log),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = target.Scheme, target.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery // without it, what cannot be parsed is left out
			p.Out.Host = p.In.Host                 // by which the leader knows a call of another site
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			if host, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
				p.Out.Header.Add("X-Forwarded-For", host)
			}
			for _, name := range idempotencyKeys {
				p.Out.Header.Del(name)
			}
			p.Out.Header.Set(passedHeader, c.info.Load().Name)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set(versionHeader, apiVersion)
			c.base.respondError(w, r, errNoLeader)
		},
	}
}

// newPassTransport returns the transport to other servers. authority is who vouches for them; nil
// is the system's.
func newPassTransport(authority *x509.CertPool) *http.Transport {
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
	dialer := &net.Dialer{Timeout: 2 * time.Second, KeepAliveConfig: keepAlive}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 2 * time.Second,
		MaxIdleConnsPerHost: 1000,
		IdleConnTimeout:     idleTime / 2, // the leader must not close one while it is used
		DisableCompression:  true,
		Protocols:           onlyHTTP1(),
	}
}

// watch asks a leader once a second whether it leads, as long as it is the leader.
func (c *cluster) watch(o *otherLeader, target *url.URL) {
	client := &http.Client{Transport: c.transport, Timeout: 2 * time.Second}
	address := target.JoinPath("/healthz").String() + "?leader=1"
	isReached := true
	for o.ctx.Err() == nil {
		request, err := http.NewRequestWithContext(o.ctx, http.MethodGet, address, nil)
		if err != nil {
			return
		}
		response, err := client.Do(request)
		switch {
		case o.ctx.Err() != nil:
			// err is that nobody asks any more
		case err != nil && isReached:
			c.base.log.Warn("the leader does not answer", "url", o.url, "error", err)
		case err == nil && !isReached:
			c.base.log.Info("the leader answers again", "url", o.url)
		}
		isReached = err == nil
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				o.answered.Store(time.Now().UnixNano())
			}
		}
		sleepUntil(o.ctx, time.Second)
	}
}

// isReachable reports whether the leader has answered this server a short time ago.
func (o *otherLeader) isReachable() bool {
	return time.Since(time.Unix(0, o.answered.Load())) < leaderSilence
}

// ServeHTTP answers as a server on a file does while this server leads and can prove it. Otherwise
// it passes the call on.
func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	connectionFor(r).setGuard(nil)
	l := c.lead.Load()
	if r.URL.Path == "/healthz" || l == nil {
		c.standby.ServeHTTP(w, r)
		return
	}
	if !l.calls.TryRLock() { // it is about to end
		c.refuse(w, r)
		return
	}
	defer l.calls.RUnlock()
	if !l.term.isProven() {
		c.refuse(w, r)
		return
	}
	l.handler.ServeHTTP(&provenWriter{ResponseWriter: w, cluster: c, term: l.term, request: r}, r)
	if c.lead.Load() != l { // the answer must be sent before another server leads
		http.NewResponseController(w).Flush()
	}
}

// refuse answers that no server leads.
func (c *cluster) refuse(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(versionHeader, apiVersion)
	c.base.respondError(w, r, errNoLeader)
}

// standbyRoutes returns the handler of the calls while this server does not lead, and of GET
// /healthz in any case.
func (c *cluster) standbyRoutes() http.Handler {
	s, mux := c.base, http.NewServeMux()
	own := func(path string, h handler) { mux.Handle("GET "+path, s.handle(path, h)) }
	own("/healthz", c.health)
	own("/metrics", s.withKey(actionMetrics, notFromOtherSites(s.metricsHandler())))
	own("/page.css", s.withKey(actionLook, serveAsset("web/page.css", "text/css; charset=utf-8")))
	own("/page.js", s.withKey(actionLook, serveAsset("web/page.js", "text/javascript; charset=utf-8")))
	own("/openapi.yaml", s.withKey(actionLook, serveAsset("openapi.yaml", "application/yaml")))
	passed := s.handle("passed", c.pass)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isLook := r.Method == http.MethodGet || r.Method == http.MethodHead
		if h, pattern := mux.Handler(r); pattern != "" && isLook {
			h.ServeHTTP(w, r)
			return
		}
		passed.ServeHTTP(w, r)
	})
}

// pass passes a call on to the leader. A call without an accepted key gets its answer here.
func (c *cluster) pass(w http.ResponseWriter, r *http.Request) error {
	_, err := c.base.authenticate(r)
	switch {
	case errors.Is(err, errUnavailable):
		return err
	case err != nil:
		return c.base.rejectKey(w, r, err)
	}
	connectionFor(r).showedKey()
	o := c.other.Load()
	if o == nil || r.Header.Get(passedHeader) != "" || !o.calls.TryRLock() {
		return errNoLeader
	}
	defer o.calls.RUnlock()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(o.ctx, cancel)
	defer stop()
	w.Header().Del(versionHeader) // the leader's answer has it, but for those to calls of 2019
	o.proxy.ServeHTTP(patientWriter{w}, r.WithContext(ctx))
	return nil
}

// A patientWriter is the ResponseWriter of a call that is passed on. It waits no longer than
// writeTime for a client that does not read.
type patientWriter struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (w patientWriter) Write(p []byte) (int, error) {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTime))
	return w.ResponseWriter.Write(p)
}

// Unwrap returns the inner ResponseWriter, for http.ResponseController.
func (w patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// health answers GET /healthz: 200 on the leader while commits succeed, and on a standby while the
// leader answers. With leader=1 it is 200 on the leader only, also while commits fail: what needs
// none, such as renewals, must go on.
func (c *cluster) health(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Connection", "close")
	answer := map[string]string{"status": "ok", "role": "leader"}
	l, o, mustLead := c.lead.Load(), c.other.Load(), r.URL.Query().Get("leader") == "1"
	switch {
	case l != nil && l.term.isProven():
		if !mustLead && !l.server.keeper.isHealthy.Load() {
			return fmt.Errorf("%w: storing fails", errUnavailable)
		}
		return writeJSON(w, http.StatusOK, answer)
	case o == nil || !o.isReachable():
		return errNoLeader
	case mustLead:
		return fmt.Errorf("%w: %s leads", errUnavailable, o.info.Load().Name)
	}
	answer["role"], answer["leader"] = "standby", o.url
	if o.info.Load().Settings != c.info.Load().Settings {
		answer["settings"] = "not those of the leader"
	}
	return writeJSON(w, http.StatusOK, answer)
}

// A provenWriter is the ResponseWriter of a leader. It sends nothing that was read from memory
// once the newest proof of the leadership is too old: a process that was stopped between reading
// and writing would send what its successor has changed. A header is replaced by that of 503.
// After that the connection asks for the proof before each write, and ends if there is none, so
// that nobody takes what was sent for the whole.
type provenWriter struct {
	http.ResponseWriter
	cluster *cluster
	term    *etcdTerm
	request *http.Request
	isSent  bool // the header
	refused bool // 503 was sent instead of the answer
}

// WriteHeader implements http.ResponseWriter.
func (w *provenWriter) WriteHeader(code int) {
	switch {
	case w.refused || w.isSent:
	case !w.term.isProven():
		w.refused = true
		clear(w.Header())
		w.cluster.refuse(w.ResponseWriter, w.request)
	default:
		w.isSent = true
		if code < http.StatusInternalServerError {
			connectionFor(w.request).setGuard(w.term.isProven)
		}
		w.ResponseWriter.WriteHeader(code)
	}
}

// Write implements http.ResponseWriter.
func (w *provenWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (w *provenWriter) FlushError() error {
	if w.refused {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap returns the inner ResponseWriter, for http.ResponseController.
func (w *provenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
