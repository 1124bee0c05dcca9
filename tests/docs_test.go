package tests

// The commands of the documentation work when they are typed, and print what it shows.
// docs_test.go in the folder above checks that the names in the documentation exist.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The transcript at the top of README.md is what the binary prints.
func TestTheTranscriptOfTheREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```\n$ call-me request uat\n")
	transcript, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README has no transcript")
	}
	d := newDaemon(t, "TZ=UTC")
	d.call("POST", "/maybe?environment=uat&id=12345678&ttl=2h&reason=release+1.4&holder=github:acme/shop/run/123/deploy&url=https://github.com/acme/shop/actions/runs/123")
	cmd, out := d.client("next", "request", "uat")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() bool { return strings.Contains(out.String(), "in the queue") })
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := timelessText(out.String()); got != timelessText(transcript) {
		t.Errorf("the binary says\n%s\nthe README\n%s", got, timelessText(transcript))
	}
}

// typed matches the parts of a page that a test runs: its sh blocks, and two kinds of
// comments. <!-- test: COMMANDS --> has commands that prepare for the blocks after it.
// <!-- exit: 0, 3 with TESTS=3 --> before a block marks a script of a CI system and has its
// exit codes: here 0, and 3 if TESTS=3 is set. TESTS is the exit code of ./test.sh;
// MEANWHILE is a command that it runs before.
var typed = regexp.MustCompile("(?ms)(?:^<!-- exit: ([^\n]*) -->\n)?^```sh\n(.*?)^```$" +
	"|^<!-- test: (.*?) -->$")

// shellsOfCI are the shells with which CI systems run a script. The last one continues after
// a failed command.
var shellsOfCI = []string{"bash -e", "bash -eo pipefail", "sh -e", "bash"}

const testsOfADocument = `#!/bin/sh
eval "${MEANWHILE:-}"
exit ${TESTS:-0}
`

// scriptOf returns the script of a page. It writes each block that a CI system would run to
// a file in the folder, and the script runs these files. Not all commands of README.md can
// be run: of that page the script has only the blocks of CI systems.
func scriptOf(t *testing.T, page, folder, shellOfCI string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	literals := strings.NewReplacer("localhost:8000", "$HOST", "crj", "$API_KEY")
	script := ""
	for i, part := range typed.FindAllStringSubmatch(string(text), -1) {
		exits, block, prepares := part[1], part[2], part[3]
		switch {
		case prepares != "":
			script += prepares + "\n"
		case exits != "":
			shell := shellOfCI
			if shell == "bash" && !strings.Contains(block, "exit") {
				shell = "bash -e" // without it a list of commands has the exit code of its last one
			}
			name := fmt.Sprintf("block-%d.sh", i)
			if err := os.WriteFile(filepath.Join(folder, name), []byte(literals.Replace(block)), 0o600); err != nil {
				t.Fatal(err)
			}
			for end := range strings.SplitSeq(exits, ", ") {
				code, variables, _ := strings.Cut(end, " with ")
				script += fmt.Sprintf("code=0; env %s %s %s >said 2>&1 || code=$?\n", variables, shell, name)
				script += fmt.Sprintf("cat said; [ $code = %s ]\n", code)
			}
		case strings.Contains(block, "./test.sh"):
			t.Errorf("%s: a block that runs the tests, without <!-- exit: --> before it:\n%s", page, block)
		case page != "README.md":
			script += block + "\n"
		}
	}
	return script
}

func TestTheCommandsOfTheDocumentationWork(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS != "linux" {
		missing(t, "bash, on Linux")
	}
	if _, err := exec.LookPath("jq"); err != nil {
		missing(t, "jq")
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("there are no pages")
	}
	for _, page := range append(pages, "README.md") {
		for i, shell := range shellsOfCI {
			folder := t.TempDir()
			script := scriptOf(t, page, folder, shell)
			if script == "" || i > 0 && !strings.Contains(script, "block-") {
				continue
			}
			t.Run(page+" "+shell, func(t *testing.T) {
				t.Parallel()
				d := newDaemon(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a script may never end
				defer cancel()
				cmd := exec.CommandContext(ctx, bash, "-euxo", "pipefail", "-c", script)
				cmd.WaitDelay = time.Second
				cmd.Dir, cmd.Env = folder, d.env
				for name, text := range map[string]string{"deploy.sh": "#!/bin/sh\n", "test.sh": testsOfADocument} {
					if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
