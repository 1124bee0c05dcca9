package tests

// A server that is away, as the commands meet it: several servers in HOST, proxies of the
// machine, and machines that vanish.

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A frontDoor is an address of a server, such as that of the machine it runs on now. It can
// be closed and opened: a closed one answers with 404 and a page, as a proxy would.
type frontDoor struct {
	*httptest.Server
	closed atomic.Bool
}

func newFrontDoor(t *testing.T, d *daemon) *frontDoor {
	to, err := url.Parse(d.base)
	if err != nil {
		t.Fatal(err)
	}
	door := &frontDoor{}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.FlushInterval = -1
	proxy.ErrorLog = nil
	door.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if door.closed.Load() {
			http.Error(w, "<h1>not here</h1>", http.StatusNotFound)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		door.CloseClientConnections()
		door.Close()
	})
	return door
}

// move closes one address of the server and opens another one. Connections to the first end.
func (door *frontDoor) move(to *frontDoor) {
	to.closed.Store(false)
	door.closed.Store(true)
	door.CloseClientConnections()
}

// Each command finds the server at the address where it is now, and keeps what it has when the
// server moves.
func TestAServerThatMoves(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("shell commands")
	}
	d := newDaemon(t)
	a, b := newFrontDoor(t, d), newFrontDoor(t, d)
	b.closed.Store(true)
	host := "HOST=127.0.0.1:1," + a.URL + "," + b.URL // nothing listens on port 1
	command := func(holder string, args ...string) (*exec.Cmd, *lockedBuffer) {
		cmd, out := d.client(holder, args...)
		cmd.Env = append(cmd.Env, host)
		return cmd, out
	}
	works := func(holder string, args ...string) string {
		t.Helper()
		cmd, out := command(holder, args...)
		if err := cmd.Run(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		return out.String()
	}
	works("one", "request", "uat")
	waiter, waits := command("two", "request", "uat")
	watcher, shown := command("", "status", "--watch")
	runner, runs := command("three", "run", "perf", "--ttl", "6s", "--", "sleep", "8")
	killed, _ := command("four", "run", "killed", "--ttl", "1h", "--", "sleep", "60")
	for _, cmd := range []*exec.Cmd{waiter, watcher, runner, killed} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
	}
	holds := func(holder string) func() bool {
		return func() bool {
			_, body := d.call("GET", "/environments")
			return strings.Contains(body, `"holder":"`+holder+`"`)
		}
	}
	eventually(t, "the second waits", func() bool { return strings.Contains(waits.String(), "in the queue") })
	eventually(t, "the others run", func() bool { return holds("three")() && holds("four")() })
	eventually(t, "the table is shown", func() bool { return strings.Contains(shown.String(), "four") })

	a.move(b)
	works("one", "renew", "uat")
	if text := works("", "status"); !strings.Contains(text, "two") {
		t.Errorf("the place is lost:\n%s", text)
	}
	works("", "history")
	works("", "backup", filepath.Join(t.TempDir(), "copy.db"))
	works("one", "release", "uat")
	if err := waiter.Wait(); err != nil || strings.Contains(waits.String(), "end of the queue") {
		t.Errorf("%v\n%s", err, waits)
	}
	if err := runner.Wait(); err != nil || !strings.Contains(runs.String(), "released perf") {
		t.Errorf("%v\n%s", err, runs)
	}
	works("five", "request", "later")
	eventually(t, "the change is shown", func() bool { return strings.Contains(shown.String(), "five") })

	b.move(a)
	killed.Process.Kill()
	if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
		eventually(t, "the watchdog releases", func() bool { return !holds("four")() })
	}
}

