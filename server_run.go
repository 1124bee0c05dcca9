package main

// Starting and stopping the server: serve opens the port and the database file, run
// serves until it is stopped. The routes are in server.go, the limit of connections is
// in server_listener.go. server_reload.go reads files again.

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
	"slices"
	"syscall"
	"time"
)

const (
	idleTime = 3 * time.Minute // how long a connection is kept open without a request
	stopTime = 4 * time.Second // how long run waits for calls under way when it stops
)

// serve runs a server until ctx ends. Then it answers the calls under way, closes the
// database file and returns nil. It returns an error, with a hint where the cure is known,
// if the keys, the certificate, the port or the file cannot be used, and the error of the
// listener if accepting connections fails.
func serve(ctx context.Context, c serverConfig, log *slog.Logger) error {
	watch := newFileWatch(c) // before the files are read: no change is missed
	keys, err := c.acceptedKeys()
	if err != nil {
		return err
	}
	declared, err := c.environments()
	if err != nil {
		return err
	}
	webhooks, err := c.webhooks()
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
	m := newMetrics()
	s := &server{
		defaultTTL:     time.Duration(c.TTL),
		log:            log,
		metrics:        m,
		trustedProxies: c.TrustedProxies,
	}
	s.declaration.Store(&declared)
	s.useKeys(keys)
	if err := s.useTokens(c); err != nil {
		return err
	}
	receivers := newReceivers(webhooks, c.WebhookSecret, m, log)
	tellWebhooks := webhookStarter(receivers, c.WebhookEvents, log)
	limited := newServerListener(listener, pair)
	if c.isShared() {
		reload := func() (stop func()) { return s.reload(c, pair, watch) }
		return s.serveShared(ctx, c, reload, limited, tellWebhooks)
	}
	store, err := openStore(c.DB)
	if err != nil {
		return storeError(err)
	}
	defer store.close()
	memory := limitMemory()
	s.keeper, err = newKeeper(store, declared.slotsOf, newKeeperLimits(c, memory), keeperLog{m, log})
	if err != nil {
		return storeError(err)
	}
	logHistory(log, c, s.keeper, memory)
	defer adjustGarbage()()
	defer tellWebhooks(s.keeper, func() bool { return true })()
	defer s.reload(c, pair, watch)()
	log.Info("serving", "address", listener.Addr().String(), "tls", pair != nil, "database", c.DB,
		"environments", declared.String())
	return s.run(ctx, limited)
}

// newServerListener returns a listener with a limit of connections, and with TLS if there is a
// certificate.
func newServerListener(listener net.Listener, pair *certificate) net.Listener {
	var limited net.Listener = newLimitedListener(listener, maxConnections())
	if pair != nil {
		limited = tls.NewListener(limited, pair.config())
	}
	return limited
}

// run serves until ctx ends or the listener fails, and closes the keeper, so that every
// waiting call is answered with errStopping. It waits for calls under way for up to
// stopTime, and then closes their connections. It returns nil after ctx has ended, and
// else the error of the listener.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	h := s.http(s.routes())
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-failed:
		err = fmt.Errorf("serving: %w", err)
	case err = <-s.keeper.taken:
		err = withHint(err, "it was deleted or replaced while this server used it, "+
			"and another server has it now; this one stops")
	}
	// Shutdown waits for the handlers. Those that wait for a slot or send events end
	// when the keeper is closed, so Shutdown runs beside it.
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

// http returns an http.Server for a handler, with the limits on time and size: headers
// must arrive within headerTime and have up to maxHeader bytes. Bodies are limited by
// handle and readBody.
func (s *server) http(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true, // net/http's handler of OPTIONS * needs no key
		ReadHeaderTimeout:            headerTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader - 4<<10, // net/http allows 4 KiB more than this
		ErrorLog:                     newErrorLog(s.log),
		Protocols:                    onlyHTTP1(),
		ConnContext:                  withConnection,
		ConnState:                    changeState,
	}
}

// newErrorLog returns the log of net/http.
func newErrorLog(to *slog.Logger) *log.Logger { return log.New(newSlogWriter(to), "", 0) }

// useKeys replaces the accepted keys, and logs a warning if one has fewer than shortKey
// characters. Calls that wait with a removed key end with errKey.
func (s *server) useKeys(keys []acceptedKey) {
	s.keys.set(keys)
	if slices.ContainsFunc(keys, func(k acceptedKey) bool { return k.isShort }) {
		s.log.Warn("a key is short enough to be guessed", "hint", "openssl rand -hex 16 makes a good one")
	}
}

// useTokens reads the file of CALL_ME_OIDC_FILE. Without one no token is accepted. After an error
// the tokens are accepted that were before.
func (s *server) useTokens(c serverConfig) error {
	entries, err := c.oidcEntries()
	if err != nil || len(entries) == 0 {
		return err
	}
	s.tokens.Store(newTokenVerifier(entries, s.tokens.Load()))
	s.log.Info("tokens of jobs are accepted", "entries", len(entries))
	return nil
}

// declared returns the declared environments.
func (s *server) declared() declaredEnvironments {
	if d := s.declaration.Load(); d != nil {
		return *d
	}
	return declaredEnvironments{}
}

// useEnvironments reads the file of the environments again, if there is one, and declares
// them. If it cannot be read, the error is logged, and the declaration stays as it was. It
// waits until the keeper has them, which is not saving then.
func (s *server) useEnvironments(c serverConfig) {
	if c.EnvironmentsFile == "" {
		return
	}
	declared, err := c.environments()
	if err != nil {
		s.log.Error("the environments stay as they were", "error", err)
		return
	}
	s.declaration.Store(&declared)
	if s.keeper != nil {
		s.keeper.declare(declared.slotsOf)
	}
	s.log.Info("environments were read again", "environments", declared.String())
}

// listenError returns the error of listening on port p, with a hint where the cure is
// known.
func listenError(err error, p portNumber) error {
	err = fmt.Errorf("listening on port %d: %w", p, err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return withHint(err, "another program, perhaps another call-me, listens there; stop it or set PORT")
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "ports below 1024 need a privilege; set PORT to a higher one")
	}
	return err
}

// storeError returns an error of opening the database file, with a hint where the cure is
// known.
func storeError(err error) error {
	switch {
	case errors.Is(err, errInUse):
		return withHint(err, "stop the other call-me, or set CALL_ME_DB to another file")
	case errors.Is(err, notDatabase{}):
		return withHint(err,
			"the file was left as it is; set CALL_ME_DB to a file of call-me, or to a new one")
	case errors.Is(err, errDamaged):
		return withHint(err, "the file was left as it is; "+
			"restore a copy, or move it away to begin without leases")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return withHint(err, "call-me must be able to write the file and its folder; "+
			"set CALL_ME_DB to one that it can")
	}
	var missing missingFolderError
	if errors.As(err, &missing) {
		return withHint(err, "mkdir -p "+quote(string(missing))+", or set CALL_ME_DB")
	}
	return err
}
