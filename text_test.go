package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

func TestEachAgentReadsItsOwnCommands(t *testing.T) {
	for _, a := range agents {
		for _, payload := range a.payloads {
			if !slices.ContainsFunc(lineEnds.Split(payload, -1), a.reads) {
				t.Errorf("%s does not read %q: the tests that ask it could not fail", a.name, payload)
			}
		}
	}
}

func TestTextOfOthersIsReadableAndNoCommand(t *testing.T) {
	for text, want := range map[string]string{
		"github:acme/shop/run/123/deploy":     "github:acme/shop/run/123/deploy",
		"release 1.4 (#12), C# & C++ -- a::b": "release 1.4 (#12), C# & C++ -- a::b",
		"Grüße 東京 🚀":                          "Grüße 東京 🚀",
		"ci ##vso[task.prependpath]/tmp":      `ci ##vso\[task.prependpath]/tmp`,
		"  ::set-env name=A::b":               `  :\:set-env name=A::b`,
		"--- a +++ b":                         `--\- a +++ b`,
		"section_start:1:x":                   `section_start\:1:x`,
		"one\ntwo\tthree":                     "one two three",
		"a\x1b[31mb\u202ec\u200bd\u009be":     "a?[31mb?c?d?e",
		"#\ufe0f#[x]":                         "#?#[x]",
		"##\u0591vso[x]":                      "##\u0591vso\\[x]",
		"bad \xff byte":                       "bad \ufffd byte",
	} {
		if got := untrusted(text).String(); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
		for _, verb := range []string{"%s", "%v", "%q", "%+v"} {
			if name, _ := commandIn(fmt.Sprintf(verb, untrusted(text))); name != "" {
				t.Errorf("%s of %q is a command to %s", verb, text, name)
			}
		}
		coded, err := json.Marshal(map[string]untrusted{"x": untrusted(text)})
		var back map[string]string
		if err != nil || json.Unmarshal(coded, &back) != nil || back["x"] != strings.ToValidUTF8(text, "\ufffd") {
			t.Errorf("%q is %s in JSON, and %q again, %v", text, coded, back["x"], err)
		}
	}
}

