package main

// serve --profile: where the server's time and memory go, for whoever wants
// to make it faster. It listens on this machine's loopback only, and only
// when it is asked to.

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
)

// serveProfiles answers go tool pprof on a port of 127.0.0.1 until stop is
// called. Port 0: not at all, and then the runtime need not note allocations for
// them either.
func serveProfiles(p int, log *slog.Logger) (stop func() error, err error) {
	if p == 0 {
		runtime.MemProfileRate = 0
		return func() error { return nil }, nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		return nil, listenError(err, port(p))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime}
	go h.Serve(l)
	log.Info("serving profiles", "address", l.Addr().String()+"/debug/pprof/")
	return h.Close, nil
}
