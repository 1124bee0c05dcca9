//go:build engines && linux

package tests

// The recipes of examples/, each in a repository of its own, run by the engines of the CI
// systems. .ci/engines puts the engines on the PATH and runs these tests.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An engine runs the recipe of its CI system.
type engine struct {
	name    string
	command string // the name of the engine on the PATH
	recipe  string // the file in examples
	place   string // the path of the recipe in the repository
	origin  string // the URL of the repository's remote
	job     string // the begin of the holder; WAY stands for the way
	run     string // the begin of the holder across several jobs
	link    string
	argv    func(r *repository) [][]string // the commands to run, one after the other
	cancel  syscall.Signal                 // that of Ctrl-C or of the vendor's agent, to the process group
}

var engines = []engine{
	{"github", "act", "github-actions.yml", ".github/workflows/uat.yml", "https://github.com/acme/shop.git",
		"github:acme/shop/run/4711/WAY", "github:acme/shop/run/4711", "https://github.com/acme/shop/actions/runs/4711", githubWorkflow, syscall.SIGINT},
	{"gitlab", "gitlab-ci-local", "gitlab-ci.yml", ".gitlab-ci.yml", "https://gitlab.com/acme/billing.git",
		"gitlab:acme/billing/job/", "gitlab:acme/billing/pipeline/", "https://gitlab.com/acme/billing/-/jobs/", gitlabPipeline, syscall.SIGINT},
	{"buildkite", "buildkite-agent", "buildkite.yml", ".buildkite/pipeline.yml", "https://github.com/acme/cart.git",
		"buildkite:acme/cart/42/job-WAY", "buildkite:cart/42", "https://buildkite.com/acme/cart/builds/42#job-", buildkiteJobs, syscall.SIGTERM},
}

// holder returns the begin of the holder of a way.
func (e engine) holder(way string) string {
	if way == "several" {
		return e.run
	}
	return strings.ReplaceAll(e.job, "WAY", way)
}

// only returns the head and one way of a recipe.
func only(way, recipe string) string {
	head, parts := waysOf(recipe)
	return head + parts[way]
}

func githubWorkflow(r *repository) [][]string {
	action := actionFolder(r.t)
	return [][]string{{"act", "push", "--platform", "ubuntu-latest=-self-hosted", "--no-cache-server", "--action-cache-path", filepath.Join(r.t.TempDir(), "act"),
		"--local-repository", "lgug2z/call-me@v1=" + action, "--local-repository", "lgug2z/call-me@v1.0.0=" + action,
		"--env", "GITHUB_RUN_ID=4711", "--var", "CALL_ME_HOST=" + r.host, "--secret", "CALL_ME_API_KEY=" + testKey}}
}

// actionFolder returns a folder with the action alone.
func actionFolder(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(filepath.Join(folder, "action"), os.DirFS("action")); err != nil {
		t.Fatal(err)
	}
	putFile(t, "action.yml", filepath.Join(folder, "action.yml"))
	return folder
}

func putFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func gitlabPipeline(r *repository) [][]string {
	return [][]string{{"gitlab-ci-local", "--shell-executor-no-image", "--variable", "CALL_ME_HOST=" + r.host, "--variable", "CALL_ME_API_KEY=" + testKey}}
}