// A line that is written to an output in parts is no command either, and the sequences that
// call-me draws with on a terminal are printed unchanged.
func TestAnOutputBreaksWhatParts(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(&b)
	for _, part := range []string{"##", "vso", "[x]\n", " :", ":y\n", "-", "--\n", "\xe2", "\x82", "\xac \x1b[31m\n", "travis_", "fold:\n", "uat\n"} {
		if n, err := io.WriteString(o, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := "##vso\\[x]\n :\\:y\n--\\-\n€ ?[31m\ntravis_fold\\:\nuat\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	o.isTerminal = true
	fmt.Fprint(o, clearLine+"::x"+clearLine+paint(bold, "::")+"y\x1b[8mha:\n")
	if want := clearLine + ":\\:x" + clearLine + "\x1b[1m:\\:\x1b[0my?[8mha:\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func FuzzForeign(f *testing.F) {
	for _, a := range agents {
		for _, payload := range a.payloads {
			f.Add(payload, "x", 1)
			f.Add("#", payload, 0)
		}
	}
	f.Add("##", "vso[x]", 2)
	f.Add("section_", "start:1:x", 3)
	f.Fuzz(func(t *testing.T, one, other string, cut int) {
		if shown := untrusted(one).String(); strings.Contains(shown, "\n") {
			t.Errorf("%q is shown on several lines: %q", one, shown)
		} else if name, line := commandIn(shown); name != "" {
			t.Errorf("%q is shown as %q: %s reads %q", one, shown, name, line)
		} else if !utf8.ValidString(shown) {
			t.Errorf("%q is shown as %q", one, shown)
		}
		coded, err := json.Marshal([]untrusted{untrusted(one), untrusted(other)})
		if name, line := commandIn(string(coded)); name != "" || err != nil {
			t.Errorf("%s reads %q in JSON, %v", name, line, err)
		}
		var back []string
		if err := json.Unmarshal(coded, &back); err != nil || back[0] != strings.ToValidUTF8(one, "\ufffd") && !strings.Contains(one, "\ufffd") && utf8.ValidString(one) {
			t.Errorf("%q is %s in JSON, %v", one, coded, err)
		}
		var b bytes.Buffer
		o := newOutput(&b)
		all := one + other
		cut = min(len(all), max(0, cut))
		io.WriteString(o, all[:cut])
		io.WriteString(o, all[cut:])
		if name, line := commandIn(b.String()); name != "" {
			t.Errorf("%q and %q are printed: %s reads %q", all[:cut], all[cut:], name, line)
		}
		if q, err := (query{{"holder", one}, {"reason", other}, {"url", "https://x/" + other}}).request("", 0); err == nil {
			for _, text := range []string{q.holder, q.reason, q.url} {
				if hasCommand(text) || hasControlString(text) || len(text) > maxLink {
					t.Errorf("%q is stored", text)
				}
			}
		}
	})
}

// hostileServer starts a proxy of the site and returns its URL. In its JSON responses, every text
// that others have chosen has the payload: see poisoned.
func hostileServer(t *testing.T, s *site, payload string) string {
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // it reports callers that disconnect
	proxy.ModifyResponse = func(r *http.Response) error {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			return nil
		}
		var body any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return err
		}
		coded, err := json.Marshal(poisoned(body, payload, r.Request.URL.Path))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(coded)), int64(len(coded))
		r.Header.Set("Content-Length", strconv.Itoa(len(coded)))
		return err
	}
	h := httptest.NewServer(proxy)
	t.Cleanup(h.Close)
	return h.URL
}

// poisoned puts the payload before each text of a response, and the name of the field after the
// payload. A lease of /maybe also gets the field similar. Times are not changed, and neither is
// the environment in a response of /maybe: the client checks that it is the one of its call.
func poisoned(value any, payload, path string) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = poisoned(v[i], payload, path)
		}
	case map[string]any:
		if v["fence"] != nil && path == "/maybe" {
			v["similar"] = "x"
		}
		for name, inner := range v {
			text, isText := inner.(string)
			switch {
			case isText && (name == "since" || name == "until" || name == "at" || name == "environment" && (path == "/maybe" || path == "/pause")):
			case isText:
				v[name] = payload + " seen " + name + " " + text
			default:
				v[name] = poisoned(inner, payload, path)
			}
		}
	}
	return value
}

// commandsThatPrint has, for each command, command lines that print text of others. says is a
// text that the output must contain, from a field with the payload. It is empty if the command
// line can print no such field. PAYLOAD stands for the payload.
var commandsThatPrint = map[string][]struct{ args, says string }{
	"serve":         {{"serve too many", ""}},
	"request":       {{"request uat --no-wait", "seen holder"}, {"request uat --json", "seen holder"}, {"request perf", "seen similar"}, {"request perf --quiet", "seen slot"}, {"request perf --json", "seen slot"}, {"request mine --no-wait", "seen reason"}},
	"release":       {{"release uat", "seen holder"}, {"release perf --slot PAYLOAD", ""}, {"release uat --fence 7 --force", "seen holder"}},
	"renew":         {{"renew uat", "seen holder"}, {"renew mine", "seen slot"}, {"renew mine --json", "seen url"}},
	"run":           {{"run perf -- true", "seen slot"}, {"run uat -- true", "seen url"}, {"run perf -- PAYLOAD", ""}},
	"pause":         {{"pause icy --slot icy", "seen slot"}, {"pause frozen", "seen message"}, {"pause --all icy --reason PAYLOAD", ""}},
	"resume":        {{"resume frozen", ""}, {"resume cold", "seen reason"}, {"resume perf --slot PAYLOAD", ""}},
	"status":        {{"status", "seen holder"}, {"status uat", "seen reason"}, {"status --json", "seen environment"}, {"status --watch", "seen holder"}, {"status " + completionFlag, "seen environment"}},
	"history":       {{"history", "seen event"}, {"history --json", "seen from"}},
	"backup":        {{"backup no/such/PAYLOAD", ""}},
	"check":         {{"check no/such/PAYLOAD", ""}},
	"move":          {{"move no/such/PAYLOAD etcd://localhost:1", ""}},
	"health":        {{"health PAYLOAD", ""}},
	"key":           {{"key PAYLOAD", ""}, {"key name --role PAYLOAD", ""}},
	"doctor":        {{"doctor", ""}, {"doctor PAYLOAD", ""}},
	"completion":    {{"completion PAYLOAD", ""}, {"completion bash", ""}},
	watchdogCommand: nil, // it prints nothing
}

