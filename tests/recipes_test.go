package tests

// The contents of every recipe, and the commands of the recipes of those CI systems whose
// engines are not available: a shell runs their commands, in the order of the file, with
// the variables that the vendor documents. engines_test.go runs the other recipes.

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
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

// ways are the three parts of a recipe, in their order: run; request and release; and
// request and release across several jobs.
var ways = []string{"run", "request", "several"}

// wayBegins matches the numbered comment at the begin of each way.
var wayBegins = regexp.MustCompile(`(?m)^.*(?:#|//) [123]\. The slot is held `)

// fourthBegins matches the comment at the begin of a job for newest wins, which some recipes
// have after the ways.
var fourthBegins = regexp.MustCompile(`(?m)^.*# 4\. `)

// waysOf returns the text before the ways of a recipe, and the text of each way. parts is
// nil if the recipe does not have three ways. It ignores a fourth job.
func waysOf(recipe string) (head string, parts map[string]string) {
	begins := wayBegins.FindAllStringIndex(recipe, -1)
	if len(begins) != len(ways) {
		return recipe, nil
	}
	parts = map[string]string{}
	end := len(recipe)
	if fourth := fourthBegins.FindStringIndex(recipe); fourth != nil {
		end = fourth[0]
	}
	for i := len(ways) - 1; i >= 0; i-- {
		parts[ways[i]] = recipe[begins[i][0]:end]
		end = begins[i][0]
	}
	return recipe[:end], parts
}

// whateverHappens has, for each recipe, the text that makes the release happen after any
// failure: that of the second way, and that of the third. The action and the component request
// and release by themselves.
var whateverHappens = map[string][2]string{
	"github-actions.yml":      {"uses: lgug2z/call-me@v1.0.0\n        with: {environment: uat, ", "if: always()"},
	"gitlab-ci.yml":           {"extends: .call-me\n", "when: always"},
	"Jenkinsfile":             {"always {", "always {"},
	"buildkite.yml":           {"trap 'code=$$?; call-me release uat || exit $$((code ? code : $$?))' EXIT", "allow_dependency_failure: true"},
	"circleci.yml":            {"when: always", "test: terminal"},
	"azure-pipelines.yml":     {"condition: always()", "condition: always()"},
	"woodpecker.yml":          {"status: [success, failure]", "runs_on: [success, failure]"},
	"bitbucket-pipelines.yml": {"after-script:", "after-script:"},
	"cron.sh":                 {"trap 'code=$?; call-me release uat || exit $((code ? code : $?))' EXIT", "free)"},
}

func TestEachRecipeShowsThreeWaysAndWhereTheKeyComesFrom(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`(?m)(^|\s)(#|//).*$`)
	for file, always := range whateverHappens {
		text, err := os.ReadFile(filepath.Join("examples", file))
		if err != nil {
			t.Fatal(err)
		}
		head, parts := waysOf(string(text))
		if parts == nil {
			t.Errorf("%s: there are not three ways", file)
			continue
		}
		has := func(where, text string, all ...string) {
			for _, one := range all {
				if !regexp.MustCompile(one).MatchString(text) {
					t.Errorf("%s: %s has no %s", file, where, one)
				}
			}
		}
		has("its head", head, "The key[ a-z]* (is|are|come)")
		has("the file", comment.ReplaceAllString(string(text), "")+head, "CALL_ME_API_KEY", "CALL_ME_HOST")
		if strings.Contains(string(text), "/latest/") || strings.Contains(string(text), "curl") && !strings.Contains(string(text), "sha256sum -c") {
			t.Errorf("%s: what it fetches has no version or no checksum", file)
		}
		if regexp.MustCompile(`CALL_ME_HOST\s*[:=]\s*['"]?http`).MatchString(comment.ReplaceAllString(string(text), "")) {
			t.Errorf("%s: the server's address is no variable", file)
		}
		has("docs/ci.md", string(page), regexp.QuoteMeta("(../examples/"+file+")"))
		for i, way := range ways {
			commands := comment.ReplaceAllString(parts[way], "")
			if way == "run" {
				has(way, commands, "call-me run uat ")
				continue
			}
			has(way, commands, regexp.QuoteMeta(always[i-1]))
			if way == "several" || !strings.Contains(always[0], "call-me") || strings.Contains(always[0], "trap") {
				has(way, commands, "call-me request uat ", "call-me release uat")
			}
			if way == "several" {
				has(way, commands, `CALL_ME_HOLDER|\*holder`)
			}
		}
	}
}

