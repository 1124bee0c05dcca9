package main

// The HTTP API: the table of routes, the wrapper around every handler, and the
// handlers of /maybe and /healthz. The other handlers are in server_environments.go,
// server_history.go, server_events.go, server_backup.go, server_metrics.go,
// server_page.go and server_act.go. server_auth.go checks keys, server_params.go reads parameters,
// server_reply.go writes responses, server_run.go starts and stops the server.

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// writeTime is the write deadline of a response, or of one part of a long one: how
// long a client may take to read it.
const writeTime = 10 * time.Second

// A server answers HTTP calls from the state of one keeper. Its methods are safe for
// concurrent use. The caller closes the keeper.
type server struct {
	declaration atomic.Pointer[declaredEnvironments] // see declared; nil: none

	keeper         *keeper
	defaultTTL     time.Duration // of requests without a ttl; zero if their leases do not expire
	log            *slog.Logger
	metrics        *metrics
	keys           keyring
	tokens         atomic.Pointer[tokenVerifier] // nil if no token is accepted
	wrongKeys      wrongKeyLimit
	trustedProxies proxies    // proxies whose X-Forwarded-For is used
	copying        sync.Mutex // held while a copy is made and sent: one at a time
	renderer       renderer
	boards         boards     // of the status page
	attendance     attendance // of those who wait on it

	// Of a server that shares its state; nil if it does not.
	leads    func() float64       // 1 while it leads, else 0
	onReload func(c serverConfig) // called when files were read again
}

// isShared reports whether the server shares its state with others.
func (s *server) isShared() bool { return s.leads != nil }

// routes returns the handler of the whole API. Every route but GET /healthz requires
// a key whose role is enough for the route's action, see requiredRoles. An unknown path is
// errNotFound, an unknown method of a known path is errMethod. A cross-origin call of a
// browser is errMalformed, unless its method is GET, HEAD or OPTIONS.
func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	route := func(path string, methods map[string]handler) {
		name := strings.TrimSuffix(path, "{$}")
		for method, h := range methods {
			mux.Handle(method+" "+path, s.handle(name, h)) // a GET pattern matches HEAD too
		}
		mux.Handle(path, s.handle(name, s.withKey(actionLook, notAllowed(methods))))
	}
	get := func(path string, h handler) { route(path, map[string]handler{http.MethodGet: h}) }
	route("/maybe", map[string]handler{
		http.MethodGet:    s.withKey(actionLook, s.check),
		http.MethodPost:   s.withKey(actionRequest, s.request),
		http.MethodPut:    s.withKey(actionRenew, s.renew),
		http.MethodDelete: s.withKey(actionRelease, s.release),
	})
	route("/pause", map[string]handler{
		http.MethodPut:    s.withKey(actionPause, s.pause),
		http.MethodDelete: s.withKey(actionPause, s.resume),
	})
	look := func(path string, h handler) { get(path, s.withKey(actionLook, h)) }
	look("/key", s.ownKey)
	look("/environments", s.environments)
	look("/history", notFromOtherSites(s.history))
	look("/events", notFromOtherSites(s.events))
	get("/backup", s.withKey(actionBackup, notFromOtherSites(s.backup)))
	get("/healthz", s.health)
	look("/{$}", s.page)
	look("/rows", s.rows)
	look("/login", s.login)
	route("/act", map[string]handler{http.MethodPost: s.withKey(actionLook, s.act)}) // each act has its own
	look("/page.css", serveAsset("web/page.css", "text/css; charset=utf-8"))
	look("/page.js", serveAsset("web/page.js", "text/javascript; charset=utf-8"))
	look("/openapi.yaml", serveAsset("openapi.yaml", "application/yaml"))
	get("/metrics", s.withKey(actionMetrics, notFromOtherSites(s.metricsHandler())))
	notFound := s.handle("other", s.withKey(actionLook, func(http.ResponseWriter, *http.Request) error {
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
// logged with its place in the source, and sent as errInternal; http.ErrAbortHandler ends
// the connection. The body of a request must arrive within bodyTime.
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
		to.Header().Set(versionHeader, apiVersion)
		w := &codeWriter{to, http.StatusOK}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				s.respondError(w, r, fmt.Errorf("panic at %s: %v", stackLines(), p))
			}
			s.metrics.responded(route, r.Method, w.code)
			if p == http.ErrAbortHandler {
				panic(p)
			}
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

// basicUser returns the user name of HTTP Basic, or the holder that a token proves; empty if
// there is none. It is the holder of a call that names no holder.
func basicUser(r *http.Request) string {
	user, _, _ := r.BasicAuth()
	return cmp.Or(user, callerOf(r).verified)
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
func (s *server) readCall(
	w http.ResponseWriter, r *http.Request, repeatable ...string,
) (q query, names []string, err error) {
	q, err = readQuery(w, r, repeatable...)
	if err != nil {
		return nil, nil, err
	}
	names, err = q.environments()
	if err == nil {
		err = s.mayContinue(callerOf(r), q, names)
	}
	return q, names, err
}

// checkSeen returns the error of undeclared if the caller does not see one of the environments.
func (s *server) checkSeen(c caller, names []string) error {
	for _, name := range names {
		if !c.sees(name) {
			return s.undeclared(c, name)
		}
	}
	return nil
}

// checkReach is checkSeen for a call that renews or ends what its id owns: that works wherever
// the id is known, whatever has become of the environments of the key.
func (s *server) checkReach(c caller, names []string, id string) error {
	for _, name := range names {
		if !c.sees(name) && !s.keeper.knowsID(name, id) {
			return s.undeclared(c, name)
		}
	}
	return nil
}

// undeclared returns errUndeclared for a name, with a similar declared name if there is one,
// otherwise with the environments of the caller's key, or the first ten declared names. It says
// nothing of environments that the caller does not see.
func (s *server) undeclared(c caller, name string) error {
	isHidden := func(name string) bool { return !c.sees(name) }
	names := slices.DeleteFunc(slices.Clone(s.declared().names), isHidden)
	proposal := didYouMean(name, names)
	switch {
	case proposal != "":
	case c.isLimited():
		proposal = fmt.Sprintf("; %s has %s", c, strings.Join(c.environments, ", "))
	default:
		proposal = "; this server has " + strings.Join(names[:min(10, len(names))], ", ")
		if more := len(names) - 10; more > 0 {
			proposal += fmt.Sprintf(" and %d more", more)
		}
	}
	return fmt.Errorf("%w: %q%s", errUndeclared, name, proposal)
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
