package tests

// The file of the environments, read again by a server that serves.

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestEnvironmentsAreDeclaredAnewWhileTheServerServes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "environments")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# ours\nuat:blue   # the old one\nperf\n")
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS_FILE="+file, "CALL_ME_ENVIRONMENTS=not-this-one")
	reload := func(said string) {
		t.Helper()
		before := strings.Count(d.log.String(), said)
		d.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, said, func() bool { return strings.Count(d.log.String(), said) > before })
	}
	d.want(201, "POST", "/maybe?environment=uat&id=held-by-us&ttl=1h")
	d.want(404, "POST", "/maybe?environment=not-this-one")
	type told struct {
		code int
		body string
	}
	wait := func(id string) chan told {
		got := make(chan told, 1)
		go func() {
			code, body := d.call("POST", "/maybe?environment=uat&wait=1m&id="+id)
			got <- told{code, body}
		}()
		eventually(t, id+" waits", func() bool {
			_, body := d.call("GET", "/environments?environment=uat")
			return strings.Contains(body, `"connected":true`)
		})
		return got
	}
	waiting := wait("waiter-one")
	write("uat:blue+green\nperf\n")
	reload("environments=uat:blue+green,perf")
	if got := <-waiting; got.code != 201 || !strings.Contains(got.body, `"slot":"green"`) {
		t.Errorf("with a second slot the waiter got %d %s", got.code, got.body)
	}

	waiting = wait("waiter-two")
	write("perf:0\n")
	reload("the environments stay as they were")
	if log := d.log.String(); !strings.Contains(log, "line 1: ") || strings.Count(log, "stay as they were") != 1 {
		t.Errorf("the log of a bad line: %s", log)
	}
	d.want(200, "GET", "/environments?environment=uat")

	write("perf\n")
	reload("environments=perf\n")
	got := <-waiting
	if got.code != 404 || !strings.Contains(got.body, "no such environment: it is not declared any more") {
		t.Errorf("the waiter got %d %s", got.code, got.body)
	}
	d.want(404, "POST", "/maybe?environment=uat&id=too-late-1")
	if body := d.want(200, "GET", "/environments"); !strings.Contains(body, `"environment":"uat"`) {
		t.Errorf("the leases are not shown: %s", body)
	}
	d.want(200, "PUT", "/maybe?environment=uat&id=held-by-us")
	d.want(204, "DELETE", "/maybe?environment=uat&id=held-by-us")
	d.want(204, "DELETE", "/maybe?environment=uat&id=waiter-one")
	d.want(404, "GET", "/environments?environment=uat")
	if body := d.want(200, "GET", "/history?environment=uat"); !strings.Contains(body, `"event":"undeclared"`) {
		t.Errorf("the history: %s", body)
	}
	d.kill()
	d.start()
	d.want(200, "GET", "/environments?environment=perf")
}

func TestABadFileOfEnvironmentsIsRefusedInOneLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "environments")
	if err := os.WriteFile(file, []byte("uat\nperf:x+x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := makeDaemon(t, "CALL_ME_ENVIRONMENTS_FILE="+file)
	cmd, out := d.client("operator", "serve")
	err := cmd.Run()
	text := out.String()
	if err == nil || cmd.ProcessState.ExitCode() != 2 || strings.Count(text, "\n") != 1 ||
		!strings.Contains(text, `line 2: the slot "x" of "perf" is there twice`) {
		t.Errorf("%v: %s", err, text)
	}
}

// A slot is not said to be free while the lease of one that is not declared any more counts in
// its place: by GET /environments, status and the page, which agree with GET /maybe.
func TestASlotInWhosePlaceAnotherIsHeldIsNotFree(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "environments")
	declare := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	declare("uat: blue\n")
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS_FILE="+file)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&ttl=1h")
	declare("uat: green\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "it is read again", func() bool { return strings.Contains(d.log.String(), "environments=uat:green") })
	d.want(403, "GET", "/maybe?environment=uat")
	if body := d.want(200, "GET", "/environments"); !strings.Contains(body, `{"slot":"green","lease":null,"blocked":true}`) {
		t.Errorf("GET /environments: %s", body)
	}
	status := func() string {
		cmd, out := d.client("test", "status", "uat")
		if err := cmd.Run(); err != nil {
			t.Fatal(err, out)
		}
		return out.String()
	}
	if text := status(); !strings.Contains(text, "green  not free") {
		t.Errorf("status: %s", text)
	}
	for path, word := range map[string]string{"/": "none free</b>", "/?environment=uat": "not free</b>"} {
		if page := d.want(200, "GET", path); !strings.Contains(page, word) || strings.Contains(page, "</span> free</b>") {
			t.Errorf("%s says that green is free", path)
		}
	}
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	d.want(200, "GET", "/maybe?environment=uat")
	if body, text := d.want(200, "GET", "/environments"), status(); strings.Contains(body, "blocked") || !strings.Contains(text, "green  free") {
		t.Errorf("after the release: %s, %s", body, text)
	}
}
