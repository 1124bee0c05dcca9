package tests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TRUST.md, which is made from the claims, the records and the patches of bugs.

var rewrite = flag.Bool("write", false, "TestTrustPage writes TRUST.md")

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

// TRUST.md has exactly the text that the records give.
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
	say("`go generate` makes it from README.md and [docs/performance.md](docs/performance.md), from the records in")
	say("[testdata/trust](testdata/trust), which the tests wrote, and from the patches in [testdata/bugs](testdata/bugs), which they need.\n")
	say("%s", section(t, "README.md", "## What is promised"))
	say("## What was measured\n")
	say("Each row adds up the recorded runs of one command, or shows the last run where each does all there is to do. Runs that failed are not")
	say("counted but listed below. A run takes up the last one's work: run it again, with `-long=8h -timeout 0` for a night, and `go generate`.\n")
	say("| what was tried | how often | aim | went wrong | in | again |")
	say("|---|---|---|---|---|---|")
	for _, c := range allClaims(t) {
		say("%s", c.row(records(t, c.Name)))
	}
	say("\n## Bugs that these tests have found\n")
	say("Each is fixed. Its command puts it back into a copy of the source, and shows that the tests see it.\n")
	found := patches(t, "found")
	for _, p := range found {
		say("- %s `go test -run 'TestTrustFound/%s' ./tests -long`", p.says, p.name)
	}
	if len(found) == 0 {
		say("None so far.")
	}
	say("\n%s", section(t, "docs/performance.md", "## How much memory and disk"))
	say("%s", section(t, "docs/performance.md", "## What readers cost"))
	say("## Runs that failed\n")
	failed := 0
	for _, c := range allClaims(t) {
		for _, r := range records(t, c.Name) {
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

// row returns the row of a claim with the sums of its runs.
func (c claim) row(runs []run) string {
	runs = slices.DeleteFunc(runs, func(r run) bool { return r.Failed })
	aims := []string{}
	for _, a := range c.Aims {
		aims = append(aims, map[bool]string{true: "all " + a.Count, false: thousands(a.N) + " " + a.Count}[a.N == 0])
	}
	if len(runs) == 0 {
		return fmt.Sprintf("| %s | not yet recorded | %s | | | |", c.Says, strings.Join(aims, ", "))
	}
	last := runs[len(runs)-1]
	if c.Once {
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
	for _, a := range c.Aims {
		done = append(done, "**"+thousands(sum[a.Count])+" "+a.Count+"**")
		delete(sum, a.Count)
	}
	for _, name := range c.Never {
		wrong = append(wrong, thousands(sum[name])+" "+name)
		delete(sum, name)
	}
	if len(sum) > 0 {
		done = append(done, countsText(sum))
	}
	times := map[bool]string{true: "1 run", false: fmt.Sprint(len(runs), " runs")}[len(runs) == 1]
	return fmt.Sprintf("| %s | %s | %s | %s | %s, %v; last %s at %s, seed %d | `%s` |", c.Says, strings.Join(done, ", "), strings.Join(aims, ", "),
		strings.Join(wrong, ", "), times, took.Round(time.Second), last.Date, last.Commit, last.Seed, last.Command)
}

// section returns a section of a document, with its heading.
func section(t *testing.T, document, heading string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", document, heading)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return heading + "\n" + strings.TrimRight(body, "\n") + "\n"
}
