package tests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The helpers with which tests use call-me from outside:
//
//   - A daemon is a server process with a file and a port of its own.
//     newDaemon(t, "NAME=VALUE"...) starts it, kill is kill -9, and start starts it
//     again. call sends one HTTP request: "METHOD", "/path?query". want calls call
//     and fails the test if the status is another one.
//   - client returns a command of the binary with the variables of the daemon, and a
//     buffer with its output. mortal returns a command without a daemon.
//   - eventually waits for an effect of another process. missing skips a test whose
//     tools are not installed; in CI it fails the test.
//   - The types below are the JSON of the API, with the fields that tests read.
//
// Other files add to these: a trial (run_test.go) is one process of "call-me run", a proxy
// (proxy_test.go) a real nginx, haproxy or Caddy, a tlsDaemon (tls_test.go) a daemon with
// a certificate, a visit (web_test.go) a tab of a browser, and an attack
// (trust_attack_test.go) a server with many clients whose calls are recorded.

// nextPort is the port before the one that freePort tries next. It is below the range from
// which systems take the ports of outgoing connections, so a free port stays free until it
// is used.
var nextPort atomic.Int32

func init() { nextPort.Store(10_000 + rand.Int32N(15_000)) }

// freePort returns a port to which no connection can be made. It opens no listener: a
// process that another test starts at the same time would keep it open for a moment.
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

// A daemon is a server process with a file and a port of its own.
type daemon struct {
	t    testing.TB
	env  []string
	host string
	log  *lockedBuffer
	cmd  *exec.Cmd

	stderr io.Writer    // log, unless a test sets another one
	http   *http.Client // the client of call
	base   string       // http:// or https://, and the host
	key    string

	wrapper []string // a command that starts the server
	flags   []string // the flags of serve
	binary  string   // empty: the one of the tests
}

// A lockedBuffer collects the output of a process.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p)
	if raceDetector && bytes.Contains(l.b.Bytes(), []byte("WARNING: DATA RACE")) && !raced.Swap(true) {
		fmt.Printf("%s\n", l.b.Bytes())
	}
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

// makeDaemon returns a daemon that is not started.
func makeDaemon(t testing.TB, env ...string) *daemon {
	t.Helper()
	openSources()
	port := freePort()
	d := &daemon{t: t, host: fmt.Sprint("127.0.0.1:", port), log: &lockedBuffer{}}
	d.stderr, d.base, d.key = d.log, "http://"+d.host, testKey
	d.http = &http.Client{Transport: http.DefaultTransport, Timeout: 2 * time.Minute}
	notInCI := append(os.Environ(), "CI=", "GITHUB_ACTIONS=") // where these tests themselves may run
	d.env = append(notInCI, "API_KEY="+testKey, fmt.Sprint("PORT=", port), "HOST="+d.host, "CALL_ME_DB="+tempDB(t),
		"PATH="+binDir+string(os.PathListSeparator)+os.Getenv("PATH"))
	d.env = append(d.env, env...)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		text, _ := os.ReadFile(d.file())
		seekKey(string(text))
		if t.Failed() || os.Getenv("TEST_KEY") != "" {
			t.Logf("the server said:\n%s", d.log)
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	argv := slices.Concat(d.wrapper, []string{cmp.Or(d.binary, binaryPath()), "serve"}, d.flags)
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Env, d.cmd.Stderr = d.env, d.stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	if err := waitForServer(d.http, d.base); err != nil {
		d.t.Fatalf("%v\n%s", err, d.log)
	}
}

// file returns the path of the daemon's database.
func (d *daemon) file() (path string) {
	for _, variable := range d.env { // the last value is used
		if value, found := strings.CutPrefix(variable, "CALL_ME_DB="); found {
			path = value
		}
	}
	return path
}

// kill ends the process with SIGKILL.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// mortal returns a command of the built binary that is killed after two minutes. A test
// that waits for a command that never ends would wait until all tests are stopped. So it would
// for what the command leaves running and what holds its pipes: Wait returns after ten seconds.
func mortal(t testing.TB, args ...string) *exec.Cmd {
	openSources()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binaryPath(), args...)
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error {
		if ctx.Err() == context.DeadlineExceeded {
			t.Errorf("%v: still running after two minutes", args)
		}
		return cmd.Process.Kill()
	}
	return cmd
}

// client returns a command of the binary with the variables of the daemon, and a buffer with
// its output.
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

// uat returns the lease of uat, nil if it is free, and its queue.
func (d *daemon) uat() (lease *leaseJSON, line []waiterJSON) {
	d.t.Helper()
	var all environmentsJSON
	if _, body := d.call("GET", "/environments?environment=uat"); json.Unmarshal([]byte(body), &all) != nil || len(all.Environments) != 1 {
		d.t.Fatalf("%s", body)
	}
	return all.Environments[0].Slots[0].Lease, all.Environments[0].Queue
}

// want calls call, fails the test if the status is another one, and returns the body.
func (d *daemon) want(status int, method, path string) (body string) {
	d.t.Helper()
	got, body := d.call(method, path)
	if got != status {
		d.t.Fatalf("%s %.300s: %d %.300s, want %d", method, path, got, body, status)
	}
	return body
}

// eventually waits until f returns true, and fails the test after 20 s.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// missing skips a test because a tool is not installed. In CI, where all tools must be, it
// fails the test.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not there; install it", what)
	}
	t.Skipf("%s is not there", what)
}

// A leaseJSON is a lease in the API.
type leaseJSON struct {
	Environment string  `json:"environment"`
	Slot        string  `json:"slot"`
	Holder      string  `json:"holder"`
	URL         string  `json:"url"`
	Reason      string  `json:"reason"`
	Fence       uint64  `json:"fence"`
	TTLSeconds  float64 `json:"ttl_seconds"`
}

// A waiterJSON is a waiter in the API.
type waiterJSON struct {
	Holder string `json:"holder"`
	URL    string `json:"url"`
	Number uint64 `json:"number"`
}

// A slotJSON is a slot with its lease, which is nil if the slot is free, or else for whom it is
// kept.
type slotJSON struct {
	Slot  string     `json:"slot"`
	Lease *leaseJSON `json:"lease"`
	Kept  *keptJSON  `json:"kept"`
}

type keptJSON struct {
	Holder string `json:"holder"`
}

// A pauseJSON is a pause; without an environment it is of all.
type pauseJSON struct {
	Environment string `json:"environment"`
	Slot        string `json:"slot"`
	By          string `json:"by"`
}

type environmentJSON struct {
	Environment string       `json:"environment"`
	Pauses      []pauseJSON  `json:"pauses"`
	Slots       []slotJSON   `json:"slots"`
	Queue       []waiterJSON `json:"queue"`
}

// environmentsJSON is the response of GET /environments.
type environmentsJSON struct {
	Environments []environmentJSON `json:"environments"`
}

// refusalJSON is the body of an error.
type refusalJSON struct {
	Position int    `json:"position"`
	Number   uint64 `json:"number"`
	Ended    *struct {
		How string `json:"how"`
	} `json:"ended"`
}

// newID returns an id for a request.
func newID() string { return fmt.Sprintf("test-%016x", rand.Uint64()) }

// tempDB returns the path of a file that does not exist yet.
func tempDB(t testing.TB) string { return filepath.Join(t.TempDir(), "call-me.db") }
