package main

// The HTTP API: the table of routes, the wrapper around every handler, and the
// handlers of /maybe, /environments and /healthz. The other handlers are in
// server_history.go, server_events.go, server_backup.go, server_metrics.go and
// server_page.go. server_auth.go checks keys, server_params.go reads parameters,
// server_reply.go writes responses, server_run.go starts and stops the server.

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

// writeTime is the write deadline of a response, or of one part of a long one: how
// long a client may take to read it.
const writeTime = 10 * time.Second

// A server answers HTTP calls from the state of one keeper. Its methods are safe for
// concurrent use. The caller closes the keeper.
type server struct {
	keeper         *keeper
	declared       declaredEnvironments
	defaultTTL     time.Duration // of requests without a ttl; zero if their leases do not expire
	log            *slog.Logger
	metrics        *metrics
	keys           keyring
	wrongKeys      wrongKeyLimit
	trustedProxies proxies    // proxies whose X-Forwarded-For is used
	database       string     // path of the database file; copies are written beside it
	copying        sync.Mutex // held while a copy is made and sent: one at a time
}

// routes returns the handler of the whole API. Every route but GET /healthz requires
// a key. An unknown path is errNotFound, an unknown method of a known path is
// errMethod. A cross-origin call of a browser is errMalformed, unless its method is GET,
// HEAD or OPTIONS.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	route := func(path string, methods map[string]handler) {
		name := strings.TrimSuffix(path, "{$}")
		for method, h := range methods {
			mux.Handle(method+" "+path, s.handle(name, h)) // a GET pattern matches HEAD too
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
	get("/history", s.withKey(notFromOtherSites(s.history)))
	get("/events", s.withKey(notFromOtherSites(s.events)))
	get("/backup", s.withKey(notFromOtherSites(s.backup)))
	get("/healthz", s.health)
	get("/{$}", s.withKey(s.page))
	get("/page.css", s.withKey(serveAsset("web/page.css", "text/css; charset=utf-8")))
	get("/page.js", s.withKey(serveAsset("web/page.js", "text/javascript; charset=utf-8")))
	get("/events.js", s.withKey(serveAsset("web/events.js", "text/javascript; charset=utf-8")))
	get("/openapi.yaml", s.withKey(serveAsset("openapi.yaml", "application/yaml")))
	get("/metrics", s.withKey(notFromOtherSites(s.metricsHandler())))
	notFound := s.handle("other", s.withKey(func(http.ResponseWriter, *http.Request) error {
		return errNotFound
	}))
	mux.Handle("/", notFound)

	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(s.handle("cross-origin", func(http.ResponseWriter, *http.Request) error {
		return errOtherSite
	}))
	return guard.Handler(withoutRedirects(mux, notFound))
}

