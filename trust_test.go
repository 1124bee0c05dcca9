package main

// What the attacks on call-me write down, and the page that is made of it.
// A test of this kind is named TestTrust..., and has two forms: the short one
// runs always, for some seconds, and writes nothing; with -long it runs for a
// minute, with -long=2h for two hours, and appends a record to
// testdata/trust. Runs add up: to go on is to run again.
//
//	go test -run Trust . -long                                    all of them, a minute each
//	go test -run TestTrustCrashes . -long=8h -timeout 0           one of them, for a night
//	go test -run TestTrustCrashes . -seed=7                       the same once more
//	go generate                                                   TRUST.md from the records

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
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

//go:generate go test -run TestTrustPage . -write

var (
	long    longForm
	seed    = flag.Uint64("seed", rand.Uint64N(1<<32), "what the TestTrust tests draw their chances from")
	rewrite = flag.Bool("write", false, "TestTrustPage writes TRUST.md")
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

// A claim is a row of TRUST.md. Its file of records is testdata/trust/NAME.jsonl.
type claim struct {
	name  string
	says  string
	aims  []aim    // counts that are to become so large
	never []string // counts that must be 0
	once  bool     // each run does all of it, and the last one counts; otherwise runs add up
}

// An aim is how often something is to be done; 0: as often as it exists.
type aim struct {
	count string
	n     int
}

var claims = []claim{
	{name: "crashes", says: "The server is killed with -9 at random under load, and started again",
		aims: []aim{{"crashes", 10_000}, {"answered operations", 250_000}}, never: []string{"lost", "double", "out of order"}},
	{name: "sites", says: "A scripted session is killed, or given an I/O error, at each of its writes and syncs in turn",
		aims: []aim{{"sites", 0}}, never: []string{"wrong answers"}, once: true},
	{name: "strikes", says: "A process with keeper and store is struck at each of its writes, syncs, links and renames: killed, its disk failing once or three times in a row, or full. The session must go on as if nothing had been",
		aims: []aim{{"strikes", 0}}, never: []string{"wrong answers"}, once: true},
	{name: "linearizability", says: "Clients call through a network that delays, drops and repeats, the disk fails and the server crashes; porcupine checks the history against the rules",
		aims: []aim{{"operations", 1_000_000}}, never: []string{"violations"}},
	{name: "bugs", says: "Bugs are put into the server on purpose, and the checks above must see each",
		aims: []aim{{"caught", 10}}, never: []string{"missed", "false alarms"}, once: true},
	{name: "found", says: "Each bug that these tests have found is put back, and its test must go red",
		aims: []aim{{"shown again", 0}}, never: []string{"not shown"}, once: true},
	{name: "power", says: "Power failures are simulated from a trace of real writes: lost, reordered and torn, the first start included, and starts after kill -9 where a sync had failed",
		aims: []aim{{"images", 1_000_000}}, never: []string{"lost", "unreadable"}},
	{name: "models", says: "Random scripts of 50 steps run against a model of the rules, with crash and reopen",
		aims: []aim{{"scripts", 100_000}}, never: []string{"divergences"}},
	{name: "time", says: "Leases live through simulated years; they end never before their ttl, and never a second after it",
		aims: []aim{{"simulated days", 3_652}}, never: []string{"early", "late"}},
	{name: "mutants", says: "Each condition of lock.go is taken out or inverted, and the tests must go red",
		aims: []aim{{"mutants", 0}}, never: []string{"unexplained survivors"}, once: true},
	{name: "damage", says: "Files are damaged: flipped bits, zeroed pages, cut, grown; both meta pages included",
		aims: []aim{{"damaged files", 10_000}}, never: []string{"panics", "hangs", "silent differences"}},
	{name: "fuzz", says: "Parser and handlers are fuzzed",
		aims: []aim{{"parser executions", 50_000_000}, {"handler executions", 10_000_000}}, never: []string{"crashes"}},
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
	i := slices.IndexFunc(claims, func(c claim) bool { return c.name == claimed })
	if i < 0 {
		t.Fatalf("no claim %q", claimed)
	}
	for _, name := range claims[i].never {
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
	r.Command = fmt.Sprintf("go test -run '^%s$' . -timeout 0 -long=%v -seed=%d", top, time.Duration(long), *seed)
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

func records(t *testing.T, claimed string) (runs []run) {
	t.Helper()
	f, err := os.Open(recordPath(claimed))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r run
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&r); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		runs = append(runs, r)
	}
	return runs
}

// The page is what its records give: nothing in it was typed.
func TestTrustPage(t *testing.T) {
	page := trustPage(t)
	if *rewrite {
		if err := os.WriteFile("TRUST.md", page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if long > 0 {
		t.Skip("the records grow; go generate, when they are done")
	}
	if now, err := os.ReadFile("TRUST.md"); err != nil || !bytes.Equal(now, page) {
		t.Errorf("TRUST.md is not what the records in testdata/trust give (%v): go generate", err)
	}
}

func trustPage(t *testing.T) []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# Trust\n")
	say("A lock is worth what it keeps when things go wrong. This page says what call-me keeps, and what was done to it to find out.")
	say("`go generate` makes it from README.md, from the records in [testdata/trust](testdata/trust), which the tests wrote, and from the")
	say("patches in [testdata/bugs](testdata/bugs), which they need. Nothing in it was typed by hand.\n")
	say("%s", readmeSection(t, "## What is promised"))
	say("## What was measured\n")
	say("Each row adds up the recorded runs of one command, or shows the last run where each does all there is to do. Runs that failed are not")
	say("counted but listed below. A run takes up the last one's work: run it again, with `-long=8h -timeout 0` for a night, and `go generate`.\n")
	say("| what was tried | how often | aim | went wrong | in | again |")
	say("|---|---|---|---|---|---|")
	for _, c := range claims {
		say("%s", c.row(records(t, c.name)))
	}
	say("\n## Bugs that these tests have found\n")
	say("Each is fixed. Its command puts it back into a copy of the source, and shows that the tests see it.\n")
	found := patches(t, "found")
	for _, p := range found {
		say("- %s `go test -run 'TestTrustFound/%s' . -long`", p.says, p.name)
	}
	if len(found) == 0 {
		say("None so far.")
	}
	say("\n## Runs that failed\n")
	failed := 0
	for _, c := range claims {
		for _, r := range records(t, c.name) {
			if r.Failed {
				failed++
				say("- %s at %s: %s; `%s`", r.Date, r.Commit, countsText(r.Counts), r.Command)
			}
		}
	}
	if failed == 0 {
		say("None was recorded.")
	}
	return b.Bytes()
}

// row sums up the runs of a claim.
func (c claim) row(runs []run) string {
	runs = slices.DeleteFunc(runs, func(r run) bool { return r.Failed })
	aims := []string{}
	for _, a := range c.aims {
		aims = append(aims, map[bool]string{true: "all " + a.count, false: thousands(a.n) + " " + a.count}[a.n == 0])
	}
	if len(runs) == 0 {
		return fmt.Sprintf("| %s | not yet recorded | %s | | | |", c.says, strings.Join(aims, ", "))
	}
	last := runs[len(runs)-1]
	if c.once {
		runs = runs[len(runs)-1:]
	}
	sum, took := map[string]int{}, time.Duration(0)
	for _, r := range runs {
		d, _ := time.ParseDuration(r.Duration)
		took += d
		for name, n := range r.Counts {
			sum[name] += n
		}
	}
	done, wrong := []string{}, []string{}
	for _, a := range c.aims {
		done = append(done, "**"+thousands(sum[a.count])+" "+a.count+"**")
		delete(sum, a.count)
	}
	for _, name := range c.never {
		wrong = append(wrong, thousands(sum[name])+" "+name)
		delete(sum, name)
	}
	if len(sum) > 0 {
		done = append(done, countsText(sum))
	}
	times := map[bool]string{true: "1 run", false: fmt.Sprint(len(runs), " runs")}[len(runs) == 1]
	return fmt.Sprintf("| %s | %s | %s | %s | %s, %v; last %s at %s, seed %d | `%s` |", c.says, strings.Join(done, ", "), strings.Join(aims, ", "),
		strings.Join(wrong, ", "), times, took.Round(time.Second), last.Date, last.Commit, last.Seed, last.Command)
}

// readmeSection returns a section of README.md, with its heading.
func readmeSection(t *testing.T, heading string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "\n"+heading+"\n")
	if !found {
		t.Fatalf("README.md has no %q", heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return heading + "\n" + text
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
