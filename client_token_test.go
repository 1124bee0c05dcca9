package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unsignedToken returns a token that ends after a time.
func unsignedToken(name string, after time.Duration) string {
	claims := fmt.Sprintf(`{"jti": %q, "exp": %d}`, name, time.Now().Add(after).Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
}

func TestWhereATokenComesFrom(t *testing.T) {
	github := map[string]string{"CALL_ME_OIDC_AUDIENCE": "call-me", githubTokenURL: "http://x", githubTokenKey: "k"}
	with := func(base map[string]string, more ...string) map[string]string {
		all := map[string]string{"HOST": "localhost", githubTokenURL: "", githubTokenKey: "", "BUILDKITE_AGENT_ACCESS_TOKEN": ""}
		for name, value := range base {
			all[name] = value
		}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	for i, c := range []struct {
		set  map[string]string
		want tokenPlace
		err  string
	}{
		{with(github), tokenFromGitHub, ""},
		{with(github, "API_KEY", "k"), noToken, ""},
		{with(github, "CALL_ME_ID_TOKEN", "t"), tokenInVariable, ""},
		{with(github, "CALL_ME_ID_TOKEN", "t", "CALL_ME_TOKEN_FILE", "f"), tokenInFile, ""},
		{with(nil, "CALL_ME_OIDC_AUDIENCE", "a", "BUILDKITE_AGENT_ACCESS_TOKEN", "t"), tokenFromBuildkite, ""},
		{with(nil, "BUILDKITE_AGENT_ACCESS_TOKEN", "t"), noToken, "API_KEY must be set"},
		{with(github, "CALL_ME_OIDC_AUDIENCE", ""), noToken, "API_KEY must be set"},
		{with(nil, "CALL_ME_OIDC_AUDIENCE", "a"), noToken, "CALL_ME_OIDC_AUDIENCE is set, but nothing here gives a token"},
	} {
		setVariables(t, c.set)
		var config clientConfig
		err := readConfig(&config)
		place, _ := config.tokenPlace()
		if place != c.want || c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%d: %v, %v", i, place, err)
		}
	}
}

func TestATokenIsHadAnewBeforeItEnds(t *testing.T) {
	var answers []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("audience") != "a b" || r.URL.Query().Get("v") != "2" || r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("%s, %s", r.URL, r.Header)
		}
		answer := answers[0]
		answers = answers[1:]
		if answer == "" {
			w.WriteHeader(500)
		}
		fmt.Fprintf(w, `{"value": %q}`, answer)
	}))
	defer s.Close()
	t.Setenv(githubTokenURL, s.URL+"?v=2")
	t.Setenv(githubTokenKey, "k")
	var reported []string
	source := &tokenSource{place: tokenFromGitHub, audience: "a b", onNew: func(token string) { reported = append(reported, token) }}
	first, second := unsignedToken("first", time.Hour), unsignedToken("second", 30*time.Second)
	third := unsignedToken("third", time.Hour)
	expect := func(want string, given ...string) {
		t.Helper()
		answers = given
		got, err := source.current(context.Background())
		if got != want || err != nil || len(answers) > 0 {
			t.Errorf("%s, %v, %d answers are left", got, err, len(answers))
		}
	}
	expect(first, "", first) // an answer with status 500 is no answer
	expect(first)
	if !source.renewAt.After(time.Now().Add(58*time.Minute)) || source.renewAt.After(time.Now().Add(time.Hour)) {
		t.Errorf("it is had anew at %v", source.renewAt)
	}
	source.renewAt = time.Now()
	expect(first, "") // the one that there is may still do
	expect(first)
	source.renewAt = time.Now()
	expect(second, second)
	if at := time.Until(source.renewAt); at < 10*time.Second || at > 16*time.Second {
		t.Errorf("one of 30 s is had anew after %v", at)
	}
	answers = []string{third}
	if !source.renew(context.Background()) {
		t.Error("a refused token is not had anew")
	}
	answers = []string{third}
	if source.renew(context.Background()) {
		t.Error("the same token is no other one")
	}
	if !slices.Equal(reported, []string{first, second, third}) {
		t.Errorf("reported %q", reported)
	}
	answers = []string{"", "", ""}
	source.token = ""
	_, err := source.current(context.Background())
	if err == nil || err.Error() != "no token from GitHub Actions (ACTIONS_ID_TOKEN_REQUEST_URL): it answers with status 500" {
		t.Errorf("%v", err)
	}
}

func TestATokenInAFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	source := &tokenSource{place: tokenInFile, file: path}
	if _, err := source.current(context.Background()); err == nil {
		t.Error("a file that is not there is read")
	}
	for _, text := range []string{"one", "two", "", "a b", "three"} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want := text
		if strings.Contains(text, " ") || text == "" {
			want = "two"
		}
		if got, err := source.current(context.Background()); got != want || err != nil {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	variable := &tokenSource{place: tokenInVariable, token: unsignedToken("x", -time.Hour)}
	if got, err := variable.current(context.Background()); got != variable.token || err != nil || variable.renew(context.Background()) {
		t.Errorf("%s, %v", got, err)
	}
}
