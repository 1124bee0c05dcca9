package main

import (
	"bytes"
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
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
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

// issue writes a certificate for localhost, and its key. It returns the
// serial number.
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

// trust is what somebody trusts who trusts the authority.
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

func TestTheClientSpeaksTLSAndTrustsOnlyWhomItIsTold(t *testing.T) {
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
	eventually(t, "it is in line", func() bool {
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

// A client that would rather speak HTTP/2 speaks HTTP/1.1, and one that speaks
// nothing else is rejected. hostile_test.go has the same without TLS.
func TestHTTP2IsNeverSpoken(t *testing.T) {
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

// Each connection has keys of its own, with TLS 1.2 and 1.3.
func TestNoSessionOfTLSIsResumed(t *testing.T) {
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

// With three connections at the most, two callers who wait keep theirs, and the
// place that is left goes from one to the next.
func TestAtTheLimitOfConnectionsWhoHasNoCallUnderWayMakesRoom(t *testing.T) {
	s := newSite(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	narrow := newLimitedListener(l, 3)
	go s.http.Config.Serve(narrow)
	t.Cleanup(func() { narrow.Close() })
	few := &site{rig: s.rig, url: "http://" + l.Addr().String(), server: s.server}
	s.call("POST /maybe?environment=uat&id=holder-1")
	waiting := []*rawLine{few.dial(), few.dial()}
	for i, w := range waiting {
		w.send(fmt.Sprintf("POST /maybe?environment=uat&id=waiter-%d&wait=1m", i))
		s.connected(i + 1)
	}
	ends := func(what string, l *rawLine) {
		t.Helper()
		if _, err := l.answer.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("%s is still connected: %v", what, err)
		}
	}
	silent := few.dial()
	half := few.dial()
	fmt.Fprint(half, "GET /healthz HTTP/1.1\r\n")
	ends("who says nothing", silent)
	idle := few.dial()
	idle.send("GET /maybe?environment=other")
	idle.want(200, "")
	ends("who has sent half a header", half)
	next := few.dial()
	ends("who has had its answer", idle)
	next.send("POST /maybe?environment=uat&id=waiter-3&wait=1m")
	s.connected(3)
	late := few.dial() // nobody can make room
	late.send("GET /maybe?environment=other")
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	waiting[0].want(201, "")
	late.want(200, "")
	ends("who has had its answer at last", waiting[0])
	s.call("DELETE /maybe?environment=uat&id=waiter-0")
	waiting[1].want(201, "")
}

func TestTheTLSConfigurationIsCheckedAtTheStart(t *testing.T) {
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
		setVariables(t, map[string]string{"API_KEY": testKey, "PORT": "0", "CALL_ME_DB": filepath.Join(dir, "x.db"), "CALL_ME_TLS_CERTIFICATE": c.cert, "CALL_ME_TLS_PRIVATE_KEY": c.key})
		var out bytes.Buffer
		if code := execute([]string{"call-me", "serve"}, newTerminalOn(io.Discard, &out)); code != exitUsage || !strings.Contains(out.String(), c.says) {
			t.Errorf("%+v: %d %s", c, code, out.String())
		}
	}
}

func TestHasLeftTellsWhoHasLeft(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells who has left")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		do   func(*net.TCPConn)
		left bool
	}{
		"who waits":              {func(*net.TCPConn) {}, false},
		"who sends on":           {func(c *net.TCPConn) { c.Write([]byte("x")) }, false},
		"who closes":             {func(c *net.TCPConn) { c.Close() }, true},
		"who ends its direction": {func(c *net.TCPConn) { c.CloseWrite() }, true},
		"who breaks off":         {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			e := &connection{Conn: conn}
			conn.SetReadDeadline(time.Unix(1, 0)) // however long the answer has taken
			c.do(caller.(*net.TCPConn))
			if c.left {
				eventually(t, "it is noticed", e.hasLeft)
			}
			if name == "who sends on" {
				eventually(t, "it is noticed", e.hasUnread)
			}
			if got := e.hasLeft(); got != c.left {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A pipeListener is one to which connections come that are made in memory, so
// that their time can be a test's.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	if c, open := <-l; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error   { close(l); return nil }
func (l pipeListener) Addr() net.Addr { return nil }

func TestAConnectionHasItsTimes(t *testing.T) {
	half := "GET /maybe?environment=uat HTTP/1.1\r\nHost: call-me\r\n"
	rest := "X-API-KEY: " + testKey + "\r\n\r\n"
	for name, c := range map[string]struct {
		say  func(io.Writer)
		want time.Duration // until it is cut off
	}{
		"who says nothing":            {func(io.Writer) {}, headerTime},
		"who begins a call":           {func(w io.Writer) { io.WriteString(w, half) }, headerTime},
		"who begins byte by byte":     {func(w io.Writer) { trickle(w, half) }, headerTime},
		"who makes a call":            {func(w io.Writer) { io.WriteString(w, half+rest) }, idleTime},
		"who begins a second one":     {func(w io.Writer) { io.WriteString(w, half+rest+half) }, headerTime},
		"who begins one after a rest": {func(w io.Writer) { io.WriteString(w, half+rest); time.Sleep(time.Minute); io.WriteString(w, half) }, time.Minute + headerTime},
		"who makes one after another": {func(w io.Writer) {
			io.WriteString(w, half)
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				io.WriteString(w, rest+half)
			}
		}, time.Minute + headerTime},
		"who makes one in a while": {func(w io.Writer) {
			for range 10 {
				io.WriteString(w, half+rest)
				time.Sleep(idleTime - time.Second)
			}
		}, 9*(idleTime-time.Second) + idleTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, "")
				s := &server{keeper: g.keeper, declared: g.declared, metrics: g.metrics, log: quietLog()}
				s.keys.set([]string{testKey})
				callers := make(pipeListener)
				h := s.http()
				go h.Serve(newLimitedListener(callers, 10))
				ours, theirs := net.Pipe()
				callers <- theirs
				start := time.Now()
				var saying sync.WaitGroup
				saying.Go(func() { c.say(ours) })
				answers, _ := io.ReadAll(ours)
				if took := time.Since(start); took != c.want {
					t.Errorf("cut off after %v, want %v; it was told %q", took, c.want, answers[:min(len(answers), 200)])
				}
				ours.Close()
				saying.Wait()
				h.Close()
				g.close()
			})
		})
	}
}

// trickle sends a byte a second.
func trickle(w io.Writer, text string) {
	for i := range len(text) {
		io.WriteString(w, text[i:i+1])
		time.Sleep(time.Second)
	}
}