// buildkiteJobs makes the agent read the pipeline, and returns a bootstrap command for each
// step, with the variables that Buildkite would set.
func buildkiteJobs(r *repository) [][]string {
	upload := exec.Command("buildkite-agent", "pipeline", "upload", "--dry-run", "--format", "json", "--agent-access-token", "none", r.engine.place)
	upload.Dir = r.folder
	upload.Env = append(os.Environ(), "BUILDKITE_PIPELINE_SLUG=cart", "BUILDKITE_BUILD_NUMBER=42")
	text, err := upload.Output()
	if err != nil {
		r.t.Fatalf("reading the pipeline: %v", err)
	}
	var pipeline struct {
		Steps []struct {
			Label, Command         string
			Env                    map[string]string
			Plugins                json.RawMessage
			AllowDependencyFailure bool `json:"allow_dependency_failure"`
		}
	}
	if err := json.Unmarshal(text, &pipeline); err != nil {
		r.t.Fatalf("%v: %s", err, text)
	}
	var jobs [][]string
	for _, step := range pipeline.Steps {
		job := []string{"env"}
		if step.AllowDependencyFailure {
			job = append(job, "ALWAYS=true")
		}
		for name, value := range step.Env {
			job = append(job, name+"="+value)
		}
		if len(step.Plugins) > 0 {
			job = append(job, "BUILDKITE_PLUGINS="+string(step.Plugins))
		}
		build, err := os.MkdirTemp("", "bk") // the path of a socket must be short
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { os.RemoveAll(build) })
		jobs = append(jobs, append(job, "CALL_ME_HOST="+r.host, "CALL_ME_API_KEY="+testKey, "CI=true", "BUILDKITE=true",
			"BUILDKITE_ORGANIZATION_SLUG=acme", "BUILDKITE_PIPELINE_SLUG=cart", "BUILDKITE_BUILD_NUMBER=42", "BUILDKITE_BUILD_URL=https://buildkite.com/acme/cart/builds/42",
			"BUILDKITE_JOB_ID=job-"+step.Label, "BUILDKITE_COMMAND="+step.Command, "BUILDKITE_REPO="+r.folder, "BUILDKITE_COMMIT=HEAD", "BUILDKITE_BRANCH=main",
			"BUILDKITE_AGENT_NAME=agent-1", "BUILDKITE_PIPELINE_PROVIDER=git", "BUILDKITE_COMMAND_EVAL=true", "BUILDKITE_SSH_KEYSCAN=false", "BUILDKITE_PTY=true", "BUILDKITE_PLUGINS_ENABLED=true", "BUILDKITE_PLUGIN_VALIDATION=true",
			"BUILDKITE_BIN_PATH="+build, "BUILDKITE_BUILD_PATH="+build, "BUILDKITE_HOOKS_PATH="+build+"/hooks", "BUILDKITE_PLUGINS_PATH="+build+"/plugins",
			"BUILDKITE_SOCKETS_PATH="+build+"/sockets", "buildkite-agent", "bootstrap"))
	}
	return jobs
}

// A repository has a recipe, and scripts that deploy to uat and test there. uat is a
// folder. A test fails if the folder has another version than the one that was deployed.
type repository struct {
	t      *testing.T
	engine engine
	host   string
	folder string
	target string
	path   string // the PATH of the engine
}

const (
	deployScript = `#!/bin/sh
set -eu
cd %s
echo %[2]s >version
echo %[2]s >>deployed
`
	testScript = `#!/bin/sh
set -eu
cd %s
echo $$ >>pids
while :; do
	if [ "$(cat version)" != %[2]s ]; then
		echo "somebody else has deployed"
		touch disturbed
		exit 3
	fi
	sleep 0.1
	test ! -e fail-%[2]s
	test -e hold-%[2]s || exit 0
done
`
)

func (e engine) repository(t *testing.T, d *daemon, way, target string) *repository {
	t.Helper()
	recipe, err := os.ReadFile(filepath.Join("examples", e.recipe))
	if err != nil {
		t.Fatal(err)
	}
	return e.repositoryOf(t, d, only(way, string(recipe)), target)
}

// remoteComponent matches the line of a recipe that includes the component from the network.
var remoteComponent = regexp.MustCompile(`(?m)remote: https://.*/templates/call-me.yml$`)

