package tests

// The scripts of testdata/script check the output and the exit code of each command. They
// have the variables of a server, and the commands below beside those of testscript.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "tests/testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", binDir+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("PORT", fmt.Sprint(freePort()))
			env.Setenv("HOST", "127.0.0.1:"+env.Getenv("PORT"))
			env.Setenv("API_KEY", testKey)
			env.Setenv("CALL_ME_HOLDER", "tester")
			env.Setenv("USER", "tester")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// ready waits until the server replies.
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				if err := waitForServer(http.DefaultClient, "http://"+ts.Getenv("HOST")); err != nil {
					ts.Fatalf("%v", err)
				}
			},
			// http METHOD PATH STATUS sends a request with the key.
			"http": func(ts *testscript.TestScript, neg bool, args []string) {
				r, err := http.NewRequest(args[0], "http://"+ts.Getenv("HOST")+args[1], nil)
				ts.Check(err)
				r.Header.Set("X-API-KEY", ts.Getenv("API_KEY"))
				response, err := http.DefaultClient.Do(r)
				ts.Check(err)
				response.Body.Close()
				if got := fmt.Sprint(response.StatusCode); got != args[2] {
					ts.Fatalf("%s %s: %s, want %s", args[0], args[1], got, args[2])
				}
			},
			// exits CODE COMMAND... runs a command that must have this exit code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				code := 0
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			// inline N waits until N waiters are in the queues of all environments, and each
			// has waited for at least 0.1 s.
			"inline": func(ts *testscript.TestScript, neg bool, args []string) {
				// After 0.1 s each waiting client has printed that it waits.
				told := regexp.MustCompile(`"waited_seconds":(0\.[1-9]|[1-9])[^}]*"connected"`)
				for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
					r, _ := http.NewRequest("GET", "http://"+ts.Getenv("HOST")+"/environments", nil)
					r.Header.Set("X-API-KEY", ts.Getenv("API_KEY"))
					response, err := http.DefaultClient.Do(r)
					ts.Check(err)
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					if n := strings.Count(string(body), `"position"`); fmt.Sprint(n) == args[0] && len(told.FindAll(body, -1)) == n {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("never %s in the queue: %s", args[0], body)
					}
				}
			},
			// cmplog FILE1 FILE2 compares two texts without their times.
			"cmplog": func(ts *testscript.TestScript, neg bool, args []string) {
				got, want := timelessText(ts.ReadFile(args[0])), timelessText(ts.ReadFile(args[1]))
				if got != want {
					ts.Fatalf("%s is\n%s\nwant\n%s", args[0], got, want)
				}
			},
			// html STATUS serves a page that is not call-me's at $HOST, until the script ends.
			"html": func(ts *testscript.TestScript, neg bool, args []string) {
				listener, err := net.Listen("tcp", ts.Getenv("HOST"))
				ts.Check(err)
				ts.Defer(func() { listener.Close() })
				go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(map[string]int{"403": 403, "200": 200}[args[0]])
					io.WriteString(w, "<h1>Access denied</h1>")
				}))
			},
		},
	})
}

var times = []struct{ pattern, with string }{
	{`\d{4}-\d\d-\d\d (\d\d:\d\d)`, "$1"},     // a time of another day
	{`[A-Z][a-z]{2} \d\d? (\d\d:\d\d)`, "$1"}, // the same in a table,
	{`   +`, "  "}, // the spaces of a column that it makes wider
	{`waiter \d+`, "waiter 7"},
	{`\d\d:\d\d:\d\d`, "12:00:00"},
	{`\b\d\d:\d\d \(`, "12:00 ("},
	{`\b\d\d:\d\d( |$)`, "12:00$1"},
	{`\b(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms|µs|m|h)\b`, "0s"},
}

// timelessText replaces the times and durations of a text, which differ in each run.
func timelessText(text string) string {
	for _, t := range times {
		text = regexp.MustCompile(t.pattern).ReplaceAllString(text, t.with)
	}
	return text
}
