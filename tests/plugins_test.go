package tests

// The plugins in ci/ whose CI systems cannot be run here: a shell runs their commands as the system
// would, with the variables that it documents, against a real server. engines_jenkins_test.go and engines_buildkite_test.go run the other two, plugins_keys_test.go compares
// the keys.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	yaml "github.com/pb33f/go-yaml"
)

// A pluginStep is a command of a plugin.
type pluginStep struct {
	argv   []string
	env    []string
	always bool // it runs also after a step that has failed
}

// A ciPlugin is a plugin of a CI system. steps returns what its options make of it: the steps
// before and after those of the job.
type ciPlugin struct {
	name   string
	system string // variables that the system sets; a + stands for a space
	holder string
	steps  func(t *testing.T, folder string, options map[string]string) (before, after []pluginStep)
}

var ciPlugins = []ciPlugin{
	{"circleci", "CI=true CIRCLECI=true CIRCLE_PROJECT_USERNAME=foo CIRCLE_PROJECT_REPONAME=bar CIRCLE_BUILD_NUM=123 CIRCLE_JOB=build CIRCLE_NODE_INDEX=0",
		"circleci:foo/bar/123/build/0", orbSteps},
	{"azure", "TF_BUILD=True SYSTEM_TEAMPROJECT=My+Project BUILD_BUILDID=12 SYSTEM_JOBID=be2a SYSTEM_JOBDISPLAYNAME=Deploy+it BUILD_REPOSITORY_NAME=shop AGENT_TEMPDIRECTORY=FOLDER",
		"azure:My-Project/12/Deploy-it/be2a", azureSteps},
	{"bitbucket", "CI=true BITBUCKET_BUILD_NUMBER=5 BITBUCKET_REPO_FULL_NAME=acme/shop BITBUCKET_STEP_UUID={a2b3} BITBUCKET_CLONE_DIR=FOLDER BITBUCKET_PIPE_STORAGE_DIR=FOLDER/pipe",
		"bitbucket:acme/shop/5/{a2b3}", containerSteps("ci/bitbucket/pipe.sh", "")},
	{"woodpecker", "CI=woodpecker CI_REPO=john-doe/my-repo CI_PIPELINE_NUMBER=8 CI_WORKFLOW_NAME=release CI_WORKFLOW_NUMBER=2 CI_WORKSPACE=FOLDER",
		"woodpecker:john-doe/my-repo/8/release/2", containerSteps("ci/woodpecker/plugin.sh", "PLUGIN_")},
	{"drone", "CI=true DRONE=true DRONE_REPO=octocat/hello-world DRONE_BUILD_NUMBER=42 DRONE_STAGE_NAME=default DRONE_STAGE_NUMBER=1 DRONE_WORKSPACE=FOLDER",
		"drone:octocat/hello-world/42/default/1", containerSteps("ci/woodpecker/plugin.sh", "PLUGIN_")},
}

// A pluginYAML has what these tests read of the orb, the template and the pipe.
type pluginYAML struct {
	Commands   map[string]orbCommand
	Parameters []map[string]any
	Steps      []any
	Variables  []map[string]any
}

type orbCommand struct {
	Parameters map[string]map[string]any
	Steps      []any
}

func readPlugin(t *testing.T, file string) (plugin pluginYAML, top map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, &plugin)
	}
	if err == nil {
		err = yaml.Unmarshal(text, &top)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return plugin, top
}

var parameter = regexp.MustCompile(`(?:<<|\$\{\{) *parameters\.([\w-]+) *(?:>>|\}\})`)

// filled replaces the parameters of a text, and those that are not among the options by their defaults.
func filled(text any, options map[string]string, defaults map[string]any) string {
	s, _ := text.(string)
	s = strings.ReplaceAll(s, "$(CALL_ME_API_KEY)", testKey)
	return parameter.ReplaceAllStringFunc(s, func(found string) string {
		name := parameter.FindStringSubmatch(found)[1]
		if value, isThere := options[name]; isThere {
			return value
		}
		value, _ := defaults[name].(string)
		return value
	})
}