// shellRecipes are the recipes that a shell runs. Their variables are those that the
// vendors document, the same as in ci_test.go of the folder above, and those that the
// recipe needs. A + in a variable stands for a space.
var shellRecipes = []struct {
	file, variables string
	holder, link    string
	several         string // the holder of the slot across several jobs
}{
	{"circleci.yml", `CI=true CIRCLECI=true CIRCLE_PROJECT_USERNAME=foo CIRCLE_PROJECT_REPONAME=bar CIRCLE_BUILD_NUM=123 CIRCLE_JOB=build CIRCLE_NODE_INDEX=0
		CIRCLE_BUILD_URL=https://circleci.com/gh/foo/bar/123 CIRCLE_BRANCH=main CIRCLE_WORKFLOW_ID=w-1`,
		"circleci:foo/bar/123/build/0", "https://circleci.com/gh/foo/bar/123", "circleci:w-1"},
	{"azure-pipelines.yml", `TF_BUILD=True SYSTEM_COLLECTIONURI=https://dev.azure.com/fabrikamfiber/ SYSTEM_TEAMPROJECT=My+Project BUILD_BUILDID=12 SYSTEM_JOBID=be2ab8ec
		SYSTEM_JOBDISPLAYNAME=Deploy+it BUILD_SOURCEBRANCHNAME=main`,
		"azure:My-Project/12/Deploy-it/be2ab8ec", "https://dev.azure.com/fabrikamfiber/My%20Project/_build/results?buildId=12&view=logs&j=be2ab8ec", "azure:My Project/12"},
	{"woodpecker.yml", `CI=woodpecker CI_REPO=john-doe/my-repo CI_PIPELINE_NUMBER=8 CI_WORKFLOW_NAME=release CI_WORKFLOW_NUMBER=2
		CI_PIPELINE_URL=https://ci.example.com/repos/7/pipeline/8 DRONE=true DRONE_REPO=x CI_COMMIT_BRANCH=main`,
		"woodpecker:john-doe/my-repo/8/release/2", "https://ci.example.com/repos/7/pipeline/8", "woodpecker:john-doe/my-repo/8"},
	{"bitbucket-pipelines.yml", `CI=true BITBUCKET_BUILD_NUMBER=5 BITBUCKET_REPO_FULL_NAME=acme/shop BITBUCKET_STEP_UUID={a2b3} BITBUCKET_BRANCH=main BITBUCKET_EXIT_CODE=0`,
		"bitbucket:acme/shop/5/{a2b3}", "https://bitbucket.org/acme/shop/pipelines/results/5", "bitbucket:acme/shop/5"},
	{"Jenkinsfile", `JENKINS_URL=https://jenkins.example.com/ JOB_NAME=shop/main BUILD_NUMBER=153 BUILD_TAG=jenkins-shop-main-153
		BUILD_URL=https://jenkins.example.com/job/shop/job/main/153/ GIT_BRANCH=main`,
		"jenkins:shop/main/153", "https://jenkins.example.com/job/shop/job/main/153/", ""}, // its third way tests in other builds
}

// A recipeStep is one script of a recipe, with the variables that the recipe sets for it.
type recipeStep struct {
	script string
	env    []string
}

