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

// The transcript at the top of README.md is what the binary prints for two jobs.
func TestTheTranscriptOfTheREADME(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sessions := regexp.MustCompile(`(?m)^\$ call-me run uat -- \./test\.sh +#.*\n((?:[a-z].*\n)+)`).FindAllStringSubmatch(string(readme), -1)
	if len(sessions) != 2 {
		t.Fatalf("the README has %d transcripts", len(sessions))
	}
	d := newDaemon(t, "TZ=UTC")
	folder := t.TempDir()
	done := filepath.Join(folder, "done")
	script := "#!/bin/sh\nuntil [ -e " + done + " ]; do sleep 0.1; done\necho tests passed\n"
	if err := os.WriteFile(filepath.Join(folder, "test.sh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var jobs []*exec.Cmd
	var logs []*lockedBuffer
	for i, said := range []string{"acquired uat", "waiting for uat"} {
		holder := []string{"github:acme/shop/run/123/deploy", "gitlab:acme/api/-/jobs/77"}[i]
		cmd, out := d.client(holder, "run", "uat", "--", "./test.sh")
		cmd.Dir = folder
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, said, func() bool { return strings.Contains(out.String(), said) })
		jobs, logs = append(jobs, cmd), append(logs, out)
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, job := range jobs {
		if err := job.Wait(); err != nil {
			t.Fatal(err)
		}
		if got, want := timelessText(logs[i].String()), timelessText(sessions[i][1]); got != want {
			t.Errorf("the binary says\n%s\nthe README\n%s", got, want)
		}
	}
}

// The sessions that the pages show, text blocks that begin with a prompt, are what the commands
// print. Sums and keys are random: the pages have dots in their place.
func TestTheSessionsOfTheDocumentation(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		missing(t, "sh")
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	d, found := newDaemon(t), 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, session := range regexp.MustCompile("(?ms)^```text\n\\$ (.*?)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
			found++
			cmd := exec.CommandContext(t.Context(), shell, "-c", session[1])
			cmd.Dir, cmd.Env = t.TempDir(), d.env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %s: %v", page, session[1], err)
			}
			dots := func(s string) string {
				return regexp.MustCompile(`(sha256:|API_KEY=)[0-9A-Za-z.]+`).ReplaceAllString(timelessText(s), "$1...")
			}
			if got, want := dots(string(out)), dots(session[2]); got != want {
				t.Errorf("%s: %s prints\n%s\nthe page has\n%s", page, session[1], got, want)
			}
		}
	}
	if found == 0 {
		t.Error("no page has a session")
	}
}

// typed matches the parts of a page that a test runs: its sh blocks, and two kinds of
// comments. <!-- test: COMMANDS --> has commands that prepare for the blocks after it.
// <!-- exit: 0, 3 with TESTS=3 --> before a block marks a script of a CI system and has its
// exit codes: here 0, and 3 if TESTS=3 is set. TESTS is the exit code of ./test.sh;
// MEANWHILE is a command that it runs before. What a page cannot run, such as a server of
// systemd, stands in blocks of other kinds.
var typed = regexp.MustCompile("(?ms)(?:^<!-- exit: ([^\n]*) -->\n)?^```sh\n(.*?)^```$" +
	"|^<!-- test: (.*?) -->$")

// shellsOfCI are the shells with which CI systems run a script. The last one continues after
// a failed command.
var shellsOfCI = []string{"bash -e", "bash -eo pipefail", "sh -e", "bash"}

const testsOfADocument = `#!/bin/sh
eval "${MEANWHILE:-}"
exit ${TESTS:-0}
`

// standIns are functions of the shell in place of what README.md has and a test does not do:
// it has the binary already, and calls it by go run too. A server that a page starts has a
// port that is free, and is there when the function returns.
const standIns = `go() {
    case "$1 $2" in
    "run .") shift 2; call-me "$@" ;;
    "test ./..." | "build .") ;;
    *) false ;;
    esac
}
docker() { [ "$*" = "build -t call-me ." ]; }
sudo() { [ "$*" = "install call-me /usr/local/bin" ]; }
call-me() {
    if [ "$1" != serve ]; then command call-me "$@"; return; fi
    if [ -n "${server:-}" ]; then command kill $server; wait $server || true; fi
    export PORT=$FREE_PORT HOST=127.0.0.1:$FREE_PORT CALL_ME_DB=of-the-page.db
    command call-me serve 2>/dev/null &
    server=$!
    trap 'command kill $server' EXIT
    until call-me health >/dev/null 2>&1; do sleep 0.1; done
}
`

// scriptOf returns the script of a page. It writes each block that a CI system would run to
// a file in the folder, and the script runs these files.
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
		default:
			script += literals.Replace(block) + "\n"
		}
	}
	if script != "" {
		script = standIns + script
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
				cmd.Dir, cmd.Env = folder, append(d.env, fmt.Sprint("FREE_PORT=", freePort()))
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