// An error on the way through the machine's proxy names the variable, and what leaves the server
// out.
func TestAProxyOfTheMachineIsNamed(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not for you", http.StatusForbidden)
	}))
	t.Cleanup(refusing.Close)
	passing := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Host = d.host // whatever the name
	}})
	t.Cleanup(passing.Close)
	address := strings.TrimPrefix(refusing.URL, "http://")
	for name, c := range map[string]struct {
		env  []string
		want []string
	}{
		"it refuses": {[]string{"HTTP_PROXY=http://user:secret@" + address, "HOST=call-me.invalid"}, []string{
			"call-me: http://call-me.invalid:8000 does not answer as call-me: 403 Forbidden (text/plain; charset=utf-8)\n",
			"hint: the call went through the proxy " + address + " (HTTP_PROXY); without it: NO_PROXY=call-me.invalid\n"}},
		"it refuses TLS": {[]string{"https_proxy=" + address, "HOST=https://call-me.invalid"}, []string{
			"call-me: the proxy refuses https://call-me.invalid: Forbidden (https_proxy=" + address + ")\n",
			"hint: to call the server without the proxy: NO_PROXY=call-me.invalid\n"}},
		"it is not there": {[]string{"HTTP_PROXY=127.0.0.1:1", "HOST=call-me.invalid"}, []string{
			"call-me: cannot reach http://call-me.invalid:8000 through the proxy 127.0.0.1:1 (HTTP_PROXY): nothing listens there\n",
			"hint: to call the server without the proxy: NO_PROXY=call-me.invalid\n"}},
		"it is left out": {[]string{"HTTP_PROXY=" + address, "NO_PROXY=call-me.invalid", "HOST=call-me.invalid"}, []string{
			"call-me: there is no host call-me.invalid\n"}},
		"it works": {[]string{"HTTP_PROXY=" + passing.URL, "HOST=call-me.invalid"}, []string{"ENVIRONMENT"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "it works" {
				d.call("POST", "/maybe?environment=uat")
			}
			cmd, out := d.client("h", "status")
			cmd.Env = append(cmd.Env, c.env...)
			cmd.Run()
			for _, line := range c.want {
				if !strings.Contains(out.String(), line) {
					t.Errorf("%s\nwant %s", out, line)
				}
			}
			if strings.Contains(out.String(), "secret") {
				t.Errorf("the password of the proxy: %s", out)
			}
		})
	}
}

// vanish is a script that takes the place of the network: a server in a network of its own,
// which sends nothing any more after a moment, not even a RST.
const vanish = `
ip link add left type veth peer name right
unshare -n sleep 120 & other=$!
trap 'kill $server $other $waiter 2>/dev/null' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link set right netns $other
ip addr add 10.9.0.1/24 dev left && ip link set left up
inside() { nsenter -t $other -n "$@"; }
inside ip addr add 10.9.0.2/24 dev right && inside ip link set right up
nsenter -t $other -n env PORT=8000 call-me serve & server=$!
export HOST=10.9.0.2:8000
until call-me status >/dev/null 2>&1; do sleep 0.1; done
call-me request uat >/dev/null 2>&1
CALL_ME_HOLDER=waiter call-me request uat & waiter=$!
until call-me status | grep -q waiter; do sleep 0.1; done
eval "$BEFORE"
inside ip route add blackhole 10.9.0.1/32
eval "$AFTER"
echo vanished
sleep $SECONDS_LATER
kill $waiter
`

// A client in a poll notices that the machine of the server has vanished: after 11 s, not when
// the poll ends.
func TestAMachineThatVanishes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after, later string
		isLong               bool
	}{
		"while nothing is sent": {later: "14"},
		// The next poll is sent when the machine is gone, and never acknowledged.
		"while a poll is sent": {before: "kill -STOP $waiter; sleep 26", after: "kill -CONT $waiter", later: "14", isLong: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.isLong && leftOut(t, "40 s") {
				return
			}
			for _, tool := range []string{"unshare", "nsenter", "ip"} {
				if _, err := exec.LookPath(tool); err != nil || runtime.GOOS != "linux" {
					missing(t, tool+", of util-linux and iproute2,")
				}
			}
			d := makeDaemon(t)
			enter := []string{"unshare", "-n"}
			if os.Getuid() != 0 {
				enter = []string{"unshare", "-rn"}
			}
			if err := exec.Command(enter[0], append(enter[1:], "ip", "link", "add", "left", "type", "veth", "peer", "name", "right")...).Run(); err != nil {
				missing(t, "a network namespace ("+strings.Join(enter, " ")+": "+err.Error()+")")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, enter[0], append(enter[1:], "bash", "-c", vanish)...)
			cmd.Env = append(d.env, "BEFORE="+c.before, "AFTER="+c.after, "SECONDS_LATER="+c.later, "CALL_ME_HOLDER=holder")
			out := &lockedBuffer{}
			cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, time.Second
			cmd.Run() // the script ends by its trap
			if !strings.Contains(out.String(), "cannot reach http://10.9.0.2:8000: no answer in time; trying until it answers") {
				t.Errorf("not noticed in %s s:\n%s", c.later, out)
			}
		})
	}
}

