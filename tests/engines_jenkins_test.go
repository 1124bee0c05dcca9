//go:build engines && linux

package tests

// The step callMe of Jenkins' shared library, run by groovy with stand-ins for the steps of Jenkins
// that really start a shell (testdata/jenkins.groovy).

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A jenkinsBuild is a running pipeline.
type jenkinsBuild struct {
	*exec.Cmd
	log   *lockedBuffer
	stdin io.WriteCloser
}

// jenkins starts a pipeline. Its scripts find call-me in tools before that of the tests.
func (d *daemon) jenkins(pipeline, folder string, tools ...string) *jenkinsBuild {
	t := d.t.(*testing.T)
	t.Helper()
	if _, err := exec.LookPath("groovy"); err != nil {
		missing(t, "groovy")
	}
	file := filepath.Join(t.TempDir(), "Jenkinsfile")
	if err := os.WriteFile(file, []byte(pipeline), 0o644); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string {
		absolute, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		return absolute
	}
	b := &jenkinsBuild{exec.Command("groovy", path("tests/testdata/jenkins.groovy"), path("ci/jenkins/vars/callMe.groovy"), file), &lockedBuffer{}, nil}
	b.Dir, b.Stdout, b.Stderr = folder, b.log, b.log
	b.Env = append(slices.Clone(d.env), "API_KEY=", "CALL_ME_HOST="+d.host, "CALL_ME_API_KEY="+testKey, "JENKINS_URL=https://jenkins.example.com/", "JOB_NAME=shop/main",
		"BUILD_NUMBER=153", "BRANCH_NAME=main", "BUILD_URL=https://jenkins.example.com/job/shop/job/main/153/", "WORKSPACE_TMP="+folder, "JAVA_OPTS=-XX:TieredStopAtLevel=1",
		"PATH="+strings.Join(append(tools, binDir, os.Getenv("PATH")), ":"))
	stdin, err := b.StdinPipe()
	if err == nil {
		err = b.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	b.stdin = stdin
	t.Cleanup(func() {
		b.Process.Kill()
		if t.Failed() {
			t.Logf("Jenkins:\n%s", b.log)
		}
		if strings.Contains(b.log.String(), testKey) {
			t.Error("the key is in the log")
		}
	})
	return b
}

func (b *jenkinsBuild) abort() { io.WriteString(b.stdin, "abort\n") }

// ended waits, and compares the result of the build.
func (b *jenkinsBuild) ended(t *testing.T, result string) {
	t.Helper()
	err := b.Wait()
	if (err == nil) != (result == "SUCCESS") || !strings.HasSuffix(b.log.String(), "the result is "+result+"\n") {
		t.Errorf("%v, want %s", err, result)
	}
}

// isFree fails the test unless uat is free and nobody waits.
func (d *daemon) isFree() {
	d.t.Helper()
	if lease, line := d.uat(); lease != nil || len(line) > 0 {
		d.t.Errorf("uat is held by %+v, in the queue is %+v", lease, line)
	}
}

func TestEnginesJenkinsHoldsUATAroundABlock(t *testing.T) {
	t.Parallel()
	d, folder := newDaemon(t), t.TempDir()
	b := d.jenkins(`
def got = callMe('uat', timeout: '60m', ttl: '30m', reason: "it's 100% \$HOME", priority: 1, supersede: true, again: null) {
    sh 'call-me status uat --json >held; env | grep ^CALL_ME_ >variables; call-me renew uat --ttl 3h'
    sh(returnStdout: true, script: 'echo the answer').trim()
}
sh "echo '$got' >got"
try {
    callMe('uat') { sh 'exit 3' }
} catch (e) {
    sh "echo '$e.message' >failed"
}
try {
    callMe('uat') { sh 'call-me release uat --force --holder other' }
} catch (e) {
    sh "echo '$e.message' >lost"
}
try {
    callMe('uat', tll: '1h') { }
} catch (e) {
    sh "echo '$e.message' >misspelt"
}
callMe('uat') { callMe('web') { sh 'call-me status web >inner' } }
`, folder)
	b.ended(t, "SUCCESS")
	d.isFree()
	for file, want := range map[string][]string{
		"held":      {`"holder": "jenkins:shop/main/153/1"`, `"reason": "it's 100% $HOME"`, `"ttl_seconds": 1800`, `"url": "https://jenkins.example.com/job/shop/job/main/153/"`},
		"variables": {"CALL_ME_ENVIRONMENT=uat", "CALL_ME_SLOT=uat", "CALL_ME_FENCE=", `CALL_ME_LEASES=[{"environment":"uat","slot":"uat","fence":`, "CALL_ME_HOLDER=jenkins:shop/main/153/1"},
		"got":       {"the answer"},
		"failed":    {"script returned exit code 3"},
		"lost":      {"uat was lost"},
		"misspelt":  {"there is no option tll"},
		"inner":     {"jenkins:shop/main/153/"},
	} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		for _, one := range want {
			if err != nil || !strings.Contains(string(text), one) {
				t.Errorf("%s has no %s: %v\n%s", file, one, err, text)
			}
		}
	}
	history := d.want(200, "GET", "/history")
	if strings.Count(history, `"event":"released"`) != 4 || strings.Count(history, `"event":"granted"`) != 5 {
		t.Errorf("%s", history)
	}
}

