package tests

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The typical mistakes, by their numbers, and the whole answer to each: what is wrong, of
// what, and what to type next. A command is one line of shell. SERVER stands for the address
// of the server, 12:00:00 for any time of day, 0s for how
// long something took, DIR for the folder, PORT for the server's port.
var mistakes = []struct {
	number  int
	mistake string
	on      string // the server: "" without declared environments, else declared, tls, redirect, foreign, nobody
	before  string // commands that bring about what the mistake needs
	typed   string
	code    int
	answer  string // stderr
}{
	{1, "a wrong key", "", "", "API_KEY=wrong-key call-me request uat", 1,
		"call-me: http://SERVER refuses the key in API_KEY\n" +
			"hint: compare it with the API_KEY of that server, or the file of its API_KEY_FILE\n"},
	{2, "no key", "", "", "API_KEY= call-me request uat", 2,
		"call-me: API_KEY must be set\n" +
			"hint: API_KEY=..., the key that the server and its clients share, or API_KEY_FILE=...\n"},
	{3, "no server", "", "", "HOST= call-me request uat", 2,
		"call-me: HOST must be set\n" +
			"hint: HOST=localhost:8000, the machine and port of `call-me serve`\n"},
	{4, "a wrong port", "nobody", "", "call-me status", 1,
		"call-me: cannot reach http://SERVER: nothing listens there\n" +
			"hint: does the server run, and is its port the one in HOST?\n"},
	{5, "a wrong port, and a command that waits", "nobody", "", "call-me request uat --timeout 1s", 1,
		"cannot reach http://SERVER: nothing listens there; trying until 12:00:00 UTC\n" +
			"call-me: cannot reach http://SERVER: nothing listens there\n" +
			"hint: does the server run, and is its port the one in HOST?\n"},
	{5, "a misspelt host", "", "", "HOST=call-me.invalid call-me request uat", 1,
		"call-me: there is no host call-me.invalid\n" +
			"hint: check HOST, it has http://call-me.invalid:8000\n"},
	{6, "https:// where there is no TLS", "", "", "HOST=https://$HOST call-me status", 1,
		"call-me: https://SERVER speaks plain HTTP, not HTTPS\n" +
			"hint: HOST=http://SERVER\n"},
	{7, "http:// where there is TLS", "tls", "", "HOST=http://${HOST#https://} call-me status", 1,
		"call-me: http://SERVER speaks HTTPS, not plain HTTP\n" +
			"hint: HOST=https://SERVER\n"},
	{8, "a certificate of one's own", "tls", "", "CALL_ME_CA_FILE= call-me status", 1,
		"call-me: cannot trust https://SERVER: x509: certificate signed by unknown authority\n" +
			"hint: CALL_ME_CA_FILE=ca.pem, the file of the CA certificate that has signed the server's\n"},
	{9, "a path in HOST", "", "", "HOST=$HOST/maybe call-me status", 2,
		"call-me: reading HOST: \"SERVER/maybe\" is no server: it has a path; HOST must be host:port or https://host\n" +
			"hint: HOST=SERVER\n"},
	{10, "another scheme", "", "", "HOST=ftp://localhost call-me status", 2,
		"call-me: reading HOST: \"ftp://localhost\" is no server: the scheme is \"ftp\"\n" +
			"hint: HOST=localhost:8000, or HOST=https://call-me.example\n"},
	{10, "the word port", "", "", "HOST=localhost:port call-me status", 2,
		"call-me: reading HOST: \"localhost:port\" is no server: the port is not a number from 1 to 65535\n" +
			"hint: HOST=localhost:8000, or HOST=https://call-me.example\n"},
	{11, "a server that redirects to https", "redirect", "", "call-me status", 1,
		"call-me: http://SERVER redirects to https://SERVER\n" +
			"hint: HOST=https://SERVER\n"},
	{11, "a server that is not call-me", "foreign", "", "call-me status", 1,
		"call-me: http://SERVER does not answer as call-me: 404 Not Found (text/plain; charset=utf-8)\n" +
			"hint: check HOST; a proxy or another program may answer there\n"},
	{12, "an environment that is not declared", "declared", "", "call-me request prod", 1,
		"call-me: no such environment: \"prod\"; this server has uat, perf, staging\n"},
	{13, "a misspelt environment", "declared", "", "call-me request stagin", 1,
		"call-me: no such environment: \"stagin\"; did you mean \"staging\"?\n"},
	{14, "another case, where none is declared", "", "call-me request -q uat; call-me release uat", "call-me request UAT", 0,
		"UAT is yours until 12:00:00 UTC (2h); for longer: call-me renew UAT\n" +
			"call-me: warning: \"UAT\" is not \"uat\", which this server has known for longer\n" +
			"hint: if you meant uat: call-me release UAT\n"},
	{15, "a misspelt command", "", "", "call-me reqest uat", 2,
		"call-me: there is no command \"reqest\"; did you mean \"request\"?\n" +
			"hint: call-me --help\n"},
	{15, "a misspelt flag", "", "", "call-me request uat --timout 1s", 2,
		"call-me: request has no flag --timout; did you mean --timeout?\n" +
			"hint: call-me request --help\n"},
	{15, "the word of another lock", "", "", "call-me unlock uat", 2,
		"call-me: there is no command \"unlock\"; did you mean \"release\"?\n" +
			"hint: call-me --help\n"},
	{15, "a misspelt --version", "", "", "call-me --verison", 2,
		"call-me: call-me has no flag --verison; did you mean --version?\n" +
			"hint: call-me --help\n"},
	{16, "a ttl without a unit", "", "", "call-me request uat --ttl 10", 2,
		"call-me: --ttl: \"10\" is a number without a unit; write 10s, 10m or 10h\n"},
	{16, "a unit in words", "", "", "call-me request uat --ttl 2hours", 2,
		"call-me: --ttl: \"2hours\" is not a duration; write 2h\n"},
	{16, "a negative ttl", "", "", "call-me request uat --ttl -5m", 2,
		"call-me: --ttl: \"-5m\" is negative; write 5m\n"},
	{16, "a ttl that is too long", "", "", "call-me request uat --ttl 1000h", 2,
		"call-me: --ttl: \"1000h\" is too long; the longest ttl is 30d\n"},
	{17, "a flag without its value", "", "", "call-me request uat --holder --ttl 5m", 2,
		"call-me: --holder needs a value\n" +
			"hint: what follows it looks like a flag; if it is the value: --holder=--ttl\n"},
	{18, "run without a command", "", "", "call-me run uat", 2,
		"call-me: run needs a command\n" +
			"hint: call-me run uat -- ./test.sh\n"},
	{19, "a flag after the command", "", "", "call-me run uat true --ttl 5m", 0,
		"call-me: --ttl is passed on to true; flags of run stand before it, and \"--\" ends them\n" +
			"call-me: acquired uat, waited 0s; renewed while the command runs\n" +
			"call-me: released uat, held for 0s\n"},
	{20, "a line of shell as the command", "", "", "call-me run uat -- 'echo hi && true'", 127,
		"call-me: cannot run echo hi && true: executable file not found in $PATH\n" +
			"hint: for a line of shell: call-me run uat -- sh -c 'echo hi && true'\n"},
	{21, "run --no-wait", "", "", "call-me run --no-wait uat -- true", 2,
		"call-me: run has no flag --no-wait\n" +
			"hint: to give up unless a slot is free now: --timeout 1s\n"},
	{22, "run --ttl 0", "", "", "call-me run uat --ttl 0 -- true", 2,
		"call-me: --ttl: \"0s\" is too short for run; write 3s or more, or leave it out: the lease is renewed for as long as the command runs\n"},
	{23, "a second request", "", "call-me request uat", "call-me request uat", 75,
		"call-me: no free slot on uat\n" +
			"uat is held by me\n" +
			"  since 12:00:00 UTC (0s), until 12:00:00 UTC at the latest\n" +
			"hint: that is you; to go on with the slot: call-me request uat --again\n"},
	{24, "a second request where there are slots", "declared", "call-me request uat", "call-me request uat", 0,
		"green is yours until 12:00:00 UTC (2h); for longer: call-me renew uat\n" +
			"call-me: you hold blue already; green is a further slot\n"},
	{25, "the release of another's slot", "", "CALL_ME_HOLDER=ann call-me request uat", "call-me release uat", 76,
		"call-me: you hold no slot on uat\n" +
			"uat is held by ann\n" +
			"  since 12:00:00 UTC (0s), until 12:00:00 UTC at the latest\n" +
			"hint: you are me, and ann has the slot; if that was an earlier job of your own,\n" +
			"      set CALL_ME_HOLDER to the same value in both jobs\n" +
			"      if that job is dead, end its lease: call-me release uat --force\n"},
	{26, "a release without a lease", "", "", "call-me release uat", 0,
		"call-me: you held nothing on uat\n"},
	{26, "a second release, after the next one has it", "", "call-me request uat; call-me release uat; CALL_ME_HOLDER=ann call-me request uat", "call-me release uat", 0,
		"call-me: you held nothing on uat; uat is ann's now\n"},
	{27, "a renewal without a lease", "", "", "call-me renew uat", 76,
		"call-me: you hold no slot on uat\n" +
			"hint: to take a slot: call-me request uat\n"},
	{27, "a renewal after the release", "", "call-me request uat; call-me release uat", "call-me renew uat", 76,
		"call-me: you hold no slot on uat; yours was released at 12:00:00 UTC\n" +
			"hint: to take a slot: call-me request uat\n"},
	{28, "two environments for status", "", "", "call-me status uat perf", 2,
		"call-me: status takes one environment, but got \"perf\" too\n" +
			"hint: for all: call-me status\n"},
	{29, "a space in a name", "", "", "call-me request ' uat'", 2,
		"call-me: \" uat\" is no name of an environment: it must have no control characters, and no space at either end\n" +
			"hint: call-me request uat\n"},
	{30, "a time-out that is over", "", "CALL_ME_HOLDER=ann call-me request uat", "call-me request uat --timeout 1s", 75,
		"uat is held by ann\n" +
			"  since 12:00:00 UTC (0s), until 12:00:00 UTC at the latest\n" +
			"you are next in the queue\n" +
			"call-me: no free slot on uat\n" +
			"uat is held by ann\n" +
			"  since 12:00:00 UTC (0s), until 12:00:00 UTC at the latest\n" +
			"hint: gave up after 1s (--timeout or CALL_ME_TIMEOUT); you were next in the queue\n"},
	{31, "a time that is not a duration", "", "", "call-me history --since yesterday", 2,
		"call-me: --since: \"yesterday\" is not a duration; write for example 90s, 10m, 2h or 1d\n" +
			"hint: it is how far to look back from now: --since 24h, or --since 7d\n"},
	{31, "weeks", "", "", "call-me history --since 1w", 2,
		"call-me: --since: \"1w\" is not a duration; write 7d\n" +
			"hint: it is how far to look back from now: --since 24h, or --since 7d\n"},
	{32, "a backup into a folder that is missing", "", "", "call-me backup nowhere/copy.db", 1,
		"call-me: cannot write \"nowhere/copy.db\": the folder \"nowhere\" does not exist\n" +
			"hint: mkdir -p nowhere\n"},
	{33, "a key with a line break", "", "", "API_KEY=$(printf 'one-key\\nmore') call-me status", 2,
		"call-me: API_KEY contains a line break\n" +
			"hint: check how it is set; several keys stand in a file, one on each line: API_KEY_FILE=...\n"},
	{34, "a long holder", "", "", "call-me request uat --holder $(printf %0300d 0)", 2,
		"call-me: this holder cannot be used: holder must be at most 256 bytes of UTF-8; it has 300\n" +
			"hint: --holder or CALL_ME_HOLDER; the name of the job and its number are enough\n"},
	{34, "a holder of a space", "", "", "call-me request uat --holder ' '", 2,
		"call-me: this holder cannot be used: holder must not be only white space\n" +
			"hint: --holder or CALL_ME_HOLDER; the name of the job and its number are enough\n"},
	{34, "a long reason, which is shortened", "", "", "call-me request uat --reason $(printf %03000d 0)", 0,
		"uat is yours until 12:00:00 UTC (2h); for longer: call-me renew uat\n"},
	{35, "the port of another server", "", "", "CALL_ME_DB=other.db call-me serve", 1,
		"call-me: listening on port PORT: listen tcp :PORT: bind: address already in use\n" +
			"hint: another program, perhaps another call-me, listens there; stop it or set PORT\n"},
	{35, "the file of another server", "", "", "PORT=0 call-me serve", 1,
		"call-me: opening database \"DIR/call-me.db\": in use by another server\n" +
			"hint: stop the other call-me, or set CALL_ME_DB to another file\n"},
	{35, "a file in a folder that is missing", "", "", "PORT=0 CALL_ME_DB=nowhere/call-me.db call-me serve", 1,
		"call-me: opening database \"nowhere/call-me.db\": the folder \"nowhere\" does not exist\n" +
			"hint: mkdir -p nowhere, or set CALL_ME_DB\n"},
	{35, "a server without a key", "", "", "API_KEY= call-me serve", 2,
		"call-me: API_KEY must be set\n" +
			"hint: API_KEY=..., the key that the server and its clients share, or API_KEY_FILE=...\n"},
	{36, "a file that is no database", "", "echo '#!/bin/sh' >script.sh", "PORT=0 CALL_ME_DB=script.sh call-me serve", 1,
		"call-me: opening database \"script.sh\": it is not a database of call-me\n" +
			"hint: the file was left as it is; set CALL_ME_DB to a file of call-me, or to a new one\n"},
	{37, "a name that is missing in a list", "", "", "CALL_ME_ENVIRONMENTS='uat:blue+,perf' call-me serve", 2,
		"call-me: reading CALL_ME_ENVIRONMENTS: \"uat:blue+,perf\" is no list of environments: a slot of \"uat\" has no name; write for example uat:blue+green\n"},
	{38, "a semicolon in a list", "", "", "CALL_ME_ENVIRONMENTS='uat; perf' call-me serve", 2,
		"call-me: reading CALL_ME_ENVIRONMENTS: \"uat; perf\" is no list of environments: it has a semicolon; commas stand between environments\n"},
	{38, "a misspelt variable", "", "", "CALL_ME_ENVIROMENTS=uat CALL_ME_DB=other.db call-me serve", 1,
		"level=WARN msg=\"the variable CALL_ME_ENVIROMENTS is unknown; did you mean \\\"CALL_ME_ENVIRONMENTS\\\"?\"\n" +
			"call-me: listening on port PORT: listen tcp :PORT: bind: address already in use\n" +
			"hint: another program, perhaps another call-me, listens there; stop it or set PORT\n"},
	{39, "a misspelt parameter", "", "", "curl -s -H X-API-KEY:$API_KEY \"$HOST/maybe?env=uat\" >&2", 0,
		"{\"code\":422,\"message\":\"bad parameter: \\\"env\\\" is unknown; did you mean \\\"environment\\\"?\"}\n"},
	{40, "the status of an environment that nobody uses", "", "call-me request -q uat", "call-me status uatt", 1,
		"call-me: \"uatt\" was never used on this server; did you mean \"uat\"?\n"},
}