// stepsOf returns the scripts below a node, in their order. Each has env, and the
// CALL_ME_HOLDER of the mappings around it.
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
				if name := value.Content[j].Value; name == "CALL_ME_HOLDER" { // the test sets the others
					env = append(env, name+"="+value.Content[j+1].Value)
				}
			}
		}
	}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i].Value, node.Content[i+1]
		isMapping := func(n *yaml.Node) bool { return n.Kind == yaml.MappingNode }
		if !slices.Contains([]string{"run", "script", "command", "commands", "after-script", "after_script"}, key) || isMapping(value) || slices.ContainsFunc(value.Content, isMapping) {
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

// azureInstall matches the parameter with the command that installs call-me; Azure puts it into
// the steps as it is.
var azureInstall = regexp.MustCompile(`(?m)^  - name: install\n +type: string\n +default: >-\n((?: {6}.*\n)+)`)

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
	if install := azureInstall.FindSubmatch(text); install != nil {
		text = bytes.ReplaceAll(text, []byte("${{ parameters.install }}"), bytes.Join(bytes.Fields(install[1]), []byte(" ")))
	}
	var all []recipeStep
	for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var document yaml.Node
		if err := documents.Decode(&document); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, stepsOf(&document, nil)...)
	}
}

func TestTheCommandsOfTheRecipesHoldUATAndFreeIt(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	macro := regexp.MustCompile(`\$\([\w.]+\)|\$\{\w+\}`) // the macros of Azure Pipelines and of Woodpecker
	for _, recipe := range shellRecipes {
		t.Run(recipe.file, func(t *testing.T) {
			t.Parallel()
			d, folder := newDaemon(t), t.TempDir()
			os.WriteFile(filepath.Join(folder, "deploy.sh"), []byte("#!/bin/sh\n"), 0o755)
			os.WriteFile(filepath.Join(folder, "test.sh"), []byte("#!/bin/sh\ncall-me status uat --json | grep -Eo '\"(holder|url)\": \"[^\"]*\"' >>held\n"), 0o755)
			env := append(slices.Clone(d.env), "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY="+testKey)
			documented := map[string]string{}
			for pair := range strings.FieldsSeq(recipe.variables) {
				pair = strings.ReplaceAll(pair, "+", " ")
				name, value, _ := strings.Cut(pair, "=")
				env, documented[name] = append(env, pair), value
			}
			for _, s := range readRecipe(t, recipe.file) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it may wait for its own slot
				defer cancel()
				cmd := exec.CommandContext(ctx, bash, "-euc", s.script)
				cmd.WaitDelay = time.Second
				cmd.Dir, cmd.Env = folder, env
				for _, pair := range s.env {
					cmd.Env = append(cmd.Env, macro.ReplaceAllStringFunc(pair, func(m string) string {
						return documented[strings.ToUpper(strings.ReplaceAll(strings.Trim(m, "$(){}"), ".", "_"))]
					}))
				}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s\n%v\n%s", s.script, err, out)
				}
			}
			if _, body := d.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"lease":null`) {
				t.Errorf("uat is not free: %s", body)
			}
			if grants := strings.Count(d.log.String(), "msg=granted "); grants != len(ways) {
				t.Errorf("uat was granted %d times, want %d", grants, len(ways))
			}
			want := ""
			for _, holder := range []string{recipe.holder, recipe.holder, recipe.several} {
				if holder != "" {
					want += fmt.Sprintf("\"holder\": %q\n\"url\": %q\n", holder, recipe.link)
				}
			}
			if held, _ := os.ReadFile(filepath.Join(folder, "held")); string(held) != want {
				t.Errorf("while test.sh ran uat was held by\n%s, want\n%s", held, want)
			}
		})
	}
}

// The CI system gets the exit code of the tests, also if the slot is lost while they run;
// then the release fails. The test runs every shell step of a recipe, also after a step
// that has failed.
func TestTheStepsThatTestEndAsTheTestsDo(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	tests := "#!/bin/sh\nif [ $LOST = yes ]; then CALL_ME_HOLDER=other call-me release uat --force; fi\nexit $TESTS\n"
	for file := range whateverHappens {
		if file == "cron.sh" {
			continue // TestTheRecipeForCronHoldsUATAndFreesIt runs it
		}
		for _, variables := range []string{"TESTS=3 LOST=no", "TESTS=3 LOST=yes", "TESTS=0 LOST=yes"} {
			t.Run(file+" "+variables, func(t *testing.T) {
				t.Parallel()
				d, folder := newDaemon(t), t.TempDir()
				for name, text := range map[string]string{"deploy.sh": "#!/bin/sh\n", "test.sh": tests} {
					if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				env := slices.Concat(d.env, []string{"CALL_ME_HOST=" + d.host, "CALL_ME_API_KEY=" + testKey,
					"BITBUCKET_EXIT_CODE=0", "CIRCLE_WORKFLOW_ID=w-1"}, strings.Fields(variables))
				switch file { // the fourth job needs to know its repository and branch
				case "gitlab-ci.yml":
					env = append(env, "GITLAB_CI=true", "CI_PROJECT_PATH=acme/shop", "CI_JOB_NAME=newest", "CI_COMMIT_REF_NAME=main")
				case "github-actions.yml":
					env = append(env, "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=acme/shop", "GITHUB_JOB=newest", "GITHUB_REF=refs/heads/main", "RUNNER_TEMP="+folder)
				}
				found := 0
				for _, s := range readRecipe(t, file) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					script := strings.ReplaceAll(s.script, "$$", "$") // Buildkite replaces it too
					cmd := exec.CommandContext(ctx, bash, "-ec", script)
					cmd.WaitDelay = time.Second
					cmd.Dir, cmd.Env = folder, append(env, s.env...)
					out, _ := cmd.CombinedOutput()
					code := cmd.ProcessState.ExitCode()
					want := 0
					switch {
					case !strings.Contains(s.script, "./test.sh"):
						continue // a step of its own that requests, deploys or releases
					case strings.Contains(s.script, "call-me run") && strings.Contains(variables, "LOST=yes"):
						want = 76 // run returns it for every exit code of its command
					case strings.Contains(variables, "TESTS=3"):
						want = 3
					case strings.Contains(s.script, "call-me release"):
						want = 76
					}
					found++
					if code != want {
						t.Errorf("%s\nexit code %d, want %d\n%s", s.script, code, want, out)
					}
				}
				if found < 2 {
					t.Errorf("only %d steps test", found)
				}
			})
		}
	}
}

// In the fourth job of a recipe the newer of two pushes takes the place of the older one, which
// is not shown as a failure. It has both environments or none.
func TestTheRecipesForNewestWins(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	for file, variables := range map[string]string{
		"github-actions.yml": "GITHUB_ACTIONS=true GITHUB_REPOSITORY=acme/shop GITHUB_WORKFLOW=uat GITHUB_JOB=newest GITHUB_REF=refs/heads/main",
		"gitlab-ci.yml":      "GITLAB_CI=true CI_PROJECT_PATH=acme/shop CI_JOB_NAME=newest CI_COMMIT_REF_NAME=main",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			d, folder := newDaemon(t), t.TempDir()
			text, err := os.ReadFile(filepath.Join("examples", file))
			if err != nil {
				t.Fatal(err)
			}
			text = text[fourthBegins.FindIndex(text)[0]:]
			var document yaml.Node
			if err := yaml.Unmarshal(text, &document); err != nil {
				t.Fatal(err)
			}
			script := ""
			for _, s := range stepsOf(&document, nil) {
				if strings.Contains(s.script, "--supersede") {
					script = s.script
				}
			}
			for _, name := range []string{"deploy.sh", "test.sh"} {
				os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"), 0o755)
			}
			push := func(name string) (cmd *exec.Cmd, out *lockedBuffer) {
				cmd, out = exec.Command(bash, "-ec", script), &lockedBuffer{}
				cmd.Dir, cmd.Stdout, cmd.Stderr = folder, out, out
				cmd.Env = slices.Concat(d.env, strings.Fields(variables), []string{"CALL_ME_HOST=" + d.host, "CALL_ME_API_KEY=" + testKey,
					"CALL_ME_HOLDER=" + name})
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd, out
			}
			d.want(201, "POST", "/maybe?environment=perf&id=12345678")
			older, outOlder := push("older")
			eventually(t, "the older one waits", func() bool { return strings.Contains(outOlder.String(), "waiting for") })
			newer, outNewer := push("newer")
			older.Wait()
			isSkipped := older.ProcessState.ExitCode() == 0 && strings.HasSuffix(outOlder.String(), "\n::notice::not tested: a newer run is\n")
			isWarning := older.ProcessState.ExitCode() == 77 && strings.Contains(string(text), "allow_failure: { exit_codes: 77 }")
			if !isSkipped && !isWarning {
				t.Errorf("the older one: %v\n%s", older.ProcessState, outOlder)
			}
			d.want(204, "DELETE", "/maybe?environment=perf&id=12345678")
			if err := newer.Wait(); err != nil || !strings.Contains(outNewer.String(), "acquired") {
				t.Errorf("the newer one: %v\n%s", err, outNewer)
			}
		})
	}
}

// cron returns a command that runs a job of the recipe for cron. Its test.sh ends with 9 if
// the job does not hold uat, else with the code end.
func (d *daemon) cron(job, end string) *exec.Cmd {
	d.t.Helper()
	if runtime.GOOS == "windows" {
		d.t.Skip("a shell script")
	}
	script, err := filepath.Abs("examples/cron.sh")
	if err != nil {
		d.t.Fatal(err)
	}
	folder := d.t.TempDir()
	os.WriteFile(filepath.Join(folder, "key"), []byte(testKey), 0o600)
	os.WriteFile(filepath.Join(folder, "deploy.sh"), []byte("#!/bin/sh\n"), 0o755)
	os.WriteFile(filepath.Join(folder, "test.sh"), []byte("#!/bin/sh\ncall-me status uat --json | grep '\"holder\": \"cron:.*nightly' || exit 9\nexit "+end+"\n"), 0o755)
	cmd := exec.Command("sh", script, job)
	cmd.Dir = folder
	cmd.Env = append(slices.Clone(d.env), "API_KEY=", "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY_FILE="+folder+"/key")
	return cmd
}

func TestTheRecipeForCronHoldsUATAndFreesIt(t *testing.T) {
	t.Parallel()
	for way, jobs := range map[string][]string{"run": {"run"}, "request": {"request"}, "several": {"deploy", "test", "free"}} {
		for _, end := range []string{"0", "3"} {
			d, code := newDaemon(t), 0
			for _, job := range jobs { // cron starts each job, also after one that has failed
				cmd := d.cron(job, end)
				out, _ := cmd.CombinedOutput()
				code = max(code, cmd.ProcessState.ExitCode())
				t.Logf("%s: %v\n%s", job, cmd.ProcessState, out)
			}
			if code != int(end[0]-'0') {
				t.Errorf("%s: exit code %d, want %s", way, code, end)
			}
			if _, body := d.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"lease":null`) {
				t.Errorf("%s: uat is not free: %s", way, body)
			}
		}
	}
}