// repositoryOf returns a repository with this text in the place of the recipe.
func (e engine) repositoryOf(t *testing.T, d *daemon, recipe, target string) *repository {
	t.Helper()
	if _, err := exec.LookPath(e.command); err != nil {
		missing(t, e.command+" (.ci/engines has it)")
	}
	r := &repository{t: t, engine: e, host: d.host, folder: filepath.Join(t.TempDir(), e.name), target: target,
		path: binDir + ":" + os.Getenv("PATH")}
	if e.name == "gitlab" {
		recipe = remoteComponent.ReplaceAllString(recipe, "local: /templates/call-me.yml")
		putFile(t, "templates/call-me.yml", filepath.Join(r.folder, "templates", "call-me.yml"))
	}
	for name, text := range map[string]string{e.place: recipe, "deploy.sh": fmt.Sprintf(deployScript, target, e.name), "test.sh": fmt.Sprintf(testScript, target, e.name)} {
		path := filepath.Join(r.folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{"init --quiet --initial-branch main", "remote add origin " + e.origin, "add --all",
		"-c user.name=somebody -c user.email=somebody@example.com commit --quiet --message recipe"} {
		if out, err := exec.Command("git", append([]string{"-C", r.folder}, strings.Fields(line)...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", line, err, out)
		}
	}
	return r
}

// An execution is a running engine.
type execution struct {
	*repository
	log   *lockedBuffer
	group chan int // the process group of the running command
	ended chan error
}

// start starts the recipe. After a job that has failed it skips the other jobs, except
// those that run always.
func (r *repository) start() *execution {
	e := &execution{repository: r, log: &lockedBuffer{}, group: make(chan int, 1), ended: make(chan error, 1)}
	jobs := r.engine.argv(r)
	go func() {
		var failed error
		for _, argv := range jobs {
			if failed != nil && argv[1] != "ALWAYS=true" {
				continue
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Dir, cmd.Stdout, cmd.Stderr = r.folder, e.log, e.log
			cmd.Env = append(os.Environ(), "PATH="+r.path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				failed = err
				continue
			}
			e.group <- cmd.Process.Pid
			if err := cmd.Wait(); err != nil {
				failed = err
			}
			select {
			case <-e.group:
			default: // the command was canceled
			}
		}
		e.ended <- failed
	}()
	r.t.Cleanup(func() {
		select {
		case pid := <-e.group:
			syscall.Kill(-pid, syscall.SIGKILL)
		default:
		}
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", r.engine.name, e.log)
		}
	})
	return e
}

func (e *execution) cancel() { syscall.Kill(-<-e.group, e.engine.cancel) }

// wait waits until the engine has ended, and returns its error.
func (e *execution) wait() error {
	e.t.Helper()
	select {
	case err := <-e.ended:
		return err
	case <-time.After(time.Minute):
		e.t.Fatalf("%s does not end", e.engine.name)
		return nil
	}
}

func (r *repository) touch(name string) {
	if err := os.WriteFile(filepath.Join(r.target, name), nil, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// isTested waits until test.sh runs.
func (r *repository) isTested() {
	r.t.Helper()
	eventually(r.t, "it is tested", func() bool { _, err := os.Stat(filepath.Join(r.target, "pids")); return err == nil })
}

func (r *repository) remove(name string) { os.Remove(filepath.Join(r.target, name)) }

// leavesNothing waits until uat is free, its queue is empty, and no test runs.
func (r *repository) leavesNothing(d *daemon) {
	r.t.Helper()
	eventually(r.t, "uat is free and nobody waits", func() bool {
		lease, line := d.uat()
		return lease == nil && len(line) == 0
	})
	pids, _ := os.ReadFile(filepath.Join(r.target, "pids"))
	for _, pid := range strings.Fields(string(pids)) {
		var n int
		fmt.Sscan(pid, &n)
		eventually(r.t, fmt.Sprintf("test.sh, process %d, is gone", n), func() bool { return !alive(n) })
	}
	if _, err := os.Stat(filepath.Join(r.target, "disturbed")); err == nil {
		r.t.Error("somebody was disturbed")
	}
}

// The recipe of GitHub Actions runs without a secret: a stand-in for GitHub's service gives its
// job a token.
func TestEnginesAGitHubWorkflowNeedsNoSecret(t *testing.T) {
	c := newIssuingCI(t, time.Hour)
	withToken := engines[0]
	withToken.argv = func(r *repository) [][]string {
		argv := githubWorkflow(r)[0]
		argv = argv[:slices.Index(argv, "--secret")]
		for _, variable := range c.github() {
			argv = append(argv, "--env", variable)
		}
		return [][]string{argv}
	}
	r := withToken.repository(t, c.daemon, "run", t.TempDir())
	x := r.start()
	if err := x.wait(); err != nil {
		t.Errorf("%v", err)
	}
	r.leavesNothing(c.daemon)
	history := c.daemon.want(200, "GET", "/history?environment=uat")
	if !strings.Contains(history, `"event":"released"`) || !strings.Contains(history, `"verified_holder":"ci:acme/shop/run/7"`) || c.asked.Load() == 0 {
		t.Errorf("%d tokens were asked for; %s", c.asked.Load(), history)
	}
}

func TestEnginesAGitHubWorkflowAndAGitLabPipelineTakeTurns(t *testing.T) {
	d, target := newDaemon(t, "TZ=UTC"), t.TempDir()
	shop, billing := engines[0].repository(t, d, "run", target), engines[1].repository(t, d, "run", target)
	waits := func(x *execution, log ...string) {
		t.Helper()
		eventually(t, x.engine.name+" is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
		_, line := d.uat()
		if !strings.HasPrefix(string(line[0].Holder), x.engine.holder("run")) || !strings.HasPrefix(string(line[0].URL), x.engine.link) {
			t.Errorf("in the queue is %+v", line[0])
		}
		eventually(t, fmt.Sprintf("its log has %q", log), func() bool {
			return !slices.ContainsFunc(log, func(text string) bool { return !strings.Contains(x.log.String(), text) })
		})
	}
	shop.touch("hold-github")
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=somebody")
	workflow := shop.start()
	waits(workflow, "waiting for uat, next in the queue; held by somebody")
	d.call("DELETE", "/maybe?environment=uat&id=12345678")
	eventually(t, "the workflow has uat", func() bool {
		lease, _ := d.uat()
		return lease != nil && string(lease.Holder) == shop.engine.holder("run")
	})

	pipeline := billing.start()
	waits(pipeline, "waiting for uat, next in the queue; held by github:acme/shop/run/4711/run", "https://github.com/acme/shop/actions/runs/4711")
	shop.remove("hold-github")
	if err := workflow.wait(); err != nil {
		t.Errorf("the workflow: %v", err)
	}
	if err := pipeline.wait(); err != nil {
		t.Errorf("the pipeline: %v", err)
	}
	shop.leavesNothing(d)
	if deployed, _ := os.ReadFile(filepath.Join(target, "deployed")); string(deployed) != "github\ngitlab\n" {
		t.Errorf("deployed were %q", deployed)
	}
	logs := workflow.log.String() + pipeline.log.String()
	if strings.Contains(logs, testKey) {
		t.Error("the key is in a log")
	}
	if strings.Contains(logs, "\x1b[K") {
		t.Error("a log has what is meant for a terminal")
	}
}

func TestEnginesEveryWayOfARecipeHoldsUATAndFreesIt(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, way := range ways {
				t.Run(way, func(t *testing.T) {
					d, target := newDaemon(t), t.TempDir()
					r := e.repository(t, d, way, target)
					r.touch("hold-" + e.name)
					success := r.start()
					r.isTested()
					if lease, _ := d.uat(); lease == nil || !strings.HasPrefix(string(lease.Holder), e.holder(way)) || !strings.HasPrefix(string(lease.URL), e.link) {
						t.Errorf("uat is held by %+v", lease)
					}
					r.remove("hold-" + e.name)
					if err := success.wait(); err != nil {
						t.Error(err)
					}
					r.leavesNothing(d)

					r.touch("fail-" + e.name)
					if err := r.start().wait(); err == nil {
						t.Error("test.sh failed, and nobody noticed")
					}
					r.leavesNothing(d)
				})
			}
		})
	}
}

func TestEnginesACancelledJobLeavesNothingBehind(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			t.Run("while it holds uat", func(t *testing.T) {
				d := newDaemon(t)
				r := e.repository(t, d, "run", t.TempDir())
				r.touch("hold-" + e.name)
				x := r.start()
				r.isTested()
				x.cancel()
				cancelled := time.Now()
				eventually(t, "uat is free", func() bool { lease, _ := d.uat(); return lease == nil })
				t.Logf("uat was free %v after the cancel", time.Since(cancelled).Round(time.Millisecond))
				x.wait()
				r.leavesNothing(d)
			})
			t.Run("between its request and its release", func(t *testing.T) {
				if e.name == "gitlab" {
					t.Skip("gitlab-ci-local runs no after_script when it is interrupted")
				}
				d := newDaemon(t)
				r := e.repository(t, d, "request", t.TempDir())
				r.touch("hold-" + e.name)
				x := r.start()
				r.isTested()
				x.cancel()
				x.wait()
				r.remove("hold-" + e.name) // an engine that kills only the shell leaves its children running
				r.leavesNothing(d)
			})
			t.Run("while it waits", func(t *testing.T) {
				d := newDaemon(t)
				r := e.repository(t, d, "run", t.TempDir())
				d.call("POST", "/maybe?environment=uat&id=12345678")
				x := r.start()
				eventually(t, "it is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
				x.cancel()
				eventually(t, "it is out of the queue", func() bool { _, line := d.uat(); return len(line) == 0 })
				x.wait()
				d.call("DELETE", "/maybe?environment=uat&id=12345678")
				r.leavesNothing(d)
				if _, err := os.Stat(filepath.Join(r.target, "deployed")); err == nil {
					t.Error("it deployed all the same")
				}
			})
		})
	}
}
