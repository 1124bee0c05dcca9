package tests

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

// The records of the attacks on call-me. An attack is a test named TestTrust..., and has
// two forms. The short form always runs, for some seconds, and writes nothing. The long
// form runs for a minute with -long, for two hours with -long=2h, and appends a record to
// testdata/trust. The counts of all runs are added up, so an attack is continued by
// another run.
//
//	go test -run Trust ./... -long                                all attacks, a minute each
//	go test -run TestTrustPower . -long=8h -timeout 0             one attack, for 8 hours
//	go test -run TestTrustCrashes ./tests -seed=7                 one attack with the same seed as before
//	go generate                                                   makes TRUST.md from the records
//
// Both packages of tests have a copy of this file. tests/trust_page_test.go makes TRUST.md.

var (
	long longForm
	seed = flag.Uint64("seed", rand.Uint64N(1<<32), "what the TestTrust tests draw their chances from")
)

func init() { flag.Var(&long, "long", "the TestTrust tests run for so long each, and write records") }

// longForm is the value of -long: a duration, one minute if it is left out.
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

// budget returns how long a test may run: the duration of -long, or short without -long.
func budget(short time.Duration) time.Duration {
	if long > 0 {
		return time.Duration(long)
	}
	return short
}

// A claim is one row of TRUST.md. The claims are in testdata/trust/claims.json, the records
// of a claim in testdata/trust/NAME.jsonl.
type claim struct {
	Name  string
	Says  string
	Aims  []aim    // the counts to be reached
	Never []string // the counts that must be zero
	Once  bool     // each run does everything and only the last run counts; else the runs are added up
}

// An aim is how often something is to be done; zero if as often as it exists.
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

// A run is one record: one line of the file of a claim.
type run struct {
	Date     string         `json:"date"`
	Commit   string         `json:"commit"` // with a + at its end if the source differed from the commit
	Command  string         `json:"command"`
	Seed     uint64         `json:"seed"`
	Duration string         `json:"duration"`
	Failed   bool           `json:"failed,omitempty"`
	Counts   map[string]int `json:"counts"`
}

// record writes the record of a test in the long form. It fails the test if a count that
// must be zero is not, or is missing. counts must have the counts of the claim, and may
// have others. A test calls it last, because the record has whether the test failed.
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

// thousands formats a number with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
