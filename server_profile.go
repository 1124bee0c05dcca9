package main

// Profiles of the server's time and memory, for serve --profile. They are served on a
// port of their own, of the loopback address only, and only with that flag.

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // #nosec G108 -- it registers with http.DefaultServeMux, which no server of call-me uses
	"runtime"
)

// profilesPath is the path that go tool pprof uses.
const profilesPath = "/debug/pprof/"

// serveProfiles serves go tool pprof and go tool trace on port p of 127.0.0.1, without a
// key, until stop is called. It returns the error of listening, with a hint. If p is
// zero, it serves nothing, and turns off the runtime's sampling of allocations for the
// whole process.
func serveProfiles(p int, log *slog.Logger) (stop func() error, err error) {
	if p == 0 {
		runtime.MemProfileRate = 0
		return func() error { return nil }, nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		return nil, listenError(err, portNumber(p))
	}
	mux := http.NewServeMux()
	mux.HandleFunc(profilesPath, pprof.Index)
	mux.HandleFunc(profilesPath+"profile", pprof.Profile)
	mux.HandleFunc(profilesPath+"symbol", pprof.Symbol)
	mux.HandleFunc(profilesPath+"trace", pprof.Trace)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime}
	go h.Serve(l)
	log.Info("serving profiles", "address", l.Addr().String()+profilesPath)
	return h.Close, nil
}