func TestCronDoesNotTestWhatAnotherHas(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678")
	cmd := d.cron("test", "0")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 76 {
		t.Errorf("%v, want exit code %d\n%s", cmd.ProcessState, 76, out)
	}
}

func TestTheExitCodeOfTheRecipeForCron(t *testing.T) {
	t.Parallel()
	for end, want := range map[string]int{"0": 76, "3": 3} {
		d := newDaemon(t)
		cmd := d.cron("request", end)
		loses := "#!/bin/sh\nCALL_ME_HOLDER=other call-me release uat --force\nexit " + end + "\n"
		if err := os.WriteFile(filepath.Join(cmd.Dir, "test.sh"), []byte(loses), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("tests end with %s, uat is lost: %v, want exit code %d\n%s", end, cmd.ProcessState, want, out)
		}
	}
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678")
	cmd := d.cron("request", "0")
	script, err := os.ReadFile(cmd.Args[1])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[1] = filepath.Join(cmd.Dir, "impatient.sh")
	impatient := strings.ReplaceAll(string(script), "--timeout 3h", "--no-wait")
	if err := os.WriteFile(cmd.Args[1], []byte(impatient), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 75 {
		t.Errorf("without a free slot: %v, want exit code %d\n%s", cmd.ProcessState, 75, out)
	}
}

func TestAPipelineFailsThatLostItsSlot(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	for range 20 { // the pipeline may end before its slot is taken away
		d, folder := newDaemon(t), t.TempDir()
		cmd, out := exec.Command("sh", "examples/pipeline.sh", "1.4", folder), &lockedBuffer{}
		cmd.Env, cmd.Stdout, cmd.Stderr = d.env, out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has uat", func() bool { return strings.Contains(out.String(), "acquired") })
		d.call("DELETE", "/maybe?environment=uat&force=1")
		cmd.Wait()
		if !strings.Contains(d.log.String(), "msg=forced") {
			continue
		}
		if code := cmd.ProcessState.ExitCode(); code != 76 {
			t.Errorf("%v, want exit code %d\n%s", cmd.ProcessState, 76, out)
		}
		return
	}
	t.Error("its slot was never taken away in time")
}

// fetched matches the command of a recipe that fetches call-me.
var fetched = regexp.MustCompile(`command -v call-me \|\| \(cd /tmp(?:.*\n)+?.*/usr/local/bin call-me\)`)

// A recipe that fetches call-me uses it only if it has the checksum that the recipe names.
func TestTheRecipesInstallOnlyWhatHasTheirChecksum(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a shell script")
	}
	tools, files := t.TempDir(), 0
	archive, sum := releaseArchive(t, []byte("#!/bin/sh\n"))
	os.WriteFile(filepath.Join(tools, "archive"), archive, 0o644)
	fetch := "#!/bin/sh\ncase $2 in */releases/download/v1.0.0/call-me_linux_amd64.tar.gz) cp " + tools + "/archive call-me_linux_amd64.tar.gz ;; *) exit 1 ;; esac\n"
	for name, text := range map[string]string{"curl": fetch, "wget": fetch, "sudo": "#!/bin/sh\nexec \"$@\"\n"} {
		os.WriteFile(filepath.Join(tools, name), []byte(text), 0o755)
	}
	for file := range whateverHappens {
		text, err := os.ReadFile(filepath.Join("examples", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range fetched.FindAllString(string(text), -1) {
			files++
			for _, isRight := range []bool{true, false} {
				folder := t.TempDir()
				line := regexp.MustCompile(`\n +`).ReplaceAllString(command, " ") // as YAML folds it
				line = strings.NewReplacer("/usr/local/bin", folder, "/tmp", t.TempDir()).Replace(line)
				if isRight {
					line = regexp.MustCompile(`\b0{64}\b`).ReplaceAllString(line, sum)
				}
				cmd := exec.Command("sh", "-ec", line)
				cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
				out, err := cmd.CombinedOutput()
				_, errThere := os.Stat(filepath.Join(folder, "call-me"))
				if (err == nil) != isRight || (errThere == nil) != isRight {
					t.Errorf("%s, the right checksum %v: %v, %v\n%s\n%s", file, isRight, err, errThere, line, out)
				}
			}
		}
	}
	if files != 6 { // Azure, Bitbucket, CircleCI and three files of Woodpecker
		t.Errorf("%d recipes fetch call-me", files)
	}
}

// releaseArchive returns an archive with this program, as a release has it, and its checksum.
func releaseArchive(t *testing.T, program []byte) (archive []byte, sum string) {
	t.Helper()
	var b bytes.Buffer
	zipped, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w := tar.NewWriter(zipped)
	for name, text := range map[string][]byte{"LICENSE": []byte("MIT"), "call-me": program} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(text)
	}
	w.Close()
	zipped.Close()
	return b.Bytes(), fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))
}
