package main

// The certificates that the client trusts, and the errors of TLS. Nothing here turns
// verification off.

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// The errors of a call whose server is not trusted or does not speak the protocol of the
// URL.
var (
	errUntrusted = errors.New("cannot trust")
	errPlain     = errors.New("speaks plain HTTP, not HTTPS")
	errSecure    = errors.New("speaks HTTPS, not plain HTTP")
)

// clientTLS returns a configuration that trusts the authorities in caFile (PEM), or the
// system's if caFile is empty. The error is errUsage if the file cannot be read or has
// no certificate.
func clientTLS(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, usagef("reading %s: %v", variablePrefix+"_CA_FILE", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, usagef("reading %s: %q has no certificate (PEM)", variablePrefix+"_CA_FILE", caFile)
	}
	return config, nil
}

// healthTLS returns a configuration that trusts only the certificates in the file. It
// expects a name of the first certificate, because the certificate is not made for the
// address 127.0.0.1.
func healthTLS(file string) (*tls.Config, error) {
	config, err := clientTLS(file)
	if err != nil {
		return nil, fmt.Errorf("the server's certificate: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes) // clientTLS has found a certificate
	if err != nil {
		return nil, usagef("reading %q: %v", file, err)
	}
	switch {
	case len(leaf.DNSNames) > 0:
		config.ServerName = strings.Replace(leaf.DNSNames[0], "*", "health", 1)
	case len(leaf.IPAddresses) > 0:
		config.ServerName = leaf.IPAddresses[0].String()
	}
	return config, nil
}

// trustError returns errUntrusted with the reason if err says that the server's
// certificate is not trusted, and errPlain if it says that the server speaks plain HTTP.
// Both have a hint where the remedy is known. It returns nil for any other err.
func trustError(base string, err error) error {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		plain := strings.Replace(base, "https:", "http:", 1)
		return withHint(fmt.Errorf("%s %w", base, errPlain), "HOST="+plain)
	case !errors.As(err, &verification):
		return nil
	case errors.As(err, &unknown):
		return withHint(fmt.Errorf("%w %s: %v", errUntrusted, base, verification.Err),
			variablePrefix+"_CA_FILE=ca.pem, the file of the CA certificate that has signed the server's")
	}
	return fmt.Errorf("%w %s: %v", errUntrusted, base, verification.Err)
}

// isPlainToTLS reports whether a response is the one that net/http sends to plain HTTP on
// a TLS port (conn.serve in net/http/server.go).
func isPlainToTLS(response *http.Response, body []byte) bool {
	return response.StatusCode == http.StatusBadRequest && response.ProtoMinor == 0 &&
		strings.HasPrefix(string(body), "Client sent an HTTP request to an HTTPS server.")
}

// secureError returns errSecure with a hint.
func secureError(base string) error {
	return withHint(fmt.Errorf("%s %w", base, errSecure), "HOST="+strings.Replace(base, "http:", "https:", 1))
}
