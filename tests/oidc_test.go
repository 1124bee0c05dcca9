//go:build linux || darwin

package tests

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// An issuingCI is a CI system: it signs tokens, has a service that gives them to jobs as GitHub
// Actions has, and a daemon trusts it.
type issuingCI struct {
	t      *testing.T
	url    string
	key    *rsa.PrivateKey
	lasts  time.Duration // of a token
	asked  atomic.Int32  // how many tokens its service has given
	daemon *daemon
}

const requestKey = "the key with which a job asks for its token"

// newIssuingCI returns a CI system whose tokens are for the audience call-me, and a daemon that
// trusts it.
func newIssuingCI(t *testing.T, lasts time.Duration) *issuingCI {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &issuingCI{t: t, key: key, lasts: lasts}
	issuer := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "1", Algorithm: oidc.RS256}}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			issuer.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+requestKey || r.URL.Query().Get("api-version") != "2.0" {
			w.WriteHeader(401)
			return
		}
		c.asked.Add(1)
		json.NewEncoder(w).Encode(map[string]string{"value": c.token(r.URL.Query().Get("audience"))})
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	issuer.SetIssuer(s.URL)
	file := filepath.Join(t.TempDir(), "oidc.json")
	text := `[{"issuer": "` + s.URL + `", "audience": "call-me", "match": {"repository_owner": "acme"},
		"name": "ci:{repository}", "holder": "ci:{repository}/run/{run_id}"}]`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.daemon = newDaemon(t, "CALL_ME_OIDC_FILE="+file)
	return c
}

func (c *issuingCI) token(audience string) string {
	return oidctest.SignIDToken(c.key, "1", oidc.RS256, fmt.Sprintf(`{"iss": %q, "aud": %q, "sub": "x", "exp": %d, "jti": "%d",
		"repository_owner": "acme", "repository": "acme/shop", "run_id": "7"}`, c.url, audience, time.Now().Add(c.lasts).Unix(), c.asked.Load()))
}

// github has the variables of a job on GitHub Actions, without a secret.
func (c *issuingCI) github() []string {
	return []string{"CALL_ME_OIDC_AUDIENCE=call-me", "ACTIONS_ID_TOKEN_REQUEST_URL=" + c.url + "/token?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + requestKey}
}

// job returns a command of a job that has no key.
func (c *issuingCI) job(variables []string, args ...string) (*exec.Cmd, *lockedBuffer) {
	cmd, out := c.daemon.client("deploy", args...)
	cmd.Env = append(append(cmd.Env, "API_KEY=", "API_KEY_FILE="), variables...)
	return cmd, out
}

func TestAJobNeedsNoSecret(t *testing.T) {
	t.Parallel()
	c := newIssuingCI(t, time.Hour)
	folder := t.TempDir()
	file := filepath.Join(folder, "token")
	script := "#!/bin/sh\n[ \"$*\" = 'oidc request-token --audience call-me' ] && cat '" + file + "'\n"
	for name, text := range map[string]string{file: c.token("call-me") + "\n", filepath.Join(folder, "buildkite-agent"): script} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sources := map[string][]string{
		"GitHub Actions (ACTIONS_ID_TOKEN_REQUEST_URL)": c.github(),
		"CALL_ME_ID_TOKEN":               {"CALL_ME_OIDC_AUDIENCE=call-me", "CALL_ME_ID_TOKEN=" + c.token("call-me")},
		"the file of CALL_ME_TOKEN_FILE": {"CALL_ME_TOKEN_FILE=" + file},
		"buildkite-agent oidc request-token": {"CALL_ME_OIDC_AUDIENCE=call-me", "BUILDKITE_AGENT_ACCESS_TOKEN=x",
			"PATH=" + folder + string(os.PathListSeparator) + os.Getenv("PATH")},
	}
	for name, variables := range sources {
		for _, step := range []struct{ args, said string }{
			{"request uat --no-wait --json", `"holder": "ci:acme/shop/run/7/deploy"`},
			{"request uat --no-wait --again --quiet", "uat"},
			{"renew uat", "uat is yours until"},
			{"doctor", "accepted, from " + name},
			{"release uat", "slot has been freed"},
			{"run uat -- true", "released uat"},
		} {
			cmd, out := c.job(variables, strings.Fields(step.args)...)
			if err := cmd.Run(); err != nil || !strings.Contains(out.String(), step.said) {
				t.Errorf("%s: %s: %v: %s", name, step.args, err, out)
			}
		}
	}
	for _, variables := range [][]string{{"CALL_ME_OIDC_AUDIENCE=call-me"}, {"CALL_ME_TOKEN_FILE=/no/such/file"}} {
		cmd, out := c.job(variables, "status")
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "token") {
			t.Errorf("%v: %v: %s", variables, err, out)
		}
	}
}

// A token that the server refuses is had anew once.
func TestARefusedTokenIsHadAnewOnce(t *testing.T) {
	t.Parallel()
	c := newIssuingCI(t, time.Hour)
	cmd, out := c.job(append(c.github(), "CALL_ME_OIDC_AUDIENCE=another"), "request", "uat")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "refuses the token from GitHub Actions") ||
		!strings.Contains(out.String(), "it is for another audience") {
		t.Errorf("%v: %s", err, out)
	}
	if n := c.asked.Load(); n != 2 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// A run whose tokens end soon gets others, and goes on. Its watchdog releases the slot with the
// last one, and asks for none.
func TestARunOutlivesItsTokens(t *testing.T) {
	t.Parallel()
	c := newIssuingCI(t, 2*time.Second)
	cmd, out := c.job(c.github(), "run", "uat", "--ttl", "3s", "--", "sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "further tokens are asked for", func() bool { return c.asked.Load() > 3 })
	isHeld := func() bool {
		return strings.Contains(c.daemon.want(200, "GET", "/environments"), "ci:acme/shop/run/7/deploy")
	}
	if !isHeld() {
		t.Errorf("the slot is lost: %s", out)
	}
	cmd.Process.Signal(syscall.SIGSTOP) // so that it asks for none itself
	asked := c.asked.Load()
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the watchdog releases the slot", func() bool { return !isHeld() })
	history := c.daemon.want(200, "GET", "/history?limit=1")
	if n := c.asked.Load(); n != asked || !strings.Contains(history, `"event":"released"`) {
		t.Errorf("%d tokens were asked for after the end; %s", n-asked, history)
	}
}

// A file of issuers that is wrong is refused at the start, and on SIGHUP what was stays.
func TestTheFileOfIssuersIsReadAgain(t *testing.T) {
	t.Parallel()
	c := newIssuingCI(t, time.Hour)
	file := ""
	for _, variable := range c.daemon.env {
		if value, found := strings.CutPrefix(variable, "CALL_ME_OIDC_FILE="); found {
			file = value
		}
	}
	if err := os.WriteFile(file, []byte(`[{"issuer": "x"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.daemon.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the file is read again", func() bool {
		return strings.Contains(c.daemon.log.String(), "the issuers of tokens stay as they were")
	})
	cmd, out := c.job(c.github(), "status")
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	cmd, out = c.daemon.client("x", "serve")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(out.String(), "reading CALL_ME_OIDC_FILE: ") {
		t.Errorf("%v: %s", err, out)
	}
}
