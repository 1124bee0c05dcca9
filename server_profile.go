package main

// serve --profile: where the server's time and memory go. It listens on the
// loopback of this machine only, and only when it is asked to.

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // #nosec G108 -- it registers with http.DefaultServeMux, which no server of call-me uses
	"runtime"
)

// profilesPath is where go tool pprof looks for profiles.
const profilesPath = "/debug/pprof/"

// serveProfiles answers go tool pprof and go tool trace on a port of 127.0.0.1
// until stop is called. Port 0: not at all, and then the runtime does not note
// allocations for them either.
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
