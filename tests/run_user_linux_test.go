package tests

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ordinaryUser is a user id that has no account.
const ordinaryUser = 23456

// A privileged folder has a copy of setpriv with the setuid bit: with it an ordinary user
// starts a process of root's, as with sudo.
func privilegedFolder(t *testing.T) (setpriv string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make a program of root's")
	}
	path, err := exec.LookPath("setpriv")
	if err != nil {
		missing(t, "setpriv of util-linux")
	}
	folder, err := os.MkdirTemp("", "call-me-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	os.Chmod(folder, 0o777)
	from, _ := os.Open(path)
	defer from.Close()
	to, err := os.Create(filepath.Join(folder, "setpriv"))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(to, from)
	to.Chmod(0o755 | os.ModeSetuid)
	to.Close()
	return to.Name() + " --reuid 0 --clear-groups "
}

// runAsUser starts a run as an ordinary user. ROOT in the script begins a command of root's.
func (d *daemon) runAsUser(t *testing.T, script string, flags ...string) *trial {
	t.Helper()
	root := privilegedFolder(t)
	r := d.newTrial(t, "uat", nil, append(flags, "--", "sh", "-c", strings.ReplaceAll(script, "ROOT ", root))...)
	r.folder = filepath.Dir(strings.Fields(root)[0])
	r.cmd.Dir = r.folder
	r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser}
	r.cmd.WaitDelay = time.Minute // for what the watchdog says when call-me has been killed
	r.start()
	t.Cleanup(func() {
		for _, pid := range r.pids(1) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return r
}

// heldFor checks that the slot is held for a time.
func (r *trial) heldFor(d time.Duration) *trial {
	r.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if code, _ := r.d.call("GET", "/maybe?environment=uat"); code != 403 {
			r.t.Fatalf("the slot is free although a process of the command runs\n%s", r.err)
		}
	}
	return r
}

// What another user runs cannot be ended. The slot is not released while it runs.
func TestALeftoverOfAnotherUserKeepsTheSlot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		code   int
	}{
		"in the group":             {`ROOT sleep 1000 >/dev/null 2>&1 & echo $! >>pids; sleep 0.3`, 125},
		"out of the group":         {`setsid ROOT sleep 1000 >/dev/null 2>&1 & echo $! >>pids; sleep 0.3`, 125},
		"after the command failed": {`ROOT sleep 1000 >/dev/null 2>&1 & echo $! >>pids; sleep 0.3; exit 3`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			r := d.runAsUser(t, c.script, "--grace", "200ms", "--ttl", "1h")
			pids := r.wantCode(c.code, 20*time.Second).said("call-me: cannot end sleep (").said(
				"), which runs as another user; uat is not released").heldFor(time.Second).pids(1)
			syscall.Kill(pids[0], syscall.SIGKILL)
			r.freeWithin(5 * time.Second) // by the watchdog
		})
	}
}

func TestACommandOfAnotherUserKeepsTheSlot(t *testing.T) {
	t.Parallel()
	const script = `echo $$ >>pids; exec ROOT sleep 1000 >/dev/null 2>&1`
	t.Run("after a signal", func(t *testing.T) {
		d := newDaemon(t)
		r := d.runAsUser(t, script, "--grace", "200ms", "--ttl", "3s")
		pids := r.pids(1)
		time.Sleep(300 * time.Millisecond)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.said("call-me: cannot signal sleep (").said("waiting until it ends").heldFor(4 * time.Second)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.wantCode(125, 5*time.Second).said("cannot end sleep (").heldFor(500 * time.Millisecond)
		r.freeWithin(5 * time.Second) // the lease ends
		if !alive(pids[0]) {
			t.Error("the command was ended")
		}
	})
	t.Run("that ends by itself", func(t *testing.T) {
		d := newDaemon(t)
		r := d.runAsUser(t, `echo $$ >>pids; exec ROOT sh -c 'while [ ! -e go ]; do sleep 0.05; done; exit 7'`, "--grace", "200ms")
		r.pids(1)
		time.Sleep(300 * time.Millisecond)
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.said("cannot signal sh (")
		os.WriteFile(filepath.Join(r.folder, "go"), nil, 0o600)
		r.wantCode(7, 10*time.Second).said("released")
	})
	for name, script := range map[string]string{
		"after kill -9":                       script,
		"after kill -9, and out of the group": `setsid ROOT sleep 1000 >/dev/null 2>&1 & echo $! >>pids; sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			r := d.runAsUser(t, script, "--ttl", "1h")
			pids := r.pids(1)
			time.Sleep(2500 * time.Millisecond) // the watchdog looks each second
			r.cmd.Process.Kill()
			r.said("call-me: cannot end sleep (").heldFor(time.Second)
			syscall.Kill(pids[0], syscall.SIGKILL)
			r.freeWithin(5 * time.Second)
		})
	}
}

// What cannot work is said before the wait. The slot is another one's all the time.
func TestWhatCannotWorkIsSaidBeforeTheWait(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=other")
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		os.WriteFile(path, []byte(text), 0o755)
		return path
	}
	for name, c := range map[string]struct {
		argv []string
		code int
		says string
	}{
		"no shebang":      {[]string{"call-me", "run", "uat", "--", file("plain", "echo hello\n")}, 126, "exec format error; its first line must be #!"},
		"an empty file":   {[]string{"call-me", "run", "uat", "--", file("empty", "")}, 126, "exec format error"},
		"no interpreter":  {[]string{"call-me", "run", "uat", "--", file("strange", "#!/no/such/shell -e\n")}, 127, "its interpreter /no/such/shell: "},
		"no execute bit":  {[]string{"call-me", "run", "uat", "--", "/etc/passwd"}, 126, "permission denied"},
		"few files":       {[]string{"sh", "-c", "ulimit -n 12; exec call-me run uat -- true"}, 125, "run needs 16 more open files"},
		"no /proc":        {[]string{"unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc; exec call-me run uat -- true"}, 125, "run needs /proc, which is not mounted"},
		"another's /proc": {[]string{"unshare", "-pf", "call-me", "run", "uat", "--", "true"}, 125, "/proc shows the processes of another PID namespace"},
		"a PID namespace": {[]string{"unshare", "-pf", "--mount-proc", "call-me", "run", "free", "--", "true"}, 0, "released"},
		"a shebang":       {[]string{"call-me", "run", "free2", "--", file("fine", "#!/bin/sh -e\nexit 5\n")}, 5, "released"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.argv[0] == "unshare" && os.Getuid() != 0 {
				t.Skip("only root makes namespaces")
			}
			path, err := exec.LookPath(c.argv[0])
			if c.argv[0] == "call-me" {
				path, err = binaryPath(), nil
			}
			if err != nil {
				missing(t, c.argv[0])
			}
			cmd, out := d.client("runner")
			cmd.Path, cmd.Args = path, c.argv
			cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(out.String(), c.says) {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, out)
			}
		})
	}
}
