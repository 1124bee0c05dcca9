package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
	"unsafe"
)

// Writes are cut into as few parts as fit, and only where a step ends.
func TestWritesAreCutAtSteps(t *testing.T) {
	w := func(n int) []write {
		all := make([]write, n)
		for i := range all {
			all[i] = write{"b", []byte(fmt.Sprint("key", i)), make([]byte, 10)}
		}
		return all
	}
	big := write{"b", []byte("big"), make([]byte, 600<<10)}
	for _, c := range []struct {
		writes []write
		ends   []int
		want   []int // the lengths of the parts
	}{
		{nil, nil, []int{0}},
		{w(3), nil, []int{3}},
		{w(3), []int{0, 0, 2, 3, 3}, []int{3}},
		{w(119), []int{50, 100}, []int{119}},
		{w(120), []int{50, 100}, []int{100, 20}},
		{w(300), []int{100, 200}, []int{100, 100, 100}},
		{w(300), []int{20, 40, 110, 130, 250}, []int{110, 20, 120, 50}}, // a step that is too large stays whole
		{[]write{big, big, big}, []int{1, 2}, []int{1, 1, 1}},
		{[]write{big, big, big}, []int{2}, []int{2, 1}},
	} {
		var got []int
		var all []write
		for _, part := range cutAtSteps(c.writes, c.ends) {
			got, all = append(got, len(part)), append(all, part...)
		}
		if !slices.Equal(got, c.want) || len(all) != len(c.writes) {
			t.Errorf("%d writes with the ends %v: parts of %v, want %v", len(c.writes), c.ends, got, c.want)
		}
	}
}

// What counts is the clock that has gone further: the monotonic one stands still while a machine
// is suspended, and the other one may be set back.
func TestTimePassesByTheFasterClock(t *testing.T) {
	from := time.Now()
	for _, c := range []struct{ monotonic, wall, want time.Duration }{
		{3 * time.Second, 3 * time.Second, 3 * time.Second},
		{3 * time.Second, 10 * time.Second, 10 * time.Second},
		{3 * time.Second, -time.Hour, 3 * time.Second},
	} {
		to := from.Add(c.wall)
		// The second word of a time.Time is its monotonic clock: none of its methods sets that alone.
		*(*int64)(unsafe.Add(unsafe.Pointer(&to), 8)) += int64(c.monotonic - c.wall)
		if m, w := to.Sub(from), to.Round(0).Sub(from.Round(0)); m != c.monotonic || w != c.wall {
			t.Fatalf("%v and %v have passed, want %v and %v", m, w, c.monotonic, c.wall)
		}
		if got := passed(from, to); got != c.want {
			t.Errorf("%v by the monotonic clock, %v by the wall clock: %v, want %v", c.monotonic, c.wall, got, c.want)
		}
	}
}

// A leader shows what is in memory as long as its key was there a short time ago, and will be for some
// time: a proof alone does not renew its lease.
func TestALeaderNeedsAProofAndARenewal(t *testing.T) {
	for _, c := range []struct {
		proved, renewed time.Duration // ago
		want            bool
	}{{0, 0, true}, {5 * time.Second, 5 * time.Second, true}, {6 * time.Second, 0, false}, {0, 6 * time.Second, false}} {
		term := &etcdTerm{candidate: &candidate{times: newEtcdTimes(8 * time.Second)}, ctx: t.Context()}
		proved, renewed := time.Now().Add(-c.proved), time.Now().Add(-c.renewed)
		term.proved.Store(&proved)
		term.renewed.Store(&renewed)
		if term.isProven() != c.want {
			t.Errorf("proved %v ago, renewed %v ago: %v", c.proved, c.renewed, !c.want)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if term.ctx = ended; term.isProven() {
			t.Errorf("proved %v ago, renewed %v ago, and ended: true", c.proved, c.renewed)
		}
	}
}

// The header is told from that of a newer format and from a damaged one.
func TestTheHeaderInEtcd(t *testing.T) {
	h := etcdHeader{format: etcdFormat, counter: 1 << 45, sum: 1 << 63, term: 77, serial: 3}
	if got, err := decodeEtcdHeader(encodeEtcdHeader(h)); got != h || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	damaged := encodeEtcdHeader(h)
	damaged[len(damaged)-1]++
	if _, err := decodeEtcdHeader(damaged); err == nil {
		t.Error("a damaged header is accepted")
	}
	h.format++
	if _, err := decodeEtcdHeader(encodeEtcdHeader(h)); err == nil {
		t.Error("a newer format is accepted")
	}
}

func TestTheAddressOfEtcd(t *testing.T) {
	for text, want := range map[string]string{
		"etcd://a:2379,b:2380/prefix":  "etcd://a:2379,b:2380/prefix",
		"etcds://a,b,c":                "etcds://a:2379,b:2379,c:2379/call-me",
		"etcd://[::1]:2379/x/y/":       "etcd://[::1]:2379/x/y",
		"etcd://10.0.0.1/":             "etcd://10.0.0.1:2379/call-me",
		"http://a:2379":                "",
		"etcd://":                      "",
		"etcd://user:secret@a:2379/x":  "",
		"a:2379":                       "",
		"etcd://a:2379,,b:2379/prefix": "",
	} {
		var e etcdURL
		err := e.Decode(text)
		if got := e.String(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

// A certificate that is not accepted is noticed on both ends, also that of this server.
func TestCertificatesThatAreRefused(t *testing.T) {
	authority, own, other := testCertificate(t), testCertificate(t), testCertificate(t)
	pool := func(c tls.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(c.Leaf)
		return p
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		member := httptest.NewUnstartedServer(http.NotFoundHandler())
		member.EnableHTTP2 = true
		member.Config.ErrorLog = log.New(io.Discard, "", 0)
		member.TLS = &tls.Config{Certificates: []tls.Certificate{authority}, MaxVersion: version,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(own)}
		member.StartTLS()
		defer member.Close()
		away := httptest.NewServer(nil)
		away.Close()
		endpoints := []string{away.Listener.Addr().String(), member.Listener.Addr().String()}
		check := func(trusted tls.Certificate, shown ...tls.Certificate) error {
			settings := etcdSettings{endpoints: endpoints, times: newEtcdTimes(8 * time.Second),
				tls: &tls.Config{RootCAs: pool(trusted), Certificates: shown}}
			return checkEtcdTLS(t.Context(), settings)
		}
		if err := check(authority, own); err != nil {
			t.Errorf("version %x: with the right certificates: %v", version, err)
		}
		for what, err := range map[string]error{
			"without a certificate":    check(authority),
			"with another certificate": check(authority, other),
			"with another authority":   check(other, own),
		} {
			if err == nil {
				t.Errorf("version %x: %s: no error", version, what)
			}
		}
	}
}

// testCertificate returns a certificate for 127.0.0.1 that is its own authority.
func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
