//go:build engines && linux

package tests

// The action of GitHub Actions and the component of GitLab, each in a workflow or pipeline that
// does nothing else, run by act and gitlab-ci-local: success, failure, waiting, cancel, two
// environments; and what the action alone has.

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var actEngine, gitlabEngine = engines[0], engines[1]

// workflow returns a workflow with one job, which uses the action with these inputs and then
// deploys and tests. options are lines of the job, more are steps at its end.
func workflow(inputs, options, more string) string {
	return `name: uat
on: push
env:
  CALL_ME_HOST: ${{ vars.CALL_ME_HOST }}
jobs:
  test:
    runs-on: ubuntu-latest
` + options + `
    steps:
      - uses: actions/checkout@v4
      - id: slot
        uses: lgug2z/call-me@v1
        with: {` + inputs + `}
      - run: ./deploy.sh
      - run: ./test.sh
` + more
}

const withKey = ", key: '${{ secrets.CALL_ME_API_KEY }}'"

// pipeline returns a pipeline with one job around whose script the component holds a slot.
func pipeline(inputs string) string {
	return `
include:
  - local: /templates/call-me.yml
    inputs: {` + inputs + `}
test:
  extends: .call-me
  script:
    - ./deploy.sh
    - ./test.sh
`
}

// eachOneLiner runs a test with the action and with the component.
func eachOneLiner(t *testing.T, inputs string, test func(t *testing.T, d *daemon, r *repository), env ...string) {
	for _, e := range []engine{actEngine, gitlabEngine} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			text := pipeline(inputs)
			if e.name == "github" {
				text = workflow(inputs+withKey, "", "")
			}
			d := newDaemon(t, env...)
			test(t, d, e.repositoryOf(t, d, text, t.TempDir()))
		})
	}
}

// wantNoKey fails the test if the key is in the log.
func (e *execution) wantNoKey() {
	e.t.Helper()
	if strings.Contains(e.log.String(), testKey) {
		e.t.Error("the key is in the log")
	}
}

func TestEnginesTheOneLinersHoldASlotUntilTheJobEnds(t *testing.T) {
	t.Parallel()
	eachOneLiner(t, `environment: uat, ttl: 30m, reason: "it's release 1.4, 100%"`, func(t *testing.T, d *daemon, r *repository) {
		for _, end := range []string{"success", "failure"} {
			if end == "failure" {
				r.remove("pids")
				r.touch("fail-" + r.engine.name)
			} else {
				r.touch("hold-" + r.engine.name)
			}
			x := r.start()
			r.isTested()
			if end == "success" {
				if lease, _ := d.uat(); lease == nil || string(lease.Reason) != "it's release 1.4, 100%" || lease.TTLSeconds != 1800 {
					t.Errorf("%s: uat is held by %+v", end, lease)
				}
			}
			r.remove("hold-" + r.engine.name)
			if err := x.wait(); (err == nil) != (end == "success") {
				t.Errorf("%s: %v", end, err)
			}
			x.wantNoKey()
			r.leavesNothing(d)
		}
		if history := d.want(200, "GET", "/history?environment=uat"); strings.Count(history, `"event":"released"`) != 2 {
			t.Errorf("%s", history)
		}
	})
}

func TestEnginesTheOneLinersWait(t *testing.T) {
	t.Parallel()
	eachOneLiner(t, "environment: uat", func(t *testing.T, d *daemon, r *repository) {
		d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
		x := r.start()
		link := "http://" + d.host + "/?environment=uat"
		if r.engine.name == "github" {
			link = "waiting for uat: " + link
		}
		eventually(t, "the log links to the page", func() bool { return strings.Contains(x.log.String(), link) })
		if _, err := os.Stat(filepath.Join(r.target, "deployed")); err == nil {
			t.Error("it does not wait")
		}
		d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
		if err := x.wait(); err != nil {
			t.Error(err)
		}
		r.leavesNothing(d)
		r.remove("deployed")

		d.want(201, "POST", "/maybe?environment=uat&id=12345679&holder=somebody")
		r.writeRecipe("environment: uat", "environment: uat, timeout: 1s")
		if err := r.start().wait(); err == nil {
			t.Error("it got no slot, and nobody noticed")
		}
		if _, err := os.Stat(filepath.Join(r.target, "deployed")); err == nil {
			t.Error("it deploys without a slot")
		}
		if lease, _ := d.uat(); lease == nil {
			t.Error("its clean-up has released the slot of somebody else")
		}
	})
}