func TestTypicalMistakesAreAnsweredWithWhatToType(t *testing.T) {
	t.Parallel()
	times := regexp.MustCompile(`(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`) // with the date of a day after this one
	logTime := regexp.MustCompile(`time=\S+ `)
	durations := regexp.MustCompile(`(waited |held for |\()\d+(\.\d+)?m?s\b`)
	for _, m := range mistakes {
		t.Run(m.mistake, func(t *testing.T) {
			d := mistaken(t, m.on)
			folder := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			script := m.typed
			if m.before != "" {
				script = "{ " + m.before + "; } >/dev/null 2>&1\n" + m.typed
			}
			cmd := exec.CommandContext(ctx, "sh", "-c", script)
			cmd.Dir, cmd.Env, cmd.WaitDelay = folder, append(d.env, "CALL_ME_HOLDER=me"), time.Second
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			cmd.Run()
			code, got := cmd.ProcessState.ExitCode(), stderr.String()
			got = strings.NewReplacer(d.host, "SERVER", folder, "DIR", filepath.Dir(d.file()), "DIR",
				strings.TrimPrefix(d.host, "127.0.0.1:"), "PORT").Replace(got)
			got = logTime.ReplaceAllString(got, "")
			got = durations.ReplaceAllString(times.ReplaceAllString(got, "12:00:00"), "${1}0s")
			if code != m.code || got != m.answer {
				t.Errorf("%d. %s\n%d, want %d:\n%s\nwant:\n%s", m.number, m.typed, code, m.code, got, m.answer)
			}
		})
	}
}

// mistaken starts the server of a mistake.
func mistaken(t *testing.T, kind string) *daemon {
	switch kind {
	case "":
		return newDaemon(t)
	case "declared":
		return newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,perf,staging")
	case "tls":
		return newTLSDaemon(t).daemon
	case "nobody":
		return makeDaemon(t)
	}
	d := makeDaemon(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kind == "redirect" {
			http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusPermanentRedirect)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	d.host = s.Listener.Addr().String()
	d.env = append(d.env, "HOST="+d.host)
	return d
}
