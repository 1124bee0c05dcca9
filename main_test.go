package main

// What the tests of this package share. The tests use these terms:
//
//   - a bench (lock_test.go) is one environment under the rules, without clock
//     and disk, with the changes and events of each step.
//   - a rig (keeper_test.go) is a keeper on a real file, in most tests in a bubble
//     of testing/synctest. A test can close it and open it again.
//   - a site (server_test.go) is a rig behind its HTTP API, in this process:
//     s.call("POST /maybe?environment=uat").want(t, 201, "").
//   - a duel (trust_model_rules_test.go) is a bench beside a model of the rules.
//   - a play (trust_model_keeper_test.go) is a keeper beside that model.
//   - a session (trust_strikes_test.go) is a process with keeper and store that
//     strace traces.
//
// The tests that need only the binary are in the folder tests.

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// thisPackage is the argument of go test for these tests.
const thisPackage = "."

var full = flag.Bool("full", false, "leave nothing out: `go test ./... -full`")

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"call-me": main, "session": sessionProcess})
}

// suite runs the tests without the variables that configure call-me, and with SIGHUP and
// SIGINT not ignored. The test binary is also the programs that TestMain names.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	for _, name := range []string{"HOST", "PORT", "API_KEY", "API_KEY_FILE"} {
		os.Unsetenv(name)
	}
	if raceDetector { // a process with a data race ends at once; a process does not sleep at its end
		os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) { // as after nohup; the child processes would ignore it too
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	code := s.m.Run()
	if len(omitted) > 0 {
		fmt.Println("left out without -full:", strings.Join(slices.Compact(slices.Sorted(slices.Values(omitted))), ", "))
	}
	if raced.Load() {
		fmt.Println("FAIL: the race detector has found something in a process, see above")
		return 1
	}
	if leaked.Load() {
		fmt.Println("FAIL: the key is in a response, in the output of a process or in a database")
		return 1
	}
	return code
}

var (
	omittedMutex sync.Mutex
	omitted      []string
)

// leftOut reports whether a test must leave out a part that takes long. If so, it adds the part
// to the list that is printed at the end.
func leftOut(t testing.TB, what string) bool {
	if *full {
		return false
	}
	omittedMutex.Lock()
	defer omittedMutex.Unlock()
	name, _, _ := strings.Cut(t.Name(), "/")
	omitted = append(omitted, fmt.Sprintf("%s (%s)", name, what))
	return true
}

// raced is true once a process has reported a data race.
var raced atomic.Bool

// lockedBuffer collects the output of a process or a log. It sets raced if the output reports a
// data race, and searches it for the key.
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

// eventually waits until f returns true, and fails the test after 20 seconds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// missing skips the test because something is not installed. In CI, where everything must be
// installed, it fails the test instead.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not there; install it", what)
	}
	t.Skipf("%s is not there", what)
}
