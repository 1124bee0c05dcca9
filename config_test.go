package main

import (
	"errors"
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
	if keys, _ := c.acceptedKeys(); c.Port != 8000 || c.DB != "call-me.db" || c.TTL != 0 || len(c.Environments.names) != 0 || keys[0].sum != keySumOf("key") {
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
	keys, err := c.acceptedKeys()
	want := []acceptedKey{plainKey("one"), plainKey("two")}
	isSame := func(a, b acceptedKey) bool { return a.sum == b.sum && a.name == "" && a.rights.equal(b.rights) }
	if c.Port != 2 || c.DB != "x.db" || time.Duration(c.TTL) != 2*time.Hour || err != nil || !slices.EqualFunc(keys, want, isSame) {
		t.Errorf("%+v, keys %v, %v", c, keys, err)
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
	if err := readConfig(&c); err != nil || !slices.Equal(c.Host, serverURLs{"http://call-me.example:8000"}) || c.TTL.chosen != nil || c.APIKey != "k" {
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
		"localhost:8000/":          "http://localhost:8000",
		"https://call-me.example":  "https://call-me.example",
		"https://call-me.example/": "https://call-me.example",
		"HTTPS://call-me.example":  "https://call-me.example",
		"http://call-me.example":   "http://call-me.example",
		"10.0.0.1":                 "http://10.0.0.1:8000",
		"[::1]:9000":               "http://[::1]:9000",
		"::1":                      "http://[::1]:8000",
		"https://2001:db8::1":      "https://[2001:db8::1]",
		"call_me:8000":             "http://call_me:8000",
		"ci-linux-runner":          "http://ci-linux-runner:8000",
		"CALL-ME.EXAMPLE":          "http://CALL-ME.EXAMPLE:8000",
		"a:1, https://b ,a:1,c":    "http://a:1 https://b http://c:8000",
	} {
		var h serverURLs
		if err := h.Decode(text); err != nil || strings.Join(h, " ") != want {
			t.Errorf("%q is %q, %v; want %q", text, h, err, want)
		}
	}
	const form = "HOST=localhost:8000, or HOST=https://call-me.example"
	for text, want := range map[string]struct{ text, hint string }{
		"x86_64-conda-linux-gnu":         {"no server: it is not host:port", form},
		"aarch64-apple-darwin20.0.0":     {"no server: it is not host:port", form},
		"ftp://call-me.example":          {`no server: the scheme is "ftp"`, form},
		"http://":                        {"no server: it is not host:port", form},
		"a b":                            {"no server: it is not host:port", form},
		"call-me.example:http":           {"no server: the port is not a number from 1 to 65535", form},
		"localhost:port":                 {"no server: the port is not a number from 1 to 65535", form},
		"call-me.example:0":              {"no server: the port is not a number from 1 to 65535", form},
		"call-me.example:99999":          {"no server: the port is not a number from 1 to 65535", form},
		"user:password@call-me.example":  {"no server: it is not host:port", form},
		"https://call-me.example?x=1":    {"no server: it has a path; HOST must be host:port or https://host", "HOST=https://call-me.example"},
		"https://call-me.example/lock/":  {"no server: it has a path; HOST must be host:port or https://host", "HOST=https://call-me.example"},
		"localhost:8000/maybe":           {"no server: it has a path; HOST must be host:port or https://host", "HOST=localhost:8000"},
		"-x":                             {"no server: it is not host:port", form},
		"a..b":                           {"no server: it is not host:port", form},
		"call-me.example\nx":             {"no server: it is not host:port", form},
		"/":                              {"no server: it is not host:port", form},
		":8000":                          {"no server: it is not host:port", form},
		"a:8000,":                        {`no list of servers: "" is no server: it is not host:port`, form},
		"a:8000,b:x":                     {`no list of servers: "b:x" is no server: the port is not a number from 1 to 65535`, form},
		"a;b":                            {"no server: it is not host:port", form},
		"a:8000 b:8000":                  {"no server: it is not host:port", form},
		"http://http://call-me.example/": {"no server: it is not host:port", form},
		"fe80::1%eth0":                   {"no server: the port is not a number from 1 to 65535", form},
	} {
		var h serverURLs
		var hint hinted
		if err := h.Decode(text); err == nil || err.Error() != want.text || !errors.As(err, &hint) || hint.hint != want.hint {
			t.Errorf("%q is %q, %v, hint %q; want %q, hint %q", text, h, err, hint.hint, want.text, want.hint)
		}
	}
}

// A key that no header can have is told with its variable, and not shown.
func TestAKeyWithALineBreak(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	os.WriteFile(file, []byte("one\nt\x01wo\n"), 0o600)
	for want, set := range map[string]map[string]string{
		"API_KEY contains a line break":                                                    {"API_KEY": "se\ncret"},
		"CALL_ME_API_KEY contains a line break":                                            {"CALL_ME_API_KEY": "se\r\ncret"},
		`reading CALL_ME_API_KEY_FILE: "` + file + `", line 2: it has a control character`: {"CALL_ME_API_KEY_FILE": file},
	} {
		setVariables(t, set)
		t.Setenv("HOST", "localhost")
		for _, config := range []interface{ validate() error }{&clientConfig{}, &serverConfig{}} {
			if err := readConfig(config); err == nil || err.Error() != want || !errors.Is(err, errUsage) {
				t.Errorf("%v, want %q", err, want)
			}
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
		keys, err := KeyConfig{APIKeyFile: path}.acceptedKeys()
		sent, _ := KeyConfig{APIKeyFile: path}.sentKey()
		switch {
		case c.want == "" && (err != nil || len(keys) != 1 || keys[0].sum != keySumOf(key) || sent != key):
			t.Errorf("%s: %v, %v", name, keys, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), key)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := (KeyConfig{APIKeyFile: folder}).acceptedKeys(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
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
	values := map[string]string{"CALL_ME_PORT": "7", "CALL_ME_TTL": "7s", "CALL_ME_MAX_HOLD": "7s", "CALL_ME_LOG": "json", "CALL_ME_TRUSTED_PROXIES": "10.0.0.7", "CALL_ME_HOST": "seven",
		"CALL_ME_TIMEOUT": "7s", "CALL_ME_FENCE": "7", "CALL_ME_PRIORITY": "7", "CALL_ME_HISTORY": "7MB", "CALL_ME_STORE": "etcds://seven", "CALL_ME_ADVERTISE": "https://seven", "CALL_ME_WEBHOOK_EVENTS": "expired"}
	environments := filepath.Join(t.TempDir(), "environments")
	if err := os.WriteFile(environments, []byte("seven"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuers := filepath.Join(t.TempDir(), "oidc.json")
	text := `[{"issuer": "https://ci.example", "audience": "seven", "match": {"a": "b"}, "name": "seven"}]`
	if err := os.WriteFile(issuers, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, into := range []interface{ validate() error }{&serverConfig{}, &clientConfig{}} {
		set := map[string]string{}
		for _, s := range listSettings(into) {
			if set[s.variable] = values[s.variable]; set[s.variable] == "" {
				set[s.variable] = "seven"
			}
		}
		delete(set, "CALL_ME_API_KEY_FILE")
		if set["CALL_ME_ENVIRONMENTS_FILE"] != "" {
			set["CALL_ME_ENVIRONMENTS_FILE"], set["CALL_ME_OIDC_FILE"] = environments, issuers
		}
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

func TestASizeHasAUnit(t *testing.T) {
	for text, want := range map[string]byteSize{"64MB": 64e6, "1GB": 1e9, "1.5 gb": 1.5e9, "64m": 64e6, "512Mi": 512 << 20, "1GiB": 1 << 30,
		"2000000": 2e6, "1TB": 1e12, "1MB": 1e6, "1000k": 1e6} {
		var got byteSize
		if err := got.Decode(text); err != nil || got != want {
			t.Errorf("%q is read as %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "MB", "64", "-64MB", "64XB", "64 M B", "999kB", "1.1TB", "1e300GB", "NaN", "inf", "64MB64", "0x1p20MB?"} {
		var got byteSize
		if err := got.Decode(text); err == nil || got != 0 {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	for size, want := range map[byteSize]string{64e6: "64MB", 1.5e9: "1.5GB", 999: "999B", 512 << 20: "536.9MB", 1e12: "1TB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is shown as %s, want %s", size, got, want)
		}
	}
}
