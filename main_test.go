package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, processes)
}

// processes are the programs that the test binary is, by the names under which
// it is started.
var processes = map[string]func(){"call-me": main, "session": sessionProcess}

// suite runs the tests with variables that are known, and removes the built
// binary at the end.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	for _, name := range []string{"HOST", "PORT", "API_KEY", "API_KEY_FILE"} {
		os.Unsetenv(name)
	}
	dir, err := os.MkdirTemp("", "call-me-test")
	if err != nil {
		panic(err)
	}
	binDir = dir
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755) // also for other users
	code := s.m.Run()
	if leaked.Load() {
		fmt.Println("FAIL: the key was seen in an answer, in what a process says or in a database")
		return 1
	}
	return code
}

var (
	binDir string
	build  = sync.OnceValue(func() error {
		out, err := exec.Command("go", "build", "-o", binaryPath(), ".").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
)

func binaryPath() string {
	name := filepath.Join(binDir, "call-me")
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return name
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PORT", fmt.Sprint(freePort()))
			env.Setenv("HOST", "127.0.0.1:"+env.Getenv("PORT"))
			env.Setenv("API_KEY", testKey)
			env.Setenv("CALL_ME_HOLDER", "tester")
			env.Setenv("USER", "tester")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// ready waits until the server answers.
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				if err := waitForServer(http.DefaultClient, "http://"+ts.Getenv("HOST")); err != nil {
					ts.Fatalf("%v", err)
				}
			},
			// http METHOD PATH STATUS sends a request with the key.
			"http": func(ts *testscript.TestScript, neg bool, args []string) {
				r, err := http.NewRequest(args[0], "http://"+ts.Getenv("HOST")+args[1], nil)
				ts.Check(err)
				r.Header.Set("X-API-KEY", ts.Getenv("API_KEY"))
				response, err := http.DefaultClient.Do(r)
				ts.Check(err)
				response.Body.Close()
				if got := fmt.Sprint(response.StatusCode); got != args[2] {
					ts.Fatalf("%s %s: %s, want %s", args[0], args[1], got, args[2])
				}
			},
			// exits CODE COMMAND... runs a command that must end with this code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				code := 0
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			// inline N waits until N are in line for uat, or for anything.
			"inline": func(ts *testscript.TestScript, neg bool, args []string) {
				told := regexp.MustCompile(`"waited_seconds":(0\.[1-9]|[1-9])[^}]*"connected"`) // they have heard that they wait
				for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
					r, _ := http.NewRequest("GET", "http://"+ts.Getenv("HOST")+"/environments", nil)
					r.Header.Set("X-API-KEY", ts.Getenv("API_KEY"))
					response, err := http.DefaultClient.Do(r)
					ts.Check(err)
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					if n := strings.Count(string(body), `"position"`); fmt.Sprint(n) == args[0] && len(told.FindAll(body, -1)) == n {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("never %s in line: %s", args[0], body)
					}
				}
			},
			// cmplog FILE1 FILE2 compares two texts but for their times.
			"cmplog": func(ts *testscript.TestScript, neg bool, args []string) {
				got, want := timelessText(ts.ReadFile(args[0])), timelessText(ts.ReadFile(args[1]))
				if got != want {
					ts.Fatalf("%s is\n%s\nwant\n%s", args[0], got, want)
				}
			},
			// html serves a page of somebody else at $HOST, until the end.
			"html": func(ts *testscript.TestScript, neg bool, args []string) {
				listener, err := net.Listen("tcp", ts.Getenv("HOST"))
				ts.Check(err)
				ts.Defer(func() { listener.Close() })
				go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(map[string]int{"403": 403, "200": 200}[args[0]])
					io.WriteString(w, "<h1>Access denied</h1>")
				}))
			},
		},
	})
}

var times = []struct{ pattern, with string }{
	{`\d{4}-\d\d-\d\d (\d\d:\d\d)`, "$1"},    // of a time that is not today's
	{`[A-Z][a-z]{2} \d\d (\d\d:\d\d)`, "$1"}, // the same in a table,
	{`   +`, "  "},                           // where it makes a column wider
	{`\d\d:\d\d:\d\d`, "12:00:00"},
	{`\b\d\d:\d\d \(`, "12:00 ("},
	{`\b\d\d:\d\d( |$)`, "12:00$1"},
	{`\b(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms|µs|m|h)\b`, "0s"},
}

// timelessText replaces what is different each time.
func timelessText(text string) string {
	for _, t := range times {
		text = regexp.MustCompile(t.pattern).ReplaceAllString(text, t.with)
	}
	return text
}

// nextPort is below the range from which systems take the ports of outgoing
// connections: what is free stays free until it is used.
var nextPort atomic.Int32

