//go:build linux || darwin

package tests

// Newest wins, and the removal of a waiter, on the command line.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// queueOf returns the numbers and the holders of those that wait for an environment.
func (d *daemon) queueOf(environment string) (numbers []uint64, holders string) {
	d.t.Helper()
	var all struct {
		Environments []struct {
			Queue []struct {
				Number uint64
				Holder string
			}
		}
	}
	if err := json.Unmarshal([]byte(d.want(200, "GET", "/environments?environment="+environment)), &all); err != nil {
		d.t.Fatal(err)
	}
	for _, w := range all.Environments[0].Queue {
		numbers, holders = append(numbers, w.Number), strings.TrimSpace(holders+" "+w.Holder)
	}
	return numbers, holders
}

// aside runs a script, and returns a channel that gets what it prints.
func (w *workplace) aside(script string) <-chan string {
	out := make(chan string, 1)
	go func() { out <- w.sh(script) }()
	return out
}

// waits waits until these holders wait for uat.
func (d *daemon) waits(t *testing.T, holders string) {
	t.Helper()
	eventually(t, "the queue is "+holders, func() bool {
		_, got := d.queueOf("uat")
		return got == holders
	})
}

func wantTexts(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing in:\n%s", text, out)
		}
	}
}

func TestTheNewestRunOfAJobTakesTheOldersPlace(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=eve")
	job := func(run, branch string, more ...string) *workplace {
		return onGithub(d, append([]string{"GITHUB_RUN_ID=" + run, "GITHUB_WORKFLOW=ci", "GITHUB_REF=refs/heads/" + branch,
			"GITHUB_SERVER_URL=https://github.com", "CALL_ME_HOLDER=" + run + "-" + branch}, more...)...)
	}
	first := job("1", "main")
	old := first.aside("r request uat --supersede")
	d.waits(t, "1-main")
	fix := job("2", "fix").aside("r request uat --supersede")
	d.waits(t, "1-main 2-fix")
	newer := job("3", "main").aside("r run uat --supersede -- echo newest")
	d.waits(t, "3-main 2-fix")
	told := <-old
	wantTexts(t, told, "call-me: this request was superseded by 3-main at 2", "Z: https://github.com/acme/shop/actions/runs/3\n[77]")
	if n := strings.Count(told, "superseded"); n != 1 || strings.Contains(told, "hint") {
		t.Errorf("it is told more than one line:\n%s", told)
	}
	newest := job("4", "main").aside("r run uat --supersede -- echo newest")
	wantTexts(t, <-newer, "superseded by 4-main", "\n[77]")
	d.waits(t, "4-main 2-fix")
	other := job("5", "main").aside("r request uat --supersede=nightly")
	d.waits(t, "4-main 2-fix 5-main")
	otherRepository := job("6", "main", "GITHUB_REPOSITORY=acme/other").aside("r request uat --supersede=nightly")
	d.waits(t, "4-main 2-fix 5-main 6-main")
	first.has("r release uat", gotNone, "[0]") // its clean-up frees nothing
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	wantTexts(t, <-newest, "\nnewest\n", "[0]")
	wantTexts(t, <-fix, "acquired slot for environment: uat", "[0]")
	job("2", "fix").sh("call-me release uat --holder 2-fix")
	wantTexts(t, <-other, "[0]")
	job("7", "main").sh("call-me release uat --holder 5-main")
	wantTexts(t, <-otherRepository, "[0]")
}

func TestSupersedeNeedsAKeyOutsideOfCI(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	w := newWorkplace(d, "CALL_ME_HOLDER=me")
	w.has("r request uat --supersede", "call-me: --supersede without a key is for CI jobs", "hint: say what it is about: call-me request uat --supersede=deploy-main\n[2]")
	w.has("r run uat --supersede -- true", "hint: say what it is about: call-me run uat --supersede=deploy-main\n[2]")
	w.has("K=; r request uat --supersede=$K", "--supersede needs a value", "[2]")
	w.has("r request uat --supersede=x --no-wait", "--supersede and --no-wait exclude each other", "[2]")
	w.has("r request --supersede=x uat", "acquired slot for environment: uat", "[0]")
	onGithub(d).has("r request uat --supersede", "the variables of github do not say the repository and the branch", "[2]")
	w.has("r request --help", "--supersede [=KEY]", "exit code 77")
}

func TestRemovingAWaiter(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&holder=eve")
	d.want(201, "POST", "/maybe?environment=perf&id=12345678&holder=eve")
	stuck := onGithub(d, "CALL_ME_HOLDER=stuck").aside("r run uat perf -- true")
	d.waits(t, "stuck")
	next := onGithub(d, "CALL_ME_HOLDER=next").aside("r request uat")
	d.waits(t, "stuck next")
	numbers, _ := d.queueOf("uat")
	w := newWorkplace(d, "CALL_ME_HOLDER=ann")
	number := fmt.Sprint(numbers[0])
	w.has("r status uat", "waiter "+number)
	w.has("r release uat --waiter "+number+" --reason 'no longer needed'", "request "+number+" has been removed from the queue of environment: uat\n", "[0]")
	wantTexts(t, <-stuck, "call-me: this request was removed from the queue by ann (no longer needed) at 2", "[75]")
	d.waits(t, "next")
	if _, waits := d.queueOf("perf"); waits != "" {
		t.Errorf("%s waits for perf", waits)
	}
	w.has("r release uat --waiter "+number, "no request with this number waits: "+number+" has its slot on uat, or has ended", "hint: who waits: call-me status uat", "[76]")
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	wantTexts(t, <-next, "[0]")
	w.has(fmt.Sprint("r release uat --waiter ", numbers[1]), "has its slot on uat", "[76]")
	d.isHeld(true)
	w.has("r release uat --waiter x", "is no number of a request", "[2]")
	w.has("r release uat --waiter 7 --slot uat", "exclude each other", "[2]")
	w.has("r release uat perf --waiter 7", "--waiter is for one environment", "call-me release uat --waiter 7", "[2]")
	w.has("r history uat", "removed", "by ann")
}