// No line that a command prints, on either stream, is a command to a CI system, for any response
// of a server and any command line.
func TestNoCommandPrintsWhatAgentsRead(t *testing.T) {
	known := map[string]bool{}
	for _, command := range newApp(newTerminal()).Commands {
		known[command.Name] = true
		if _, covered := commandsThatPrint[command.Name]; !covered {
			t.Errorf("%s is not tried: say above how it prints text of others", command.Name)
		}
	}
	t.Setenv("API_KEY", testKey)
	t.Setenv("CALL_ME_HOLDER", "me")
	t.Setenv("CALL_ME_TIMEOUT", "")
	texts := 1000
	if leftOut(t, "all but two texts for each reader") {
		texts = 2
	}
	for _, a := range agents {
		for i, payload := range a.payloads[:min(texts, len(a.payloads))] {
			s := newSite(t, "")
			s.call("POST /maybe?environment=uat&holder=ann&reason=tests&url=https://ci.example.com/1&id=12345678")
			s.call("POST /maybe?environment=mine&holder=me&reason=tests&url=https://ci.example.com/2&id=12345679")
			s.call("POST /maybe?environment=old&holder=bob&reason=tests&id=12345670")
			s.call("DELETE /maybe?environment=old&force=1&holder=eve")
			s.call("PUT /pause?environment=cold&slot=cold&holder=ann&reason=move")
			s.call("PUT /pause?environment=frozen&holder=ann&reason=move")
			t.Setenv("HOST", hostileServer(t, s, payload))
			t.Setenv("CALL_ME_REASON", strings.ReplaceAll(payload, "\x00", ""))
			for _, name := range slices.Sorted(maps.Keys(known)) {
				for _, call := range commandsThatPrint[name] {
					if slow := name == "run" || endless(strings.Fields("call-me "+call.args)); slow && i > 1 {
						continue
					}
					s.call("DELETE /maybe?environment=perf&force=1")
					printed := printedBy(t, strings.Fields(call.args), payload)
					if !strings.Contains(printed, call.says) {
						t.Fatalf("%s: %q is not printed:\n%s", call.args, call.says, printed)
					}
					if reader, line := commandIn(printed); reader != "" {
						t.Errorf("%s: with %q %s reads a command in %q", call.args, payload, reader, line)
					}
				}
			}
		}
	}
}

// printedBy runs a command line as execute does, and returns what it prints on both streams.
// PAYLOAD in a word stands for the payload.
func printedBy(t *testing.T, words []string, payload string) string {
	t.Helper()
	args := []string{"call-me"}
	for _, word := range words {
		args = append(args, strings.ReplaceAll(word, "PAYLOAD", payload))
	}
	if args[1] == "run" { // it starts processes
		return printedByProcess(t, args[1:])
	}
	var printed lockedBuffer
	term := newTerminalOn(&printed, &printed)
	app := newApp(term)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if endless(args) {
		go func() {
			for end := time.Now().Add(10 * time.Second); printed.String() == "" && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(200 * time.Millisecond) // it prints more before it waits
			cancel()
		}()
	}
	before := os.Args
	os.Args = args // completion reads them
	defer func() { os.Args = before }()
	args, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	var silent exitError
	if err != nil && !errors.As(err, &silent) {
		term.fail(err)
	}
	return printed.String()
}