// Two branches take turns, and then a third stage needs both environments.
func TestEnginesJenkinsRunsTheDeclarativeExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ci/jenkins/Jenkinsfile")
	if err != nil {
		t.Fatal(err)
	}
	d, folder := newDaemon(t), t.TempDir()
	for name, script := range map[string]string{
		"deploy.sh": "#!/bin/sh\necho $1 >version\n",
		"test.sh": `#!/bin/sh
echo "$1 $CALL_ME_LEASES [$CALL_ME_FENCE]" >>tested
if [ $1 != load ]; then
	until [ -e waits ] || call-me status uat --json | grep '"position": 1'; do sleep 0.1; done
	touch waits
	test "$(cat version)" = $1
fi
`} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.jenkins(string(text), folder).ended(t, "SUCCESS")
	d.isFree()
	tested, _ := os.ReadFile(filepath.Join(folder, "tested"))
	for _, want := range []string{`api [{"environment":"uat","slot":"uat","fence":`, `web [{"environment":"uat",`, `load [{"environment":"uat",`, `},{"environment":"perf","slot":"perf","fence":`} {
		if !strings.Contains(string(tested), want) {
			t.Errorf("no %s in %s", want, tested)
		}
	}
	if !strings.HasSuffix(string(tested), "}] []\n") {
		t.Errorf("with several leases there is a fence: %s", tested)
	}
	history := d.want(200, "GET", "/history?environment=uat")
	for _, holder := range []string{"jenkins:shop/main/153/api/", "jenkins:shop/main/153/web/", "jenkins:shop/main/153/load/3"} {
		if !strings.Contains(history, `"holder":"`+holder) {
			t.Errorf("no %s in %s", holder, history)
		}
	}
}

func TestEnginesJenkinsLeavesNothingAfterAnAbort(t *testing.T) {
	t.Parallel()
	block := "callMe('uat') { sh 'touch deployed; sleep 60' }"
	t.Run("while it waits", func(t *testing.T) {
		t.Parallel()
		d, folder := newDaemon(t), t.TempDir()
		d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
		b := d.jenkins(block, folder)
		eventually(t, "it is in the queue", func() bool { _, line := d.uat(); return len(line) == 1 })
		b.abort()
		b.ended(t, "FAILURE")
		if lease, line := d.uat(); lease == nil || lease.Holder != "somebody" || len(line) > 0 {
			t.Errorf("%+v %+v", lease, line)
		}
		if _, err := os.Stat(filepath.Join(folder, "deployed")); err == nil {
			t.Error("it deployed all the same")
		}
	})
	t.Run("while it holds uat", func(t *testing.T) {
		t.Parallel()
		d, folder := newDaemon(t), t.TempDir()
		b := d.jenkins(block, folder)
		eventually(t, "the body runs", func() bool { _, err := os.Stat(filepath.Join(folder, "deployed")); return err == nil })
		b.abort()
		b.ended(t, "FAILURE")
		d.isFree()
	})
	t.Run("between the grant and its answer", func(t *testing.T) {
		t.Parallel()
		d, folder, tools := newDaemon(t), t.TempDir(), t.TempDir()
		script := "#!/bin/sh\n" + binaryPath() + " \"$@\" || exit\nif [ $1 = request ]; then sleep 60; fi\n"
		if err := os.WriteFile(filepath.Join(tools, "call-me"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		b := d.jenkins(block, folder, tools)
		eventually(t, "it has uat", func() bool { lease, _ := d.uat(); return lease != nil })
		eventually(t, "it has said so", func() bool { return strings.Contains(b.log.String(), "uat is yours") })
		b.abort()
		b.ended(t, "FAILURE")
		d.isFree()
	})
	t.Run("without a slot in time", func(t *testing.T) {
		t.Parallel()
		d, folder := newDaemon(t), t.TempDir()
		d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=somebody")
		older := d.jenkins("try { callMe('uat', timeout: '1ms') { } } catch (e) { println e.message }\ncallMe('uat', supersede: 'main') { sh 'touch deployed' }", folder)
		eventually(t, "it is in the queue", func() bool { return strings.Contains(older.log.String(), "ended with exit 75") && len(d.queue()) == 1 })
		newer, out := d.client("newer", "request", "uat", "--supersede=main")
		newer.Env = append(newer.Env, older.Env...)
		if err := newer.Start(); err != nil {
			t.Fatal(err)
		}
		older.ended(t, "NOT_BUILT")
		if lease, _ := d.uat(); lease == nil || lease.Holder != "somebody" {
			t.Errorf("uat is held by %+v\n%s", lease, out)
		}
		newer.Process.Kill()
		newer.Wait()
	})
}

func (d *daemon) queue() []waiterJSON { _, line := d.uat(); return line }
