package tests

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// go tool pprof reads the profiles of a server with only the address from the log.
func TestProfilesAreForGoToolPprof(t *testing.T) {
	d := makeDaemon(t)
	port := freePort()
	d.flags = []string{"--profile", fmt.Sprint(port)}
	d.start()
	address := fmt.Sprintf("127.0.0.1:%d/debug/pprof/", port)
	if !strings.Contains(d.log.String(), "address="+address) {
		t.Errorf("the log does not say where the profiles are: %s", d.log)
	}
	stop := make(chan struct{})
	busy := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				busy <- nil
				return
			default:
				if status, body := d.call(http.MethodPost, "/maybe?environment=uat&holder=ci"); status != http.StatusCreated {
					busy <- fmt.Errorf("%d %s", status, body)
					return
				}
				d.call(http.MethodDelete, "/maybe?environment=uat&holder=ci")
			}
		}
	}()
	for _, c := range []struct{ profile, says, shows string }{
		{"profile?seconds=1", "Type: cpu", "main.(*keeper).run"},
		{"goroutine", "Type: goroutine", "main.(*keeper).run"},
		{"allocs", "Type: alloc_space", "main.(*server)."},
		{"heap?gc=1", "Type: inuse_space", ""}, // little memory is in use, so the functions in it are random
	} {
		cmd := exec.Command("go", "tool", "pprof", "-top", "-cum", "-nodecount=200", "http://"+address+c.profile)
		cmd.Env = append(cmd.Environ(), "PPROF_TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.says) || !strings.Contains(string(out), c.shows) {
			t.Errorf("%s: %v, and not %q and %q in %s", c.profile, err, c.says, c.shows, out)
		}
	}
	close(stop)
	if err := <-busy; err != nil {
		t.Error(err)
	}
	for path, begins := range map[string]string{"trace?seconds=.1": "go 1.", "goroutine?debug=1": "goroutine profile: total", "": "<html>", "heap?seconds=1": "\x1f\x8b"} {
		if status, body := get(t, address+path); status != http.StatusOK || !strings.HasPrefix(body, begins) {
			t.Errorf("%s: %d %.40q", path, status, body)
		}
	}
	for _, nothing := range []string{"nothing", "cmdline", "../../metrics"} {
		if status, body := get(t, address+nothing); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", nothing, status, body)
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/vars"} {
		if status, body := d.call(http.MethodGet, path); status != http.StatusNotFound {
			t.Errorf("%s on the server's own port: %d %s", path, status, body)
		}
	}
}

func get(t *testing.T, address string) (status int, body string) {
	t.Helper()
	response, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}
