package main

// Starting and stopping the server.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	idleTime = 3 * time.Minute // for the next request on a connection
	stopTime = 4 * time.Second // for what is under way to be answered
)

// serve runs a server until ctx ends, then answers everyone, closes the file
// and returns nil. Whatever prevents the start is the error.
func serve(ctx context.Context, c serverConfig, log *slog.Logger) error {
	keys, err := c.keys()
	if err != nil {
		return err
	}
	pair, err := newCertificate(c)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", c.Port))
	if err != nil {
		return listenError(err, c.Port)
	}
	defer listener.Close()
	store, err := openStore(c.DB)
	if err != nil {
		return storeError(err, c.DB)
	}
	defer store.close()
	m := newMetrics()
	k, err := newKeeper(store, c.Environments.slotsOf, maxWaiters(), keeperLog{m, log})
	if err != nil {
		return storeError(err, c.DB)
	}
	s := &server{keeper: k, database: store.path, declared: c.Environments, defaultTTL: time.Duration(c.TTL), metrics: m, trusted: c.TrustedProxies, log: log}
	s.useKeys(keys)
	stopReloading := s.reload(c, pair)
	defer stopReloading()
	log.Info("serving", "address", listener.Addr().String(), "tls", pair != nil, "database", c.DB, "environments", strings.Join(c.Environments.names, ","))
	var limited net.Listener = newLimitedListener(listener, maxConnections())
	if pair != nil {
		limited = tls.NewListener(limited, pair.config())
	}
	return s.run(ctx, limited)
}

// run serves until ctx ends, and closes the keeper.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	h := s.http()
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-failed:
		err = fmt.Errorf("serving: %w", err)
	case err = <-s.keeper.taken:
		err = hint(err, "it was deleted or replaced while this server used it, and another server has it now; this one stops")
	}
	// Shutdown waits for the handlers; those that wait for a slot are woken
	// by the keeper's end.
	limited, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Shutdown(limited)
	}()
	s.keeper.close()
	select {
	case <-ended:
	case <-limited.Done():
	}
	h.Close()
	return err
}

// http is the server's end of HTTP, with its limits.
func (s *server) http() *http.Server {
	return &http.Server{
		Handler:                      s.routes(),
		DisableGeneralOptionsHandler: true, // it answers without a key
		ReadHeaderTimeout:            headerTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader - 4<<10, // net/http adds 4 kB of its own
		ErrorLog:                     log.New(newSlogWriter(s.log), "", 0),
		Protocols:                    onlyHTTP1(),
		ConnContext:                  withConnection,
		ConnState:                    changeState,
	}
}

// useKeys lets these keys in from now on, and warns about short ones.
func (s *server) useKeys(keys []string) {
	s.keys.set(keys)
	short := slices.ContainsFunc(keys, func(key string) bool { return utf8.RuneCountInString(key) < shortKey })
	if short {
		s.log.Warn("a key is short enough to be guessed", "hint", "openssl rand -hex 16 makes a good one")
	}
}

// reload reads the keys and the certificate again at each SIGHUP, until stop
// is called. What cannot be read stays as it was.
func (s *server) reload(c serverConfig, pair *certificate) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			if keys, err := c.keys(); err != nil {
				s.log.Error("the keys stay as they were", "error", err)
			} else {
				s.useKeys(keys)
				s.log.Info("keys were read again", "keys", len(keys))
			}
			if err := pair.read(c); err != nil {
				s.log.Error("the certificate stays as it was", "error", err)
			} else if pair != nil {
				s.log.Info("the certificate was read again")
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
	}
}

func listenError(err error, p portNumber) error {
	err = fmt.Errorf("listening on port %d: %w", p, err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return hint(err, "another program, perhaps another call-me, listens there; stop it or set PORT")
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "ports below 1024 need a privilege; set PORT to a higher one")
	}
	return err
}

func storeError(err error, path string) error {
	switch {
	case errors.Is(err, errInUse):
		return hint(err, "stop the other call-me, or set CALL_ME_DB to another file")
	case errors.Is(err, errDamaged):
		return hint(err, "the file was left as it is; restore a copy, or move it away to begin without leases")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return hint(err, "call-me must be able to write the file and its folder; set CALL_ME_DB to one that it can")
	case errors.Is(err, fs.ErrNotExist):
		return hint(err, "make its folder first, or set CALL_ME_DB")
	}
	return err
}
