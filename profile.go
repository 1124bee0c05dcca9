package main

// serve --profile: where the server's time and memory go, for whoever wants
// to make it faster. It listens on this machine's loopback only, and only
// when it is asked to.
//
// Not with net/http/pprof: whoever links it registers its routes, and a parser
// of profiles with its own, at every start of a server and of a client. Half a
// megabyte of an idle server was that.

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"
)

// profilesPath is where go tool pprof looks for profiles.
const profilesPath = "/debug/pprof/"

// serveProfiles answers go tool pprof and go tool trace on a port of 127.0.0.1
// until stop is called. Port 0: not at all, and then the runtime need not note
// allocations for them either.
func serveProfiles(p int, log *slog.Logger) (stop func() error, err error) {
	if p == 0 {
		runtime.MemProfileRate = 0
		return func() error { return nil }, nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		return nil, listenError(err, port(p))
	}
	h := &http.Server{Handler: http.HandlerFunc(answerProfile), ReadHeaderTimeout: headerTime}
	go h.Serve(l)
	log.Info("serving profiles", "address", l.Addr().String()+profilesPath)
	return h.Close, nil
}

// answerProfile answers with the profile that the path names: profile and
// trace are recorded for ?seconds=, all others show what is the case now, with
// ?debug=1 or 2 for people. Without a name it says which there are.
func answerProfile(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch name, found := strings.CutPrefix(r.URL.Path, profilesPath); {
	case !found:
		http.NotFound(w, r)
	case name == "":
		fmt.Fprintln(w, "profile?seconds=30\ntrace?seconds=1")
		for _, p := range pprof.Profiles() {
			fmt.Fprintf(w, "%s?debug=1\n", p.Name())
		}
	case name == "profile":
		recordProfile(w, r, 30*time.Second, pprof.StartCPUProfile, pprof.StopCPUProfile)
	case name == "trace":
		recordProfile(w, r, time.Second, trace.Start, trace.Stop)
	default:
		showProfile(w, r, pprof.Lookup(name))
	}
}

// recordProfile answers with what is recorded for ?seconds=, or for preset, or until
// the caller has gone. Only one of a kind is recorded at a time.
func recordProfile(w http.ResponseWriter, r *http.Request, preset time.Duration, start func(io.Writer) error, stop func()) {
	d := preset
	if seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil && seconds > 0 {
		d = time.Duration(seconds * float64(time.Second))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := start(w); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	defer stop()
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}

// showProfile answers with what a profile has now; ?gc=1 collects garbage before.
// What has come in ?seconds= it cannot say, and refuses to.
func showProfile(w http.ResponseWriter, r *http.Request, p *pprof.Profile) {
	if p == nil {
		http.Error(w, "there is no such profile", http.StatusNotFound)
		return
	}
	if r.FormValue("seconds") != "" {
		http.Error(w, "only profile and trace are recorded for a time", http.StatusBadRequest)
		return
	}
	if gc, _ := strconv.Atoi(r.FormValue("gc")); gc > 0 {
		runtime.GC()
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	if w.Header().Set("Content-Type", "application/octet-stream"); debug > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	p.WriteTo(w, debug)
}