// addStep adds a step to those before the job's steps or to those after them.
func addStep(before, after *[]pluginStep, isAfter bool, step pluginStep, env any, options map[string]string, defaults map[string]any) {
	variables, _ := env.(map[string]any)
	for name, value := range variables {
		step.env = append(step.env, name+"="+filled(value, options, defaults))
	}
	if isAfter {
		*after = append(*after, step)
	} else {
		*before = append(*before, step)
	}
}

func orbSteps(t *testing.T, folder string, options map[string]string) (before, after []pluginStep) {
	orb, _ := readPlugin(t, "ci/circleci/orb.yml")
	defaults := map[string]any{}
	for name, p := range orb.Commands["hold"].Parameters {
		defaults[name] = p["default"]
	}
	isAfter := false
	for _, step := range slices.Concat(orb.Commands["install"].Steps, orb.Commands["hold"].Steps) {
		keys := step.(map[string]any)
		run, isRun := keys["run"].(map[string]any)
		if !isRun { // the command install, which is there already, or the steps of the job
			isAfter = isAfter || keys["steps"] != nil
			continue
		}
		argv := []string{"bash", "-eo", "pipefail", "-c", filled(run["command"], options, defaults)}
		addStep(&before, &after, isAfter, pluginStep{argv, nil, run["when"] == "always"}, run["environment"], options, defaults)
	}
	return before, after
}

func azureSteps(t *testing.T, folder string, options map[string]string) (before, after []pluginStep) {
	template, _ := readPlugin(t, "ci/azure/call-me.yml")
	defaults := map[string]any{}
	for _, p := range template.Parameters {
		defaults[p["name"].(string)] = p["default"]
	}
	isAfter := false
	for i, step := range template.Steps {
		keys, isStep := step.(map[string]any)
		if !isStep { // ${{ parameters.steps }}
			isAfter = true
			continue
		}
		script := filepath.Join(folder, fmt.Sprint("step", i, ".sh")) // a file: the shell of bash -c is replaced by its last command
		if err := os.WriteFile(script, []byte(filled(keys["bash"], options, defaults)), 0o644); err != nil {
			t.Fatal(err)
		}
		addStep(&before, &after, isAfter, pluginStep{[]string{"bash", "--noprofile", "--norc", script}, nil, keys["condition"] == "always()"}, keys["env"], options, defaults)
	}
	return before, after
}

// containerSteps returns the steps of a plugin that is a container, whose options are variables.
func containerSteps(script, prefix string) func(t *testing.T, folder string, options map[string]string) (before, after []pluginStep) {
	return func(t *testing.T, folder string, options map[string]string) (before, after []pluginStep) {
		path, err := filepath.Abs(script)
		if err != nil {
			t.Fatal(err)
		}
		request := pluginStep{argv: []string{"sh", path}, env: []string{prefix + "ACTION=request", "XDG_CACHE_HOME=" + folder + "/first"}}
		for name, value := range options {
			request.env = append(request.env, prefix+strings.ToUpper(name)+"="+value)
		}
		release := pluginStep{request.argv, []string{prefix + "ACTION=release", prefix + "ENVIRONMENT=" + options["environment"],
			"XDG_CACHE_HOME=" + folder + "/second"}, true} // another container
		return []pluginStep{request}, []pluginStep{release}
	}
}

// A pluginJob is a job that uses a plugin.
type pluginJob struct {
	t             *testing.T
	d             *daemon
	env           []string
	folder        string
	before, after []pluginStep
}

