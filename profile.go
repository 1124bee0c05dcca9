package main

// serve --profile: where the server's time and memory go, for whoever wants
// to make it faster. It listens on this machine's loopback only, and only
// when it is asked to.
//
// Without net/http/pprof: to import it is enough to have every start, also
// that of a client, write routes into the default handler, load a template
// engine and record allocations.

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
	"time"
)

// recordNoAllocations is for those who have not asked for profiles: the
// records take memory for as long as a program runs.
func recordNoAllocations() { runtime.MemProfileRate = 0 }

// allocationsRecorded is the runtime's default: one in so many bytes.
const allocationsRecorded = 512 << 10

// serveProfiles answers go tool pprof and go tool trace on a port of 127.0.0.1
// until stop is called. Port 0: not at all.
func serveProfiles(p int, log *slog.Logger) (stop func() error, err error) {
	if p == 0 {
		return func() error { return nil }, nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		return nil, listenError(err, port(p))
	}
	runtime.MemProfileRate = allocationsRecorded
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", during(30*time.Second, pprof.StartCPUProfile, pprof.StopCPUProfile))
	mux.HandleFunc("GET /debug/pprof/trace", during(time.Second, trace.Start, trace.Stop))
	mux.HandleFunc("GET /debug/pprof/{name}", profileNow)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime}
	go h.Serve(l)
	log.Info("serving profiles", "address", l.Addr().String()+"/debug/pprof/")
	return h.Close, nil
}

// during answers with what is recorded within ?seconds=, or until the client
// has gone.
func during(preset time.Duration, start func(io.Writer) error, stop func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d := preset
		if seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64); err == nil && seconds > 0 {
			d = time.Duration(seconds * float64(time.Second))
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := start(w); err != nil { // another one is being recorded
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		defer stop()
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
	}
}

// profileNow answers with one of the runtime's profiles: heap, allocs,
// goroutine, ... With ?debug=1 or 2 as text, with ?gc=1 after a collection.
func profileNow(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		http.Error(w, "there is no such profile", http.StatusNotFound)
		return
	}
	if r.FormValue("gc") == "1" {
		runtime.GC()
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	if w.Header().Set("Content-Type", "application/octet-stream"); debug > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	p.WriteTo(w, debug)
}
