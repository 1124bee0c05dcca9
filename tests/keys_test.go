package tests

// The keys and addresses that a process reads and logs.

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestKeysAreExchangedWhileTheServerServes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the-old-key-of-this-test\nthe-other-key-of-this-test\n")
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
	d.key = "the-other-key-of-this-test"
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=first")
	client, out := d.client("client", "request", "uat") // its key is the old one, the first in its file
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 3)
	waits := func(key, path string) {
		r, _ := http.NewRequest(map[bool]string{true: "GET", false: "POST"}[path == "/events"], d.base+path, nil)
		r.Header.Set("X-API-KEY", key)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			ended <- err.Error()
			return
		}
		body, _ := io.ReadAll(response.Body)
		ended <- fmt.Sprint(key[:9], " ", response.StatusCode, " ", strings.Contains(string(body), `"code":401`))
	}
	go waits("the-old-key-of-this-test", "/maybe?environment=uat&id=waiting-1&wait=1m")
	go waits("the-old-key-of-this-test", "/events")
	go waits("the-other-key-of-this-test", "/maybe?environment=uat&id=waiting-2&wait=1m")
	eventually(t, "all three are in the queue", func() bool {
		_, body := d.call("GET", "/environments?environment=uat")
		return strings.Count(body, `"connected":true`) == 3
	})
	write("the-new-key-of-this-test\nthe-other-key-of-this-test\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the keys are read again", func() bool { return strings.Contains(d.log.String(), "keys were read again") })
	exchanged := time.Now()
	got := map[string]bool{}
	for range 2 {
		select {
		case told := <-ended:
			got[told] = true
		case <-time.After(20 * time.Second):
		}
	}
	if !got["the-old-k 401 true"] || !got["the-old-k 200 false"] {
		t.Errorf("the waiters with the removed key got %v", got)
	}
	if took := time.Since(exchanged); took > time.Second {
		t.Errorf("after %v", took)
	}
	for key, want := range map[string]int{"the-old-key-of-this-test": 401, "the-new-key-of-this-test": 200, "the-other-key-of-this-test": 200} {
		d.key = key
		if code, _ := d.call("GET", "/environments"); code != want {
			t.Errorf("%s: %d, want %d", key, code, want)
		}
	}
	d.key = "the-other-key-of-this-test"
	for _, id := range []string{"waiting-1", "waiting-2", "12345678"} {
		if code, body := d.call("DELETE", "/maybe?environment=uat&id="+id); code != 204 {
			t.Fatalf("release of %s: %d %s", id, code, body)
		}
	}
	if err := client.Wait(); err != nil { // the client has read its file again
		t.Errorf("%v\n%s", err, out)
	}
	write("")
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the empty file is refused", func() bool { return strings.Contains(d.log.String(), "the keys stay as they were") })
	if code, _ := d.call("GET", "/environments"); code != 200 {
		t.Errorf("an empty key file locked everyone out: %d", code)
	}
	if strings.Contains(d.log.String(), "key-of-this-test") {
		t.Error("a key is in the log")
	}
}

func TestAShortKeyIsWarnedOf(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	for keys, warnings := range map[string]int{"fifteen-letters\nshort\n": 1, "sixteen-letters-\n": 0} {
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
		warned := func() int {
			text := d.log.String()
			n := strings.Count(text, "a key is short enough to be guessed")
			if n != strings.Count(text, "openssl rand -hex 16") {
				t.Errorf("it does not say what helps: %s", text)
			}
			return n
		}
		eventually(t, "it serves", func() bool { return strings.Contains(d.log.String(), "msg=serving") })
		if got := warned(); got != warnings {
			t.Errorf("%q: %d warnings", keys, got)
		}
		d.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the keys are read again", func() bool { return strings.Contains(d.log.String(), "keys were read again") })
		if got := warned(); got != 2*warnings {
			t.Errorf("%q: %d warnings after SIGHUP", keys, got)
		}
	}
}

func TestXForwardedForCountsOnlyFromATrustedProxy(t *testing.T) {
	t.Parallel()
	for trusted, want := range map[string]string{"": `"from":"127.0.0.1"`, "127.0.0.1": `"from":"1.1.1.1"`} {
		d := newDaemon(t, "CALL_ME_TRUSTED_PROXIES="+trusted)
		d.call("POST", "/maybe?environment=uat&id=12345678")
		r, _ := http.NewRequest("DELETE", d.base+"/maybe?environment=uat&force=1", nil)
		r.Header = http.Header{"X-Api-Key": {testKey}, "X-Forwarded-For": {"6.6.6.6, 1.1.1.1"}}
		if response, err := http.DefaultTransport.RoundTrip(r); err != nil || response.StatusCode != 204 {
			t.Fatal(response, err)
		}
		if _, body := d.call("GET", "/history"); !strings.Contains(body, want) {
			t.Errorf("with %q: %s, want %s", trusted, body, want)
		}
	}
}

// A key file that has become a FIFO does not hold up the SIGHUPs that follow.
func TestAKeyFileThatIsAFIFOIsRejected(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("\ufeffthe-key-of-this-test\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
	d.key = "the-key-of-this-test"
	d.want(200, "GET", "/environments")
	if err := errors.Join(os.Remove(file), exec.Command("mkfifo", file).Run()); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the FIFO is rejected", func() bool { return strings.Contains(d.log.String(), "not a regular file") })
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("another-key-of-this-test\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the new key is read", func() bool { return strings.Contains(d.log.String(), "keys were read again") })
	d.key = "another-key-of-this-test"
	d.want(200, "GET", "/environments")
}
