package main

// Tests that the commands, variables and links in the documentation and the recipes exist.
// tests/docs_test.go runs the commands.

import (
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented returns the paths of the documentation, the recipes and the examples.
func documented(t *testing.T) []string {
	t.Helper()
	files := []string{"README.md", "SECURITY.md", "CONTRIBUTING.md"}
	for _, folder := range []string{"docs", "examples", "deploy", "ci"} {
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

func TestDocumentedCommandsAndVariablesExist(t *testing.T) {
	variables := []string{"CALL_ME_ENVIRONMENT", "CALL_ME_SLOT", "CALL_ME_URL", leasesVariable, runTagsVariable} // set by run
	for _, config := range []any{&serverConfig{}, &clientConfig{}} {
		for _, s := range listSettings(config) {
			variables = append(variables, s.variable)
		}
	}
	line := regexp.MustCompile(`call-me ((?:run|request|release|renew|status|history|pause|resume|doctor|serve|health|backup|check|move|completion|key)\b` +
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

// Every variable and every flag is on the page of the server's settings, or on that of the
// client's commands. Every route of the API is on the page of the API.
func TestEverySettingAndRouteIsDocumented(t *testing.T) {
	pages := map[string]string{}
	for _, page := range []string{"server", "cli", "security", "api"} {
		text, err := os.ReadFile("docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		pages[page] = string(text)
	}
	for page, config := range map[string]any{"server": &serverConfig{}, "cli": &clientConfig{}} {
		for _, s := range listSettings(config) {
			if name := cmp.Or(s.short, s.variable); !strings.Contains(pages[page], "`"+name+"`") {
				t.Errorf("docs/%s.md does not have the variable %s", page, name)
			}
		}
	}
	for _, command := range newApp(newTerminal()).Commands {
		if command.Hidden {
			continue
		}
		if !regexp.MustCompile("`" + command.Name + "\\b").MatchString(pages["cli"]) {
			t.Errorf("docs/cli.md does not have the command %s", command.Name)
		}
		for _, flag := range command.Flags {
			name := flag.Names()[0]
			if name != "help" && !regexp.MustCompile(`--`+name+`\b`).MatchString(pages["cli"]+pages["server"]+pages["security"]) {
				t.Errorf("no page has the flag --%s of %s", name, command.Name)
			}
		}
	}
	spec, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`(?m)^  (/[a-z.]+):$`).FindAllStringSubmatch(string(spec), -1)
	if len(routes) < 5 {
		t.Fatalf("openapi.yaml has the routes %v", routes)
	}
	for _, route := range routes {
		if !regexp.MustCompile("[` ]" + regexp.QuoteMeta(route[1]) + "`").MatchString(pages["api"]) {
			t.Errorf("docs/api.md does not have %s", route[1])
		}
	}
}

// The file of environments that docs/server.md shows is one that the server reads.
func TestTheDocumentedFileOfEnvironments(t *testing.T) {
	page, err := os.ReadFile("docs/server.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, found := strings.Cut(string(page), "```\n# CALL_ME_ENVIRONMENTS_FILE")
	sample, _, _ = strings.Cut(sample, "```")
	read, err := parseEnvironments("# " + sample)
	if !found || err != nil || len(read.names) != 3 || len(read.slots["uat"]) != 2 || read.facts["uat"].owner != "#team-shop" {
		t.Errorf("%v: %+v", err, read)
	}
}

func TestLinksInTheDocumentationLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	unspoken := regexp.MustCompile(`[^a-z0-9 _-]`)
	pages, _ := filepath.Glob("docs/*.md")
	inRoot, _ := filepath.Glob("*.md")
	for _, page := range append(pages, inRoot...) {
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

// No build uses tags, so that a plain go build makes the same program as a release.
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

// No file has the domain that is the program's name with a dot in it. That domain belongs to a
// stranger: a user that copied it would send the key there.
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
