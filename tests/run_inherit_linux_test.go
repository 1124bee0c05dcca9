package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The command has the files that the caller has opened, under their numbers, and LISTEN_PID
// names it, as sd_listen_fds wants. The watchdog has none of them.
func TestTheCommandInheritsTheCallersFiles(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	folder := t.TempDir()
	cmd, out := d.client("runner")
	cmd.Path, cmd.Dir = "/bin/sh", folder
	cmd.Args = []string{"sh", "-c", `exec 3>three 4>four 9>nine; LISTEN_FDS=1 LISTEN_PID=$$ exec call-me run uat -- sh -c '
		echo 3 >&3; echo 4 >&4; echo 9 >&9; for n in 5 6 7 8; do if (: >&$n) 2>/dev/null; then echo $n is open; fi; done
		echo listen $LISTEN_PID $$; while [ ! -e go ]; do sleep 0.05; done'`}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command has started", func() bool { return strings.Contains(out.String(), "listen ") })
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	watchdogs := 0
	for _, pid := range append(strings.Fields(string(children)), childrenOfThreads(cmd.Process.Pid)...) {
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if string(line) != "call-me\x00watchdog\x00" {
			continue
		}
		watchdogs++
		eventually(t, "the watchdog has none of the files", func() bool {
			files, _ := filepath.Glob("/proc/" + pid + "/fd/*")
			return !slices.ContainsFunc(files, func(file string) bool {
				target, _ := os.Readlink(file)
				return strings.HasPrefix(target, folder)
			})
		})
	}
	if watchdogs == 0 {
		t.Error("there is no watchdog")
	}
	os.WriteFile(filepath.Join(folder, "go"), nil, 0o600)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err, out)
	}
	for name, want := range map[string]string{"three": "3\n", "four": "4\n", "nine": "9\n"} {
		if got, _ := os.ReadFile(filepath.Join(folder, name)); string(got) != want {
			t.Errorf("%s has %q", name, got)
		}
	}
	_, listen, _ := strings.Cut(out.String(), "listen ")
	listen, _, _ = strings.Cut(listen, "\n")
	if pids := strings.Fields(listen); len(pids) != 2 || pids[0] != pids[1] || strings.Contains(out.String(), "is open") {
		t.Error(out)
	}
}

func childrenOfThreads(pid int) (all []string) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}

// A CI system that kills all processes with its variables after a job does not find the
// watchdog, which then releases the slot.
func TestTheWatchdogHasNoVariablesOfTheCISystem(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	variables := []string{"RUNNER_TRACKING_ID", "VSTS_PROCESS_LOOKUP_ID", "JENKINS_NODE_COOKIE", "JENKINS_SERVER_COOKIE",
		"HUDSON_COOKIE", "HUDSON_SERVER_COOKIE", "BUILD_ID", "BUILD_NUMBER", "BUILD_TAG", "JOB_NAME", "CI_JOB_ID",
		"BUILDKITE_JOB_ID", "TEAMCITY_VERSION", "OF_THE_CI_SYSTEM"}
	var env []string
	for _, name := range variables {
		env = append(env, name+"=cookie-of-the-job")
	}
	r := d.runWith(t, env, "--", "sh", "-c", `env | grep cookie-of-the-job; echo $$ >>pids; while :; do sleep 1; done`)
	pids := r.pids(1)
	for _, variable := range env {
		r.said(variable)
	}
	found := func() (found []int) {
		folders, _ := filepath.Glob("/proc/[0-9]*")
		for _, folder := range folders {
			text, _ := os.ReadFile(folder + "/environ")
			if pid, _ := strconv.Atoi(filepath.Base(folder)); bytes.Contains(text, []byte("cookie-of-the-job")) {
				found = append(found, pid)
			}
		}
		return found
	}
	if all := found(); !slices.Contains(all, r.cmd.Process.Pid) || !slices.Contains(all, pids[0]) || slices.Contains(all, r.watchdog()) {
		t.Errorf("%v have the variables; call-me is %d, the command %d, the watchdog %d", all, r.cmd.Process.Pid, pids[0], r.watchdog())
	}
	for _, pid := range found() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	r.freeWithin(10 * time.Second)
}

