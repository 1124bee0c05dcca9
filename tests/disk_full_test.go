package tests

// A full disk: the server runs on a file system of 200 kB, and on larger ones.

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startOnSmallDisk starts a server with its file on a file system of its own, which is
// removed when the server ends.
func startOnSmallDisk(t *testing.T, size string) *daemon {
	t.Helper()
	folder := t.TempDir()
	alone := []string{"unshare", "--user", "--map-root-user", "--mount"}
	try := exec.Command(alone[0], append(alone[1:], "mount", "-t", "tmpfs", "-o", "size="+size, "none", folder)...)
	if out, err := try.CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("the right to mount a file system in a namespace (%v: %s)", err, out))
	}
	d := makeDaemon(t, "CALL_ME_DB="+filepath.Join(folder, "call-me.db"))
	d.wrapper = append(alone, "sh", "-c", `mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"`, size, folder)
	d.start()
	return d
}

// query returns a path with parameters, which are names and values in turn.
func query(path string, parameters ...string) string {
	form := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		form.Set(parameters[i], parameters[i+1])
	}
	return path + "?" + form.Encode()
}

func TestOnAFullDiskReleasesWorkAndItRecoversByItself(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"200k", "400k", "1000k", "2m"} {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			testFullDisk(t, size)
		})
	}
}

func testFullDisk(t *testing.T, size string) {
	d := startOnSmallDisk(t, size)
	reason := strings.Repeat("r", 1000)
	if size == "400k" {
		d.want(200, "GET", "/backup")
	}
	d.want(201, "POST", query("/maybe", "environment", "uat", "id", "holder-1", "ttl", "1h"))
	d.want(403, "POST", query("/maybe", "environment", "uat", "id", "waiter-1", "wait", "0s"))
	waiting := make(chan string, 1)
	go func() {
		status, body := d.call("POST", query("/maybe", "environment", "uat", "id", "waiter-1", "wait", "2m"))
		waiting <- fmt.Sprint(status, " ", body)
	}()
	held := 0
	for ; held < 5000; held++ {
		status, body := d.call("POST", query("/maybe", "environment", fmt.Sprint("env", held), "id", "filling-it", "reason", reason))
		if status == 503 {
			break
		}
		if status != 201 {
			t.Fatalf("request %d: %d %s", held, status, body)
		}
	}
	if held < 10 || held == 5000 {
		t.Fatalf("the disk was full after %d requests", held)
	}
	// Each second the server tries an empty commit, for which there may be space. So it is asked
	// for its health after a commit that has failed, and again if the second ended in between.
	isHealthy := true
	for tries := 0; tries < 5 && isHealthy; tries++ {
		d.want(503, "POST", query("/maybe", "environment", "another", "id", "another-1", "reason", reason))
		status, _ := d.call("GET", "/healthz")
		isHealthy = status == 200
	}
	if isHealthy {
		t.Error("it says that it is healthy")
	}
	d.want(503, "PUT", query("/pause", "environment", "uat", "holder", "boss"))
	d.want(503, "PUT", query("/pause", "all", "1", "holder", "boss"))
	d.want(200, "DELETE", query("/pause", "all", "1", "holder", "boss"))
	if _, body := d.call("GET", "/environments"); strings.Contains(body, `"pause`) {
		t.Errorf("a pause that was refused is there: %.300s", body)
	}
	d.want(200, "PUT", query("/maybe", "environment", "uat", "id", "holder-1"))
	d.wantLine(t, "uat", 1)
	for i := range held {
		d.want(204, "DELETE", query("/maybe", "environment", fmt.Sprint("env", i), "id", "filling-it"))
		if i == held/2 {
			d.wantLine(t, "uat", 1)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if status, _ := d.call("GET", "/healthz"); status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not recover\n%s", d.log)
		}
	}
	d.want(201, "POST", query("/maybe", "environment", "another", "id", "another-2"))
	d.want(204, "DELETE", query("/maybe", "environment", "uat", "id", "holder-1"))
	if got := <-waiting; !strings.HasPrefix(got, "201 ") {
		t.Errorf("the waiter got %s", got)
	}
	// A delayed duplicate of the ended request stays ended.
	d.want(410, "POST", query("/maybe", "environment", "env0", "id", "filling-it", "reason", reason))
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, d.file()))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if check, out := d.client("operator", "check", copied); check.Run() != nil || !strings.Contains(out.String(), ": sound, 2 leases,") {
		t.Errorf("the file: %s", out)
	}
	t.Logf("full after %d leases", held)
}

// wantLine checks that one slot has a lease and that the queue has the given length.
func (d *daemon) wantLine(t *testing.T, environment string, want int) {
	t.Helper()
	var all environmentsJSON
	if err := json.Unmarshal([]byte(d.want(200, "GET", query("/environments", "environment", environment))), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Environments) != 1 || len(all.Environments[0].Queue) != want || all.Environments[0].Slots[0].Lease == nil {
		t.Fatalf("%+v", all)
	}
}
