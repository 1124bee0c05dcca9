package main

// The HTTP API: routes, the key check, and one short handler for each call.
// server_run.go starts and stops it.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// answerTime is how long a caller may take to read an answer.
const answerTime = 10 * time.Second

// A server answers HTTP calls from a keeper.
type server struct {
	keeper     *keeper
	declared   declaredEnvironments
	defaultTTL time.Duration
	log        *slog.Logger
	metrics    *metrics
	keys       keyring
	wrong      wrongKeyLimit
	trusted    proxies
	database   string     // copies of the file are made beside it
	copying    sync.Mutex // one copy of the file at a time
}

// routes is the whole API. A handler's error is answered as JSON.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	route := func(path string, methods map[string]handler) {
		name := strings.TrimSuffix(path, "{$}")
		for method, h := range methods {
			mux.Handle(method+" "+path, s.handle(name, h)) // GET serves HEAD too
		}
		mux.Handle(path, s.handle(name, s.withKey(notAllowed(methods))))
	}
	get := func(path string, h handler) { route(path, map[string]handler{http.MethodGet: h}) }
	route("/maybe", map[string]handler{
		http.MethodGet:    s.withKey(s.check),
		http.MethodPost:   s.withKey(s.request),
		http.MethodPut:    s.withKey(s.renew),
		http.MethodDelete: s.withKey(s.release),
	})
	get("/environments", s.withKey(s.environments))
	get("/history", s.withKey(s.history))
	get("/events", s.withKey(s.events))
	get("/backup", s.withKey(s.backup))
	get("/healthz", s.health)
	get("/{$}", s.withKey(s.page))
	get("/page.css", s.withKey(serveAsset("page.css", "text/css; charset=utf-8")))
	get("/page.js", s.withKey(serveAsset("page.js", "text/javascript; charset=utf-8")))
	get("/events.js", s.withKey(serveAsset("events.js", "text/javascript; charset=utf-8")))
	get("/openapi.yaml", s.withKey(serveAsset("openapi.yaml", "application/yaml")))
	get("/metrics", s.withKey(s.metricsHandler()))
	notFound := s.handle("other", s.withKey(func(http.ResponseWriter, *http.Request) error { return errNotFound }))
	mux.Handle("/", notFound)

	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(s.handle("cross-origin", func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("%w: a page of another site may not call this", errMalformed)
	}))
	return guard.Handler(withoutRedirects(mux, notFound))
}

// withoutRedirects keeps paths that a ServeMux would redirect, with a page for
// people, from it.
func withoutRedirects(mux, notFound http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.EscapedPath()
		clean := path.Clean("/" + asked)
		if asked != clean && (clean == "/" || asked != clean+"/") {
			notFound.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// A handler answers a call, or returns the error that is the answer.
type handler func(http.ResponseWriter, *http.Request) error

// answering turns a handler's error into its answer, and counts it under the
// route's name.
func (s *server) handle(route string, h handler) http.Handler {
	return http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // also where nobody reads the body: net/http does, in the end
			http.NewResponseController(to).SetReadDeadline(time.Now().Add(bodyTime))
		}
		if len(r.TransferEncoding) > 0 { // a length beside it cannot be seen here, and is how calls are smuggled past proxies
			to.Header().Set("Connection", "close")
		}
		w := &codeWriter{to, http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				s.respondError(w, r, fmt.Errorf("panic at %s: %v", stackLines(), p))
			}
			s.metrics.responded(route, r.Method, w.code)
		}()
		if err := h(w, r); err != nil {
			s.respondError(w, r, err)
		}
	})
}

// whereabouts names the lines of call-me that were being run, innermost first.
func stackLines() string {
	pcs := make([]uintptr, 50)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var lines []string
	for more := true; more && len(lines) < 10; {
		var f runtime.Frame
		if f, more = frames.Next(); strings.HasPrefix(f.Function, "main.") {
			lines = append(lines, fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line))
		}
	}
	return strings.Join(lines, " ")
}

// caller is who the call is made as, unless it says otherwise: the user name
// of HTTP Basic; empty: nobody.
func basicUser(r *http.Request) string {
	user, _, _ := r.BasicAuth()
	return user
}

// check answers whether a POST would be granted now.
func (s *server) check(w http.ResponseWriter, r *http.Request) error {
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	open, err := s.keeper.isOpen(name)
	switch {
	case err != nil:
		return s.undeclared(name)
	case q.plain():
		return writeEmpty(w, status2019(open, http.StatusOK))
	}
	v, err := s.keeper.view(name)
	if err == nil && !open {
		err = replyError{name: name, reply: reply{result: result{err: errNoSlot}, held: v.leases}}
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, viewToJSON(v, time.Now()))
}

// request asks for a slot, and with wait stays in the queue for it.
func (s *server) request(w http.ResponseWriter, r *http.Request) error {
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	asked, errRequest := q.request(basicUser(r), s.defaultTTL)
	wait, waits, errWait := q.wait()
	claim, _, errClaim := q.ttl("claim")
	if err := cmp.Or(errRequest, errWait, errClaim); err != nil {
		return err
	}
	c := &call{kind: callRequest, environment: name, request: asked, wait: waits, claim: claim}
	if !waits {
		return s.answerRequest(w, q, c, s.keeper.ask(c))
	}
	ctx, end := s.keys.watch(r.Context(), keySumOf(r))
	defer end()
	a := s.keeper.requestSlot(ctx, c, wait)
	switch {
	case a.lease != nil && asked.id == "" && connectionFor(r).hasLeft():
		a = s.keeper.callerGone(c)
	case errors.Is(a.err, errGone) && errors.Is(context.Cause(ctx), errKey):
		a.err = errKey
	}
	return s.answerRequest(w, q, c, a)
}

