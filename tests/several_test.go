//go:build linux || darwin

package tests

// Requests for several environments on the command line: all at once or none, in whatever
// order they are typed.

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leasesOf returns the holders of the slots of an environment, in the order of the slots; "-"
// for a free one.
func (d *daemon) leasesOf(environment string) string {
	d.t.Helper()
	var all environmentsJSON
	if err := json.Unmarshal([]byte(d.want(200, "GET", "/environments?environment="+environment)), &all); err != nil {
		d.t.Fatal(err)
	}
	var holders []string
	for _, s := range all.Environments[0].Slots {
		holder := "-"
		if s.Lease != nil {
			holder = s.Lease.Holder
		}
		holders = append(holders, holder)
	}
	return strings.Join(holders, " ")
}

// wantLeases fails the test unless the environments, with commas between them, have these
// holders.
func (d *daemon) wantLeases(environments, want string) {
	d.t.Helper()
	var got []string
	for name := range strings.SplitSeq(environments, ",") {
		got = append(got, d.leasesOf(name))
	}
	if text := strings.Join(got, ","); text != want {
		d.t.Errorf("%s are held by %s, want %s", environments, text, want)
	}
}

func TestRequestAndReleaseOfSeveralEnvironments(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf:2,web:blue+green")
	w := onGithub(d, "CALL_ME_HOLDER=me")
	const all = "uat,perf,web"
	out := w.sh("call-me request uat web perf --slot web=green 2>/dev/null")
	lines := regexp.MustCompile(`^acquired slot for environment: uat\nacquired slot for environment: web\nacquired slot for environment: perf\nwaited \S+s\n$`)
	if !lines.MatchString(out) {
		t.Errorf("request prints\n%s", out)
	}
	d.wantLeases(all, "me,me -,- me")
	w.has("r renew uat web perf --ttl 1h", "uat, web green and perf perf-1 are yours until", "for longer: call-me renew uat web perf", "[0]")
	w.has("r request uat --timeout 1s --holder you; r request uat perf --no-wait --holder you", "no free slot on uat", "you were next in the queue\n[75]", "no free slot on perf", "--no-wait, request waits in the queue for it\n[75]")
	d.wantLeases(all, "me,me -,- me")
	if out := w.sh("call-me release uat perf web 2>/dev/null"); out != "slot has been freed for environment: uat\n"+
		"slot has been freed for environment: perf\nslot has been freed for environment: web\n" {
		t.Errorf("release prints\n%s", out)
	}
	d.wantLeases(all, "-,- -,- -")
	w.has("r release uat perf", "you held nothing on uat", "you held nothing on perf", "[0]")
	if out := w.sh("call-me request -q perf web uat perf --slot web=blue 2>/dev/null"); out != "perf=perf-2\nweb=blue\nuat=uat\nperf=perf-1\n" {
		t.Errorf("request --quiet prints\n%s", out)
	}
	w.has("r release perf; r release web --slot blue --slot web=green; r release uat --force", "[0]", "one slot of", "[2]")
	w.has("r release web --slot blue", "[0]")
	d.wantLeases(all, "-,- -,- -")
	var granted struct{ Leases []leaseJSON }
	if err := json.Unmarshal([]byte(w.sh("call-me request uat web --json --ttl 1h 2>/dev/null")), &granted); err != nil {
		t.Fatal(err)
	}
	if len(granted.Leases) != 2 || granted.Leases[0].Environment != "uat" || granted.Leases[1].TTLSeconds != 3600 {
		t.Errorf("request --json prints %+v", granted)
	}
	w.has("r renew uat web --fence 7", "a fence is that of one lease", "[2]")
	w.has("r request uat uat", "fewer than were asked for", "[1]")
}

// The later steps of a job know by its notes what it has asked for.
func TestNotesOfSeveralEnvironments(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	w := onGithub(d, "CALL_ME_HOLDER=me")
	const both = "uat,perf"
	w.has("r request uat perf", "[0]")
	w.has("r request perf", thatIsYou, "[75]")
	w.has("r release perf", "freed nothing on perf", "[0]")
	w.has("r request perf uat --timeout 1m", thatIsYou, "first give it back: call-me release", "[75]")
	d.wantLeases(both, "me,me")
	w.has("r release uat perf", "freed nothing on uat", "freed nothing on perf", "[0]")
	w.has("r release perf uat", "freed for environment: perf", "freed for environment: uat", "[0]")
	d.wantLeases(both, "-,-")

	w.has("r request uat perf; r release uat", "[0]") // one of them alone
	d.wantLeases(both, "-,me")
	w.has("r request uat perf --again", "you have only a part; first give it back: call-me release perf", "[76]")
	w.has("r release perf; r request perf uat --again", "acquired slot for environment: perf\nacquired slot for environment: uat\n", "[0]")
	w.has("r request uat perf --again --ttl 5m", "uat and perf are yours until", "(5m)", "[0]")
	w.has("r release uat perf; r release uat perf", "you held nothing on perf", "[0]")
	d.wantLeases(both, "-,-")

	w.has("r request uat; r request perf", "[0]") // two requests
	w.has("r release uat perf", "freed for environment: uat\n", "freed for environment: perf\n", "[0]")
	d.wantLeases(both, "-,-")

	w.has("r request uat perf", "[0]") // one of them is lost
	d.want(204, "DELETE", "/maybe?environment=uat&force=1&holder=boss")
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=you")
	w.has("r renew perf uat", "you hold no slot on uat", "by force by boss", "[76]")
	w.has("r release uat perf", "you hold no slot on uat", "by force by boss", "the others of uat and perf are free now", "[76]")
	d.wantLeases(both, "you,-")
	d.want(201, "POST", "/maybe?environment=perf&id=12345678&holder=you")

	other := onGithub(d, "CALL_ME_HOLDER=you") // without notes it goes by the holder
	other.has("r release uat perf", "freed for environment: uat\n", "freed for environment: perf\n", "[0]")
	d.wantLeases(both, "-,-")
}

