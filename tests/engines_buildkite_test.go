//go:build engines && linux

package tests

// The plugin of Buildkite, from a git repository, run by the bootstrap of its agent.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var buildkiteEngine = engines[2]

// pluginRepository returns the URL of a git repository with the plugin.
func pluginRepository(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "call-me-buildkite-plugin.git")
	if err := os.CopyFS(folder, os.DirFS("ci/buildkite")); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"init --quiet --initial-branch main", "add --all",
		"-c user.name=somebody -c user.email=somebody@example.com commit --quiet --message plugin", "tag v1.0.0"} {
		if out, err := exec.Command("git", append([]string{"-C", folder}, strings.Fields(line)...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", line, err, out)
		}
	}
	return "file://" + folder
}

// withPlugin returns a repository whose only step has the plugin with these options, and this command.
func (d *daemon) withPlugin(t *testing.T, options, command string) *repository {
	t.Helper()
	text := fmt.Sprintf("steps:\n- label: test\n  plugins:\n  - %s#v1.0.0: {%s}\n  command:\n  - ./deploy.sh\n  - ./test.sh\n  - %s\n",
		pluginRepository(t), options, command)
	return buildkiteEngine.repositoryOf(t, d, text, t.TempDir())
}

func TestEnginesTheBuildkitePluginHoldsASlotWhileTheStepRuns(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.withPlugin(t, "environment: uat, ttl: 30m, reason: 'release 1.4, 100% $$HOME', timeout: 60m, priority: 3, supersede: main",
		"test $$CALL_ME_ENVIRONMENT.$$CALL_ME_SLOT = uat.uat && call-me renew uat && echo $$CALL_ME_LEASES | grep -F '[{\"environment\":\"uat\",\"slot\":\"uat\",\"fence\":'$$CALL_ME_FENCE'}]'")
	r.touch("hold-buildkite")
	x := r.start()
	r.isTested()
	if lease, _ := d.uat(); lease == nil || lease.Reason != "release 1.4, 100% $HOME" || lease.TTLSeconds != 1800 || !strings.HasPrefix(lease.Holder, "buildkite:acme/cart/42/job-test") {
		t.Errorf("uat is held by %+v", lease)
	}
	r.remove("hold-buildkite")
	if err := x.wait(); err != nil {
		t.Error(err)
	}
	x.wantNoKey()
	r.leavesNothing(d)

	r.touch("fail-buildkite")
	if err := r.start().wait(); err == nil {
		t.Error("test.sh failed, and nobody noticed")
	}
	r.leavesNothing(d)
	if history := d.want(200, "GET", "/history?environment=uat"); strings.Count(history, `"event":"released"`) != 2 {
		t.Errorf("%s", history)
	}
}

func TestEnginesTheBuildkitePluginWaits(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.withPlugin(t, "environment: uat", "true")
	for i, end := range []string{"granted", "canceled", "too late"} {
		request := fmt.Sprint("/maybe?environment=uat&id=1234567", i)
		if end == "too late" {
			r.writeRecipe("environment: uat", "environment: uat, timeout: 1s")
		}
		d.want(201, "POST", request+"&holder=somebody")
		x := r.start()
		if end != "too late" {
			eventually(t, "it is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
		}
		switch end {
		case "granted":
			d.want(204, "DELETE", request)
		case "canceled":
			x.cancel()
		}
		if err := x.wait(); (err == nil) != (end == "granted") {
			t.Errorf("%s: %v", end, err)
		}
		_, err := os.Stat(filepath.Join(r.target, "deployed"))
		if (err == nil) != (end == "granted") {
			t.Errorf("%s: it deployed: %v", end, err == nil)
		}
		// The agent does not wait for what it has signalled.
		eventually(t, "the request has left the queue", func() bool { _, line := d.uat(); return len(line) == 0 })
		if lease, _ := d.uat(); (lease == nil) != (end == "granted") {
			t.Errorf("%s: uat is held by %+v", end, lease)
		}
		d.call("DELETE", request)
		r.remove("deployed")
	}
}

func TestEnginesTheBuildkitePluginFreesUATAfterACancel(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.withPlugin(t, "environment: uat", "true")
	r.touch("hold-buildkite")
	x := r.start()
	r.isTested()
	x.cancel()
	x.wait()
	r.remove("hold-buildkite")
	r.leavesNothing(d)
}

func TestEnginesTheBuildkitePluginHoldsTwoEnvironments(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,web:blue+green")
	r := d.withPlugin(t, "environment: [uat, web], slot: web=blue", "test -z $$CALL_ME_FENCE && echo $$CALL_ME_LEASES && call-me release web --force --holder other")
	x := r.start()
	if err := x.wait(); err == nil || !strings.Contains(x.log.String(), "lost before the step ended") {
		t.Errorf("one was lost: %v", err)
	}
	if !strings.Contains(x.log.String(), `[{"environment":"uat","slot":"uat","fence":`) || !strings.Contains(x.log.String(), `},{"environment":"web","slot":"blue","fence":`) {
		t.Error("the leases are not there")
	}
	if all := d.want(200, "GET", "/environments"); strings.Contains(all, `"fence":`) {
		t.Errorf("%s", all)
	}
}

// The agent compares the options with plugin.yml.
func TestEnginesTheBuildkitePluginHasNoOtherOptions(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"environment: uat, tll: 1h", "environment: ''", "timeout: 1h", "environment: uat, again: 7"} {
		d := newDaemon(t)
		r := d.withPlugin(t, options, "true")
		if err := r.start().wait(); err == nil {
			t.Errorf("%s: it runs", options)
		}
		if _, err := os.Stat(filepath.Join(r.target, "deployed")); err == nil {
			t.Errorf("%s: it deploys", options)
		}
		r.leavesNothing(d)
	}
}
