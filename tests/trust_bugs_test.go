package tests

// Bugs on purpose: the patches in testdata/bugs. They are applied to a copy of the source
// when a binary is built, and never to the source itself. The seeded bugs show that the
// checks can fail. The found bugs are those that the tests have found so far: each patch
// puts one back.

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A patch is a bug. The lines of its file above the first "--- a/" describe the bug. In a
// found one they end with "Shown by: TestName", the test that fails. In a seeded one they
// may name the menace that shows the bug soonest, and a model or another test of the rules
// that fails. One that names only a test needs what no attack from outside does.
type patch struct {
	name    string
	path    string
	says    string
	shownBy string
	shownIn string   // the menace that shows the bug soonest; empty if none is named
	files   []string // the files that the patch changes
}

var (
	shownInLine = regexp.MustCompile(`(?m)^Shown in: (.+)$`)
	shownByLine = regexp.MustCompile(`(?m)^Shown by: (\S+)$`)
	changedFile = regexp.MustCompile(`(?m)^\+\+\+ b/(\S+)`)
)

// patches returns the bugs of one kind, seeded or found.
func patches(t *testing.T, kind string) (all []patch) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join("testdata", "bugs", kind, "*.patch"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		header, _, found := strings.Cut(string(text), "--- a/")
		p := patch{name: strings.TrimSuffix(filepath.Base(path), ".patch"), path: path}
		if m := shownByLine.FindStringSubmatch(header); m != nil {
			p.shownBy = m[1]
			header = strings.Replace(header, m[0], "", 1)
		}
		if m := shownInLine.FindStringSubmatch(header); m != nil {
			p.shownIn = m[1]
			header = strings.Replace(header, m[0], "", 1)
		}
		for _, m := range changedFile.FindAllStringSubmatch(string(text), -1) {
			p.files = append(p.files, m[1])
		}
		p.says = strings.Join(strings.Fields(header), " ")
		if !found || p.says == "" || kind == "found" && p.shownBy == "" {
			t.Fatalf("%s does not say what it does, or which test shows it", path)
		}
		all = append(all, p)
	}
	return all
}

// overlay applies the patch to a copy of the files that it changes, and returns the
// argument of go build -overlay.
func (p patch) overlay(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for _, name := range p.files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, name)] = filepath.Join(folder, name)
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apply := exec.Command("git", "apply", "-C1", filepath.Join(here, p.path))
	apply.Dir = folder
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%s does not apply any more, write it anew: %v\n%s", p.path, err, out)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The tests find each found bug again when it is put back. That takes a build of all tests
// for each bug, so the short form only checks that the patches still apply.
func TestTrustFound(t *testing.T) {
	started, found := time.Now(), patches(t, "found")
	shown, missed := 0, 0
	for _, p := range found {
		t.Run(p.name, func(t *testing.T) {
			overlay := p.overlay(t)
			if long == 0 {
				return
			}
			if out, fails := p.fails(overlay); !fails {
				missed++
				t.Errorf("%s does not see it:\n%s", p.shownBy, out)
				return
			}
			shown++
		})
	}
	if shown+missed == len(found) { // a run of some of the subtests is not recorded
		record(t, "found", started, map[string]int{"shown again": shown, "not shown": missed})
	}
}

// fails runs the test that shows a bug, with the bug, and reports whether it fails.
func (p patch) fails(overlay string) (out string, fails bool) {
	text, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-run", "^"+p.shownBy+"$", ".").CombinedOutput()
	return string(text), err != nil && strings.Contains(string(text), "--- FAIL: "+p.shownBy)
}

// The checks that find no error in the server find each seeded bug, with the same seed, but for
// those that only name a test of the rules; and so do the tests that bugs name.
func TestTrustBugs(t *testing.T) {
	attackable(t)
	started := time.Now()
	seeded := patches(t, "seeded")
	counts := map[string]int{"caught": 0, "missed": 0, "false alarms": 0}
	var mu sync.Mutex
	count := func(name string, n int) {
		mu.Lock()
		defer mu.Unlock()
		counts[name] += n
	}
	tried := slices.Clone(seeded)
	if long == 0 { // all of them take ten minutes: each is built, and half of them with all tests
		few := 8
		if leftOut(t, fmt.Sprintf("all but two of %d bugs; with -full all but eight, with -long none", len(seeded))) {
			few = 2
		}
		random := rand.New(rand.NewPCG(*seed, 8))
		random.Shuffle(len(tried), func(i, j int) { tried[i], tried[j] = tried[j], tried[i] })
		tried = tried[:few]
	}
	binaries := make(chan patch)
	go func() {
		defer close(binaries)
		for _, p := range append([]patch{{name: "none"}}, tried...) {
			binaries <- p
		}
	}()
	try := func(p patch) func(t *testing.T) {
		return func(t *testing.T) {
			if p.shownBy != "" {
				out, fails := p.fails(p.overlay(t))
				switch {
				case !fails:
					count("missed", 1)
					t.Errorf("%s does not see it: %s\n%s", p.shownBy, p.says, out)
					return
				case p.shownIn == "":
					count("caught", 1)
					return
				}
			}
			binary := binaryPath()
			if p.path != "" {
				binary = p.build(t)
			}
			menace, calls, wrong := hunt(t, binary, p.shownIn)
			switch {
			case p.path == "" && len(wrong) > 0:
				count("false alarms", 1)
				for _, v := range wrong {
					t.Errorf("the server has no bug, but in an era of %s: %s", menace, v.tell(t))
				}
			case p.path == "":
			case len(wrong) == 0:
				count("missed", 1)
				t.Errorf("not seen in %d calls: %s", calls, p.says)
			default:
				count("caught", 1)
				count("calls until "+p.name, calls)
				t.Logf("seen after %d calls, in an era of %s: %s: %s", calls, menace, wrong[0].environment, wrong[0].what)
			}
		}
	}
	var lanes sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		lanes.Go(func() {
			for p := range binaries {
				t.Run(p.name, try(p))
			}
		})
	}
	lanes.Wait()
	if counts["caught"]+counts["missed"] == len(seeded) { // a run of some of the bugs is not recorded
		record(t, "bugs", started, counts)
	}
}

// hunt attacks a binary with all menaces until an error is found. It uses each menace once,
// with -long twice, and five times if the binary has a bug. The menace first, if not empty,
// is used first.
func hunt(t *testing.T, binary, first string) (in string, calls int, wrong []verdict) {
	t.Helper()
	a := newAttack(t, binary, *seed)
	a.network = newBadNetwork(t, a.host, 150*time.Millisecond)
	rounds := 1
	if long > 0 {
		rounds = 2
	}
	if first != "" || binary != binaryPath() { // the binary has a bug
		rounds = 5
	}
	for range rounds {
		all := menaces(a.random)
		if i := slices.IndexFunc(all, func(m menace) bool { return m.name == first }); i > 0 {
			all[0], all[i] = all[i], all[0]
		}
		for _, m := range all {
			wrong := slices.DeleteFunc(a.suffer(m), func(v verdict) bool { return v.what == undecided })
			if calls += len(a.entries); len(wrong) > 0 {
				return m.name, calls, wrong
			}
		}
	}
	return "", calls, nil
}

// build builds a binary with the bug, and returns its path.
func (p patch) build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "call-me")
	if err := build(binary, "-overlay", p.overlay(t)); err != nil {
		t.Fatalf("with %s: %v", p.path, err)
	}
	return binary
}