// writeRecipe replaces a text of the recipe.
func (r *repository) writeRecipe(before, after string) {
	r.t.Helper()
	path := filepath.Join(r.folder, r.engine.place)
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(text), before, after, 1)), 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestEnginesTheOneLinersLeaveNothingAfterACancel(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"waits", "holds"} {
		t.Run(when, func(t *testing.T) {
			eachOneLiner(t, "environment: uat", func(t *testing.T, d *daemon, r *repository) {
				if when == "holds" && r.engine.name == "gitlab" {
					t.Skip("gitlab-ci-local runs no after_script when it is interrupted")
				}
				if when == "waits" {
					d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
				}
				r.touch("hold-" + r.engine.name)
				x := r.start()
				if when == "holds" {
					r.isTested()
				} else {
					eventually(t, "it is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
				}
				x.cancel()
				x.wait()
				r.remove("hold-" + r.engine.name) // an engine that kills only the shell leaves its children running
				eventually(t, "it is out of the queue", func() bool { _, line := d.uat(); return len(line) == 0 })
				d.call("DELETE", "/maybe?environment=uat&id=12345678")
				r.leavesNothing(d)
				if _, err := os.Stat(filepath.Join(r.target, "deployed")); err == nil && when == "waits" {
					t.Error("it deployed all the same")
				}
			})
		})
	}
}

func TestEnginesTheOneLinersHoldTwoEnvironments(t *testing.T) {
	t.Parallel()
	eachOneLiner(t, "environment: uat web, slot: web=blue", func(t *testing.T, d *daemon, r *repository) {
		r.touch("hold-" + r.engine.name)
		x := r.start()
		r.isTested()
		all := d.want(200, "GET", "/environments")
		if strings.Count(all, `"fence":`) != 2 || !strings.Contains(all, `{"slot":"blue","lease":{`) {
			t.Errorf("%s", all)
		}
		r.remove("hold-" + r.engine.name)
		if err := x.wait(); err != nil {
			t.Error(err)
		}
		if all := d.want(200, "GET", "/environments"); strings.Contains(all, `"fence":`) {
			t.Errorf("%s", all)
		}
	}, "CALL_ME_ENVIRONMENTS=uat,web:blue+green")
}

// The outputs are for the further steps. A step that has given the slot back itself does not make
// the clean-up fail; one whose slot was lost does.
func TestEnginesTheActionSaysWhatItGotAndWhatWasLost(t *testing.T) {
	t.Parallel()
	key := "\n        env: {CALL_ME_API_KEY: '${{ secrets.CALL_ME_API_KEY }}'}\n"
	for name, test := range map[string]struct {
		step  string
		fails bool
	}{
		"outputs":  {"test '${{ steps.slot.outputs.slot }} ${{ steps.slot.outputs.holder }}' = 'uat github:acme/shop/run/4711/test' && test ${{ steps.slot.outputs.fence }} -gt 1", false},
		"renewed":  {"call-me renew uat --ttl 3h", false},
		"released": {"call-me release uat", false},
		"lost":     {"call-me release uat --force --holder other", true},
		"expired":  {"call-me renew uat --ttl 1s && sleep 2.5", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			r := actEngine.repositoryOf(t, d, workflow("environment: uat"+withKey, "", "      - run: "+test.step+key), t.TempDir())
			x := r.start()
			if err := x.wait(); (err != nil) != test.fails { // act loses the last lines of a step now and then
				t.Errorf("%v", err)
			}
			x.wantNoKey()
			r.leavesNothing(d)
		})
	}
}