// withoutRedirects passes calls to mux, except for paths that a ServeMux would
// redirect with an HTML page, such as //maybe and /a/../b. Those go to notFound.
func withoutRedirects(mux, notFound http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		escaped := r.URL.EscapedPath()
		clean := path.Clean("/" + escaped)
		if escaped != clean && (clean == "/" || escaped != clean+"/") {
			notFound.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// A handler answers a call. If it returns an error, it has written neither a status nor
// a body, and respondError sends the error.
type handler func(http.ResponseWriter, *http.Request) error

// handle returns an http.Handler that calls h, sends its error with respondError, and
// counts the response in the metrics under the name of the route. A panic of h is
// logged with its place in the source, and sent as errInternal. The body of a request
// must arrive within bodyTime.
func (s *server) handle(route string, h handler) http.Handler {
	return http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		// The deadline is set also for handlers that do not read the body: net/http
		// reads the rest of it after the handler.
		if r.ContentLength != 0 {
			http.NewResponseController(to).SetReadDeadline(time.Now().Add(bodyTime))
		}
		// net/http removes a Content-Length beside Transfer-Encoding, so that it cannot
		// be rejected here. Both together are used to smuggle requests past proxies:
		// the connection is not used again.
		if len(r.TransferEncoding) > 0 {
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

// stackLines returns the source lines of package main on the stack of the calling
// goroutine, innermost first, as "file.go:12 other.go:34". It returns 10 lines at most,
// of the 50 innermost frames. In a deferred function that recovers, the frames of the
// panic are still on the stack.
func stackLines() string {
	pcs := make([]uintptr, 50)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var lines []string
	for len(lines) < 10 {
		f, more := frames.Next()
		if strings.HasPrefix(f.Function, "main.") {
			lines = append(lines, fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(lines, " ")
}

// basicUser returns the user name of HTTP Basic, empty if there is none. It is the
// holder of a call that names no holder.
func basicUser(r *http.Request) string {
	user, _, _ := r.BasicAuth()
	return user
}

// check answers GET /maybe: whether a POST without wait would be granted now. The 2019
// call gets 200 or 403 without a body. Any other call gets 200 with the environment as
// JSON, or errNoSlot with the current leases. It changes nothing.
func (s *server) check(w http.ResponseWriter, r *http.Request) error {
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	open, err := s.keeper.isOpen(name)
	switch {
	case err != nil:
		return s.undeclared(name)
	case q.is2019():
		return writeEmpty(w, status2019(open, http.StatusOK))
	}
	v, err := s.keeper.view(name)
	if err == nil && !open {
		err = replyError{name: name, reply: reply{result: result{err: errNoSlot}, leases: v.leases}}
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, viewToJSON(v, time.Now()))
}

// request answers POST /maybe: it requests a slot, and with the parameter wait it waits
// in the queue for one. The wait ends with errKey when the caller's key is removed, and
// with errGone when the connection is closed. A lease that was granted to a caller
// without an id is taken back if the connection is closed by then.
func (s *server) request(w http.ResponseWriter, r *http.Request) error {
	q, name, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	req, errRequest := q.request(basicUser(r), s.defaultTTL)
	wait, waits, errWait := q.wait()
	claim, _, errClaim := q.ttl("claim")
	if err := cmp.Or(errRequest, errWait, errClaim); err != nil {
		return err
	}
	c := &call{kind: callRequest, environment: name, request: req, wait: waits, claim: claim}
	if !waits {
		return s.respondRequest(w, q, c, s.keeper.ask(c))
	}
	ctx, end := s.keys.watch(r.Context(), keySumOf(r))
	defer end()
	rep := s.keeper.requestSlot(ctx, c, wait)
	switch {
	case rep.lease != nil && req.id == "" && connectionFor(r).hasLeft():
		rep = s.keeper.sendLeave(c)
	case errors.Is(rep.err, errGone) && errors.Is(context.Cause(ctx), errKey):
		rep.err = errKey
	}
	return s.respondRequest(w, q, c, rep)
}

// respondRequest writes the keeper's reply to a POST: 201 with the lease, 201 or 403
// without a body for the 2019 call, or it returns the error. While no environments are
// declared, the lease names an older environment with a similar name, if there is one.
func (s *server) respondRequest(w http.ResponseWriter, q query, c *call, rep reply) error {
	switch {
	case errors.Is(rep.err, errKey):
		return errKey // without the environment and its leases: the key is not valid
	case q.is2019() && (rep.err == nil || errors.Is(rep.err, errNoSlot)):
		return writeEmpty(w, status2019(rep.err == nil, http.StatusCreated))
	}
	if rep.err != nil {
		return replyError{name: c.environment, reply: rep}
	}
	lease := leaseToJSON(c.environment, rep.lease, time.Now())
	if len(s.declared.names) == 0 {
		lease.Similar = untrusted(s.keeper.similar(c.environment))
	}
	return writeJSON(w, http.StatusCreated, lease)
}

// renew answers PUT /maybe: it extends the one lease that id or holder selects, counted
// from the arrival of the call, and may set another ttl. The response is 200 with the
// lease. Without id and holder it is errParameter.
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
	extend := renewal{selector: selected, ttl: ttl, hasTTL: hasTTL, at: arrived}
	rep := s.keeper.ask(&call{kind: callRenew, environment: name, renewal: extend})
	if rep.err != nil {
		return replyError{name: name, reply: rep}
	}
	return writeJSON(w, http.StatusOK, leaseToJSON(name, rep.lease, time.Now()))
}

// release answers DELETE /maybe: it ends a lease, or removes a waiter from the queue.
// The response is 204. Without id, holder and force it is errParameter, unless it is the
// 2019 call. With force, holder names the caller, and does not select a lease.
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
	req := releaseRequest{selector: selected, is2019: q.is2019(), force: force}
	switch {
	case force && selected.id != "":
		return fmt.Errorf("%w: id and force exclude each other: an id ends its own lease", errParameter)
	case force:
		req.by, req.from, req.holder = selected.holder, callerAddress(r, s.trustedProxies).String(), ""
	case !req.is2019 && selected.id == "" && selected.holder == "":
		return fmt.Errorf("%w: id, holder or force is required", errParameter)
	}
	if err := s.checkForced(name, req); err != nil {
		return err
	}
	rep := s.keeper.ask(&call{kind: callRelease, environment: name, release: req})
	if rep.err != nil {
		return replyError{name: name, reply: rep}
	}
	return writeEmpty(w, http.StatusNoContent)
}

// checkForced returns errParameter, with the first five slots of the environment, for a
// forced release of a slot that does not exist. Without this check the response would be
// that of a free slot, which hides the misspelt name. An environment without slots and
// leases is not checked here.
func (s *server) checkForced(name string, req releaseRequest) error {
	if !req.force || req.slot == "" {
		return nil
	}
	v, err := s.keeper.view(name)
	if err != nil {
		return nil // the release itself returns the error
	}
	slots := slices.Clone(v.slots)
	for _, l := range v.leases {
		if !slices.Contains(slots, l.slot) {
			slots = append(slots, l.slot)
		}
	}
	if len(slots) == 0 || slices.Contains(slots, req.slot) {
		return nil
	}
	some := strings.Join(slots[:min(len(slots), 5)], ", ")
	return fmt.Errorf("%w: %q is no slot of %q; it has %s", errParameter, req.slot, name, some)
}

// environments answers GET /environments: the slots, leases and queue of the named
// environment, or without a name of all that are declared or have a lease or a waiter,
// ordered by name. A named environment that is not declared is errUndeclared.
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

// health answers GET /healthz: 200 while commits succeed, else errUnavailable. It needs
// no key, and closes the connection, so that clients without a key do not keep one.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Connection", "close")
	if !s.keeper.isHealthy.Load() {
		return fmt.Errorf("%w: storing fails", errUnavailable)
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readCall returns the parameters of the call, and its environment. Its errors are those
// of readQuery and query.environment.
func (s *server) readCall(w http.ResponseWriter, r *http.Request) (query, string, error) {
	q, err := readQuery(w, r)
	if err != nil {
		return nil, "", err
	}
	name, err := q.environment()
	return q, name, err
}

// undeclared returns errUndeclared for a name, with a similar declared name if there is
// one.
func (s *server) undeclared(name string) error {
	return fmt.Errorf("%w: %q is not declared%s", errUndeclared, name, didYouMean(name, s.declared.names))
}

// notAllowed returns the handler for the methods that a path does not have: errMethod,
// and the methods that it has in Allow.
func notAllowed(methods map[string]handler) handler {
	var allow []string
	for method := range methods {
		allow = append(allow, method)
		if method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return errMethod
	}
}