func init() { nextPort.Store(10_000 + rand.Int32N(15_000)) }

// freePort looks from outside: a listener of our own would, for a moment,
// live on in a process that another test is starting.
func freePort() int {
	for {
		port := int(nextPort.Add(1))
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			return port
		}
		c.Close()
	}
}

func waitForServer(c *http.Client, base string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if response, err := c.Get(base + "/healthz"); err == nil {
			response.Body.Close()
			return nil
		}
	}
	return errors.New("the server does not answer")
}

// A daemon is a real server process on a real file.
type daemon struct {
	t    testing.TB
	env  []string
	host string
	log  *lockedBuffer
	cmd  *exec.Cmd

	stderr io.Writer    // the log, unless a test wants another one
	http   *http.Client // for call
	base   string       // http://host, or https://
	key    string

	wrapper []string // a command that starts the server
	flags   []string // of serve
}

// lockedBuffer collects what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	seekKey(string(l.b.Bytes()[max(0, l.b.Len()-len(p)-len(testKey)):]))
	return len(p), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newDaemon(t testing.TB, env ...string) *daemon {
	t.Helper()
	d := makeDaemon(t, env...)
	d.start()
	return d
}

// makeDaemon is newDaemon before its start.
func makeDaemon(t testing.TB, env ...string) *daemon {
	t.Helper()
	if raceDetector {
		t.Skip("the built binary is not under the race detector; this runs without it")
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	port := freePort()
	d := &daemon{t: t, host: fmt.Sprint("127.0.0.1:", port), log: &lockedBuffer{}}
	d.stderr, d.base, d.key = d.log, "http://"+d.host, testKey
	d.http = &http.Client{Transport: http.DefaultTransport, Timeout: 2 * time.Minute}
	d.env = append(os.Environ(), "API_KEY="+testKey, fmt.Sprint("PORT=", port), "HOST="+d.host, "CALL_ME_DB="+tempDB(t),
		"PATH="+binDir+string(os.PathListSeparator)+os.Getenv("PATH"))
	d.env = append(d.env, env...)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		for _, entry := range d.env {
			if name, found := strings.CutPrefix(entry, "CALL_ME_DB="); found {
				text, _ := os.ReadFile(name)
				seekKey(string(text))
			}
		}
		if t.Failed() || os.Getenv("TEST_KEY") != "" {
			t.Logf("the server said:\n%s", d.log)
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	argv := slices.Concat(d.wrapper, []string{binaryPath(), "serve"}, d.flags)
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Env, d.cmd.Stderr = d.env, d.stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	if err := waitForServer(d.http, d.base); err != nil {
		d.t.Fatalf("%v\n%s", err, d.log)
	}
}

// kill is kill -9.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// mortal makes a command of the built binary that is killed after two minutes:
// whoever waits for it for longer would wait until all tests are stopped.
func mortal(t testing.TB, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binaryPath(), args...)
	cmd.Cancel = func() error {
		if ctx.Err() == context.DeadlineExceeded {
			t.Errorf("%v: still running after two minutes", args)
		}
		return cmd.Process.Kill()
	}
	return cmd
}

// client makes a command of the client, with what it prints.
func (d *daemon) client(holder string, args ...string) (*exec.Cmd, *lockedBuffer) {
	cmd, out := mortal(d.t, args...), &lockedBuffer{}
	cmd.Env = append(d.env[:len(d.env):len(d.env)], "CALL_ME_HOLDER="+holder)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func (d *daemon) call(method, path string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequest(method, d.base+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-KEY", d.key)
	response, err := d.http.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	seekKey(string(body))
	return response.StatusCode, string(body)
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The two pipelines. Without call-me their tests must fail: a check that
// cannot fail proves nothing.
func TestTwoPipelinesNeverDisturbEachOther(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the pipelines are shell scripts")
	}
	const rounds = 12
	run := func(t *testing.T, d *daemon, lock string, meanwhile func()) (disturbed, other int) {
		folder := t.TempDir()
		var mu sync.Mutex
		var both sync.WaitGroup
		for _, repo := range []string{"repo-a", "repo-b"} {
			both.Go(func() {
				for i := range rounds {
					cmd := exec.Command("sh", "examples/pipeline.sh", fmt.Sprint(repo, "-", i), folder)
					cmd.Env = append(d.env[:len(d.env):len(d.env)], "LOCK="+lock, fmt.Sprint("CALL_ME_HOLDER=", repo, "/", i))
					out, err := cmd.CombinedOutput()
					mu.Lock()
					if cmd.ProcessState.ExitCode() == 3 {
						disturbed++
					} else if err != nil {
						other++
						t.Logf("%v\n%s", err, out)
					}
					mu.Unlock()
				}
			})
		}
		if meanwhile != nil {
			meanwhile()
		}
		both.Wait()
		return disturbed, other
	}
	t.Run("without call-me they do", func(t *testing.T) {
		d := newDaemon(t)
		if disturbed, _ := run(t, d, "none", nil); disturbed == 0 {
			t.Error("the tests of two unlocked pipelines never failed: the check is worth nothing")
		} else {
			t.Logf("%d of %d runs were disturbed", disturbed, 2*rounds)
		}
	})
	t.Run("with call-me", func(t *testing.T) {
		d := newDaemon(t)
		if disturbed, other := run(t, d, "call-me", nil); disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
	})
	t.Run("while the server is killed and started again", func(t *testing.T) {
		d := newDaemon(t)
		disturbed, other := run(t, d, "call-me", func() {
			for range 6 {
				time.Sleep(300 * time.Millisecond)
				d.kill()
				d.start()
			}
		})
		if disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
	})
	t.Run("while pipelines are killed in the line", func(t *testing.T) {
		d := newDaemon(t)
		killed := 0
		disturbed, other := run(t, d, "call-me", func() {
			for i := range 10 {
				cmd, out := d.client(fmt.Sprint("killed/", i), "request", "uat")
				cmd.Start()
				eventually(t, "the victim waits or has it", func() bool { return out.String() != "" })
				cmd.Process.Kill()
				cmd.Wait()
				if !strings.Contains(out.String(), "acquired") {
					killed++
				} else if release, out := d.client(fmt.Sprint("killed/", i), "release", "uat"); release.Run() != nil {
					t.Error(out)
				}
			}
		})
		if disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
		if killed == 0 {
			t.Error("none was killed in the line")
		}
	})
}

func TestFiftyWaitersKeepTheirOrderAcrossAKill(t *testing.T) {
	d := newDaemon(t)
	first, _ := d.client("first", "request", "uat")
	if err := first.Run(); err != nil {
		t.Fatal(err)
	}
	var acquired lockedBuffer
	var all sync.WaitGroup
	const n = 50
	for i := range n {
		holder := fmt.Sprintf("w%02d", i)
		cmd, out := d.client(holder, "request", "uat")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, holder+" is in line", func() bool { return strings.Contains(out.String(), "in line") })
		all.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v\n%s", holder, err, out)
				return
			}
			fmt.Fprintln(&acquired, holder)
			if release, out := d.client(holder, "release", "uat"); release.Run() != nil {
				t.Errorf("%s: releasing: %s", holder, out)
			}
		})
	}
	d.kill()
	d.start()
	if release, out := d.client("first", "release", "uat"); release.Run() != nil {
		t.Fatal(out)
	}
	all.Wait()
	want := ""
	for i := range n {
		want += fmt.Sprintf("w%02d\n", i)
	}
	if acquired.String() != want {
		t.Errorf("the order was\n%s", acquired.String())
	}
	last := uint64(0)
	for _, m := range regexp.MustCompile(`msg=granted .*fence=(\d+)`).FindAllStringSubmatch(d.log.String(), -1) {
		var fence uint64
		fmt.Sscan(m[1], &fence)
		if fence <= last {
			t.Errorf("fence %d after %d", fence, last)
		}
		last = fence
	}
	if last == 0 {
		t.Error("no fence was seen")
	}
}

