package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// setVariables sets the given variables and unsets all other variables of call-me. They are
// restored at the end of the test.
func setVariables(t *testing.T, set map[string]string) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, variablePrefix) || slices.Contains([]string{"PORT", "HOST", "API_KEY", "API_KEY_FILE"}, name) {
			t.Setenv(name, "") // restores the variable at the end
			os.Unsetenv(name)
		}
	}
	for name, value := range set {
		t.Setenv(name, value)
	}
}

func TestTheServersConfiguration(t *testing.T) {
	setVariables(t, map[string]string{"API_KEY": " key\n"})
	var c serverConfig
	if err := readConfig(&c); err != nil {
		t.Fatal(err)
	}
	if keys, _ := c.keys(); c.Port != 8000 || c.DB != "call-me.db" || c.TTL != 0 || len(c.Environments.names) != 0 || keys[0] != "key" {
		t.Errorf("defaults: %+v", c)
	}
	file := filepath.Join(t.TempDir(), "keys")
	os.WriteFile(file, []byte("\n one \ntwo\r\n\n"), 0o600)
	setVariables(t, map[string]string{"PORT": "1", "CALL_ME_PORT": "2", "API_KEY": "", "CALL_ME_API_KEY_FILE": file, "DB": "other people's", "TTL": "other people's",
		"CALL_ME_DB": "x.db", "CALL_ME_TTL": "2h", "CALL_ME_ENVIRONMENTS": "uat:blue+green, perf:2,staging"})
	c = serverConfig{}
	if err := readConfig(&c); err != nil {
		t.Fatal(err)
	}
	keys, err := c.keys()
	if c.Port != 2 || c.DB != "x.db" || time.Duration(c.TTL) != 2*time.Hour || err != nil || !slices.Equal(keys, []string{"one", "two"}) {
		t.Errorf("%+v, keys %q, %v", c, keys, err)
	}
	for name, slots := range map[string][]string{"uat": {"blue", "green"}, "perf": {"perf-1", "perf-2"}, "staging": {"staging"}, "prod": nil} {
		if got := c.Environments.slotsOf(name); !slices.Equal(got, slots) {
			t.Errorf("%s has the slots %q, want %q", name, got, slots)
		}
	}
}

