// Package tests has the tests that need only the binary. TestMain builds it. The tests start
// it as servers and clients, in shells, behind proxies, with browsers and CI systems and on
// disks that become full, and kill it. The tests that need the functions of the program are
// in the folder above.
//
// daemon_test.go describes the helpers with which a test uses the binary. Paths are relative
// to the root of the repository.
package tests

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// thisPackage is the argument of go test that selects these tests.
const thisPackage = "./tests"

var full = flag.Bool("full", false, "leave nothing out: `go test ./... -full`")

// twoServers is for the tests with a real etcd. They stop processes and links for times that are
// only a few times as long as those that etcd and the servers have, so they want a machine on which
// nothing else is tested.
var twoServers = flag.Bool("two-servers", false, "the tests of several servers on one etcd, and nothing beside them: "+
	"`go test ./tests -run 'TwoServers|Etcd' -two-servers -parallel 3`")

// otherEtcd is the etcd of the tests that is used instead of the one that they build.
var otherEtcd = flag.String("etcd", "", "the path of an etcd to use, such as /usr/bin/etcd, instead of the one that is built")

// needsEtcd skips a test with a real etcd unless these are asked for, or its long form is.
func needsEtcd(t *testing.T) {
	t.Helper()
	if !*twoServers && (long == 0 || !strings.HasPrefix(t.Name(), "TestTrust")) {
		t.Skip("left out without -two-servers")
	}
	t.Parallel()
}

// helperCommands has what this test binary does, by its first argument, when a test starts it
// as a command. The functions get the second argument and do not return.
var helperCommands = map[string]func(string){}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == rivalCommand {
		rival(os.Args[2:])
	}
	if len(os.Args) > 2 && helperCommands[os.Args[1]] != nil {
		helperCommands[os.Args[1]](os.Args[2])
	}
	flag.Parse()
	atOnce := fmt.Sprint(5 * runtime.GOMAXPROCS(0)) // nearly all tests sleep nearly all the time
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			atOnce = f.Value.String()
		}
	})
	flag.Set("test.parallel", atOnce)
	os.Exit(runTests(m))
}

// runTests builds the binary, runs the tests at the root of the repository with known
// variables and signals, and removes the binary at the end.
func runTests(m *testing.M) int {
	for _, name := range []string{"HOST", "PORT", "API_KEY", "API_KEY_FILE"} {
		os.Unsetenv(name)
	}
	if raceDetector { // a process with a data race ends at once; the others do not sleep at their end
		os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) { // as under nohup: the processes that the tests start would ignore it too
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	folder, err := os.MkdirTemp("", "call-me-test")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(folder)
	binDir = folder
	err = cmp.Or(os.Chdir(".."), os.Chmod(folder, 0o755), build(binaryPath()))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if runtime.GOOS == "linux" {
		cache, err := exec.Command("go", "env", "GOCACHE").Output() // tests call go too
		if err != nil {
			fmt.Println(err)
			return 1
		}
		os.Setenv("GOCACHE", strings.TrimSpace(string(cache)))
		os.Setenv("XDG_CACHE_HOME", folder) // the notes of request are there
	}
	code := m.Run()
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

// binDir is the folder of the binary, for a PATH.
var binDir string

func binaryPath() string {
	name := filepath.Join(binDir, "call-me")
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return name
}

// build builds a binary of the source, with the race detector if the tests have it.
func build(path string, flags ...string) error {
	// go test caches results. Reading the folders makes it run the tests again after a change.
	for _, folder := range []string{".", "web"} {
		os.ReadDir(folder)
	}
	if raceDetector {
		flags = append(flags, "-race")
	}
	out, err := exec.Command("go", slices.Concat([]string{"build", "-o", path}, flags, []string{"."})...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building call-me: %w\n%s", err, out)
	}
	return nil
}

var (
	omittedMutex sync.Mutex
	omitted      []string
)

// leftOut reports whether a test leaves out a part that takes long. If it does, what is
// added to omitted, the list that is printed at the end.
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

// testKey is the key of all tests. CI sets one, and searches all output of the tests for it.
var testKey = cmp.Or(os.Getenv("TEST_KEY"), "canary-key-of-the-tests")

// raced is set when a process reports a data race.
var raced atomic.Bool

// leaked is set when the key is found where it must not be: in a response, in the output of
// a process, or in a file.
var leaked atomic.Bool

func seekKey(text string) {
	if strings.Contains(text, testKey) {
		leaked.Store(true)
	}
}

// openSources opens the files that the binary is built of, once. go test then knows that the
// results depend on them, and does not take those of earlier sources from its cache. It sees
// only what is opened while tests run, by absolute paths.
var openSources = sync.OnceFunc(func() {
	here, _ := os.Getwd()
	for _, pattern := range []string{"*.go", "go.*", "openapi.yaml", "web/*"} {
		paths, _ := filepath.Glob(filepath.Join(here, pattern))
		for _, path := range paths {
			os.ReadFile(path)
		}
	}
})
