package tests

// The meta-runner of TeamCity, and what the other plugins in ci/ write in their system's form: only keys
// that the system documents, and examples with options that there are.

import (
	"encoding/xml"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	yaml "github.com/pb33f/go-yaml"
)

// A metaRunner is the file of TeamCity's.
type metaRunner struct {
	XMLName     xml.Name    `xml:"meta-runner"`
	Name        string      `xml:"name,attr"`
	Description string      `xml:"description"`
	Parameters  []metaParam `xml:"settings>parameters>param"`
	Runner      struct {
		Type       string      `xml:"type,attr"`
		Parameters []metaParam `xml:"parameters>param"`
	} `xml:"settings>build-runners>runner"`
}

type metaParam struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
	Spec  string `xml:"spec,attr"`
	Text  string `xml:",chardata"`
}

var teamCityParameter = regexp.MustCompile(`%([\w.-]+)%`)

func TestTheMetaRunnerOfTeamCityHoldsASlotWhileItsScriptRuns(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	text, err := os.ReadFile("ci/teamcity/CallMeRun.xml")
	if err != nil {
		t.Fatal(err)
	}
	var m metaRunner
	if err := xml.Unmarshal(text, &m); err != nil || m.Runner.Type != "simpleRunner" || m.Name == "" {
		t.Fatalf("%v: %+v", err, m)
	}
	script := m.Runner.Parameters[slices.IndexFunc(m.Runner.Parameters, func(p metaParam) bool { return p.Name == "script.content" })].Text
	d, folder := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,web:blue+green"), t.TempDir()
	for end, code := range map[string]int{"true": 0, "exit 3": 3, "call-me release uat web --force --holder other": 76} {
		values := map[string]string{"call-me.environment": "uat web", "call-me.slot": "web=blue", "call-me.reason": `it's "100%"`,
			"call-me.script": "call-me status --json >held\necho \"it's $CALL_ME_LEASES\" >>held\n" + end}
		for _, p := range m.Parameters {
			if _, isThere := values[p.Name]; !isThere {
				values[p.Name] = p.Value
			}
		}
		cmd, out := exec.Command("sh"), &lockedBuffer{}
		cmd.Stdin = strings.NewReader("")
		cmd.Args = []string{"sh", "-c", teamCityParameter.ReplaceAllStringFunc(script, func(found string) string {
			value, isThere := values[strings.Trim(found, "%")]
			if !isThere {
				t.Errorf("there is no parameter %s", found)
			}
			return value
		})}
		cmd.Dir, cmd.Stdout, cmd.Stderr = folder, out, out
		cmd.Env = append(slices.Clone(d.env), "API_KEY=", "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY="+testKey, "TEAMCITY_VERSION=2025.03",
			"TEAMCITY_PROJECT_NAME=shop", "TEAMCITY_BUILDCONF_NAME=uat", "BUILD_NUMBER=7")
		cmd.Run()
		held, _ := os.ReadFile(filepath.Join(folder, "held"))
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(string(held), `"holder": "teamcity:shop/uat/7"`) || !strings.Contains(string(held), `"reason": "it's \"100%\""`) ||
			!strings.Contains(string(held), `it's [{"environment":"uat",`) || !strings.Contains(string(held), `"slot":"blue"`) {
			t.Errorf("%s: %v, want %d\n%s\n%s", end, cmd.ProcessState, code, held, out)
		}
		if all := d.want(200, "GET", "/environments"); strings.Contains(all, `"fence":`) {
			t.Errorf("%s: %s", end, all)
		}
	}
}

// keysAmong fails the test if a mapping has a key that its system does not document.
func keysAmong(t *testing.T, what string, mapping any, documented ...string) {
	t.Helper()
	m, isMapping := mapping.(map[string]any)
	if !isMapping {
		t.Errorf("%s is no mapping: %v", what, mapping)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(documented, key) {
			t.Errorf("%s has the key %s, which is not documented", what, key)
		}
	}
}

// wantUsed fails the test unless a text uses exactly the declared parameters.
func wantUsed(t *testing.T, what, text string, declared []string) {
	t.Helper()
	var used []string
	for _, found := range parameter.FindAllStringSubmatch(text, -1) {
		used = append(used, found[1])
	}
	slices.Sort(used)
	slices.Sort(declared)
	if used = slices.Compact(used); !slices.Equal(used, declared) {
		t.Errorf("%s uses %v and declares %v", what, used, declared)
	}
}

