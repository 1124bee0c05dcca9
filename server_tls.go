package main

// TLS: the server's certificate, which can be exchanged while it serves, and
// what the client trusts. Nothing here turns verification off.

import (
	"crypto/tls"
	"sync/atomic"
)

// A certificate is the server's, with its private key. A nil one: plain HTTP.
type certificate struct {
	pair atomic.Pointer[tls.Certificate]
}

// newCertificate reads the files of the configuration; nil: there are none.
func newCertificate(c serverConfig) (*certificate, error) {
	if c.TLSCertificate == "" {
		return nil, nil
	}
	made := &certificate{}
	return made, made.read(c)
}

// read reads the files, also again. After an error the old ones stay.
func (c *certificate) read(config serverConfig) error {
	if c == nil {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(config.TLSCertificate, config.TLSPrivateKey)
	if err != nil {
		return usagef("reading %s and %s: %v", prefix+"_TLS_CERTIFICATE", prefix+"_TLS_PRIVATE_KEY", err)
	}
	c.pair.Store(&pair)
	return nil
}

// config is for connections from now on; nil: plain HTTP. HTTP/2 is not
// offered: every limit is HTTP/1.1's. Nor are session tickets, which would
// decrypt what was recorded for as long as their keys live: each connection
// has keys of its own.
func (c *certificate) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}