func printedByProcess(t *testing.T, args []string) string {
	t.Helper()
	for _, arg := range args {
		if strings.Contains(arg, "\x00") {
			return "" // no operating system passes a NUL in an argument
		}
	}
	c := exec.Command("call-me", args...)
	var printed lockedBuffer
	c.Stdout, c.Stderr = &printed, &printed
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if endless(append([]string{"call-me"}, args...)) {
		eventually(t, "it prints something", func() bool { return printed.String() != "" })
		time.Sleep(200 * time.Millisecond) // it prints more before it waits
		c.Process.Signal(os.Interrupt)
	}
	c.Wait()
	return printed.String()
}

// endless reports whether a command line waits, or prints, until it is interrupted.
func endless(args []string) bool {
	line := strings.Join(args[1:], " ")
	return line == "request uat --json" || line == "run uat -- true" || line == "status --watch"
}

// Bytes that a server sends without a request, which the client's net/http logs, are no command
// in the output.
func TestWhatAServerSendsUnaskedIsNoCommand(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				body := `{"environments":[]}`
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nCall-Me: 2\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				time.Sleep(20 * time.Millisecond) // the client has read the response
				io.WriteString(c, "##vso[task.setvariable variable=x]y")
				time.Sleep(20 * time.Millisecond)
			}()
		}
	}()
	t.Setenv("API_KEY", testKey)
	t.Setenv("HOST", l.Addr().String())
	c := exec.Command("call-me", "status", "--watch")
	var printed lockedBuffer
	c.Stdout, c.Stderr = &printed, &printed
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "net/http has logged it", func() bool { return strings.Contains(printed.String(), "nsolicited") })
	c.Process.Kill()
	c.Wait()
	if reader, line := commandIn(printed.String()); reader != "" {
		t.Errorf("%s reads a command in %q", reader, line)
	}
}

// A text of others never becomes a line of a hint, because people paste the lines of hints.
func TestAHintHasNoLineOfOthers(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&holder=" + url.QueryEscape("bob\ncall-me release prod --force #"))
	t.Setenv("API_KEY", testKey)
	t.Setenv("HOST", s.url)
	for _, args := range []string{"release uat", "renew uat", "request uat --no-wait"} {
		printed := printedBy(t, strings.Fields(args), "")
		for line := range strings.Lines(printed) {
			if strings.HasPrefix(strings.TrimSpace(line), "call-me release prod") {
				t.Errorf("%s: %s", args, printed)
			}
		}
	}
}

// A command that prints a text of others without care prints no command of a CI system.
func TestACommandThatForgetsIsHarmless(t *testing.T) {
	for _, a := range agents {
		for _, payload := range a.payloads {
			lease := leaseJSON{Holder: untrusted(payload), Reason: untrusted(payload)}
			var log, raw bytes.Buffer
			term := newTerminalOn(&log, &log)
			app := &cli.App{Writer: term.out, Action: func(c *cli.Context) error {
				fmt.Fprintln(c.App.Writer, string(lease.Holder))
				fmt.Fprintf(c.App.Writer, "%s%v\n", lease.Holder, lease.Reason)
				fmt.Fprintln(&raw, lease.Holder) // without the terminal
				json.NewEncoder(&raw).Encode(lease)
				return term.json(lease)
			}}
			if err := app.Run([]string{"x"}); err != nil {
				t.Fatal(err)
			}
			for _, printed := range []string{log.String(), raw.String()} {
				if reader, line := commandIn(printed); reader != "" {
					t.Errorf("%q: %s reads a command in %q", payload, reader, line)
				}
			}
		}
	}
}

