package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// githubJob has the variables of a job on GitHub Actions, and of its summary.
func githubJob(summary string) map[string]string {
	return map[string]string{"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/shop", "GITHUB_RUN_ID": "7",
		"GITHUB_JOB": "test", "GITHUB_STEP_SUMMARY": summary}
}

// waitInJob plays a wait of 20 minutes with these variables. It returns what was printed on
// stdout and stderr.
func waitInJob(t *testing.T, variables map[string]string, o acquireOptions, form resultForm) (out, log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		term, stdout, stderr := paper()
		term.getenv = func(name string) string { return variables[name] }
		w := term.newWaitDisplay(o, form)
		until := time.Now().Add(time.Hour)
		w.queued(errorJSON{Position: 1, HeldBy: []leaseJSON{{Slot: "blue", Holder: "github:acme/cart/run/9/test", Fence: 1,
			Until: &until, Reason: "release 1.4", URL: "https://github.com/acme/cart/actions/runs/9"}}})
		time.Sleep(20*time.Minute - time.Second)
		synctest.Wait()
		w.acquired(grantedJSON{leaseJSON: leaseJSON{Environment: untrusted(o.environment), Slot: "blue", Until: &until, TTLSeconds: 7200}},
			20*time.Minute)
		w.done()
		if form == runForm {
			w.printGranted()
		}
		out, log = stdout.String(), stderr.String()
	})
	return out, log
}

func TestAWaitOfTwentyMinutesTakesTwelveLinesInTheLogOfAJob(t *testing.T) {
	o := acquireOptions{environment: "uat", server: "https://call-me.example"}
	const link = "https://call-me.example/?environment=uat"
	for name, test := range map[string]struct {
		variables map[string]string
		line      string // with the link
	}{
		"GitHub":           {githubJob(""), "::notice title=call-me::waiting for uat: " + link},
		"GitLab":           {map[string]string{"CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "1", "CI_PROJECT_PATH": "acme/shop"}, link},
		"Azure Pipelines":  {map[string]string{"TF_BUILD": "True", "BUILD_BUILDID": "12"}, link},
		"an unknown CI":    {map[string]string{"CI": "true"}, link},
		"no job":           {nil, ""},
		"GITHUB_* at home": {map[string]string{"CI": "false", "GITHUB_REPOSITORY": "acme/shop"}, ""},
	} {
		for _, form := range []resultForm{plainForm, quietForm, jsonForm, runForm} {
			out, log := waitInJob(t, test.variables, o, form)
			if n := strings.Count(out+log, "\n"); n > 12 && form != jsonForm {
				t.Errorf("%s: %d lines\n%s%s", name, n, out, log)
			}
			if test.line == "" && strings.Contains(log, link) || strings.Count("\n"+log, "\n"+test.line+"\n") != 1 && test.line != "" {
				t.Errorf("%s: want once %q\n%s", name, test.line, log)
			}
			if form == plainForm && out != "waiting for free slot on environment: uat\nacquired slot for environment: uat\nwaited 20m0s\n" {
				t.Errorf("%s: stdout %q", name, out)
			}
		}
	}
}

func TestATerminalGetsNoLinkUnlessItIsThatOfAJob(t *testing.T) {
	for _, test := range []struct {
		columns int
		want    bool
	}{{80, false}, {0, true}} { // a terminal in a job has no columns, see newWaitDisplay
		term, _, log := paper()
		term.getenv = func(name string) string { return map[string]string{"CI": "true"}[name] }
		w := term.newWaitDisplay(acquireOptions{environment: "uat", server: "http://localhost:8000"}, plainForm)
		w.mu.Lock()
		w.columns = test.columns
		w.mu.Unlock()
		w.queued(errorJSON{Position: 1})
		w.done()
		if strings.Contains(log.String(), "/?environment=") != test.want {
			t.Errorf("%d columns\n%s", test.columns, log)
		}
	}
}

// The log links to the environment that the request lacks.
func TestTheLinkOfSeveralEnvironmentsIsThatOfTheFirstThatIsLacking(t *testing.T) {
	term, _, log := paper()
	term.getenv = func(name string) string { return map[string]string{"CI": "true"}[name] }
	w := term.newWaitDisplay(acquireOptions{environment: "uat", server: "http://localhost:8000",
		needs: []slotNeed{{environment: "uat"}, {environment: "perf"}}}, plainForm)
	w.queued(errorJSON{Environment: "perf", Position: 1, WaitsFor: []lackJSON{{Environment: "perf", Position: 1}}})
	w.done()
	if !strings.HasSuffix(log.String(), "\nhttp://localhost:8000/?environment=perf\n") {
		t.Errorf("%s", log)
	}
}

func TestTheSummaryOfAJobSaysWhatWasWaitedFor(t *testing.T) {
	o := acquireOptions{environment: "uat", server: "https://call-me.example"}
	for _, form := range []resultForm{plainForm, quietForm, jsonForm, runForm} {
		file := filepath.Join(t.TempDir(), "summary")
		waitInJob(t, githubJob(file), o, form)
		text, _ := os.ReadFile(file)
		if want := "call-me waited 20m for `uat` and got `blue`; [who has it now](<https://call-me.example/?environment=uat>)\n\n"; string(text) != want {
			t.Errorf("form %d: %q", form, text)
		}
	}
	file := filepath.Join(t.TempDir(), "summary")
	other := githubJob(file)
	delete(other, "GITHUB_ACTIONS")
	waitInJob(t, other, o, plainForm)
	if _, err := os.Stat(file); err == nil {
		t.Error("a job of another system has a summary")
	}
	for err, want := range map[error]string{errNoSlot: "got no slot in time", errSuperseded: "left the queue to a newer run", errUnreachable: "got no slot"} {
		file := filepath.Join(t.TempDir(), "summary")
		for _, waits := range []bool{false, true} {
			term, _, _ := paper()
			term.getenv = func(name string) string { return githubJob(file)[name] }
			w := term.newWaitDisplay(o, plainForm)
			if waits {
				w.queued(errorJSON{Position: 1})
			}
			w.failed(err, false)
			w.done()
			text, _ := os.ReadFile(file)
			if waits != strings.Contains(string(text), "for `uat` and "+want+"; ") {
				t.Errorf("%v, waits %v: %q", err, waits, text)
			}
		}
	}
}

// What others have named is neither a command in the log nor Markdown in the summary.
func TestNoNameIsACommandInANoticeOrMarkdownInTheSummary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary")
	o := acquireOptions{environment: "a`[b](c)`%0A::error::d ##[group]e", server: "https://call-me.example"}
	_, log := waitInJob(t, githubJob(file), o, runForm)
	text, _ := os.ReadFile(file)
	if want := "::notice title=call-me::waiting for a`[b](c)`%250A::error::d ##\\[group]e: " +
		"https://call-me.example/?environment=a%2560%255Bb%255D%2528c%2529%2560%25250A%253A%253Aerror%253A%253Ad+%2523%2523%255Bgroup%255De\n"; !strings.Contains(log, want) {
		t.Errorf("no %q in\n%s", want, log)
	}
	if want := "for `a'[b](c)'%0A::error::d ##\\[group]e` and got `blue`; "; !strings.Contains(string(text), want) {
		t.Errorf("%s", text)
	}
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "::") && !strings.HasPrefix(line, noticeBegin) {
			t.Errorf("a command: %s", line)
		}
	}
}
