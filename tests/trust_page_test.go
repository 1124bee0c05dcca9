package tests

import (
	"bufio"
	"bytes"
	"cmp"
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
	claims := allClaims(t)
	var names, figures, failed []string
	wrong := 0
	for _, c := range claims {
		sum := c.sum(records(t, c.Name))
		if c.Figure != "" {
			names, figures = append(names, c.Figure), append(figures, thousands(sum[c.Aims[0].Count]))
		}
		for _, name := range c.Never {
			wrong += sum[name]
		}
		for _, r := range records(t, c.Name) {
			if r.Failed {
				failed = append(failed, fmt.Sprintf("- %s at %s: %s; `%s`", r.Date, r.Commit, countsText(r.Counts), r.Command))
			}
		}
	}
	say("# Trust\n")
	say("What was done to call-me to see whether it keeps [its promises](README.md#what-is-promised):\n")
	say("| %s | went wrong |", strings.Join(names, " | "))
	say("|%s", strings.Repeat("---|", len(names)+1))
	say("| %s | **%s** |\n", strings.Join(figures, " | "), thousands(wrong))
	say("Below: [each test](#each-test), with its command; [bugs that they have found](#bugs-that-these-tests-have-found);")
	say("[runs that failed](#runs-that-failed). Memory, disk and speed are in [Performance](docs/performance.md).\n")
	say("`go generate` makes this page from the records in [testdata/trust](testdata/trust), which the tests wrote, and from the patches in")
	say("[testdata/bugs](testdata/bugs), which they need.\n")
	say("## Each test\n")
	say("The figures are sums of all recorded runs, or those of the last run if each run does everything. Failed runs are not in the sums.")
	say("To add to the figures run a command again, with `-long=8h -timeout 0` for a night, and then `go generate`.")
	for _, c := range claims {
		say("\n%s", c.section(records(t, c.Name)))
	}
	say("\n## Bugs that these tests have found\n")
	say("Each is fixed. Its command puts it back into a copy of the source, and shows that the tests notice it.\n")
	found := patches(t, "found")
	for _, p := range found {
		say("- %s `go test -run 'TestTrustFound/%s' ./tests -long`", p.says, p.name)
	}
	if len(found) == 0 {
		say("None so far.")
	}
	say("\n## Runs that failed\n")
	if len(failed) == 0 {
		failed = []string{"None was recorded."}
	}
	say("%s", strings.Join(failed, "\n"))
	return b.Bytes()
}

// counted returns the runs of a claim whose counts are in its sums.
func (c claim) counted(runs []run) []run {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r run) bool { return r.Failed })
	if c.Once && len(runs) > 1 {
		runs = runs[len(runs)-1:]
	}
	return runs
}

// sum returns the sums of the counts of a claim's runs.
func (c claim) sum(runs []run) map[string]int {
	sum := map[string]int{}
	for _, r := range c.counted(runs) {
		for name, n := range r.Counts {
			sum[name] += n
		}
	}
	return sum
}

// section returns the section of a claim, with its heading and the sums of its runs.
func (c claim) section(runs []run) string {
	text := fmt.Sprintf("### %s\n\n%s\n\n", cmp.Or(c.Title, c.Name), c.Says)
	aims := []string{}
	for _, a := range c.Aims {
		aims = append(aims, map[bool]string{true: "all " + a.Count, false: thousands(a.N) + " " + a.Count}[a.N == 0])
	}
	sum, runs := c.sum(runs), c.counted(runs)
	if len(runs) == 0 {
		return text + fmt.Sprintf("- Not yet recorded. Aim: %s", strings.Join(aims, ", "))
	}
	took := time.Duration(0)
	for _, r := range runs {
		d, _ := time.ParseDuration(r.Duration)
		took += d
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
	last := runs[len(runs)-1]
	times := map[bool]string{true: "1 run", false: fmt.Sprint(len(runs), " runs")}[len(runs) == 1]
	return text + fmt.Sprintf("- Done: %s. Aim: %s\n- Went wrong: %s\n- In %s, %v; last %s at %s, seed %d\n- Again: `%s`", strings.Join(done, ", "),
		strings.Join(aims, ", "), strings.Join(wrong, ", "), times, took.Round(time.Second), last.Date, last.Commit, last.Seed, last.Command)
}
