//go:build unix

package tests

// Files that are read again without SIGHUP, as Kubernetes replaces them: a mounted Secret is a
// folder of links to ..data/NAME, and ..data is a link to a folder, which is replaced by rename.

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mount is a folder with the files of a Secret or a ConfigMap.
type mount struct {
	t      *testing.T
	folder string
	count  int
}

func newMount(t *testing.T, files map[string]string) *mount {
	m := &mount{t: t, folder: t.TempDir()}
	m.replace(files)
	for name := range files {
		if err := os.Symlink("..data/"+name, m.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *mount) path(name string) string { return filepath.Join(m.folder, name) }

// replace replaces all files, as the kubelet does.
func (m *mount) replace(files map[string]string) {
	m.t.Helper()
	m.count++
	folder := fmt.Sprintf("..2026_01_01_%d", m.count)
	err := os.Mkdir(m.path(folder), 0o755)
	for name, text := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join(m.path(folder), name), []byte(text), 0o644)
		}
	}
	if err == nil {
		err = os.Symlink(folder, m.path("..data_tmp"))
	}
	if err == nil {
		err = os.Rename(m.path("..data_tmp"), m.path("..data"))
	}
	if err == nil && m.count > 1 {
		err = os.RemoveAll(m.path(fmt.Sprintf("..2026_01_01_%d", m.count-1)))
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// pemPair returns a new certificate and its key, and its serial number.
func (a *authority) pemPair() (cert, key string, serial int64) {
	a.t.Helper()
	dir := a.t.TempDir()
	serial = a.issue(filepath.Join(dir, "cert"), filepath.Join(dir, "key"))
	certText, _ := os.ReadFile(filepath.Join(dir, "cert"))
	keyText, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(certText), string(keyText), serial
}

const someIssuer = `[{"issuer": "https://issuer.example", "audience": "%s", "match": {"owner": "acme"}, "name": "x"}]`

func TestAReplacedSecretIsReadWithoutASignal(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key, first := a.pemPair()
	files := map[string]string{"keys": "the-old-key-of-this-test\n", "environments": "uat\n", "oidc.json": fmt.Sprintf(someIssuer, "one"),
		"tls.crt": cert, "tls.key": key}
	m := newMount(t, files)
	d := makeDaemon(t, "API_KEY=", "API_KEY_FILE="+m.path("keys"), "CALL_ME_ENVIRONMENTS_FILE="+m.path("environments"), "CALL_ME_OIDC_FILE="+m.path("oidc.json"),
		"CALL_ME_TLS_CERTIFICATE="+m.path("tls.crt"), "CALL_ME_TLS_PRIVATE_KEY="+m.path("tls.key"))
	d.base, d.http.Transport = "https://"+d.host, &http.Transport{TLSClientConfig: a.trust()}
	d.key = "the-old-key-of-this-test"
	d.start()
	serial := func() int64 {
		c, err := tls.Dial("tcp", d.host, a.trust())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != first {
		t.Errorf("certificate %d, want %d", got, first)
	}

	var second int64
	files["keys"], files["environments"], files["oidc.json"] = "the-new-key-of-this-test\n", "uat\nperf\n", fmt.Sprintf(someIssuer, "two")
	files["tls.crt"], files["tls.key"], second = a.pemPair()
	m.replace(files)
	logged := func(what string, times int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d lines with %s", times, what), func() bool { return strings.Count(d.log.String(), what) == times })
	}
	logged("keys were read again", 1)
	logged("tokens of jobs are accepted", 2)
	logged("the certificate was read again", 1)
	logged("environments=uat,perf", 1)
	d.want(401, "GET", "/environments")
	d.key = "the-new-key-of-this-test"
	d.want(201, "POST", "/maybe?environment=perf&id=12345678")
	if got := serial(); got != second {
		t.Errorf("certificate %d, want %d", got, second)
	}

	files["keys"], files["environments"], files["oidc.json"], files["tls.crt"] = "", "perf:0\n", "[", "nonsense"
	m.replace(files)
	for _, what := range []string{"the keys stay", "the issuers of tokens stay", "the certificate stays", "the environments stay"} {
		logged(what, 1)
	}
	d.want(200, "GET", "/environments?environment=perf")

	files["keys"] = "the-last-key-of-this-test\n"
	m.replace(files)
	logged("keys were read again", 2)
	d.key = "the-last-key-of-this-test"
	d.want(204, "DELETE", "/maybe?environment=perf&id=12345678")
	for _, what := range []string{"the issuers of tokens stay", "the certificate stays", "the environments stay"} {
		logged(what, 1) // not once for each look
	}
}
