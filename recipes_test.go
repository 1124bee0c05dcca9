package main

// The recipes of those CI systems whose engines cannot be had: a shell runs
// their commands, in the order of the file, with the variables that the vendor
// documents. (engines_test.go has the others.)

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	yaml "github.com/pb33f/go-yaml"
)

var shellRecipes = []struct {
	file, job string // job: in documentedJobs
	more      string // documented variables that the recipe needs besides
	grants    int
}{
	{"circleci.yml", "CircleCI", "CIRCLE_BRANCH=main CIRCLE_WORKFLOW_ID=w-1", 3},
	{"azure-pipelines.yml", "Azure Pipelines", "BUILD_SOURCEBRANCHNAME=main", 3},
	{"woodpecker.yml", "Woodpecker", "CI_COMMIT_BRANCH=main", 2},
	{"bitbucket-pipelines.yml", "Bitbucket", "BITBUCKET_BRANCH=main BITBUCKET_EXIT_CODE=0", 3},
	{"Jenkinsfile", "Jenkins", "GIT_BRANCH=main", 3},
}

// A recipeStep is what a recipe has a shell do.
type recipeStep struct {
	script string
	env    []string
}

// stepsOf returns the scripts below a node in their order. What the mappings
// around one set in its environment goes with it.
func stepsOf(node *yaml.Node, env []string) []recipeStep {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	var all []recipeStep
	if node.Kind != yaml.MappingNode {
		for _, child := range node.Content {
			all = append(all, stepsOf(child, env)...)
		}
		return all
	}
	env = slices.Clip(env)
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i].Value, node.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if slices.Contains([]string{"env", "environment", "variables"}, key) && value.Kind == yaml.MappingNode {
			for j := 0; j < len(value.Content); j += 2 {
				if name := value.Content[j].Value; name == "CALL_ME_HOLDER" { // the others are for the test to say
					env = append(env, name+"="+value.Content[j+1].Value)
				}
			}
		}
	}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i].Value, node.Content[i+1]
		isMapping := func(n *yaml.Node) bool { return n.Kind == yaml.MappingNode }
		if !slices.Contains([]string{"run", "script", "command", "commands", "after-script"}, key) || isMapping(value) || slices.ContainsFunc(value.Content, isMapping) {
			all = append(all, stepsOf(value, env)...)
			continue
		}
		var lines []string
		for _, line := range append(value.Content, value) {
			if line.Kind == yaml.AliasNode {
				line = line.Alias
			}
			if line.Kind == yaml.ScalarNode {
				lines = append(lines, line.Value)
			}
		}
		all = append(all, recipeStep{strings.Join(lines, "\n"), env})
	}
	return all
}

// readRecipe returns the steps of a recipe.
func readRecipe(t *testing.T, file string) []recipeStep {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("examples", file))
	if err != nil {
		t.Fatal(err)
	}
	if file == "Jenkinsfile" {
		var all []recipeStep
		for _, sh := range regexp.MustCompile(`\bsh '([^']*)'`).FindAllStringSubmatch(string(text), -1) {
			all = append(all, recipeStep{script: sh[1]})
		}
		return all
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return stepsOf(&document, nil)
}

func TestTheCommandsOfTheRecipesHoldUATAndFreeIt(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	macro := regexp.MustCompile(`\$\(([\w.]+)\)`) // of Azure Pipelines
	for _, recipe := range shellRecipes {
		t.Run(recipe.file, func(t *testing.T) {
			d, folder := newDaemon(t), t.TempDir()
			at := slices.IndexFunc(documentedJobs, func(j documentedJob) bool { return j.name == recipe.job })
			job := documentedJobs[at]
			system, _, _ := strings.Cut(job.holder, ":")
			os.WriteFile(filepath.Join(folder, "deploy.sh"), []byte("#!/bin/sh\n"), 0o755)
			os.WriteFile(filepath.Join(folder, "test.sh"), []byte("#!/bin/sh\ncall-me status uat --json | grep '\"holder\": \""+system+":'\n"), 0o755)
			env := append(slices.Clone(d.env), "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY="+testKey)
			documented := environmentOf(job.variables)
			for pair := range strings.FieldsSeq(job.variables + " " + recipe.more) {
				env = append(env, strings.ReplaceAll(pair, "+", " "))
			}
			for _, s := range readRecipe(t, recipe.file) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it would wait for itself
				defer cancel()
				cmd := exec.CommandContext(ctx, bash, "-euc", s.script)
				cmd.WaitDelay = time.Second
				cmd.Dir, cmd.Env = folder, env
				for _, pair := range s.env {
					cmd.Env = append(cmd.Env, macro.ReplaceAllStringFunc(pair, func(m string) string {
						return documented(strings.ToUpper(strings.ReplaceAll(strings.Trim(m, "$()"), ".", "_")))
					}))
				}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s\n%v\n%s", s.script, err, out)
				}
			}
			if _, body := d.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"lease":null`) {
				t.Errorf("uat is not free: %s", body)
			}
			if grants := strings.Count(d.log.String(), "msg=granted "); grants != recipe.grants {
				t.Errorf("uat was granted %d times, want %d", grants, recipe.grants)
			}
		})
	}
}

func TestTheRecipeForCronHoldsUATAndFreesIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	script, err := filepath.Abs("examples/cron.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"run", "request"} {
		for _, end := range []string{"0", "3"} {
			d, folder := newDaemon(t), t.TempDir()
			os.WriteFile(filepath.Join(folder, "key"), []byte(testKey), 0o600)
			os.WriteFile(filepath.Join(folder, "deploy.sh"), []byte("#!/bin/sh\n"), 0o755)
			os.WriteFile(filepath.Join(folder, "test.sh"), []byte("#!/bin/sh\ncall-me status uat --json | grep '\"holder\": \"cron:' || exit 9\nexit "+end+"\n"), 0o755)
			cmd := exec.Command("sh", script, way)
			cmd.Dir = folder
			cmd.Env = append(slices.Clone(d.env), "API_KEY=", "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY_FILE="+folder+"/key")
			if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != int(end[0]-'0') {
				t.Errorf("%s: %v, want exit code %s\n%s", way, cmd.ProcessState, end, out)
			}
			if _, body := d.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"lease":null`) {
				t.Errorf("%s: uat is not free: %s", way, body)
			}
		}
	}
}
