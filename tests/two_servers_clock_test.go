//go:build unix

package tests

// A row of two_servers_test.go in which the wall clocks of machines are wrong. Only root can set the
// one of this machine, and for all processes. So the servers are built with a package time whose Now
// takes off what a file says.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shiftVariable names the file with the seconds by which the wall clock is behind.
const shiftVariable = "WALL_CLOCK_SHIFT"

// clockBinary builds the program with the times of tests, and with a clock that can be set.
var clockBinary = sync.OnceValues(func() (string, error) {
	path, folder := filepath.Join(binDir, "call-me-clock"), filepath.Join(binDir, "clock")
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	replaced := map[string]string{}
	rewrite := func(name, old, new string) {
		text, readErr := os.ReadFile(filepath.Join(source, name))
		if readErr != nil || strings.Count(string(text), old) != 1 {
			err = fmt.Errorf("%s is not as it was (%v): write the clock anew", name, readErr)
			return
		}
		replaced[filepath.Join(source, name)] = filepath.Join(folder, name)
		os.WriteFile(filepath.Join(folder, name), []byte(strings.Replace(string(text), old, new, 1)), 0o644)
	}
	os.Mkdir(folder, 0o755)
	rewrite("time.go", "func Now() Time {", `func Now() Time {
	t := machineNow()
	t.addSec(wallShift)
	return t
}

func machineNow() Time {`)
	rewrite("sys_unix.go", "func closefd(", `var wallShift int64 // the seconds of the file, less than zero

func init() {
	name, isSet := syscall.Getenv("`+shiftVariable+`")
	if isSet {
		readShift(name)
		go func() {
			for ; ; Sleep(Millisecond) {
				readShift(name)
			}
		}()
	}
}

func readShift(name string) {
	text, _ := readFile(name)
	seconds := int64(0)
	for _, c := range text {
		if c >= '0' && c <= '9' {
			seconds = 10*seconds - int64(c-'0')
		}
	}
	wallShift = seconds
}

func closefd(`)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		return "", err
	}
	return path, build(path, "-overlay", overlay, "-ldflags", "-X main.leaderTTL=2s")
})

// needsClock returns the binary of clockBinary, or skips the row.
func needsClock(t *testing.T) string {
	if leftOut(t, "a row for which Go's library is built anew") {
		t.Skip("left out without -full")
	}
	binary, err := clockBinary()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// rowClockBack: as rowStopped, and meanwhile the wall clock of the leader is set back by an hour. That of
// its successor is two hours behind from the start.
func rowClockBack(t *testing.T, _ string) []string {
	binary := needsClock(t)
	c := newEtcd(t)
	p := &pair{t: t, etcd: c}
	setBack := func(file string, d time.Duration) {
		if err := os.WriteFile(file, fmt.Appendln(nil, int(d.Seconds())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	setBack(second, 2*time.Hour)
	p.a, p.b = c.newShared(binary, shiftVariable+"="+first), c.newShared(binary, shiftVariable+"="+second)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	stopped(p, linkOpen, func() { setBack(first, time.Hour) })
	behind := func(d time.Duration) string { return time.Now().Add(-2*time.Hour - d).Format("time=2006-01-02T15") }
	if log := p.b.log.String(); !strings.Contains(log, behind(0)) && !strings.Contains(log, behind(time.Minute)) {
		p.errorf("the clock of the second server is not two hours behind: %s", log)
	}
	return p.wrong
}

// rowClockAhead: the wall clock of the leader's successor is two hours ahead, so that the longest hold of a
// run is over for it. The run's command has ended before the next one begins.
func rowClockAhead(t *testing.T, _ string) []string {
	binary := needsClock(t)
	c := newEtcd(t)
	behind := filepath.Join(t.TempDir(), "behind")
	if err := os.WriteFile(behind, []byte("7200\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, etcd: c}
	p.a, p.b = c.newShared(binary, shiftVariable+"="+behind), c.newShared(binary)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	alone := filepath.Join(t.TempDir(), "alone")
	run := func(holder, script string, flags ...string) (*lockedBuffer, chan error) {
		args := append(append([]string{"run", "uat", "--ttl", "20s"}, flags...), "--", "sh", "-c", script)
		cmd, log := p.a.client(holder, args...)
		cmd.Env = append(cmd.Env, "HOST="+p.a.host+","+p.b.host)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Run() }()
		return log, ended
	}
	first, firstEnded := run("first", "trap 'rmdir "+alone+"; exit 0' TERM; mkdir "+alone+" && while :; do sleep 0.05; done", "--max-hold", "1h")
	eventually(t, "the first command runs", func() bool { _, err := os.Stat(alone); return err == nil })
	second, secondEnded := run("second", "mkdir "+alone+" && rmdir "+alone)
	eventually(t, "the second one waits", func() bool { return strings.Contains(second.String(), "waiting for uat") })
	p.a.kill()
	p.b.waitToLead()
	if err := <-firstEnded; err == nil || !strings.Contains(first.String(), "it was held for as long as it may be") {
		p.errorf("the first run: %v: %s", err, first)
	}
	if err := <-secondEnded; err != nil {
		p.errorf("the second run: %v: %s", err, second)
	}
	return p.wrong
}
