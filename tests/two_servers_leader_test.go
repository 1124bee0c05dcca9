//go:build unix

package tests

// Rows of two_servers_test.go in which nothing fails: settings are read again, servers are told to stop,
// and calls are large or odd.

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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

// rowLastAnswers: the leader is told to stop under load, again and again. Whoever has got a slot of it is
// told so: a caller without an id could never know.
func rowLastAnswers(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for round := range 5 {
		p.lastAnswers(round, p.a, p.b)
		p.a, p.b = p.b, p.a
	}
	return p.wrong
}

// rowLastPassed: the same for calls that a standby passes on, which is told to stop.
func rowLastPassed(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for round := range 5 {
		p.lastAnswers(round, p.b, p.a)
	}
	return p.wrong
}

// lastAnswers tells a server to stop that answers calls, and starts it again. The other one must not know
// of slots that nobody was told of.
func (p *pair) lastAnswers(round int, stopped, other *sharedServer) {
	var mu sync.Mutex
	told := map[string]bool{}
	var clients sync.WaitGroup
	holder := fmt.Sprint("round-", round)
	for client := range 30 {
		clients.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("e%d-%d-%d", round, client, i)
				status, _ := stopped.call(post, "/maybe?environment="+name+"&ttl=1h&holder="+holder)
				if status != http.StatusCreated {
					return
				}
				mu.Lock()
				told[name] = true
				mu.Unlock()
			}
		})
	}
	eventually(p.t, "some have slots", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) > 100 })
	stopped.cmd.Process.Signal(syscall.SIGTERM)
	clients.Wait()
	stopped.cmd.Wait()
	other.waitToLead()
	_, seen := other.call("GET", "/environments")
	untold := strings.Count(seen, `"holder":"`+holder+`"`) - len(told)
	if untold != 0 {
		p.errorf("%d slots are held that nobody was told of, of %d", untold, len(told))
	}
	stopped.start()
	eventually(p.t, "it stands by", func() bool { status, _ := stopped.call("GET", "/healthz"); return status == 200 })
}

// rowRolling: the servers are upgraded in turn, again and again, in front of real clients, two for each
// environment. Each command runs, alone, and no client ends with an error.
func rowRolling(t *testing.T, binary string) []string {
	if binary == "" {
		binary = binaryPath()
	}
	p := newPair(t, binary)
	folder, stop := t.TempDir(), make(chan struct{})
	var runs atomic.Int64
	var clients sync.WaitGroup
	one, hosts := p.a, "HOST="+p.a.host+","+p.b.host
	for i := range 6 {
		name := fmt.Sprint("env-", i/2)
		alone := filepath.Join(folder, name)
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				cmd, log := one.client(fmt.Sprint("client-", i), "run", name, "--", "sh", "-c", "mkdir "+alone+" && sleep 0.05 && rmdir "+alone)
				cmd.Env = append(cmd.Env, hosts)
				if err := cmd.Run(); err != nil {
					p.errorf("client %d: %v: %s", i, err, log)
					return
				}
				runs.Add(1)
			}
		})
	}
	upgrades := 4
	if !leftOut(t, "40 rolling upgrades instead of 4") {
		upgrades = 40
	}
	for range upgrades / 2 {
		for _, s := range []*sharedServer{p.b, p.a} { // the one that does not lead first
			s.cmd.Process.Signal(syscall.SIGTERM)
			s.cmd.Wait()
			s.start()
			eventually(t, "it is ready", func() bool { status, _ := s.call("GET", "/healthz"); return status == 200 })
		}
		p.a, p.b = p.b, p.a
	}
	before := runs.Load()
	for end := time.Now().Add(10 * time.Second); runs.Load() < before+6; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.errorf("the clients do not go on")
			break
		}
	}
	close(stop)
	clients.Wait()
	t.Logf("%d runs during %d upgrades", runs.Load(), upgrades)
	return p.wrong
}

// rowQueries: a call gets the same answer from the leader and by way of a standby, also one that cannot be
// parsed.
func rowQueries(t *testing.T, binary string) []string {
	p := newEtcd(t).newPair(binary, "CALL_ME_ENVIRONMENTS=uat:blue+green")
	for _, c := range [][2]string{
		{post, "/maybe?environment=uat&holder=a;b"},
		{post, "/maybe?environment=uat&holder=%zz&id=request-1"},
		{del, "/maybe?environment=uat&holder=a;b"},
		{put, "/maybe?environment=uat;id=request-1"},
		{put, "/pause?environment=uat&slot=blue%"},
		{"GET", "/maybe?environment=uat&environment=%"},
		{"GET", "/environments?;"},
		{"GET", "/history?limit=%"},
		{"GET", "/maybe?environment=uat#fragment"},
		{"GET", "/maybe"},
		{"PATCH", "/maybe?environment=uat"},
		{"GET", "/no-such-page?a;b"},
	} {
		status, body := p.a.call(c[0], c[1])
		if s, b := p.b.call(c[0], c[1]); s != status || b != body {
			p.errorf("%s %s: %d %s, by way of the standby %d %s", c[0], c[1], status, body, s, b)
		}
	}
	for _, s := range []*sharedServer{p.a, p.b} {
		if got := holders(s); len(got) > 0 {
			p.errorf("uat is held by %q", got)
		}
	}
	form := beginCall(t, p.b, post, maybe("first-id", "&ttl=1h"))
	form.finish()
	if got := form.answer(); got.status != 201 {
		p.errorf("a form by way of the standby: %d %s", got.status, got.body)
	}
	return p.wrong
}

// rowMany: one id has leases in more environments than a transaction can change. They get another ttl,
// and are handed over, with one call each.
func rowMany(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	var all strings.Builder
	for i := range 150 {
		name := fmt.Sprint("environment=e", i)
		p.want(p.a, 201, post, "/maybe?id=request-1&holder=x&ttl=1h&"+name)
		all.WriteString("&" + name)
	}
	p.want(p.a, 200, put, "/maybe?id=request-1&ttl=2h"+all.String())
	p.want(p.a, 204, del, "/maybe?id=request-1&to=ann"+all.String())
	p.wantOneTerm()
	return p.wrong
}

// rowSmallOnly: the leader reaches etcd, but all that is large is lost on the way. Between two of its terms
// another server, which looks 32 times in a ttl, has time for two looks; and one that can lead does so soon.
func rowSmallOnly(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.a.all(linkSmall)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	large := maybe("second-id", "&ttl=1h&wait=0s&reason="+strings.Repeat("x", 200)) + "&url=https://ci.example/" + strings.Repeat("x", 800)
	p.b.all(linkCut)
	eventually(t, "it has led three times", func() bool {
		p.a.call(post, large)
		return strings.Count(p.a.log.String(), "msg=leading ") == 3
	})
	began, ended := timesOf(t, beganToLead, p.a.log), timesOf(t, ledNoMore, p.a.log)
	for i, at := range began[1:] {
		pause := at.Sub(ended[i])
		if pause < 2*2*time.Second/32 {
			p.errorf("it leads again after %v", pause)
			return p.wrong
		}
		t.Logf("it leads again after %v", pause)
	}
	p.b.all(linkOpen)
	eventually(t, "the other server leads, and answers", func() bool {
		status, _ := p.a.call(post, large)
		return status == http.StatusForbidden && p.b.leads()
	})
	return p.wrong
}
