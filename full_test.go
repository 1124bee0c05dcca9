package main

// A disk that is really full: the real server on a file system of 200 kB,
// and on larger ones.

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startOnSmallDisk starts a server whose file stands on a file system of its
// own, which ends with it.
func startOnSmallDisk(t *testing.T, size string) (d *daemon, path string) {
	t.Helper()
	if raceDetector {
		t.Skip("the server is another process")
	}
	folder := t.TempDir()
	try := exec.Command("unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "-o", "size="+size, "none", folder)
	if out, err := try.CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("the right to mount a file system in a namespace (%v: %s)", err, out))
	}
	if err := build(); err != nil {
		t.Fatal(err)
	}
	port := freePort()
	path = filepath.Join(folder, "call-me.db")
	d = &daemon{t: t, host: fmt.Sprint("127.0.0.1:", port), log: &lockedBuffer{}}
	d.env = append(os.Environ(), "API_KEY="+testKey, fmt.Sprint("PORT=", port), "CALL_ME_DB="+path)
	d.cmd = exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
		`mount -t tmpfs -o size="$0" none "$1" && exec "$2" serve`, size, folder, binaryPath())
	d.cmd.Env, d.cmd.Stderr = d.env, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	if err := waitForServer(http.DefaultClient, "http://"+d.host); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	return d, path
}

// plain calls the server, and returns status and body.
func (d *daemon) plain(method, path string, parameters ...string) (int, string) {
	d.t.Helper()
	form := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		form.Set(parameters[i], parameters[i+1])
	}
	r, err := http.NewRequest(method, "http://"+d.host+path+"?"+form.Encode(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-KEY", testKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func (d *daemon) wantStatus(want int, method, path string, parameters ...string) string {
	d.t.Helper()
	status, body := d.plain(method, path, parameters...)
	if status != want {
		d.t.Fatalf("%s %s %.80q: %d %.300s, want %d", method, path, parameters, status, body, want)
	}
	return body
}

func TestOnAFullDiskReleasesWorkAndItRecoversByItself(t *testing.T) {
	for _, size := range []string{"200k", "400k", "1000k", "2m"} {
		t.Run(size, func(t *testing.T) { testFullDisk(t, size) })
	}
}

func testFullDisk(t *testing.T, size string) {
	d, path := startOnSmallDisk(t, size)
	reason := strings.Repeat("r", 1000)
	if size == "400k" {
		d.wantStatus(200, "GET", "/backup")
	}
	d.wantStatus(201, "POST", "/maybe", "environment", "uat", "id", "holder-1", "ttl", "1h")
	d.wantStatus(403, "POST", "/maybe", "environment", "uat", "id", "waiter-1", "wait", "0s")
	waiting := make(chan string, 1)
	go func() {
		status, body := d.plain("POST", "/maybe", "environment", "uat", "id", "waiter-1", "wait", "2m")
		waiting <- fmt.Sprint(status, " ", body)
	}()
	held := 0
	for ; held < 5000; held++ {
		status, body := d.plain("POST", "/maybe", "environment", fmt.Sprint("env", held), "id", "filling-it", "reason", reason)
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
	for range 3 {
		d.wantStatus(503, "POST", "/maybe", "environment", "another", "id", "another-1", "reason", reason)
	}
	d.wantStatus(200, "PUT", "/maybe", "environment", "uat", "id", "holder-1")
	if status, _ := d.plain("GET", "/healthz"); status == 200 {
		t.Error("it says that it is healthy")
	}
	d.wantLine(t, "uat", 1)
	for i := range held {
		d.wantStatus(204, "DELETE", "/maybe", "environment", fmt.Sprint("env", i), "id", "filling-it")
		if i == held/2 {
			d.wantLine(t, "uat", 1)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if status, _ := d.plain("GET", "/healthz"); status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not recover\n%s", d.log)
		}
	}
	d.wantStatus(201, "POST", "/maybe", "environment", "another", "id", "another-2")
	d.wantStatus(204, "DELETE", "/maybe", "environment", "uat", "id", "holder-1")
	if got := <-waiting; !strings.HasPrefix(got, "201 ") {
		t.Errorf("who waited was told %s", got)
	}
	d.wantStatus(410, "POST", "/maybe", "environment", "env0", "id", "filling-it", "reason", reason) // a late duplicate
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, path))
	if err != nil {
		t.Fatal(err)
	}
	file := tempDB(t)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	state, err := diskState(file)
	leases := 0
	for _, line := range state {
		if strings.HasPrefix(line, "lease ") {
			leases++
		}
	}
	if err != nil || leases != 2 {
		t.Errorf("%d leases are in the file: %v", leases, err)
	}
	t.Logf("full after %d leases", held)
}

// wantLine looks how many wait.
func (d *daemon) wantLine(t *testing.T, environment string, want int) {
	t.Helper()
	var all environmentsJSON
	if err := json.Unmarshal([]byte(d.wantStatus(200, "GET", "/environments", "environment", environment)), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Environments) != 1 || len(all.Environments[0].Line) != want || all.Environments[0].Slots[0].Lease == nil {
		t.Fatalf("%+v", all)
	}
}
