//go:build unix

package tests

// Rows of two_servers_test.go in which nothing fails: settings are read again, and the leader is
// told to stop.

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// rowSettings: the keys change while a call waits that a standby has passed on. It goes on to wait,
// and the removed key is refused by both servers, also after a takeover.
func rowSettings(t *testing.T, binary string) []string {
	const oldKey = "a-key-that-is-removed"
	file := filepath.Join(t.TempDir(), "keys")
	write := func(keys ...string) {
		if err := os.WriteFile(file, []byte(strings.Join(keys, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(testKey, oldKey)
	p := newEtcd(t).newPair(binary, "API_KEY=", "API_KEY_FILE="+file)
	withKey := func(s *sharedServer, key string) int {
		d := *s.daemon
		d.key = key
		status, _ := d.call("GET", "/key")
		return status
	}
	for _, s := range []*sharedServer{p.a, p.b} {
		if got := withKey(s, oldKey); got != http.StatusOK {
			p.errorf("the key is answered %d before it is removed", got)
		}
		p.want(s, 200, "HEAD", "/healthz")
	}
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	waiting := later(p.b, post, "/maybe?environment=uat&holder=without-id&wait=14s")
	eventually(t, "it waits", func() bool { return connected(p.a.daemon) == 1 })
	write(testKey)
	for _, s := range []*sharedServer{p.a, p.b} {
		s.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the key is refused", func() bool { return withKey(s, oldKey) == http.StatusUnauthorized })
		eventually(t, "the standby notices what it must have, too", func() bool {
			return strings.Contains(p.b.log.String(), "the leader has other settings than this server")
		})
	}
	p.want(p.a, 204, del, maybe("first-id", ""))
	if got := <-waiting; got.status != http.StatusCreated {
		p.errorf("the waiting call got %d %s", got.status, got.body)
	}
	p.a.cmd.Process.Signal(syscall.SIGTERM)
	p.a.cmd.Wait()
	p.b.waitToLead()
	if got := withKey(p.b, oldKey); got != http.StatusUnauthorized {
		p.errorf("after a takeover the removed key is answered %d", got)
	}
	return p.wrong
}

// rowLastAnswers: the leader is told to stop under load. Whoever has got a slot of it is told so:
// a caller without an id could never know.
func rowLastAnswers(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	var mu sync.Mutex
	told := map[string]bool{}
	var clients sync.WaitGroup
	for client := range 30 {
		clients.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("e%d-%d", client, i)
				status, _ := p.a.call(post, "/maybe?environment="+name+"&holder=x&ttl=1h")
				if status != http.StatusCreated {
					return
				}
				mu.Lock()
				told[name] = true
				mu.Unlock()
			}
		})
	}
	eventually(t, "some have slots", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) > 100 })
	p.a.cmd.Process.Signal(syscall.SIGTERM)
	clients.Wait()
	p.a.cmd.Wait()
	p.b.waitToLead()
	_, seen := p.b.call("GET", "/environments")
	untold := strings.Count(seen, `"holder":"x"`) - len(told)
	if untold != 0 {
		p.errorf("%d slots are held that nobody was told of, of %d", untold, len(told))
	}
	return p.wrong
}
