package main

// What the tests of the inside share. Each of the others begins with what it
// speaks:
//
//   - a bench (lock_test.go) is one environment under the rules, without clock
//     and disk: step by step, with what changed and what happened.
//   - a rig (keeper_test.go) is a keeper on a real file, which can be closed and
//     opened again, mostly in a bubble of testing/synctest.
//   - a site (server_test.go) is a rig behind its HTTP API, in this process:
//     s.call("POST /maybe?environment=uat").want(t, 201, "").
//   - a duel (trust_model_rules_test.go) is a bench beside a model of the rules, a play
//     (trust_model_keeper_test.go) a keeper beside it.
//   - a session (trust_strikes_test.go) is a process with keeper and store that strace
//     looks at.
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

// thisPackage is how go test is told to run these tests.
const thisPackage = "."

var full = flag.Bool("full", false, "leave nothing out: `go test ./... -full`")

func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){"call-me": main, "session": sessionProcess})
}

// suite runs the tests with variables and signals that are known. The test
// binary is also the programs that TestMain names.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	for _, name := range []string{"HOST", "PORT", "API_KEY", "API_KEY_FILE"} {
		os.Unsetenv(name)
	}
	if raceDetector { // a process that it finds something in ends; others do not wait at their end
		os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) { // as nohup does it; what the tests start would ignore it too
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
		fmt.Println("FAIL: the key was seen in an answer, in what a process says or in a database")
		return 1
	}
	return code
}

var (
	omittedMutex sync.Mutex
	omitted      []string
)

// leftOut reports whether a test is to leave out what takes long, and writes
// down for the end what that is.
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

// raced is set when a process says that it has a data race.
var raced atomic.Bool

// lockedBuffer collects what a process or a log says.
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

// eventually waits for what another goroutine or process does.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
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