func TestAWaiterThatIsKilledIsPassedOverAndOneThatIsStoppedLeavesTheLine(t *testing.T) {
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=first")
	start := func(holder string) (*exec.Cmd, *lockedBuffer) {
		cmd, out := d.client(holder, "request", "uat")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, holder+" is in line", func() bool { return strings.Contains(out.String(), "in line") })
		return cmd, out
	}
	killed, _ := start("killed")
	for _, s := range ending {
		stopped, out := start("stopped")
		stopped.Process.Signal(s)
		stopped.Wait()
		if code := stopped.ProcessState.ExitCode(); runtime.GOOS != "windows" && code != 128+int(s) {
			t.Errorf("exit code %d after %v: %s", code, s, out)
		}
		if _, body := d.call("GET", "/environments?environment=uat"); strings.Contains(body, "stopped") {
			t.Errorf("after %v it is in line still: %s", s, body)
		}
	}
	next, _ := start("next")
	killed.Process.Kill()
	killed.Wait()
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := next.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSIGTERMAnswersEveryWaiterAndClientsKeepTheirPlaces(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678")
	waiters := 10_000
	if limit := maxWaiters() - 100; limit < waiters {
		waiters = limit
		t.Logf("the limit of open files allows %d waiters", waiters)
	}
	if testing.Short() {
		waiters = 500
	}
	cmd, out := d.client("client", "request", "uat")
	cmd.Start()
	eventually(t, "the client is in line", func() bool { return strings.Contains(out.String(), "in line") })
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	answers := make(chan string, waiters)
	var stopped atomic.Bool
	for i := range waiters {
		go func() {
			r, _ := http.NewRequest("POST", fmt.Sprintf("http://%s/maybe?environment=uat&id=waiter-%05d&wait=5m", d.host, i), nil)
			r.Header.Set("X-API-KEY", testKey)
			response, err := transport.RoundTrip(r)
			for ; err != nil && !stopped.Load(); response, err = transport.RoundTrip(r) {
				time.Sleep(100 * time.Millisecond) // one that was closed before its request was there comes again, as any client
			}
			if err != nil {
				answers <- err.Error()
				return
			}
			response.Body.Close()
			answers <- fmt.Sprint(response.StatusCode, " Retry-After ", response.Header.Get("Retry-After"))
		}()
	}
	eventually(t, "all are in line", func() bool {
		_, body := d.call("GET", "/environments?environment=uat")
		return strings.Count(body, `"connected":true`) == waiters+1
	})
	stopped.Store(true)
	start := time.Now()
	d.cmd.Process.Signal(syscall.SIGTERM)
	counts := map[string]int{}
	for range waiters {
		counts[<-answers]++
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	} else {
		t.Logf("%d waiters were answered and the file closed in %v", waiters, took)
	}
	if counts["503 Retry-After 1"] != waiters {
		t.Errorf("answers: %v", counts)
	}
	d.start()
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := cmd.Wait(); err != nil { // it was the first in line, and still is
		t.Errorf("%v\n%s", err, out)
	}
}

