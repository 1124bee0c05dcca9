package main

// How a server that shares its state reaches etcd, and what must be the same on all of them.

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// leaderTTL is how long another server waits at least after the leader has died. Tests build the
// program with a shorter one (-ldflags -X): etcd's own minimum is 1.5 times its election timeout.
var leaderTTL = "8s"

// newEtcdSettings returns how etcd is reached. It reads the files of the certificates and of the
// password, which is read again for each connection, so that a new one is used without a start.
func newEtcdSettings(c serverConfig) (etcdSettings, error) {
	ttl, err := time.ParseDuration(leaderTTL)
	if err != nil {
		return etcdSettings{}, err
	}
	s := etcdSettings{endpoints: c.Store.members, prefix: c.Store.prefix, user: c.EtcdUser,
		times: newEtcdTimes(ttl)}
	if c.EtcdPasswordFile != "" {
		s.password = func() (string, error) {
			text, err := os.ReadFile(c.EtcdPasswordFile)
			if err != nil {
				return "", fmt.Errorf("reading CALL_ME_ETCD_PASSWORD_FILE: %w", err)
			}
			return strings.TrimRight(string(text), "\r\n"), nil
		}
		if _, err := s.password(); err != nil {
			return s, err
		}
	}
	if !c.Store.isTLS {
		return s, nil
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.tls.RootCAs, err = authorities(c.EtcdCAFile, "CALL_ME_ETCD_CA_FILE"); err != nil {
		return s, err
	}
	if c.EtcdCertificate == "" {
		return s, nil
	}
	if _, err := tls.LoadX509KeyPair(c.EtcdCertificate, c.EtcdPrivateKey); err != nil {
		return s, fmt.Errorf("reading CALL_ME_ETCD_CERTIFICATE: %w", err)
	}
	// It is read for each connection, so that a new one is used without a start.
	s.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.EtcdCertificate, c.EtcdPrivateKey)
		return &pair, err
	}
	return s, nil
}

// authorities returns the authorities of a file (PEM); nil, which is those of the system, if the
// path is empty. variable is where the path is from.
func authorities(path, variable string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", variable, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading %s: %q has no certificate", variable, path)
	}
	return pool, nil
}

// settingsDigests returns digests of what must be the same on all servers, and of the declared
// slots alone. No secret is in them: of the keys they have the names and the roles.
func settingsDigests(c serverConfig, declared declaredEnvironments, keys []acceptedKey) (all, slots string) {
	var named []string
	for _, k := range keys {
		named = append(named, fmt.Sprintf("%q %+v", k.name, k.rights))
	}
	slices.Sort(named)
	issuers, _ := os.ReadFile(c.OIDCFile) // it was read before; an empty path has none
	text := fmt.Sprintf("%q %v %v %v %q %q", declared.facts, c.TTL, c.MaxHold, c.History, named, issuers)
	slots = digestText(fmt.Sprintf("%q", declared.slots))
	return digestText(slots + text), slots
}

func digestText(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16] }

// spacePeriod is the time between two looks at how full etcd is.
const spacePeriod = time.Hour

const spaceHint = "docs/two-servers.md says how to make space"

// watchSpace logs a warning when a term begins, and each hour of it, if a member of etcd has used more
// than four fifths of its quota: etcd accepts nothing when it is used up.
func (c *cluster) watchSpace(term *etcdTerm) {
	for term.ctx.Err() == nil {
		member, used, quota := c.candidate.fullest(term.ctx)
		if used > quota/5*4 {
			c.base.log.Warn("etcd is nearly full", "member", member, "used", byteSize(used).String(),
				"quota", byteSize(quota).String(), "hint", spaceHint)
		}
		sleepUntil(term.ctx, spacePeriod)
	}
}

// checkEtcd returns an error if etcd can never be used as it is configured: a wrong certificate or
// password, members of two etcd, a prefix with the keys of somebody else, a newer format, or a leader
// with other environments. It returns nil if etcd does not answer: the server waits for it then.
func (c *cluster) checkEtcd(ctx context.Context, s etcdSettings) error {
	if err := checkEtcdTLS(ctx, s); err != nil {
		return withHint(fmt.Errorf("connecting to etcd: %w", err),
			"CALL_ME_ETCD_CA_FILE is for etcd's certificate, CALL_ME_ETCD_CERTIFICATE is this server's")
	}
	if _, err := c.candidate.client.checkCluster(ctx, etcdKeys(s.prefix)); err != nil {
		return withHint(fmt.Errorf("connecting to etcd: %w", err),
			"CALL_ME_STORE names the members of one etcd")
	}
	m, err := c.candidate.look(ctx)
	isForeign := false
	if err == nil && m.state == 0 {
		isForeign, err = c.candidate.isForeign(ctx)
	}
	switch {
	case isRefusedByEtcd(err):
		return withHint(fmt.Errorf("connecting to etcd: %w", err),
			"CALL_ME_ETCD_USER needs a role that may read and write the prefix "+quote(s.prefix+"/"))
	case errors.Is(err, errStoreAway):
		c.base.log.Warn("waiting for etcd", "error", err)
		return nil
	case err != nil:
		return fmt.Errorf("connecting to etcd: %w", err)
	case isForeign:
		return withHint(fmt.Errorf("reading %q: %w", s.prefix, errForeign),
			"another prefix: CALL_ME_STORE=etcd://.../call-me-2; or delete these keys")
	case m.invalid != nil:
		return fmt.Errorf("reading %q: %w", s.prefix, m.invalid)
	case m.leader != nil && m.leader.URL == c.info.Load().URL: // the key of its own last life
		return nil
	case m.leader != nil && m.leader.Slots != c.info.Load().Slots:
		return withHint(fmt.Errorf("%s leads, and has other environments than this server", m.leader.Name),
			"give all servers the same CALL_ME_ENVIRONMENTS; a file of them, CALL_ME_ENVIRONMENTS_FILE, "+
				"can be changed on all with SIGHUP")
	}
	return nil
}