func TestAnEmptyVariableIsAnUnsetOne(t *testing.T) {
	setVariables(t, map[string]string{"API_KEY": "k", "CALL_ME_API_KEY": "", "HOST": "call-me.example", "CALL_ME_HOST": "", "CALL_ME_TTL": "", "CALL_ME_TIMEOUT": ""})
	var c clientConfig
	if err := readConfig(&c); err != nil || c.Host != "http://call-me.example:8000" || c.TTL.chosen != nil || c.APIKey != "k" {
		t.Errorf("%+v, %v", c, err)
	}
	setVariables(t, map[string]string{"API_KEY": "k", "PORT": ""})
	var s serverConfig
	if err := readConfig(&s); err != nil || s.Port != 8000 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestHosts(t *testing.T) {
	for text, want := range map[string]string{
		"call-me.example":          "http://call-me.example:8000",
		"call-me.example:80":       "http://call-me.example:80",
		"localhost:8000":           "http://localhost:8000",
		"https://call-me.example":  "https://call-me.example",
		"https://call-me.example/": "https://call-me.example",
		"https://x/base/":          "https://x/base",
		"http://call-me.example":   "http://call-me.example",
		"10.0.0.1":                 "http://10.0.0.1:8000",
		"[::1]:9000":               "http://[::1]:9000",
		"call_me:8000":             "http://call_me:8000",
		"ci-linux-runner":          "http://ci-linux-runner:8000",
		"CALL-ME.EXAMPLE":          "http://CALL-ME.EXAMPLE:8000",
		"x86_64-conda-linux-gnu":   "", "aarch64-apple-darwin20.0.0": "",
		"ftp://call-me.example": "", "http://": "", "a b": "", "call-me.example:http": "", "call-me.example:0": "", "call-me.example:99999": "",
		"user:password@call-me.example": "", "https://call-me.example?x=1": "", "-x": "", "a..b": "", "call-me.example\n": "", "/": "", ":8000": "",
	} {
		var h serverURL
		if err := h.Decode(text); (err != nil) != (want == "") || string(h) != want {
			t.Errorf("%q is %q, %v; want %q", text, h, err, want)
		}
	}
}

func TestDeclarationsOfEnvironments(t *testing.T) {
	for _, text := range []string{",", "uat,", "uat:", "uat:0", "uat:1001", "uat:a+a", "uat:+", "a:b:c", "uat, uat", "\n", strings.Repeat("x", 129),
		"uat; perf", "uat:blue;green", "uat:blue+perf,perf", "perf,uat:blue+perf"} {
		var e declaredEnvironments
		if err := e.Decode(text); err == nil {
			t.Errorf("%q is read as %v", text, e)
		}
	}
}

func TestSpacesInADeclarationAreFine(t *testing.T) {
	for text, want := range map[string]string{
		"uat: blue + green , perf":  "uat:blue+green,perf",
		" uat : 2 ,team/perf":       "uat:uat-1+uat-2,team/perf",
		"uat:blue+green,perf:uat-1": "uat:blue+green,perf:uat-1",
	} {
		var e declaredEnvironments
		if err := e.Decode(text); err != nil || e.String() != want {
			t.Errorf("%q is read as %q, %v; want %q", text, e, err, want)
		}
	}
}

func TestAKeyFileIsReadOrRejected(t *testing.T) {
	const key = "a-key-in-a-file-of-keys"
	folder := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"plain":                  {key + "\n", ""},
		"with a byte order mark": {"\ufeff" + key + "\n", ""},
		"with CRLF":              {"\r\n" + key + "\r\n", ""},
		"in UTF-16":              {"\xff\xfe" + strings.Join(strings.Split(key, ""), "\x00") + "\x00", "not text in UTF-8"},
		"in UTF-16 without mark": {strings.Join(strings.Split(key, ""), "\x00") + "\x00", "not text in UTF-8"},
		"large":                  {strings.Repeat(key+"\n", 10_000), "more than"},
		"empty":                  {" \r\n", "has no key"},
	} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := KeyConfig{APIKeyFile: path}.keys()
		switch {
		case c.want == "" && (err != nil || len(keys) != 1 || keys[0] != key):
			t.Errorf("%s: %q, %v", name, keys, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), key)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := (KeyConfig{APIKeyFile: folder}).keys(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestVariablesThatAreNotReadAreWarnedOf(t *testing.T) {
	setVariables(t, map[string]string{"CALL_ME_ENVIROMENTS": "uat", "CALL_ME_TTL": "2h", "CALL_ME_HOLDER": "ann", "CALL_ME_RUNS": "(1-x)",
		"CALL_ME_SLOT": "uat", "CALL_ME_EMPTY": "", "CALL_ME_PORT": "tcp://10.96.0.1:8000", "CALL_ME_PORT_8000_TCP_ADDR": "10.96.0.1",
		"CALL_ME_SERVICE_HOST": "10.96.0.1", "CALL_ME_SERVICE_PORT_HTTP": "8000", "CALL_ME_STAGING_PORT": "tcp://10.96.0.2:80"})
	got := variableWarnings()
	if len(got) != 2 || !strings.Contains(got[0], "enableServiceLinks") || got[1] != `the variable CALL_ME_ENVIROMENTS is unknown; did you mean "CALL_ME_ENVIRONMENTS"?` {
		t.Errorf("%q", got)
	}
	setVariables(t, map[string]string{"CALL_ME_PORT": "tcp://10.96.0.1:8000", "API_KEY": "key"})
	var c serverConfig
	if err := readConfig(&c); err != nil || c.Port != 8000 {
		t.Errorf("the port of a Service is read as %d, %v", c.Port, err)
	}
}

// The variables that help and messages name are those that envconfig reads.
func TestEveryVariableIsReadUnderTheNameThatHelpGives(t *testing.T) {
	values := map[string]string{"CALL_ME_PORT": "7", "CALL_ME_TTL": "7s", "CALL_ME_LOG": "json", "CALL_ME_TRUSTED_PROXIES": "10.0.0.7", "CALL_ME_HOST": "seven",
		"CALL_ME_TIMEOUT": "7s", "CALL_ME_FENCE": "7"}
	for _, into := range []interface{ validate() error }{&serverConfig{}, &clientConfig{}} {
		set := map[string]string{}
		for _, s := range listSettings(into) {
			if set[s.variable] = values[s.variable]; set[s.variable] == "" {
				set[s.variable] = "seven"
			}
		}
		delete(set, "CALL_ME_API_KEY_FILE")
		setVariables(t, set)
		if err := readConfig(into); err != nil {
			t.Fatal(err)
		}
		for _, s := range listSettings(into) {
			if s.value.IsZero() && s.variable != "CALL_ME_API_KEY_FILE" {
				t.Errorf("%s is not read", s.variable)
			}
		}
	}
}