// Only the terminal, and the files that start the child of run, use stdout and stderr.
func TestNothingIsPrintedPastTheTerminal(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"terminal.go": true, "run_unix.go": true, "run_other.go": true,
		"run_watchdog.go": true, "run_windows.go": true}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") || allowed[name] {
			continue
		}
		for _, past := range []string{"os.Stdout", "os.Stderr", "fmt.Print", "\tprintln("} {
			if strings.Contains(string(source), past) {
				t.Errorf("%s uses %s: print on a terminal", name, past)
			}
		}
	}
}

func TestTextOfCommandsIsNotStored(t *testing.T) {
	s := newSite(t, "")
	for _, a := range agents {
		if a.name == "terminal" {
			continue // its payloads are escaped when they are printed
		}
		for i, payload := range a.payloads {
			if !hasCommand(payload) && !hasControlString(payload) {
				continue // an invisible character breaks the command, also in what old clients print
			}
			q := url.QueryEscape(payload)
			for _, call := range []string{"environment=x" + fmt.Sprint(i) + "&holder=" + q, "environment=" + q, "environment=y&id=" + q} {
				if r := s.call("POST /maybe?" + call); r.StatusCode != 422 {
					t.Errorf("%s: %s: %d %s", a.name, call, r.StatusCode, r.body)
				} else if reader, line := commandIn(r.body); reader != "" {
					t.Errorf("%s reads a command in the refusal %q", reader, line)
				}
			}
			name := fmt.Sprint(a.name, i)
			link := "&url=https://x/" + q
			if checkLink("https://x/"+payload) != nil {
				link = ""
			}
			r := s.call("POST /maybe?environment=" + name + "&reason=" + q + link)
			var lease leaseJSON
			if json.Unmarshal([]byte(r.body), &lease); r.StatusCode != 201 || hasCommand(string(lease.Reason)) || hasCommand(string(lease.URL)) {
				t.Errorf("%s: a comment %q: %d %s", a.name, payload, r.StatusCode, r.body)
			}
		}
	}
	if got := s.call("DELETE /maybe?environment=azure0&force=1&holder=" + url.QueryEscape("##vso[x]")); got.StatusCode != 422 {
		t.Errorf("the holder of a forced release: %d %s", got.StatusCode, got.body)
	}
}

func TestACommentNeverFailsADeploy(t *testing.T) {
	s := newSite(t, "")
	for reason, want := range map[string]string{
		strings.Repeat("x", 1024):        strings.Repeat("x", 1024),
		strings.Repeat("é", 600):         strings.Repeat("é", 510) + "…",
		"Korrektur f\xfcr M\xfcller":     "Korrektur f\ufffdr M\ufffdller",
		"subject\n\nbody":                "subject\n\nbody",
		"see ##vso[task.complete]Failed": `see ##vso\[task.complete]Failed`,
	} {
		r := s.call("POST /maybe?environment=uat&id=12345678&reason=" + url.QueryEscape(reason))
		again := s.call("POST /maybe?environment=uat&id=12345678&reason=" + url.QueryEscape(reason))
		var lease leaseJSON
		if json.Unmarshal([]byte(r.body), &lease); r.StatusCode != 201 || again.StatusCode != 201 || string(lease.Reason) != want {
			t.Errorf("%.40q: %d, again %d, %q", reason, r.StatusCode, again.StatusCode, lease.Reason)
		}
		s.call("DELETE /maybe?environment=uat&force=1")
		s.server.keeper.history = newHistory(testHistory) // the id may be used again
	}
	r := s.call("POST /maybe?environment=perf&url=https://x/" + strings.Repeat("u", 2048))
	if r.StatusCode != 201 || strings.Contains(r.body, "url") {
		t.Errorf("a link that is too long: %d %s", r.StatusCode, r.body)
	}
}

