package main

// The server's TLS: its certificate, which can be replaced while it serves, and its
// configuration. The client's TLS is in client_tls.go.

import (
	"crypto/tls"
	"sync/atomic"
)

// A certificate is the certificate of the server with its private key. It is safe for
// concurrent use. A nil *certificate stands for plain HTTP.
type certificate struct {
	pair atomic.Pointer[tls.Certificate]
}

// newCertificate reads the certificate and the private key from the files that the
// configuration names. It returns nil if it names none, and else the errors of read.
func newCertificate(c serverConfig) (*certificate, error) {
	if c.TLSCertificate == "" {
		return nil, nil
	}
	made := &certificate{}
	return made, made.read(c)
}

// read reads the files and uses them for new connections. After an error, the previous
// certificate stays in use. The error is a usage error that names both variables. On a
// nil certificate read has no effect.
func (c *certificate) read(config serverConfig) error {
	if c == nil {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(config.TLSCertificate, config.TLSPrivateKey)
	if err != nil {
		return usagef("reading %[1]s_TLS_CERTIFICATE and %[1]s_TLS_PRIVATE_KEY: %[2]v", variablePrefix, err)
	}
	c.pair.Store(&pair)
	return nil
}

// config returns the configuration of the listener, nil for a nil certificate. New
// connections use the certificate that was read last. TLS 1.2 is the minimum. HTTP/2 is
// not offered, because every limit is one of HTTP/1.1. Session tickets are off, so that
// each connection has its own keys: with the key of the tickets, recorded connections
// could be decrypted for as long as that key exists.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.pair.Load(), nil
		},
	}
}