func TestARunOfSeveralEnvironments(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf:2,web:blue+green,echo")
	w := onGithub(d, "CALL_ME_HOLDER=me", "CALL_ME_ENVIRONMENT=stale", "CALL_ME_FENCE=1", "CALL_ME_SLOT=stale")
	out := w.sh("call-me run uat web --slot web=green --ttl 5m perf -- sh -c 'env | grep ^CALL_ME | sort' 2>/dev/null")
	want := regexp.MustCompile(`^CALL_ME_HOLDER=me\nCALL_ME_LEASES=\[{"environment":"uat","slot":"uat","fence":(\d+)},` +
		`{"environment":"web","slot":"green","fence":(\d+)},{"environment":"perf","slot":"perf-\d","fence":(\d+)}\]\n` +
		`CALL_ME_RUNS=\(\d+-(\w+)\)\(\d+-(\w+)\)\(\d+-(\w+)\)\n$`)
	if !want.MatchString(out) {
		t.Errorf("the command of run has\n%s", out)
	}
	d.wantLeases("uat,web,perf", "-,- -,- -")
	w.has("r run uat perf -- sh -c 'call-me renew perf --ttl 1h; exit 7'", "call-me: acquired uat and perf perf-", "run renews perf-", "call-me: released uat and perf perf-", "[7]")
	w.has("r run uat perf -- call-me run uat -- true", "within a call-me run that has the slot", "[75]")
	w.has("r run uat perf -- no-such-program", "[127]")
	w.has("r run uat sh -c 'echo \"$@\"' x -- y", "call-me: acquired uat, ", "-- y", "[0]")
	w.has("r run uat env -- echo one", "env is the command, since there is a program of that name", "call-me run env uat -- ...", "one", "[0]")
	w.has("r run uat echo -- echo one", "acquired uat and echo, ", "one", "[0]") // the server knows it
	w.has("r run uat perf --timeout 1s --slot perf=perf-2 -- call-me run perf -- sh -c 'env | grep -c ^CALL_ME_SLOT=perf-1'", "\n1\n", "[0]")
	d.wantLeases("uat,web,perf", "-,- -,- -")
}

// A run that loses one of its leases ends its command and gives the others back.
func TestARunThatLosesOneOfSeveralLeases(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := d.newTrial(t, "uat", nil, "perf", "web", "--ttl", "3s", "--", "sleep", "60")
	r.start()
	r.said("acquired uat, perf and web")
	d.want(204, "DELETE", "/maybe?environment=perf&force=1&holder=boss")
	d.want(201, "POST", "/maybe?environment=perf&id=12345678&holder=you")
	r.wantCode(76, 10*time.Second)
	r.said("lost perf: the lease was ended by force by boss").said("you has it now; ending sleep").said("call-me: released uat and web")
	d.wantLeases("uat,perf,web", "-,you,-")
}

// A run with several leases gives all of them back when it is killed, and when it is stopped.
func TestAKilledRunReleasesSeveralLeases(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM} {
		r := d.newTrial(t, "uat", nil, "perf", "--ttl", "5s", "--", "sh", "-c", "echo $$ >>pids; exec sleep 60")
		r.start()
		r.said("acquired uat and perf")
		pids := r.pids(1)
		d.wantLeases("uat,perf", "runner,runner")
		r.cmd.Process.Signal(s)
		eventually(t, fmt.Sprint("both are free after ", s), func() bool {
			return d.leasesOf("uat") == "-" && d.leasesOf("perf") == "-"
		})
		r.nobodyLeft(pids, time.Second)
		last := strings.Split(strings.TrimSpace(d.want(200, "GET", "/history?limit=2&environment=perf")), "\n")[0]
		if !strings.Contains(last, `"event":"released"`) {
			t.Errorf("%v: the end of the lease is %s", s, last)
		}
		r.cmd.Process.Kill()
	}
}

// A slot that is kept for a request that needs more is shown with what that request waits for,
// who waits says why, and a wait within a run is warned of.
func TestWhyARequestForSeveralWaits(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	d.want(201, "POST", "/maybe?environment=perf&id=12345678&holder=ann")
	both := d.newTrial(t, "uat", []string{"CALL_ME_HOLDER=both"}, "perf", "--", "true")
	both.start()
	both.said("call-me: waiting for uat and perf, next in the queue of perf; perf is held by ann since")
	w := onGithub(d)
	w.has("r status", "uat          uat   kept for both", "it waits for perf")
	w.has("r request uat --timeout 1s", "uat is kept for both, which waits for perf", "[75]")
	w.has("r request uat --no-wait", "call-me: no free slot on uat\nuat is kept for both, which waits for perf\n", "[75]")
	d.want(204, "DELETE", "/maybe?environment=perf&id=12345678")
	both.wantCode(0, 10*time.Second)
	d.want(201, "POST", "/maybe?environment=perf&id=87654321&holder=ann")
	w.has("r run uat -- call-me run perf --timeout 1s -- true", "call-me: this waits within a call-me run that keeps uat meanwhile",
		"hint: ask for both at once: call-me run uat perf -- ...", "[75]")
}