func TestALeaseExpiresWhenItShouldAlsoAcrossARestart(t *testing.T) {
	d := newDaemon(t)
	took := func(restart bool) time.Duration {
		start := time.Now()
		d.call("POST", "/maybe?environment=uat&id="+newID()+"&ttl=2s")
		if restart {
			time.Sleep(time.Second)
			d.kill()
			d.start()
			start = time.Now()
		}
		if code, body := d.call("POST", "/maybe?environment=uat&wait=1m&id="+newID()+"&ttl=1s"); code != 201 {
			t.Fatal(code, body)
		}
		after := time.Since(start)
		d.call("DELETE", "/maybe?environment=uat&force=1")
		return after
	}
	if d := took(false); d < 2*time.Second || d > 4*time.Second {
		t.Errorf("a lease of 2 s ended after %v", d)
	}
	// The server counts from when it listens, which is a little earlier than
	// when we saw that it does.
	if d := took(true); d < 1900*time.Millisecond || d > 4*time.Second {
		t.Errorf("after a restart a lease of 2 s ended after %v", d)
	}
}

func TestHoldersReleaseByThemselvesOnly(t *testing.T) {
	d := newDaemon(t)
	ends := func(want int, holder string, args ...string) string {
		t.Helper()
		cmd, out := d.client(holder, args...)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		go func() { <-ctx.Done(); cmd.Process.Kill() }()
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%s %v: exit code %d, want %d\n%s", holder, args, code, want, out)
		}
		return out.String()
	}
	ends(0, "a", "request", "uat")
	ends(75, "b", "request", "uat", "--no-wait")
	ends(75, "b", "request", "--timeout", "1s", "uat")
	if text := ends(76, "b", "release", "uat"); !strings.Contains(text, "CALL_ME_HOLDER=a") {
		t.Error(text)
	}
	ends(0, "a", "release", "uat")
	ends(0, "b", "request", "uat")
	ends(0, "a", "release", "uat") // a second clean-up step, after the next grant
	ends(75, "c", "request", "uat", "--no-wait")
	ends(0, "c", "release", "uat", "--force")
	ends(76, "b", "release", "uat")
}

// The first thing that people see of call-me must be what it does.
func TestTheTranscriptOfTheREADME(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```\n$ call-me request uat\n")
	transcript, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README has no transcript")
	}
	d := newDaemon(t, "TZ=UTC")
	d.call("POST", "/maybe?environment=uat&id=12345678&ttl=2h&reason=release+1.4&holder=github:acme/shop/run/123/deploy&url=https://github.com/acme/shop/actions/runs/123")
	cmd, out := d.client("next", "request", "uat")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() bool { return strings.Contains(out.String(), "in line") })
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := timelessText(out.String()); got != timelessText(transcript) {
		t.Errorf("the binary says\n%s\nthe README\n%s", got, timelessText(transcript))
	}
}

// missing fails in CI, where everything must be there, and skips elsewhere.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not there; install it", what)
	}
	t.Skipf("%s is not there", what)
}
