package main

// What the documentation and the recipes say must work when it is typed.

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// typed are the parts of a page that a test runs: its sh blocks, and comments.
// <!-- test: COMMANDS --> prepares for the blocks after it. <!-- exit: 0, 3 with
// TESTS=3 --> before a block says that the block is a script of a CI system, and
// its exit codes: here 0, and 3 when TESTS=3 is set. With that ./test.sh ends;
// MEANWHILE is what happens while it runs.
var typed = regexp.MustCompile("(?ms)(?:^<!-- exit: ([^\n]*) -->\n)?^```sh\n(.*?)^```$" +
	"|^<!-- test: (.*?) -->$")

// shellsOfCI are the shells that CI systems give a script to. The last one goes
// on after a failed command.
var shellsOfCI = []string{"bash -e", "bash -eo pipefail", "sh -e", "bash"}

const testsOfADocument = `#!/bin/sh
eval "${MEANWHILE:-}"
exit ${TESTS:-0}
`

// scriptOf returns what a shell has to do for a page. It puts the blocks that a
// CI system would run into a folder. The commands of the README cannot all be
// run: of them it returns only those blocks.
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
				shell = "bash -e" // a list of commands ends as its last one does
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
				d := newDaemon(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a script may wait for ever
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

// documented returns the files that tell people what to type.
func documented(t *testing.T) []string {
	t.Helper()
	files := []string{"README.md"}
	for _, folder := range []string{"docs", "examples", "deploy"} {
		filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			if !entry.IsDir() && filepath.Ext(path) != ".png" {
				files = append(files, path)
			}
			return nil
		})
	}
	return files
}

func TestWhatPeopleAreToldToTypeExists(t *testing.T) {
	variables := []string{"CALL_ME_ENVIRONMENT", "CALL_ME_SLOT", marksVariable} // set by run
	for _, config := range []any{&serverConfig{}, &clientConfig{}} {
		for _, s := range settings(config) {
			variables = append(variables, s.variable)
		}
	}
	line := regexp.MustCompile(`call-me ((?:run|request|release|renew|status|history|serve|health|backup|check|completion)\b` +
		`(?:"[^"\n]*"|[^\n<>}'"` + "`" + `|;)&])*)`)
	variable := regexp.MustCompile(`\bCALL_ME_[A-Z_]*[A-Z]\b`)
	for _, file := range documented(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range variable.FindAllString(string(text), -1) {
			if !slices.Contains(variables, name) {
				t.Errorf("%s: nothing reads %s", file, name)
			}
		}
		for _, match := range line.FindAllStringSubmatch(string(text), -1) {
			app := newApp(newTerminal())
			words := append([]string{"call-me"}, strings.Fields(match[1])...)
			if app.Command(words[1]) == nil {
				t.Errorf("%s: there is no command %q", file, match[0])
				continue
			}
			if _, err := flagsFirst(app, words); err != nil {
				t.Errorf("%s: %q: %v", file, match[0], err)
			}
		}
	}
}

func TestLinksInTheDocumentationLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	unspoken := regexp.MustCompile(`[^a-z0-9 _-]`)
	pages, _ := filepath.Glob("docs/*.md")
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			there, err := os.ReadFile(target)
			if err != nil {
				if info, isThere := os.Stat(target); isThere != nil || !info.IsDir() {
					t.Errorf("%s: %v", page, err)
				}
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(string(there), -1) {
				anchors = append(anchors, strings.ReplaceAll(unspoken.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			if anchor != "" && !slices.Contains(anchors, anchor) {
				t.Errorf("%s: %s has no heading %q, but %v", page, target, anchor, anchors)
			}
		}
	}
}

// What is released is what people get who build it as they build everything.
func TestABuildNeedsNoTags(t *testing.T) {
	build := regexp.MustCompile(`\bgo (build|install)\b.* -tags|^\s*tags:`)
	files, err := filepath.Glob(".ci/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "README.md", "docs/install.md", "Dockerfile", "release.Dockerfile", ".goreleaser.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if build.MatchString(line) {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

// The program's name with a dot in it is somebody's domain: whoever copied it
// from here would send the key to a stranger.
func TestNoFileNamesADomainOfStrangers(t *testing.T) {
	list, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		missing(t, "git, or the repository")
	}
	hostname := regexp.MustCompile(`[\w-]+(\.[\w-]+)+`)
	stranger := "call" + ".me"
	files := strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
	if len(files) < 100 {
		t.Errorf("only %d files are tracked", len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, name := range hostname.FindAllString(line, -1) {
				if name = strings.ToLower(name); name == stranger || strings.HasSuffix(name, "."+stranger) {
					t.Errorf("%s:%d: %s is a stranger's; write call-me.example", file, i+1, name)
				}
			}
		}
	}
}