// The loop of docs/api.md tells what goes wrong on the way apart, says so on stderr, and goes on
// where that may help.
func TestTheLoopWithCurl(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err == nil {
		_, err = exec.LookPath("curl")
	}
	if err != nil || runtime.GOOS == "windows" {
		missing(t, "curl, in a shell")
	}
	readme, err := os.ReadFile("docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, loop, found := strings.Cut(string(readme), "new_id() {")
	loop, _, end := strings.Cut(loop, "```")
	if !found || !end {
		t.Fatal("docs/api.md has no loop with curl")
	}
	loop = strings.Replace("new_id() {"+loop, "sleep 2", "sleep 0.01", 1)
	page := func(status int) func(http.ResponseWriter, *http.Request, int32, *daemon) bool {
		return func(w http.ResponseWriter, r *http.Request, n int32, _ *daemon) bool {
			if n <= 3 {
				http.Error(w, `{"message":"no","code":0}`, status)
			}
			return n <= 3
		}
	}
	for name, c := range map[string]struct {
		meddle func(http.ResponseWriter, *http.Request, int32, *daemon) bool
		env    string
		code   int
		said   string
		times  int
	}{
		"a proxy's 403":  {page(403), "", 0, "no answer from call-me at ", 3},
		"a proxy's 404":  {page(404), "", 0, "no answer from call-me at ", 3},
		"a proxy's 502":  {page(502), "", 0, "no answer from call-me at ", 3},
		"a proxy's 200":  {page(200), "", 0, "no answer from call-me at ", 3},
		"no user":        {page(200), "USER=", 0, "@", 0},
		"a dead server":  {nil, "HOST=127.0.0.1:1", 1, "no answer from call-me at 127.0.0.1:1, trying again: 000", 30},
		"no server":      {nil, "HOST=", 1, "no answer from call-me at , trying again: 000", 30},
		"the wrong key":  {nil, "API_KEY=wrong", 1, "call-me refuses: ", 1},
		"the place lost": {loseThePlace, "", 0, "the place in the queue is lost, starting again: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			to, err := url.Parse(d.base)
			if err != nil {
				t.Fatal(err)
			}
			proxy := httputil.NewSingleHostReverseProxy(to)
			var calls atomic.Int32
			door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.meddle == nil || !c.meddle(w, r, calls.Add(1), d) {
					proxy.ServeHTTP(w, r)
				}
			}))
			defer door.Close()
			cmd := exec.CommandContext(t.Context(), shell, "-c", loop)
			cmd.Dir = t.TempDir()
			script := "#!/bin/sh\ncurl -s -H \"X-API-KEY: $API_KEY\" \"http://$HOST/environments\" >&2\n"
			if err := os.WriteFile(filepath.Join(cmd.Dir, "test.sh"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr lockedBuffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Env = append(d.env, "HOST="+strings.TrimPrefix(door.URL, "http://"), c.env)
			cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != c.code || stdout.String() != "" {
				t.Errorf("exit code %d, want %d; stdout %q", got, c.code, &stdout)
			}
			if got := strings.Count(stderr.String(), c.said); c.times > 0 && got != c.times {
				t.Errorf("%d times, want %d: %s\n%s", got, c.times, c.said, &stderr)
			}
			if c.code == 0 && !regexp.MustCompile(`"holder":"[^"@]+@[^"]+"`).MatchString(stderr.String()) {
				t.Errorf("no holder:\n%s", &stderr)
			}
			if _, state := d.call("GET", "/environments"); strings.Contains(state, `"holder"`) {
				t.Errorf("left behind: %s", state)
			}
		})
	}
}

// loseThePlace ends the request at the server before its first call arrives.
func loseThePlace(_ http.ResponseWriter, r *http.Request, n int32, d *daemon) bool {
	if n == 1 {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		values, _ := url.ParseQuery(string(body))
		d.call("DELETE", "/maybe?environment=uat&id="+values.Get("id"))
	}
	return false
}