func (p ciPlugin) job(t *testing.T, d *daemon, options map[string]string) *pluginJob {
	folder := t.TempDir()
	j := &pluginJob{t: t, d: d, folder: folder, env: append(slices.Clone(d.env), "API_KEY=", "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY="+testKey,
		"XDG_CACHE_HOME="+folder+"/cache", "BASH_ENV=")}
	for pair := range strings.FieldsSeq(strings.ReplaceAll(p.system, "FOLDER", folder)) {
		j.env = append(j.env, strings.ReplaceAll(pair, "+", " "))
	}
	j.before, j.after = p.steps(t, folder, options)
	return j
}

func (j *pluginJob) command(step pluginStep) (*exec.Cmd, *lockedBuffer) {
	cmd, out := exec.Command(step.argv[0], step.argv[1:]...), &lockedBuffer{}
	cmd.WaitDelay = 10 * time.Second // what a killed shell leaves running has its stdout
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = j.folder, append(slices.Clone(j.env), step.env...), out, out
	j.t.Cleanup(func() {
		if j.t.Failed() {
			j.t.Logf("%v\n%s", cmd.ProcessState, out)
		}
	})
	return cmd, out
}

// run runs steps, until one fails.
func (j *pluginJob) run(steps []pluginStep) error {
	for _, step := range steps {
		cmd, _ := j.command(step)
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

// eachPlugin runs a test with a job of each plugin.
func eachPlugin(t *testing.T, options map[string]string, test func(j *pluginJob, p ciPlugin)) {
	if _, err := exec.LookPath("bash"); err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	for _, p := range ciPlugins {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(p.job(t, newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,web:blue+green"), options), p)
		})
	}
}

func TestThePluginsHoldWhatTheirOptionsSay(t *testing.T) {
	t.Parallel()
	options := map[string]string{"environment": "uat web", "slot": "web=blue", "reason": `it's "100%"; $HOME`, "ttl": "30m", "timeout": "60m", "supersede": "main"}
	eachPlugin(t, options, func(j *pluginJob, p ciPlugin) {
		if err := j.run(j.before); err != nil {
			j.t.Fatal(err)
		}
		all := j.d.want(200, "GET", "/environments")
		for _, want := range []string{`"holder":"` + p.holder + `"`, `"ttl_seconds":1800`, `"reason":"it's \"100%\"; $HOME"`, `{"slot":"blue","lease":{`} {
			if !strings.Contains(all, want) {
				j.t.Errorf("no %s in %s", want, all)
			}
		}
		if strings.Count(all, `"fence":`) != 2 {
			j.t.Errorf("%s", all)
		}
		if len(j.after) != 1 || !j.after[0].always {
			j.t.Errorf("the release does not run whatever happens: %+v", j.after)
		}
		if err := j.run(j.after); err != nil {
			j.t.Error(err)
		}
		if all := j.d.want(200, "GET", "/environments"); strings.Contains(all, `"fence":`) {
			j.t.Errorf("%s", all)
		}
	})
}

// What a job got that it did not ask for here, such as in another step, is not freed by a clean-up
// whose request got nothing.
func TestThePluginsFreeNothingAfterARefusal(t *testing.T) {
	t.Parallel()
	eachPlugin(t, map[string]string{"environment": "uat", "timeout": "1ms"}, func(j *pluginJob, p ciPlugin) {
		j.d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
		if err := j.run(j.before); err == nil {
			j.t.Error("it got no slot, and nobody noticed")
		}
		j.d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
		j.d.want(201, "POST", "/maybe?environment=uat&id=12345679&holder="+strings.NewReplacer("{", "%7B", "}", "%7D").Replace(p.holder))
		if err := j.run(j.after); err != nil {
			j.t.Error(err)
		}
		if lease, _ := j.d.uat(); lease == nil {
			j.t.Error("the clean-up has released what it did not request")
		}
	})
}

func TestThePluginsLeaveTheQueueWhenTheyAreCancelled(t *testing.T) {
	t.Parallel()
	eachPlugin(t, map[string]string{"environment": "uat"}, func(j *pluginJob, p ciPlugin) {
		j.d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
		cmd, _ := j.command(j.before[len(j.before)-1])
		if err := cmd.Start(); err != nil {
			j.t.Fatal(err)
		}
		eventually(j.t, "it is in the queue", func() bool { _, line := j.d.uat(); return len(line) == 1 })
		cmd.Process.Signal(syscall.SIGTERM) // the first process alone
		if err := cmd.Wait(); err == nil {
			j.t.Error("a cancelled step succeeds")
		}
		if _, line := j.d.uat(); len(line) > 0 {
			j.t.Errorf("in the queue is %+v", line)
		}
		if err := j.run(j.after); err != nil {
			j.t.Error(err)
		}
	})
}

// releaseTools returns a folder of programs with which a script can fetch a release of a system: Linux has
// sha256sum, and Darwin shasum instead.
func releaseTools(t *testing.T, system string, archive []byte, sum string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for _, name := range []string{"bash", "cat", "cp", "grep", "gzip", "mkdir", "mktemp", "sha256sum", "tar", "tr"} {
		path, err := exec.LookPath(name)
		if err != nil {
			missing(t, name)
		}
		if name == "sha256sum" && system == "Darwin" {
			script := "#!/bin/sh\n[ \"$1 $2\" = '-a 256' ] && shift 2 && exec " + path + " \"$@\"\n"
			os.WriteFile(filepath.Join(folder, "shasum"), []byte(script), 0o755)
		} else if err := os.Symlink(path, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	name := "call-me_" + strings.ToLower(system) + "_arm64.tar.gz"
	os.WriteFile(filepath.Join(folder, "archive"), archive, 0o644)
	os.WriteFile(filepath.Join(folder, "uname"), []byte("#!/bin/sh\ncase $1 in -s) echo "+system+" ;; -m) echo arm64 ;; esac\n"), 0o755)
	os.WriteFile(filepath.Join(folder, "curl"), []byte(`#!/bin/sh
for url; do :; done
case $url in
*/releases/download/v1.2.3/checksums.txt) echo "`+sum+`  `+name+`" ;;
*/releases/download/v1.2.3/`+name+`) cp `+folder+`/archive "${url##*/}" ;;
*) exit 22 ;;
esac
`), 0o755)
	return folder
}

// The orb and the template fetch a release where there is no call-me, and use it if its checksum is right.
func TestThePluginsFetchARelease(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil || runtime.GOOS == "windows" {
		missing(t, "bash")
	}
	archive, sum := releaseArchive(t, []byte("#!/bin/sh\n"))
	for _, system := range []string{"Linux", "Darwin"} {
		tools := releaseTools(t, system, archive, sum)
		for _, p := range ciPlugins[:2] {
			for wanted, works := range map[string]bool{"": true, sum: true, sum[1:] + sum[:1]: false} {
				j := p.job(t, makeDaemon(t), map[string]string{"environment": "uat", "version": "v1.2.3", "sha256": wanted})
				cmd, out := j.command(j.before[0])
				cmd.Env = append(cmd.Env, "PATH="+tools, "HOME="+j.folder, "BASH_ENV="+j.folder+"/bash_env")
				os.WriteFile(j.folder+"/bash_env", nil, 0o644)
				err := cmd.Run()
				found, _ := filepath.Glob(filepath.Join(j.folder, "*call-me", "call-me"))
				if (err == nil) != works || (len(found) == 1) != works {
					t.Errorf("%s on %s, checksum %q: %v, %v\n%s", p.name, system, wanted, err, found, out)
				}
				onPath, _ := os.ReadFile(j.folder + "/bash_env")
				if works && !strings.Contains(out.String(), "##vso[task.prependpath]") && !strings.Contains(string(onPath), ".call-me") {
					t.Errorf("%s on %s: it is not on the PATH\n%s", p.name, system, out)
				}
			}
		}
	}
}