// The legs of a matrix have a holder each, so that none goes on with the slot of another one or
// takes its place in the queue.
func TestEnginesTheLegsOfAMatrixAreDifferentHolders(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	options := "    strategy:\n      matrix: {browser: [firefox, chromium], size: [{x: 1}]}\n"
	text := workflow("environment: uat, supersede: true, again: true"+withKey, options, "")
	text = strings.Replace(text, "      - run: ./test.sh", "      - run: call-me status uat --json | grep '\"holder\"' >>"+t.TempDir()+"/held; sleep 0.3", 1)
	r := actEngine.repositoryOf(t, d, strings.Replace(text, "env:\n", "env:\n  CALL_ME_API_KEY: ${{ secrets.CALL_ME_API_KEY }}\n", 1), t.TempDir())
	x := r.start()
	if err := x.wait(); err != nil {
		t.Error(err)
	}
	history := d.want(200, "GET", "/history?environment=uat")
	for _, leg := range []string{"firefox", "chromium"} {
		if strings.Count(history, `"holder":"github:acme/shop/run/4711/test/`+leg+`/{\"x\":1}"`) != 2 { // granted, released
			t.Errorf("%s: %s", leg, history)
		}
	}
}

// Of two runs the newer one takes the place of the older one, whose job fails and says so in an output.
func TestEnginesANewerRunTakesThePlaceInTheQueueOfAnOlderOne(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
	target := t.TempDir()
	text := workflow("environment: uat, supersede: true"+withKey, "",
		"      - if: failure() && steps.slot.outputs.superseded == 'true'\n        run: touch "+target+"/superseded\n")
	r := actEngine.repositoryOf(t, d, text, t.TempDir())
	older := r.start()
	eventually(t, "it is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
	newer := actEngine.repositoryOf(t, d, text, t.TempDir()).start()
	err := older.wait()
	if _, errOutput := os.Stat(filepath.Join(target, "superseded")); err == nil || errOutput != nil {
		t.Errorf("the older one: %v, %v", err, errOutput)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	if err := newer.wait(); err != nil {
		t.Errorf("the newer one: %v", err)
	}
	r.leavesNothing(d)
}

// With oidc-audience the token of the job counts, and not a key that the workflow has for others.
func TestEnginesTheActionNeedsNoSecret(t *testing.T) {
	t.Parallel()
	c := newIssuingCI(t, 1e12)
	e := actEngine
	e.argv = func(r *repository) [][]string {
		argv := githubWorkflow(r)[0]
		for _, variable := range c.github()[1:] { // without the audience
			argv = append(argv, "--env", variable)
		}
		return [][]string{append(argv, "--env", "CALL_ME_API_KEY=nobody-knows-this-key")}
	}
	r := e.repositoryOf(t, c.daemon, workflow("environment: uat, oidc-audience: call-me", "", ""), t.TempDir())
	x := r.start()
	if err := x.wait(); err != nil {
		t.Error(err)
	}
	r.leavesNothing(c.daemon)
	if history := c.daemon.want(200, "GET", "/history?environment=uat"); !strings.Contains(history, `"verified_holder":"ci:acme/shop/run/7"`) {
		t.Errorf("%s", history)
	}
}

// Where the machine has no call-me, that of a release is fetched, and used if its checksum is right.
func TestEnginesTheOneLinersFetchARelease(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(binaryPath())
	if err != nil {
		t.Fatal(err)
	}
	archive, sum := releaseArchive(t, program)
	name := "call-me_linux_" + runtime.GOARCH + ".tar.gz"
	releases := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/latest/download/" + name, "/download/v1.2.3/" + name, "/download/v6.6.6/" + name:
			w.Write(archive)
		case "/latest/download/checksums.txt":
			fmt.Fprintf(w, "%064d  call-me_darwin_arm64.tar.gz\n%s  %s\n", 1, sum, name)
		case "/download/v6.6.6/checksums.txt":
			fmt.Fprintf(w, "%064d  %s\n", 1, name)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(releases.Close)
	eachOneLiner(t, "environment: uat, releases: '"+releases.URL+"'", func(t *testing.T, d *daemon, r *repository) {
		r.path = os.Getenv("PATH")
		grants, last := 0, "environment: uat"
		for inputs, works := range map[string]bool{
			"": true,
			", version: v1.2.3, sha256: '" + sum + "'":               true,
			", version: v1.2.3, sha256: '" + sum[1:] + sum[:1] + "'": false,
			", version: v6.6.6": false, // the checksum of its list is another one
			", version: v9.9.9": false, // there is none
		} {
			r.writeRecipe(last, "environment: uat"+inputs)
			last = "environment: uat" + inputs
			x := r.start()
			if err := x.wait(); (err == nil) != works {
				t.Errorf("%q: %v", inputs, err)
			}
			if works {
				grants++
			}
			if n := strings.Count(d.log.String(), "msg=granted "); n != grants {
				t.Errorf("%q: %d grants, want %d", inputs, n, grants)
			}
			r.leavesNothing(d)
		}
	})
}

// step returns a command that runs a file of the action as GitHub does, without an engine.
func (d *daemon) step(file, folder string, variables ...string) (*exec.Cmd, *lockedBuffer) {
	d.t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		d.t.Fatal(err)
	}
	cmd, out := exec.Command(node, filepath.Join("action", file)), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second // what it leaves running has its stderr
	cmd.Env = append([]string{"PATH=" + binDir + ":" + os.Getenv("PATH"), "HOME=" + folder, "CI=true", "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=acme/shop",
		"GITHUB_RUN_ID=7", "GITHUB_JOB=test", "RUNNER_TEMP=" + folder, "GITHUB_STATE=" + folder + "/state", "GITHUB_OUTPUT=" + folder + "/output",
		"GITHUB_STEP_SUMMARY=" + folder + "/summary",
		"INPUT_ENVIRONMENT=uat", "INPUT_HOST=" + d.host}, variables...)
	return cmd, out
}

// stateIn returns the variables with which GitHub gives the state of a step to its clean-up.
func stateIn(t *testing.T, folder string) (variables []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "state"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		name, _, _ := strings.Cut(lines[i], "<<")
		variables = append(variables, "STATE_"+name+"="+lines[i+1])
	}
	return variables
}

