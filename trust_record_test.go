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

// The records of the trust tests. A trust test is named TestTrust... and has two forms. The
// short form runs with every go test, takes some seconds and writes no record. The long form
// runs for a minute with -long, for two hours with -long=2h, and appends a record to a file
// in testdata/trust. The counts of several runs add up.
//
//	go test -run Trust ./... -long                                runs all of them, a minute each
//	go test -run TestTrustPower . -long=8h -timeout 0             runs one of them for eight hours
//	go test -run TestTrustCrashes ./tests -seed=7                 repeats one of them with the same chances
//	go generate                                                   makes TRUST.md from the records
//
// This file is in both packages of tests. tests/trust_page_test.go makes TRUST.md.

//go:generate go test -run TestTrustPage ./tests -write

var (
	long longForm
	seed = flag.Uint64("seed", rand.Uint64N(1<<32), "what the TestTrust tests draw their chances from")
)

func init() { flag.Var(&long, "long", "the TestTrust tests run for so long each, and write records") }

// longForm is the value of the flag -long: a duration, a minute if none is given.
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

// budget returns how long a test may run: short, or the time of -long if that is set.
func budget(short time.Duration) time.Duration {
	if long > 0 {
		return time.Duration(long)
	}
	return short
}

// A claim is a section of TRUST.md, as in testdata/trust/claims.json. Its records are in
// testdata/trust/NAME.jsonl.
type claim struct {
	Name   string
	Title  string // the heading; empty: the name
	Figure string // what the first of Aims is called in the row of figures; empty: it is not there
	Says   string
	Aims   []aim    // counts, and how large they must become
	Never  []string // counts that must be zero
	Once   bool     // each run does everything: only the last run counts, and runs do not add up
}

// An aim is how often something must be done; zero if that is as often as it exists.
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

// A run is one record: a line of a file in testdata/trust.
type run struct {
	Date     string         `json:"date"`
	Commit   string         `json:"commit"` // with a + if the source differed from it
	Command  string         `json:"command"`
	Seed     uint64         `json:"seed"`
	Duration string         `json:"duration"`
	Failed   bool           `json:"failed,omitempty"`
	Counts   map[string]int `json:"counts"`
}

// record logs the counts of a test, and fails it if a count that the claim names in Never is
// missing or not zero. In the long form it appends a record. It must be called last, because
// the record has whether the test failed.
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

// thousands returns a number with a comma before each three digits.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