func TestThePluginsHaveOnlyTheKeysThatTheirSystemsDocument(t *testing.T) {
	t.Parallel()
	orb, top := readPlugin(t, "ci/circleci/orb.yml")
	keysAmong(t, "the orb", top, "version", "description", "display", "orbs", "commands", "jobs", "executors", "examples")
	commands := top["commands"].(map[string]any)
	for name, command := range orb.Commands {
		keysAmong(t, name, commands[name], "description", "parameters", "steps")
		for parameter, p := range command.Parameters {
			keysAmong(t, parameter, p, "type", "description", "default", "enum")
			if kind, _ := p["type"].(string); !slices.Contains([]string{"string", "boolean", "integer", "enum", "executor", "steps", "env_var_name"}, kind) || !regexp.MustCompile(`^[a-z][a-z0-9_-]+$`).MatchString(parameter) {
				t.Errorf("%s: %v", parameter, p)
			}
		}
		for _, step := range command.Steps {
			keysAmong(t, name, step, "run", "steps", "install")
			if run := step.(map[string]any)["run"]; run != nil {
				keysAmong(t, name, run, "name", "command", "environment", "when", "shell", "background", "working_directory", "no_output_timeout")
			}
		}
		text, _ := yaml.Marshal(command.Steps)
		wantUsed(t, name, string(text), slices.Collect(maps.Keys(command.Parameters)))
	}

	template, top := readPlugin(t, "ci/azure/call-me.yml")
	keysAmong(t, "the template", top, "parameters", "steps")
	var declared []string
	for _, p := range template.Parameters {
		keysAmong(t, "a parameter", p, "name", "type", "default", "displayName", "values")
		declared = append(declared, p["name"].(string))
	}
	for _, step := range template.Steps {
		if step != "${{ parameters.steps }}" {
			keysAmong(t, "a step", step, "bash", "displayName", "condition", "env", "name", "workingDirectory", "timeoutInMinutes")
		}
	}
	text, _ := yaml.Marshal(template.Steps)
	wantUsed(t, "the template", string(text), declared)

	pipe, top := readPlugin(t, "ci/bitbucket/pipe.yml")
	keysAmong(t, "the pipe", top, "name", "description", "image", "category", "icon", "repository", "maintainer", "vendor", "tags", "variables")
	script, err := os.ReadFile("ci/bitbucket/pipe.sh")
	for _, v := range pipe.Variables {
		keysAmong(t, "a variable", v, "name", "default", "required", "secret", "allowed_values", "shared")
		if name := v["name"].(string); err != nil || !strings.HasPrefix(name, "CALL_ME_") && !strings.Contains(string(script), name) {
			t.Errorf("pipe.sh does not read %s: %v", name, err)
		}
	}
}

// The examples of the page are YAML, and use options that the plugins have.
func TestTheExamplesOfThePluginsUseTheirOptions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/ci-plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	var declared []string
	orb, _ := readPlugin(t, "ci/circleci/orb.yml")
	template, _ := readPlugin(t, "ci/azure/call-me.yml")
	declared = slices.Collect(maps.Keys(orb.Commands["hold"].Parameters))
	for _, p := range template.Parameters {
		declared = append(declared, p["name"].(string))
	}
	if len(blocks) != 5 {
		t.Errorf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		var any map[string]any
		if err := yaml.Unmarshal([]byte(block[1]), &any); err != nil {
			t.Errorf("%v\n%s", err, block[1])
		}
		for _, options := range optionsIn(any) {
			for name := range options {
				if !slices.Contains(declared, strings.ToLower(name)) && !slices.Contains([]string{"action", "host", "key", "ACTION", "CALL_ME_HOST", "CALL_ME_API_KEY"}, name) {
					t.Errorf("no plugin has the option %s", name)
				}
			}
		}
	}
}

// optionsIn returns the mappings below node that give options to a plugin: those with an environment.
func optionsIn(node any) (all []map[string]any) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			all = append(all, optionsIn(child)...)
		}
	case map[string]any:
		for key, child := range n {
			if _, isText := child.(string); isText && strings.EqualFold(key, "environment") {
				all = append(all, n)
			}
			all = append(all, optionsIn(child)...)
		}
	}
	return all
}