func TestNamesThatLookAlike(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&holder=ann").want(t, 201, `"environment":"uat"`)
	for name, similar := range map[string]string{"UAT": "uat", "uta": "uat", "uat1": "uat", "ua": "uat", "uaat": "uat", "staging": "", "u": ""} {
		r := s.call("POST /maybe?environment=" + name + "&holder=bob")
		var lease leaseJSON
		if json.Unmarshal([]byte(r.body), &lease); r.StatusCode != 201 || string(lease.Similar) != similar {
			t.Errorf("%s: %d, similar %q, want %q", name, r.StatusCode, lease.Similar, similar)
		}
		s.call("DELETE /maybe?environment="+name+"&holder=bob").want(t, 204, "")
		s.server.keeper.mu.Lock()
		delete(s.server.keeper.history.environments, name)
		s.server.keeper.mu.Unlock()
	}
	s.call("DELETE /maybe?environment=uat&holder=ann").want(t, 204, "")
	// A similar name is reported also if it has no lease.
	s.call("POST /maybe?environment=Uat&holder=ann").want(t, 201, `"similar":"uat"`)
	if r := s.call("POST /maybe?environment=uat&holder=ann"); strings.Contains(r.body, "similar") {
		t.Errorf("the first name has a similar one: %s", r.body)
	}
	s.call("POST /maybe?environment=UAt").want(t, 201, "") // a call as in 2019
	for _, name := range []string{"uat\u200b", "u\u00adat", "uat\ue000", "ua\u0308t", "u\u00a0at", "\u3164", "uat\ufe0f", "uat\U000e0001", "uat\U0001d159", "uat\ufffc"} {
		s.call("POST /maybe?environment="+url.QueryEscape(name)).want(t, 422, "environment cannot be")
	}
	declared := newSite(t, "uat,UAT")
	declared.call("POST /maybe?environment=uat&holder=ann").want(t, 201, "")
	if r := declared.call("POST /maybe?environment=UAT&holder=ann"); r.StatusCode != 201 || strings.Contains(r.body, "similar") {
		t.Errorf("declared: %d %s", r.StatusCode, r.body)
	}
	for pair, want := range map[[2]string]bool{{"perf-1", "perf-2"}: false, {"perf-1", "perf-10"}: false, {"qa", "qb"}: false, {"qa", "QA"}: true,
		{"perf", "perf2"}: true, {"team/a", "team/b"}: true, {"Straße", "straße"}: true, {"uat", "uat"}: false, {"abc", "cba"}: false} {
		if similarNames(pair[0], pair[1]) != want || similarNames(pair[1], pair[0]) != want {
			t.Errorf("%q are similar: %v", pair, !want)
		}
	}
}

func TestTheKeyIsNotPartOfWhatIsShown(t *testing.T) {
	s := newSite(t, "")
	q := url.QueryEscape("the key is " + testKey + ", says ann")
	for _, call := range []string{"reason=" + q, "holder=" + q, "url=https://x/" + testKey + "/", "reason=" + testKey, testKey + "x=1"} {
		s.call("POST /maybe?environment=uat&"+call).want(t, 400, "the key is sent in its header")
	}
	r, _ := http.NewRequest("POST", s.url+"/maybe?environment=uat&ttl=1m", nil)
	r.SetBasicAuth("x"+testKey, testKey)
	s.send(r).want(t, 400, "the key is sent in its header")
	if got := s.state(); got != "|" {
		t.Errorf("something took effect: %s", got)
	}
}

func TestEstimateText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "less than a minute", 29 * time.Second: "less than a minute", 30 * time.Second: "about 1 min",
		25*time.Minute + 10*time.Second: "about 25 min", 89 * time.Minute: "about 89 min",
		90 * time.Minute: "about 1 h 30 min", 2*time.Hour - time.Minute: "about 2 h", 50 * time.Hour: "about 2 d",
	} {
		if got := estimateText(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
