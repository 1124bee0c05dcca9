package tests

// Who may do what: a matrix of every route and every command by every kind of key, and what
// becomes of keys that are wrong.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// keyFile has a key of each kind. Its names are the columns of the matrices; the nameless key is
// testKey, and nobody has no key.
const keyFile = `# the keys of a test
viewer-of-the-test     name=viewer   role=view
job-of-the-test        name=shop     role=job
other-job-of-the-test  name=web      role=job
admin-of-the-test      name=oncall   role=admin
limited-job-of-test    name=limited  role=job    environments=elsewhere,perf-*
limited-admin-of-test  name=chief    role=admin  environments=elsewhere
`

// columns are the keys of the matrices, in their order.
var columns = []string{testKey, "viewer-of-the-test", "job-of-the-test", "other-job-of-the-test", "admin-of-the-test",
	"limited-job-of-test", "limited-admin-of-test", ""}

// newKeyedDaemon returns a daemon with the keys of keyFile, and testKey.
func newKeyedDaemon(t *testing.T, env ...string) (d *daemon, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(testKey+"\n"+keyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	return newDaemon(t, append(env, "API_KEY=", "API_KEY_FILE="+file)...), file
}

// as makes a call with a key, without one if it is empty.
func (d *daemon) as(key, method, path string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequest(method, d.base+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	switch {
	case key == "":
	case r.URL.Path == "/act": // the page sends it in the name of its user
		r.SetBasicAuth(map[bool]string{true: "bob", false: "ann"}[strings.Contains(path, "act=leave")], key)
		r.Header.Set("X-Requested-With", "call-me")
	default:
		r.Header.Set("X-API-KEY", key)
	}
	response, err := d.http.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	seekKey(string(body))
	return response.StatusCode, string(body)
}

// A stage is an environment for one cell: its lease was taken with the key shop by the holder ann,
// and bob waits there with the same key.
type stage struct {
	environment   string
	fence, number uint64
}

func (d *daemon) stage(environment string) stage {
	d.t.Helper()
	s := stage{environment: environment}
	if code, body := d.as("job-of-the-test", "POST", "/maybe?environment="+environment+"&id=id-of-shop&holder=ann"); code != 201 {
		d.t.Fatal(code, body)
	}
	if code, body := d.as("job-of-the-test", "POST", "/maybe?environment="+environment+"&id=waits-of-shop&holder=bob&wait=0s"); code != 403 {
		d.t.Fatal(code, body)
	}
	if code, body := d.as("job-of-the-test", "POST", "/maybe?environment="+environment+"-bare"); code != 201 { // the call of 2019
		d.t.Fatal(code, body)
	}
	_, body := d.as(testKey, "GET", "/environments?environment="+environment)
	var all struct {
		Environments []struct {
			Slots []struct{ Lease struct{ Fence uint64 } }
			Queue []struct{ Number uint64 }
		}
	}
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all.Environments[0].Queue) != 1 {
		d.t.Fatal(body, err)
	}
	s.fence, s.number = all.Environments[0].Slots[0].Lease.Fence, all.Environments[0].Queue[0].Number
	return s
}

// fill replaces what stands for the stage in a path or a command line.
func (s stage) fill(text string) string {
	return strings.NewReplacer("ENV", s.environment, "FENCE", fmt.Sprint(s.fence), "NUMBER", fmt.Sprint(s.number)).Replace(text)
}

// routeMatrix has the status of each call for each key. ENV is an environment on which shop has a
// lease, ENV-bare one that it took with a call of 2019, ENV-free one that nobody has.
var routeMatrix = []struct {
	call   string
	status [8]int // nameless, view, job whose lease it is, another job, admin, limited job, limited admin, nobody
}{
	{"GET /maybe?environment=ENV", [8]int{403, 403, 403, 403, 403, 404, 404, 401}},
	{"HEAD /maybe?environment=ENV-free", [8]int{200, 200, 200, 200, 200, 404, 404, 401}},
	{"POST /maybe?environment=ENV", [8]int{403, 422, 403, 403, 403, 404, 404, 401}},
	{"POST /maybe?environment=ENV-free", [8]int{201, 422, 201, 201, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV-free&id=12345678", [8]int{201, 422, 201, 201, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV-free&environment=ENV-more&id=12345678", [8]int{201, 422, 201, 201, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV&id=12345678&wait=0s", [8]int{403, 422, 403, 403, 403, 404, 404, 401}},
	{"POST /maybe?environment=ENV-free&id=12345678&priority=-1", [8]int{201, 422, 201, 201, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV-free&id=12345678&priority=1", [8]int{201, 422, 422, 422, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV&id=12345678&take=FENCE", [8]int{201, 422, 422, 422, 201, 404, 404, 401}},
	{"POST /maybe?environment=ENV&id=id-of-shop&holder=ann", [8]int{201, 422, 201, 201, 201, 404, 404, 401}}, // who knows the id
	{"PUT /maybe?environment=ENV&id=id-of-shop", [8]int{200, 422, 200, 200, 200, 200, 200, 401}},
	{"PUT /maybe?environment=ENV&id=id-of-nobody", [8]int{409, 422, 409, 409, 409, 404, 404, 401}},
	{"PUT /maybe?environment=ENV&holder=ann", [8]int{200, 422, 200, 409, 200, 404, 404, 401}},
	{"PUT /maybe?environment=ENV&holder=ann&ttl=1h", [8]int{200, 422, 200, 409, 200, 404, 404, 401}},
	{"PUT /maybe?environment=ENV&holder=ann&fence=FENCE", [8]int{200, 422, 200, 409, 200, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&id=id-of-shop", [8]int{204, 422, 204, 204, 204, 204, 204, 401}},
	{"DELETE /maybe?environment=ENV&id=waits-of-shop", [8]int{204, 422, 204, 204, 204, 204, 204, 401}},
	{"DELETE /maybe?environment=ENV&id=id-of-nobody", [8]int{204, 422, 204, 204, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&holder=ann", [8]int{204, 422, 204, 409, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&holder=ann&fence=FENCE", [8]int{204, 422, 204, 409, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&holder=ann&slot=ENV", [8]int{204, 422, 204, 409, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV-bare", [8]int{204, 422, 204, 409, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV", [8]int{409, 422, 409, 409, 409, 404, 404, 401}}, // all have a holder
	{"DELETE /maybe?environment=ENV&holder=ann&to=cid", [8]int{204, 422, 204, 409, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&id=id-of-shop&to=cid", [8]int{204, 422, 204, 204, 204, 204, 204, 401}},
	{"DELETE /maybe?environment=ENV&force=1", [8]int{204, 422, 422, 422, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&force=1&fence=FENCE&holder=ann", [8]int{204, 422, 422, 422, 204, 404, 404, 401}},
	{"DELETE /maybe?environment=ENV&force=1&waiter=NUMBER", [8]int{204, 422, 422, 422, 204, 404, 404, 401}},
	{"PATCH /maybe?environment=ENV", [8]int{405, 405, 405, 405, 405, 405, 405, 401}},
	{"PUT /pause?environment=ENV", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"DELETE /pause?environment=ENV", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"PUT /pause?all=1", [8]int{200, 403, 403, 403, 200, 403, 403, 401}},
	{"DELETE /pause?all=1", [8]int{200, 403, 403, 403, 200, 403, 403, 401}},
	{"GET /environments", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /environments?environment=ENV", [8]int{200, 200, 200, 200, 200, 404, 404, 401}},
	{"GET /history", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /history?environment=ENV", [8]int{200, 200, 200, 200, 200, 404, 404, 401}},
	{"HEAD /events", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"HEAD /events?environment=ENV", [8]int{200, 200, 200, 200, 200, 404, 404, 401}},
	{"GET /key", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /page.css", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /page.js", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /?environment=ENV", [8]int{200, 200, 200, 200, 200, 404, 404, 401}},
	{"GET /rows", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /login", [8]int{401, 401, 401, 401, 401, 401, 401, 401}}, // it asks for a name
	{"POST /act?act=reserve&environment=ENV-free&id=12345678", [8]int{200, 403, 200, 200, 200, 404, 404, 401}},
	{"POST /act?act=wait&environment=ENV&id=12345678", [8]int{200, 403, 200, 200, 200, 404, 404, 401}},
	{"POST /act?act=take&environment=ENV&fence=FENCE&id=12345678", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"POST /act?act=extend&environment=ENV&fence=FENCE&ttl=1h", [8]int{200, 403, 200, 409, 200, 404, 404, 401}},
	{"POST /act?act=release&environment=ENV&fence=FENCE", [8]int{200, 403, 200, 409, 200, 404, 404, 401}},
	{"POST /act?act=force&environment=ENV&fence=FENCE", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"POST /act?act=remove&environment=ENV&waiter=NUMBER", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"POST /act?act=leave&environment=ENV&waiter=NUMBER", [8]int{200, 403, 200, 409, 200, 404, 404, 401}},
	{"POST /act?act=pause&environment=ENV", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"POST /act?act=resume&environment=ENV", [8]int{200, 403, 403, 403, 200, 403, 404, 401}},
	{"POST /act?act=pause&all=1", [8]int{200, 403, 403, 403, 200, 403, 403, 401}},
	{"GET /openapi.yaml", [8]int{200, 200, 200, 200, 200, 200, 200, 401}},
	{"GET /metrics", [8]int{200, 200, 200, 200, 200, 403, 403, 401}},
	{"GET /backup", [8]int{200, 403, 403, 403, 200, 403, 403, 401}},
	{"GET /healthz", [8]int{200, 200, 200, 200, 200, 200, 200, 200}},
	{"GET /nothing", [8]int{404, 404, 404, 404, 404, 404, 404, 401}},
}

func TestEveryRouteForEveryKey(t *testing.T) {
	t.Parallel()
	d, _ := newKeyedDaemon(t)
	d.http.Transport = &http.Transport{DisableKeepAlives: true}
	names := map[int]string{1: "viewer", 2: "shop", 3: "web", 5: "limited", 6: "chief"}
	for row, r := range routeMatrix {
		for i, key := range columns {
			s := d.stage(fmt.Sprint("env-", row, "-", i))
			method, path, _ := strings.Cut(s.fill(r.call), " ")
			code, body := d.as(key, method, path)
			if code != r.status[i] {
				t.Errorf("%s of %q: %d %s, want %d", r.call, key, code, body, r.status[i])
			}
			isForbidden := code == 422 || code == 403 && !strings.HasPrefix(path, "/maybe")
			says := fmt.Sprintf(`"key":%q`, names[i])
			if isForbidden && (!strings.Contains(body, says) || !strings.Contains(body, `"needs_role":"`) && !strings.Contains(body, `"limit":{"name":"`)) {
				t.Errorf("%s of %q does not say what is missing: %s", r.call, key, body)
			}
			if code, body := d.as(testKey, "DELETE", "/pause?all=1"); code != 200 {
				t.Fatal(code, body)
			}
		}
	}
}

// The matrix has each route of the server.
func TestTheMatrixHasEveryRoute(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`(?:route|get|look)\("([^"{]+)`).FindAllStringSubmatch(string(source), -1)
	for _, m := range routes {
		isThere := false
		for _, r := range routeMatrix {
			_, path, _ := strings.Cut(r.call, " ")
			path, _, _ = strings.Cut(path, "?")
			isThere = isThere || path == m[1]
		}
		if !isThere {
			t.Errorf("%s is not in the matrix", m[1])
		}
	}
	if len(routes) < 14 {
		t.Errorf("only %d routes were found", len(routes))
	}
}

// commandMatrix has the exit code of each command line for each key.
var commandMatrix = []struct {
	line string
	exit [5]int // nameless, view, job whose lease it is, another job, admin
}{
	{"request ENV-free --no-wait", [5]int{0, 1, 0, 0, 0}},
	{"request ENV --no-wait", [5]int{75, 1, 75, 75, 75}},
	{"request ENV-free --timeout 5s", [5]int{0, 1, 0, 0, 0}},
	{"request ENV-free ENV-more --timeout 5s", [5]int{0, 1, 0, 0, 0}},
	{"request ENV-free --priority 1 --no-wait", [5]int{0, 1, 1, 1, 0}},
	{"request ENV --take", [5]int{0, 1, 1, 1, 0}},
	{"request ENV --again --timeout 1s", [5]int{0, 1, 0, 75, 0}},
	{"renew ENV", [5]int{0, 1, 0, 76, 0}},
	{"renew ENV --ttl 1h", [5]int{0, 1, 0, 76, 0}},
	{"release ENV", [5]int{0, 1, 0, 76, 0}},
	{"release ENV --force", [5]int{0, 1, 1, 1, 0}},
	{"release ENV --to cid", [5]int{0, 1, 0, 76, 0}},
	{"release ENV --waiter NUMBER", [5]int{0, 1, 1, 1, 0}},
	{"run ENV-free -- true", [5]int{0, 125, 0, 0, 0}},
	{"pause ENV", [5]int{0, 1, 1, 1, 0}},
	{"resume ENV", [5]int{0, 1, 1, 1, 0}},
	{"status", [5]int{0, 0, 0, 0, 0}},
	{"status ENV --json", [5]int{0, 0, 0, 0, 0}},
	{"history ENV", [5]int{0, 0, 0, 0, 0}},
	{"backup FILE", [5]int{0, 1, 1, 1, 0}},
	{"doctor", [5]int{0, 0, 0, 0, 0}},
	{"health", [5]int{0, 0, 0, 0, 0}},
	{"check FILE", [5]int{0, 0, 0, 0, 0}},
	{"move FILE", [5]int{2, 2, 2, 2, 2}}, // it needs no key, but also an address
	{"key ENV", [5]int{0, 0, 0, 0, 0}},
	{"completion bash", [5]int{0, 0, 0, 0, 0}},
}

func TestEveryCommandForEveryKey(t *testing.T) {
	t.Parallel()
	d, _ := newKeyedDaemon(t)
	copied := filepath.Join(t.TempDir(), "copy.db")
	for row, r := range commandMatrix {
		for i, key := range columns[:5] {
			s := d.stage(fmt.Sprint("env-", row, "-", i))
			line := strings.ReplaceAll(s.fill(r.line), "FILE", copied)
			cmd, out := d.client("ann", strings.Fields(line)...)
			cmd.Env = append(cmd.Env, "API_KEY="+key, "API_KEY_FILE=", "CALL_ME_TIMEOUT=")
			err := cmd.Run()
			var exit *exec.ExitError
			code := 0
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != r.exit[i] {
				t.Errorf("%s with %q: exit code %d, want %d\n%s", line, key, code, r.exit[i], out)
			}
			name := []string{"", "viewer", "shop", "web", "oncall"}[i]
			if (code == 1 || code == 125) && !strings.Contains(out.String(), fmt.Sprintf("the key %q ", name)) {
				t.Errorf("%s with %q does not say what is missing: %s", line, key, out)
			}
		}
	}
	commands := map[string]bool{}
	for _, r := range commandMatrix {
		commands[strings.Fields(r.line)[0]] = true
	}
	help, err := mortal(t, "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile(`(?m)^   ([a-z]+)  `).FindAllStringSubmatch(string(help), -1)
	for _, m := range listed {
		if !commands[m[1]] && m[1] != "serve" {
			t.Errorf("%s is not in the matrix", m[1])
		}
	}
	if len(listed) < 12 {
		t.Errorf("only %d commands were found in\n%s", len(listed), help)
	}
}

// A file of keys that is wrong is refused at the start, and not read at a SIGHUP: the old keys
// stay. What is in a line is shown nowhere.
func TestAWrongKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	const secret = "secret-of-a-bad-line"
	d, file := newKeyedDaemon(t)
	for text, want := range map[string]string{
		secret + "\n" + secret + "\n":       "line 2: it has the key of line 1 again",
		"\n" + secret + " name=a role=boss": "line 2: the role is none of view, job and admin",
		secret + " name=a max-ttl=for-ever": "line 1: max-ttl is not a duration",
		secret + " name=a max-places=-1":    "line 1: max-places is no whole number",
		secret + " name=a environments=*t":  "line 1: environments has a",
		secret + " oncall":                  "line 1: after the key is a word that is none of name=",
		"# no key\n":                        "has no key",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		refused := makeDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
		serve := mortal(t, "serve")
		serve.Env = refused.env
		out, err := serve.CombinedOutput()
		if err == nil || serve.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v\n%s, want %s", text, err, out, want)
		}
		logged := len(d.log.String())
		d.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the file is refused", func() bool {
			return strings.Contains(d.log.String()[logged:], "the keys stay as they were") && strings.Contains(d.log.String()[logged:], strings.SplitN(want, `"`, 2)[0])
		})
		if code, body := d.as("job-of-the-test", "GET", "/key"); code != 200 || !strings.Contains(body, `"name":"shop"`) {
			t.Errorf("the old keys: %d %s", code, body)
		}
		if strings.Contains(d.log.String()+string(out), secret) {
			t.Error("what is in the line is shown")
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	logged := len(d.log.String())
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the missing file is refused", func() bool { return strings.Contains(d.log.String()[logged:], "the keys stay as they were") })
	serve := mortal(t, "serve")
	serve.Env = makeDaemon(t, "API_KEY=", "API_KEY_FILE="+file).env
	if out, err := serve.CombinedOutput(); err == nil || serve.ProcessState.ExitCode() != 2 {
		t.Errorf("a missing file: %v\n%s", err, out)
	}
	if code, _ := d.as("job-of-the-test", "GET", "/key"); code != 200 {
		t.Errorf("the old keys: %d", code)
	}
}

// A key is exchanged without a gap: the old one and the new one have one name for a while, and
// what was taken with the old one is the new one's.
func TestAKeyIsExchanged(t *testing.T) {
	t.Parallel()
	d, file := newKeyedDaemon(t)
	reload := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(testKey+"\n"+lines), 0o600); err != nil {
			t.Fatal(err)
		}
		logged := len(d.log.String())
		d.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the keys are read", func() bool { return strings.Contains(d.log.String()[logged:], "keys were read again") })
	}
	d.as("job-of-the-test", "POST", "/maybe?environment=uat&holder=ann&id=12345678")
	out, err := mortal(t, "key", "shop", "--role", "job").Output()
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(?m)^# .*\n(sha256:[0-9a-f]{64} name=shop role=job)\n# .*\nAPI_KEY=(\S+)\n$`).FindStringSubmatch(string(out))
	if made == nil {
		t.Fatalf("key printed\n%s", out)
	}
	reload("job-of-the-test name=shop role=job\n" + made[1] + "\n")
	reload(made[1] + "\n")
	if code, _ := d.as("job-of-the-test", "GET", "/key"); code != 401 {
		t.Errorf("the old key: %d", code)
	}
	if code, body := d.as(made[2], "PUT", "/maybe?environment=uat&holder=ann"); code != 200 {
		t.Errorf("the new key: %d %s", code, body)
	}
}

// A client whose user has typed no ttl takes the longest one that its key allows.
func TestAClientTakesTheTTLOfItsKey(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(testKey+"\nshort-job-of-the-test name=short max-ttl=1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
	for _, c := range []struct {
		line string
		exit int
		says string
	}{
		{"request a --json", 0, `"ttl_seconds": 60`},
		{"request a --again --json", 0, `"ttl_seconds": 60`},
		{"release a --to ann", 0, "(1m)"},
		{"request b --ttl 2m", 1, `the key "short" allows max-ttl=1m`},
		{"request b --ttl 30s --json", 0, `"ttl_seconds": 30`},
		{"run c -- call-me status c --json", 0, `"ttl_seconds": 60`},
		{"run c --ttl 2m -- true", 125, `the key "short" allows max-ttl=1m`},
		{"doctor", 0, "its name is short, its role job, max-ttl 1m, max-priority 0"},
	} {
		cmd, out := d.client("me", strings.Fields(c.line)...)
		cmd.Env = append(cmd.Env, "API_KEY=short-job-of-the-test", "API_KEY_FILE=", "CALL_ME_TTL=")
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.exit || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: exit code %d\n%s, want %d and %s", c.line, code, out, c.exit, c.says)
		}
	}
}

// As many calls at once as there are: a key never gets more than its places.
func TestPlacesAreNeverMoreThanAllowed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(testKey+"\nfew-job-of-the-test name=few max-places=5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
	const calls = 40
	codes := make(chan int, calls)
	for i := range calls {
		go func() {
			r, _ := http.NewRequest("POST", fmt.Sprintf("%s/maybe?environment=env%d&id=request-%d&wait=0s", d.base, i%20, i), nil)
			r.Header.Set("X-API-KEY", "few-job-of-the-test")
			response, err := d.http.Do(r)
			if err != nil {
				codes <- 0
				return
			}
			response.Body.Close()
			codes <- response.StatusCode
		}()
	}
	var all []int
	for range calls {
		all = append(all, <-codes)
	}
	isIn := func(code int) bool { return code == 201 || code == 403 }
	if n := len(slices.DeleteFunc(slices.Clone(all), func(code int) bool { return !isIn(code) })); n != 5 {
		t.Errorf("%d have a place: %v", n, all)
	}
	d.kill()
	d.start()
	if code, body := d.as("few-job-of-the-test", "POST", "/maybe?environment=another&id=after-start"); code != 422 || !strings.Contains(body, "max-places") {
		t.Errorf("after a start: %d %s", code, body)
	}
}

// A form of the page, without its script, shows nothing of an environment that the key does not
// see, whatever it asks for.
func TestAFormShowsNothingOfOtherEnvironments(t *testing.T) {
	t.Parallel()
	d, _ := newKeyedDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&holder=somebody-else&id=12345678")
	for _, key := range []string{"limited-job-of-test", "limited-admin-of-test"} {
		for _, user := range []string{"", "ann"} {
			for _, act := range []string{"reserve", "wait", "take", "extend", "release", "force", "remove", "leave", "pause", "resume", "none"} {
				r, err := http.NewRequest("POST", d.base+"/act?environment=uat&fence=1&act="+act, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.SetBasicAuth(user, key)
				response, err := d.http.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if response.StatusCode < 400 || strings.Contains(string(body), "somebody-else") {
					t.Errorf("%s of %s as %q: %s\n%.300s", act, key, user, response.Status, body)
				}
			}
		}
	}
}
