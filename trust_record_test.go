package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the attacks on call-me write down. A test of this kind is named
// TestTrust..., and has two forms: the short one runs always, for some seconds,
// and writes nothing; with -long it runs for a minute, with -long=2h for two
// hours, and appends a record to testdata/trust. Runs add up: to go on is to run
// again.
//
//	go test -run Trust ./... -long                                all of them, a minute each
//	go test -run TestTrustPower . -long=8h -timeout 0             one of them, for a night
//	go test -run TestTrustCrashes ./tests -seed=7                 the same once more
//	go generate                                                   TRUST.md from the records
//
// This file stands in both packages of tests. tests/trust_page_test.go makes
// TRUST.md.

//go:generate go test -run TestTrustPage ./tests -write

var (
	long longForm
	seed = flag.Uint64("seed", rand.Uint64N(1<<32), "what the TestTrust tests draw their chances from")
)

func init() { flag.Var(&long, "long", "the TestTrust tests run for so long each, and write records") }

// longForm is a duration that may be left out: -long is a minute.
type longForm time.Duration

func (l *longForm) String() string   { return time.Duration(*l).String() }
func (l *longForm) IsBoolFlag() bool { return true }

func (l *longForm) Set(text string) error {
	if text == "true" {
		text = "1m"
	}
	d, err := time.ParseDuration(text)
	*l = longForm(d)
	return err
}

// budget returns how long a test may run: the short time that is given, or
// what -long says.
func budget(short time.Duration) time.Duration {
	if long > 0 {
		return time.Duration(long)
	}
	return short
}

// A claim is a row of TRUST.md, as testdata/trust/claims.json has it. Its file
// of records is testdata/trust/NAME.jsonl.
type claim struct {
	Name  string
	Says  string
	Aims  []aim    // counts that are to become so large
	Never []string // counts that must be 0
	Once  bool     // each run does all of it, and the last one counts; otherwise runs add up
}

// An aim is how often something is to be done; 0: as often as it exists.
type aim struct {
	Count string
	N     int
}

func allClaims(t *testing.T) (claims []claim) {
	t.Helper()
	text, err := os.ReadFile("testdata/trust/claims.json")
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func claimNamed(t *testing.T, name string) claim {
	t.Helper()
	for _, c := range allClaims(t) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no claim %q", name)
	return claim{}
}

// A run is one line of a file of records.
type run struct {
	Date     string         `json:"date"`
	Commit   string         `json:"commit"` // with a + where the source differed from it
	Command  string         `json:"command"`
	Seed     uint64         `json:"seed"`
	Duration string         `json:"duration"`
	Failed   bool           `json:"failed,omitempty"`
	Counts   map[string]int `json:"counts"`
}

// record writes down, in the long form, what a test has done and seen. The
// counts named by the claim must be among them; others may be. Call it last:
// it notes whether the test has failed.
func record(t *testing.T, claimed string, started time.Time, counts map[string]int) {
	t.Helper()
	took := time.Since(started).Round(100 * time.Millisecond)
	t.Logf("seed %d, %v: %s", *seed, took, countsText(counts))
	for _, name := range claimNamed(t, claimed).Never {
		if n, found := counts[name]; !found || n != 0 && !t.Failed() {
			t.Errorf("%s: %d, %v", name, n, found)
		}
	}
	if long == 0 {
		return
	}
	r := run{Date: time.Now().UTC().Format(time.DateOnly), Commit: commit(t), Seed: *seed, Duration: took.String(),
		Failed: t.Failed(), Counts: counts}
	top, _, _ := strings.Cut(t.Name(), "/")
	r.Command = fmt.Sprintf("go test -run '^%s$' %s -timeout 0 -long=%v -seed=%d", top, thisPackage, time.Duration(long), *seed)
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(recordPath(claimed)), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(recordPath(claimed), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

func recordPath(claimed string) string { return filepath.Join("testdata", "trust", claimed+".jsonl") }

func commit(t *testing.T) string {
	out, err := exec.Command("git", "rev-parse", "--short=10", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	changed, err := exec.Command("git", "status", "--porcelain", "--", "*.go", "go.mod", "testdata/bugs").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)) + map[bool]string{true: "+"}[len(changed) > 0]
}

func countsText(counts map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, thousands(counts[name])+" "+name)
	}
	return strings.Join(all, ", ")
}

// thousands writes a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
