package tests

// TLS: certificate files, handshakes, and the messages of the client.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An authority signs certificates for the tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	next int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, next: 1}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a.key, a.cert = a.sign(template, template, nil)
	a.file = filepath.Join(t.TempDir(), "authority.pem")
	a.write(a.file, "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes a certificate for localhost and its key to the files, and returns the serial
// number.
func (a *authority) issue(certFile, keyFile string) int64 {
	a.t.Helper()
	a.next++
	key, cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(a.next), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, a.cert, a.key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(certFile, "CERTIFICATE", cert.Raw)
	a.write(keyFile, "EC PRIVATE KEY", der)
	return a.next
}

// trust returns the configuration of a client that trusts the authority.
func (a *authority) trust() *tls.Config {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(a.cert)
	return config
}

// A tlsDaemon is a daemon with a certificate.
type tlsDaemon struct {
	*daemon
	authority *authority
	cert, key string
	serial    int64
}

func newTLSDaemon(t *testing.T) *tlsDaemon {
	a, dir := newAuthority(t), t.TempDir()
	d := &tlsDaemon{authority: a, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	d.serial = a.issue(d.cert, d.key)
	d.daemon = makeDaemon(t, "CALL_ME_TLS_CERTIFICATE="+d.cert, "CALL_ME_TLS_PRIVATE_KEY="+d.key, "CALL_ME_CA_FILE="+a.file)
	d.base = "https://" + d.host
	d.env = append(d.env, "HOST="+d.base)
	d.http = &http.Client{Transport: &http.Transport{TLSClientConfig: a.trust()}}
	d.start()
	return d
}

func TestTheClientTrustsOnlyTheConfiguredAuthority(t *testing.T) {
	t.Parallel()
	d := newTLSDaemon(t)
	says := func(want int, in string, env []string, args ...string) {
		t.Helper()
		cmd, out := d.client("ann", args...)
		cmd.Env = append(cmd.Env, env...)
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != want || !strings.Contains(out.String(), in) || strings.Count(out.String(), "\n") > 6 {
			t.Errorf("%v: exit code %d, want %d with %q\n%s", args, code, want, in, out)
		}
	}
	says(0, "acquired slot", nil, "request", "uat")
	says(0, "ann", nil, "status")
	says(0, "freed", nil, "release", "uat")
	says(0, "run", nil, "run", "uat", "--", "echo", "run")
	says(0, "ok", nil, "health")
	says(0, "TLS 1.3", nil, "doctor")
	for _, args := range [][]string{{"status"}, {"request", "uat"}, {"release", "uat"}, {"run", "uat", "--", "true"}} {
		code := 1
		if args[0] == "run" {
			code = 125
		}
		says(code, "cannot trust https://"+d.host+": x509: certificate signed by unknown authority\nhint: CALL_ME_CA_FILE=", []string{"CALL_ME_CA_FILE="}, args...)
		says(code, "http://"+d.host+" speaks HTTPS, not plain HTTP\nhint: HOST=https://"+d.host+"\n", []string{"HOST=" + d.host}, args...)
	}
	other := newAuthority(t)
	says(1, "unknown authority", []string{"CALL_ME_CA_FILE=" + other.file}, "status")
	_, port, _ := net.SplitHostPort(d.host)
	says(1, "x509: certificate is valid for 127.0.0.1, not 127.0.0.2", []string{"HOST=https://127.0.0.2:" + port}, "status")
	says(2, "no such file", []string{"CALL_ME_CA_FILE=nowhere"}, "status")
	says(2, "has no certificate", []string{"CALL_ME_CA_FILE=" + d.key}, "status")
	if !strings.Contains(d.log.String(), "TLS handshake error") || !strings.Contains(d.log.String(), "tls: bad certificate") {
		t.Errorf("the server did not notice who did not trust it:\n%s", d.log)
	}

	plain := newDaemon(t)
	start := time.Now()
	cmd, out := plain.client("ann", "request", "uat")
	cmd.Env = append(cmd.Env, "HOST=https://"+plain.host)
	cmd.Run()
	if want := "call-me: https://" + plain.host + " speaks plain HTTP, not HTTPS\nhint: HOST=http://" + plain.host + "\n"; out.String() != want || time.Since(start) > 4*time.Second {
		t.Errorf("after %v\n%s\nwant\n%s", time.Since(start), out, want)
	}
}

func TestTheCertificateIsExchangedWhileTheServerServes(t *testing.T) {
	t.Parallel()
	d := newTLSDaemon(t)
	serial := func() int64 {
		c, err := tls.Dial("tcp", d.host, d.authority.trust())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	d.call("POST", "/maybe?environment=uat&id=12345678")
	waiting := make(chan int, 1)
	go func() {
		code, _ := d.call("POST", "/maybe?environment=uat&id=waiting-1&wait=1m")
		waiting <- code
	}()
	eventually(t, "it is in the queue", func() bool {
		_, body := d.call("GET", "/environments")
		return strings.Contains(body, `"connected":true`)
	})
	if got := serial(); got != d.serial {
		t.Errorf("certificate %d, want %d", got, d.serial)
	}
	next := d.authority.issue(d.cert, d.key)
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the new one is used", func() bool { return serial() == next })
	os.WriteFile(d.cert, []byte("nonsense"), 0o600)
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "a broken one is refused", func() bool { return strings.Contains(d.log.String(), "the certificate stays as it was") })
	if got := serial(); got != next {
		t.Errorf("certificate %d, want %d", got, next)
	}
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if code := <-waiting; code != 201 {
		t.Errorf("who waited was told %d", code)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	d := newTLSDaemon(t)
	dial := func(version uint16, suites ...uint16) error {
		config := d.authority.trust()
		config.MinVersion, config.MaxVersion, config.CipherSuites = tls.VersionTLS10, version, suites
		c, err := tls.Dial("tcp", d.host, config)
		if err == nil {
			c.Close()
		}
		return err
	}
	if dial(tls.VersionTLS10) == nil || dial(tls.VersionTLS11) == nil {
		t.Error("TLS 1.0 or 1.1 is spoken")
	}
	for _, suite := range tls.InsecureCipherSuites() {
		if dial(tls.VersionTLS12, suite.ID) == nil {
			t.Errorf("%s is spoken", suite.Name)
		}
	}
	if err := dial(tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if err := dial(tls.VersionTLS13); err != nil {
		t.Errorf("TLS 1.3: %v", err)
	}
}

// The server speaks HTTP/1.1 with a client that prefers HTTP/2, and rejects a client that
// speaks HTTP/2 only. server_hostile_test.go, in the folder above, tests it without TLS.
func TestHTTP2IsNeverSpoken(t *testing.T) {
	t.Parallel()
	d := newTLSDaemon(t)
	config := d.authority.trust()
	config.NextProtos = []string{"h2"}
	if c, err := tls.Dial("tcp", d.host, config); err == nil {
		c.Close()
		t.Errorf("a client with h2 only gets %q", c.ConnectionState().NegotiatedProtocol)
	}
	transport := &http.Transport{TLSClientConfig: d.authority.trust(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://" + d.host + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 1 {
		t.Errorf("%s with %s", response.Status, response.Proto)
	}
}

// The server resumes no session of TLS 1.2 or 1.3: each connection has its own keys.
func TestNoSessionOfTLSIsResumed(t *testing.T) {
	t.Parallel()
	d := newTLSDaemon(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := d.authority.trust()
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(0)
		for range 3 {
			c, err := tls.Dial("tcp", d.host, config)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, c) // a ticket of TLS 1.3 comes after the handshake
			if c.ConnectionState().DidResume {
				t.Errorf("a session of %s is resumed", tls.VersionName(version))
			}
			c.Close()
		}
	}
}

func TestTheTLSConfigurationIsCheckedAtTheStart(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t), t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.issue(cert, key)
	for _, c := range []struct{ cert, key, says string }{
		{cert, "", "CALL_ME_TLS_CERTIFICATE and CALL_ME_TLS_PRIVATE_KEY belong together"},
		{"", key, "CALL_ME_TLS_CERTIFICATE and CALL_ME_TLS_PRIVATE_KEY belong together"},
		{cert, "nowhere", "reading CALL_ME_TLS_CERTIFICATE and CALL_ME_TLS_PRIVATE_KEY: open nowhere: "},
		{cert, cert, "reading CALL_ME_TLS_CERTIFICATE and CALL_ME_TLS_PRIVATE_KEY: tls: "},
		{a.file, key, "private key does not match"},
	} {
		d := makeDaemon(t, "CALL_ME_TLS_CERTIFICATE="+c.cert, "CALL_ME_TLS_PRIVATE_KEY="+c.key)
		serve, out := d.client("nobody", "serve")
		serve.Run()
		if code := serve.ProcessState.ExitCode(); code != 2 || !strings.Contains(out.String(), c.says) {
			t.Errorf("%+v: %d %s", c, code, out)
		}
	}
}