func (s *server) answerRequest(w http.ResponseWriter, q query, c *call, a reply) error {
	switch {
	case errors.Is(a.err, errKey):
		return errKey // it says nothing else
	case q.plain() && (a.err == nil || errors.Is(a.err, errNoSlot)):
		return writeEmpty(w, status2019(a.err == nil, http.StatusCreated))
	}
	if a.err != nil {
		return replyError{name: c.environment, reply: a}
	}
	lease := leaseToJSON(c.environment, a.lease, time.Now())
	if len(s.declared.names) == 0 {
		lease.Similar = untrusted(s.keeper.similar(c.environment))
	}
	return writeJSON(w, http.StatusCreated, lease)
}

// renew extends a lease.
func (s *server) renew(w http.ResponseWriter, r *http.Request) error {
	arrived := time.Now()
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	selected, errSelector := q.selector(basicUser(r))
	ttl, hasTTL, errTTL := q.ttl("ttl")
	if err := cmp.Or(errSelector, errTTL); err != nil {
		return err
	}
	if selected.id == "" && selected.holder == "" {
		return fmt.Errorf("%w: id or holder is required", errParameter)
	}
	a := s.keeper.ask(&call{kind: callRenew, environment: name, renewal: renewal{selector: selected, ttl: ttl, hasTTL: hasTTL, at: arrived}})
	if a.err != nil {
		return replyError{name: name, reply: a}
	}
	return writeJSON(w, http.StatusOK, leaseToJSON(name, a.lease, time.Now()))
}

// release ends a lease or a place in the queue.
func (s *server) release(w http.ResponseWriter, r *http.Request) error {
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	selected, errSelector := q.selector(basicUser(r))
	force, errForce := q.force()
	if err := cmp.Or(errSelector, errForce); err != nil {
		return err
	}
	d := releaseRequest{selector: selected, is2019: q.plain(), force: force}
	switch {
	case force && selected.id != "":
		return fmt.Errorf("%w: id and force exclude each other: an id ends its own lease", errParameter)
	case force:
		d.by, d.from, d.holder = selected.holder, callerAddress(r, s.trusted).String(), ""
	case !d.is2019 && selected.id == "" && selected.holder == "":
		return fmt.Errorf("%w: id, holder or force is required", errParameter)
	}
	if err := s.checkForced(name, d); err != nil {
		return err
	}
	a := s.keeper.ask(&call{kind: callRelease, environment: name, release: d})
	if a.err != nil {
		return replyError{name: name, reply: a}
	}
	return writeEmpty(w, http.StatusNoContent)
}

// checkForced refuses a forced release of a slot that there is not: that it is
// free would be true, and not what the caller wants to hear.
func (s *server) checkForced(name string, d releaseRequest) error {
	if !d.force || d.slot == "" {
		return nil
	}
	v, err := s.keeper.view(name)
	if err != nil {
		return nil // the release says why
	}
	slots := slices.Clone(v.slots)
	for _, l := range v.leases {
		if !slices.Contains(slots, l.slot) {
			slots = append(slots, l.slot)
		}
	}
	if len(slots) == 0 || slices.Contains(slots, d.slot) {
		return nil
	}
	return fmt.Errorf("%w: %q is no slot of %q; it has %s", errParameter, d.slot, name, strings.Join(slots[:min(len(slots), 5)], ", "))
}

// environments shows who has what, and who waits.
func (s *server) environments(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	all := environmentsJSON{Environments: []environmentJSON{}}
	views := []view{}
	if _, one := q.find("environment"); one {
		name, err := q.environment()
		if err != nil {
			return err
		}
		v, err := s.keeper.view(name)
		if err != nil {
			return s.undeclared(name)
		}
		views = append(views, v)
	} else {
		views = s.keeper.views(s.declared.names)
	}
	now := time.Now()
	for _, v := range views {
		all.Environments = append(all.Environments, viewToJSON(v, now))
	}
	return writeJSON(w, http.StatusOK, all)
}

// health answers 200 while the disk takes what is stored.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Connection", "close") // it needs no key, and must not keep a connection
	if !s.keeper.isHealthy.Load() {
		return fmt.Errorf("%w: storing fails", errUnavailable)
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// read returns what the call has sent and the environment that it names.
func (s *server) readCall(w http.ResponseWriter, r *http.Request) (query, string, error) {
	q, err := readQuery(w, r)
	if err != nil {
		return nil, "", err
	}
	name, err := q.environment()
	return q, name, err
}

func (s *server) undeclared(name string) error {
	return fmt.Errorf("%w: %q is not declared%s", errUndeclared, name, didYouMean(name, s.declared.names))
}

// notAllowed answers the methods that a path does not have.
func notAllowed(methods map[string]handler) handler {
	var allow []string
	for method := range methods {
		if allow = append(allow, method); method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return errMethod
	}
}
