//go:build unix

package tests

// The database file is deleted, truncated, written to or replaced while a server uses it.
// The server notices it within a second, and rewrites the file from its memory. It stops
// only if another server has taken the path.

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAFileThatIsHarmedUnderTheServerIsMadeGood(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"deleted": os.Remove,
		"cut off": func(path string) error { return os.Truncate(path, 5000) },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"renamed": func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error {
			return errors.Join(copyFile(path+".copy", path+".new"), os.Rename(path+".new", path))
		},
		"copied over": func(path string) error { return copyFile(path+".copy", path) },
		"a FIFO":      func(path string) error { return errors.Join(os.Remove(path), exec.Command("mkfifo", path).Run()) },
		"replaced by text": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("not a database"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			path := d.file()
			d.want(201, "POST", "/maybe?environment=before&id=before-1")
			if code, copied := d.call("GET", "/backup"); code != 200 || os.WriteFile(path+".copy", []byte(copied), 0o600) != nil {
				t.Fatal("no copy")
			}
			d.want(201, "POST", "/maybe?environment=uat&id=holder-1&holder=ann&ttl=1h")
			d.want(403, "POST", "/maybe?environment=uat&id=waiter-1&wait=0s")
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			eventually(t, "it is noticed", func() bool { return strings.Contains(d.log.String(), "storing works again") })
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("after %v", took)
			}
			d.want(200, "GET", "/healthz")
			kept, _ := filepath.Glob(path + ".replaced-*")
			if want := map[string]int{"replaced": 1}[name]; len(kept) != want {
				t.Errorf("%d files are kept beside it, want %d", len(kept), want)
			}
			for _, other := range kept {
				if out, err := exec.Command(binaryPath(), "check", other).CombinedOutput(); err != nil {
					t.Errorf("the file that was kept: %v: %s", err, out)
				}
			}
			d.want(201, "POST", "/maybe?environment=after&id=after-12") // an earlier call could get 503 first
			d.kill()
			if out, err := exec.Command(binaryPath(), "check", path).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			d.start()
			for _, id := range []string{"before&id=before-1", "uat&id=holder-1", "after&id=after-12"} {
				d.want(200, "PUT", "/maybe?environment="+id)
			}
			d.want(403, "POST", "/maybe?environment=uat&id=other-12")
		})
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// A call finds the damage too if it arrives before the server's own check: nothing is granted
// without the file.
func TestNothingIsGrantedOnAFileThatIsGone(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	if err := os.Remove(d.file()); err != nil {
		t.Fatal(err)
	}
	code, body := d.call("POST", "/maybe?environment=uat&id=holder-1")
	if _, err := os.Stat(d.file()); code == 201 && err != nil {
		t.Errorf("granted without a file: %s", body)
	}
	eventually(t, "the repeated call is granted", func() bool {
		code, _ := d.call("POST", "/maybe?environment=uat&id=holder-1")
		return code == 201
	})
	d.kill()
	d.start()
	d.want(200, "PUT", "/maybe?environment=uat&id=holder-1")
}

// A repeated call stores nothing, and still finds that the file is gone.
func TestARepeatedCallIsNotConfirmedOnAFileThatIsGone(t *testing.T) {
	t.Parallel()
	for range 5 {
		d := newDaemon(t)
		d.want(201, "POST", "/maybe?environment=uat&id=holder-1")
		if err := os.Remove(d.file()); err != nil {
			t.Fatal(err)
		}
		code, body := d.call("POST", "/maybe?environment=uat&id=holder-1")
		if _, err := os.Stat(d.file()); code == 201 && err != nil {
			t.Fatalf("confirmed without a file: %s", body)
		}
		d.kill()
	}
}

// The file of another user's server cannot be opened. It counts as used, so that the two
// do not replace each other's file in turn.
func TestAServerStopsWhereTheServerOfAnotherUserHasThePath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start servers of two users")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		missing(t, "setpriv")
	}
	t.Parallel()
	folder := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(folder), 0o755), os.Chmod(folder, 0o777)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "call-me.db")
	as := func(uid string) *daemon {
		d := makeDaemon(t, "CALL_ME_DB="+path)
		d.wrapper = []string{"setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"}
		return d
	}
	first, second := as("65533"), as("65534")
	first.start()
	first.want(201, "POST", "/maybe?environment=uat&id=holder-1")
	first.cmd.Process.Signal(syscall.SIGSTOP) // it does not make its file anew before the other one starts
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second.start()
	second.want(201, "POST", "/maybe?environment=perf&id=holder-2")
	first.cmd.Process.Signal(syscall.SIGCONT)
	first.stoppedAsTaken()
	second.want(201, "POST", "/maybe?environment=qa&id=holder-3")
	if n := strings.Count(second.log.String(), "storing failed"); n > 0 {
		t.Errorf("the second server lost its file %d times", n)
	}
}

func TestAServerWhosePathAnotherServerHasTakenStops(t *testing.T) {
	t.Parallel()
	first := newDaemon(t)
	first.want(201, "POST", "/maybe?environment=uat&id=holder-1&ttl=1h")
	second := makeDaemon(t, "CALL_ME_DB="+first.file())
	first.cmd.Process.Signal(syscall.SIGSTOP) // a running server would rewrite its file
	if err := os.Remove(first.file()); err != nil {
		t.Fatal(err)
	}
	second.start()
	first.cmd.Process.Signal(syscall.SIGCONT)
	for i := 0; i < 50; i++ {
		if code, body := first.call("POST", "/maybe?environment=other&id=holder-3"); code == 201 {
			t.Fatalf("the first server grants: %s", body)
		}
	}
	first.stoppedAsTaken()
}

// stoppedAsTaken waits until the server has ended because another one has its file. After
// 20 s SIGQUIT ends it, and makes it print its goroutines.
func (d *daemon) stoppedAsTaken() {
	d.t.Helper()
	stuck := time.AfterFunc(20*time.Second, func() { d.cmd.Process.Signal(syscall.SIGQUIT) })
	err := d.cmd.Wait()
	stuck.Stop()
	log := d.log.String()
	if err == nil || !strings.Contains(log, "in use by another server") || !strings.Contains(log, "hint: ") {
		d.t.Errorf("it ended with %v and printed\n%s", err, log)
	}
}