// closedPipe returns the end of a pipe whose other end is closed.
func closedPipe(t *testing.T) *os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

func TestAClosedPipeEndsNothing(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	free := func(t *testing.T) {
		t.Helper()
		d.want(200, "GET", "/maybe?environment=uat")
	}
	for _, flags := range [][]string{{}, {"--quiet"}, {"--json"}} {
		t.Run(fmt.Sprint("request ", flags), func(t *testing.T) {
			cmd, out := d.client("runner", append([]string{"request", "uat"}, flags...)...)
			cmd.Stdout = closedPipe(t)
			cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(out.String(), "the slot was given back, because its name could not be written to stdout") {
				t.Errorf("exit code %d\n%s", code, out)
			}
			free(t)
		})
	}
	t.Run("request without stderr", func(t *testing.T) {
		cmd, out := d.client("runner", "request", "uat")
		cmd.Stderr = closedPipe(t)
		if err := cmd.Run(); err != nil {
			t.Error(err, out)
		}
		d.want(204, "DELETE", "/maybe?environment=uat&holder=runner")
	})
	t.Run("run", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ran")
		cmd, _ := d.client("runner", "run", "uat", "--", "sh", "-c", `grep SigIgn /proc/self/status >`+file+`; sleep 1000 & exit 5`)
		cmd.Stdout = closedPipe(t)
		cmd.Stderr = cmd.Stdout
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != 5 {
			t.Errorf("exit code %d", code)
		}
		text, _ := os.ReadFile(file)
		ignored, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(text), "SigIgn:")), 16, 64)
		for _, s := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGTTOU} {
			if err != nil || ignored&(1<<(s-1)) != 0 {
				t.Errorf("the command ignores %v: %s", s, text)
			}
		}
		free(t)
	})
	t.Run("what only prints ends as usual", func(t *testing.T) {
		cmd, _ := d.client("runner", "status")
		cmd.Stdout = closedPipe(t)
		cmd.Run()
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGPIPE {
			t.Error(cmd.ProcessState)
		}
	})
}

// A command that got its slot in the background gets the terminal with the shell's fg.
func TestFgGivesTheCommandTheTerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil || !strings.Contains(versionOf(script), "util-linux") {
		missing(t, "script of util-linux")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		missing(t, "bash")
	}
	d := newDaemon(t)
	cmd := exec.Command(script, "-qfec", bash+" --norc --noprofile -i", "/dev/null")
	cmd.Env = append(d.env, "CALL_ME_HOLDER=runner", "TERM=xterm", "SHELL=/bin/sh", "PS1=ready-for-more ")
	in, _ := cmd.StdinPipe()
	out := &lockedBuffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", out)
		}
	})
	shows := func(what string) {
		t.Helper()
		eventually(t, what+" is shown", func() bool { return strings.Contains(out.String(), what) })
	}
	shows("ready-for-more")
	io.WriteString(in, binaryPath()+` run uat -- sh -c 'read line; echo "read <$line>"' &`+"\r")
	shows("call-me: sh waits for the terminal, the lease is renewed; to go on: fg")
	io.WriteString(in, "fg\r")
	time.Sleep(500 * time.Millisecond)
	io.WriteString(in, "hello\r")
	shows("read <hello>")
	shows("released uat")
	io.WriteString(in, "echo the shell has $((40+2)) again\r")
	shows("the shell has 42 again")
}

// A binary that is replaced while it waits goes on with itself.
func TestAReplacedBinaryGoesOnWithItself(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=other")
	r := d.newTrial(t, "uat", nil, "--", "sh", "-c", "exit 5")
	copied := filepath.Join(t.TempDir(), "call-me")
	if out, err := exec.Command("cp", binaryPath(), copied).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	r.cmd.Path = copied
	r.start()
	r.said("waiting")
	os.Remove(copied)
	os.WriteFile(copied, []byte("#!/bin/sh\necho another version\nexit 1\n"), 0o755)
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	r.wantCode(5, 10*time.Second).said("released")
	if strings.Contains(r.out.String()+r.err.String(), "another version") {
		t.Error("another version was started")
	}
}