// A key that is no secret of GitHub's is masked before anything else is printed. It is no argument,
// and counts in place of every other credential.
func TestEnginesTheActionKeepsTheKeyToItself(t *testing.T) {
	t.Parallel()
	d, folder := newDaemon(t), t.TempDir()
	script := "#!/bin/sh\nif [ $1 = --version ]; then echo call-me; exit; fi\necho \"$@\" >>" + folder + "/said\nenv >>" + folder + "/said\n" +
		`echo '{"environment": "uat", "slot": "uat", "fence": 7}'` + "\n"
	if err := os.WriteFile(filepath.Join(folder, "call-me"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	variables := []string{"PATH=" + folder + ":" + os.Getenv("PATH"), "INPUT_KEY=a-key-of-16-bytes", "API_KEY=other", "CALL_ME_API_KEY_FILE=other", "CALL_ME_ID_TOKEN=other"}
	for _, file := range []string{"main.js", "post.js"} {
		cmd, out := d.step(file, folder, variables...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		first, rest, _ := strings.Cut(out.String(), "\n")
		if first != "::add-mask::a-key-of-16-bytes" || strings.Contains(rest, "a-key-of-16-bytes") {
			t.Errorf("%s: %s", file, out)
		}
		variables = append(variables, stateIn(t, folder)...)
	}
	said, _ := os.ReadFile(filepath.Join(folder, "said"))
	for _, want := range []string{"request --json -- uat\n", "release --fence=7 -- uat\n", "\nCALL_ME_API_KEY=a-key-of-16-bytes\n"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(string(said), "KEY=other") || strings.Contains(string(said), "FILE=other") || strings.Contains(string(said), "TOKEN=other") {
		t.Errorf("another credential counts:\n%s", said)
	}
}

// GitHub cancels a step with a signal to its first process alone, or kills that. Then the clean-up
// runs, which is harmless when it runs again.
func TestEnginesTheActionLeavesTheQueueAsGitHubCancels(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			d, folder := newDaemon(t), t.TempDir()
			d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
			cmd, out := d.step("main.js", folder, "CALL_ME_API_KEY="+testKey)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// The server has it in the queue a moment before call-me hears of it.
			eventually(t, "it says that it waits", func() bool { return strings.Contains(out.String(), "/?environment=uat") })
			cmd.Process.Signal(signal)
			if err := cmd.Wait(); err == nil {
				t.Error("a cancelled step succeeds")
			}
			if signal != syscall.SIGKILL { // else it leaves when it is granted, see below
				if summary, _ := os.ReadFile(filepath.Join(folder, "summary")); !strings.Contains(string(summary), " for `uat` and was cancelled; [who has it now](<http://"+d.host+"/?environment=uat>)") {
					t.Errorf("the summary is %q", summary)
				}
				if _, line := d.uat(); len(line) > 0 {
					t.Errorf("in the queue is %+v\n%s", line, out)
				}
			}
			for range 2 {
				post, out := d.step("post.js", folder, append(stateIn(t, folder), "CALL_ME_API_KEY="+testKey)...)
				if err := post.Run(); err != nil {
					t.Errorf("the clean-up: %v\n%s", err, out)
				}
			}
			if lease, _ := d.uat(); lease == nil || lease.Holder != "somebody" {
				t.Errorf("uat is held by %+v", lease)
			}
			d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
			eventually(t, "uat is free and nobody waits", func() bool { lease, line := d.uat(); return lease == nil && len(line) == 0 })
		})
	}
}

// A step that is killed after the grant, before it has said so, is cleaned up by the notes of request.
func TestEnginesTheActionFreesWhatAKilledStepWasGranted(t *testing.T) {
	t.Parallel()
	d, folder := newDaemon(t), t.TempDir()
	cmd, out := d.step("main.js", folder, "CALL_ME_API_KEY="+testKey)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	state := slices.DeleteFunc(stateIn(t, folder), func(v string) bool { return strings.HasPrefix(v, "STATE_leases=") })
	for range 2 {
		post, out := d.step("post.js", folder, append(state, "CALL_ME_API_KEY="+testKey)...)
		if err := post.Run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if lease, _ := d.uat(); lease != nil {
		t.Errorf("uat is held by %+v", lease)
	}
}

// The clean-up says so when the slot was lost, and the step fails before it requests anything where
// its inputs cannot mean anything.
func TestEnginesTheActionSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	d, folder := newDaemon(t), t.TempDir()
	cmd, out := d.step("main.js", folder, "CALL_ME_API_KEY="+testKey)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.want(204, "DELETE", "/maybe?environment=uat&force=1")
	post, out := d.step("post.js", folder, append(stateIn(t, folder), "CALL_ME_API_KEY="+testKey)...)
	if err := post.Run(); err == nil || !strings.Contains(out.String(), "\n::error title=call-me::uat was lost before the job ended") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, test := range []struct {
		inputs []string
		said   string
	}{
		{[]string{"INPUT_ENVIRONMENT= "}, "::error title=call-me::the input environment is missing or empty"},
		{[]string{"INPUT_INSTALL-ONLY=true"}, "environment and install-only exclude each other"},
		{[]string{"INPUT_KEY=a-key-of-16-bytes", "INPUT_OIDC-AUDIENCE=x"}, "key and oidc-audience exclude each other"},
		{[]string{"INPUT_SHA256=abc"}, "sha256 needs version"},
		{[]string{"CALL_ME_API_KEY=" + testKey, "INPUT_TTL=long"}, `reading CALL_ME_TTL: "long" is`},
		{nil, "API_KEY"}, // a secret that is not set is an empty input
	} {
		folder := t.TempDir()
		cmd, out := d.step("main.js", folder, test.inputs...)
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), test.said) {
			t.Errorf("%q: %v\n%s", test.inputs, err, out)
		}
	}
	if strings.Count(d.log.String(), "msg=granted") != 1 {
		t.Errorf("%s", d.log)
	}
}
