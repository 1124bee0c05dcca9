package tests

// A session stores each kind of change once. These tests inject a fault at each of its
// system calls that touch the disk, those of the first start included.

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// session makes each kind of change once, one after another, and repeats each call until it
// has a reply.
func (a *attack) session() {
	v := &visitor{attack: a, random: rand.New(rand.NewPCG(1, 5))}
	wait := 20 * time.Millisecond
	for _, e := range []entry{
		{kind: askNow, environment: "a", name: "first", ttl: time.Hour},
		{kind: askWait, environment: "a", name: "second", wait: wait},
		{kind: askWait, environment: "a", name: "third", wait: wait},
		{kind: look, environment: "a"},
		{kind: renewID, environment: "a", name: "first", ttl: 2 * time.Hour},
		{kind: endID, environment: "a", name: "first"},
		{kind: askWait, environment: "a", name: "second", wait: wait},
		{kind: askNow, environment: "a", name: "fourth"},
		{kind: endHolder, environment: "a", name: "second"},
		{kind: endID, environment: "a", name: "third"},
		{kind: look, environment: "a"},
		{kind: askNow, environment: "m2", name: "fifth"},
		{kind: askNow, environment: "m2", name: "sixth"},
		{kind: endID, environment: "m2", name: "overtaken"},
		{kind: askNow, environment: "m2", name: "overtaken"},
		{kind: endID, environment: "m2", name: "fifth"},
		{kind: plainAsk, environment: "b"},
		{kind: look, environment: "b"},
		{kind: plainEnd, environment: "b"},
		{kind: look, environment: "m2"},
		{kind: askNow, environment: "n", name: "holder"},
		{kind: askWait, environment: "n", name: "older", key: "main", wait: wait},
		{kind: askWait, environment: "n", name: "newer", key: "main", wait: wait},
		{kind: pauseSlots, environment: "n", other: "boss"},
		{kind: endID, environment: "n", name: "holder"},
		{kind: look, environment: "n"},
		{kind: resumeSlots, environment: "n", other: "boss"},
		{kind: askWait, environment: "n", name: "newer", key: "main", wait: wait},
		{kind: handID, environment: "n", name: "newer", other: "ann"},
		{kind: askNow, environment: "x", beside: "y2", name: "both"},
		{kind: endID, environment: "x", beside: "y2", name: "both"},
		{kind: look, environment: "n"},
	} {
		v.insist(e, false)
	}
	waiting := v.insist(entry{kind: askWait, environment: "n", name: "waiting", wait: wait}, false)
	v.insist(entry{kind: removeForced, environment: "n", name: "waiting", waiter: max(1, waiting.number)}, false)
	lease := v.insist(entry{kind: look, environment: "n"}, false).view.Slots
	if len(lease) == 1 && lease[0].Lease != nil {
		v.insist(entry{kind: takeID, environment: "n", name: "taker", other: lease[0].Lease.Holder, fence: lease[0].Lease.Fence}, false)
	}
}

// A diskSite is one system call of a session. Its index counts the calls of that name.
type diskSite struct {
	call  string
	index int
}

// diskCalls has the system calls that touch the disk, and the errors that each may return.
var diskCalls = map[string][]string{"pwrite64": {"error=EIO", "error=ENOSPC"}, "fdatasync": {"error=EIO", "error=ENOSPC"}, "fsync": {"error=EIO"}, "ftruncate": {"error=EIO", "error=ENOSPC"},
	"linkat": {"error=EIO", "error=ENOSPC"}, "unlinkat": {}}

// faultAt runs a session with one fault. It returns the sites that the fault has hit, the
// number of all sites of the call, and the verdicts. strace counts the calls of each thread
// by itself, so the fault may hit several sites, or none.
func faultAt(t *testing.T, call, effect string, when int) (hit []diskSite, of int, wrong []verdict) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	prefix := strace(t)
	for i, arg := range prefix {
		switch {
		case arg == os.DevNull:
			prefix[i] = trace
		case strings.HasPrefix(arg, "trace="):
			prefix[i] = "trace=" + call
		}
	}
	prefix = append(prefix, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, effect, when))
	a := newAttack(t, binaryPath(), 1, prefix...)
	a.late = 3 * slack
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		a.revive(stop)
	}()
	a.session()
	for _, g := range a.parts {
		a.clear(g)
	}
	close(stop)
	<-stopped
	a.up.Lock()
	a.kill(9)
	a.up.Unlock()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	hit, of = sitesHit(string(text), call)
	if strings.HasPrefix(effect, "signal") && a.counts["crashes"] > 0 {
		hit = []diskSite{{call, of}} // the last call before the kill
	}
	return hit, of, a.check()
}

var traceLine = regexp.MustCompile(`(?m)^(\d+) +(.*)$`)

// sitesHit reads strace's output. It returns the sites with an injected error, and the
// number of all sites of the call.
func sitesHit(trace, call string) (hit []diskSite, of int) {
	latest := map[string]int{}
	for _, m := range traceLine.FindAllStringSubmatch(trace, -1) {
		pid, what := m[1], m[2]
		if strings.HasPrefix(what, call+"(") {
			of++
			latest[pid] = of
		}
		if strings.Contains(what, "INJECTED") {
			hit = append(hit, diskSite{call, latest[pid]})
		}
	}
	return hit, of
}

// If the process is killed or the disk fails at any system call of a session, all changes
// that were reported stand, and every reply is right. The short form uses random sites.
func TestTrustSites(t *testing.T) {
	attackable(t)
	started := time.Now()
	type fault struct{ call, effect string }
	var faults []fault
	all := map[fault]int{}
	covered := map[fault]map[int]bool{}
	for _, call := range slices.Sorted(maps.Keys(diskCalls)) {
		_, of, _ := faultAt(t, call, "signal=SIGKILL", 60_000)
		for _, effect := range append([]string{"signal=SIGKILL"}, diskCalls[call]...) {
			f := fault{call, effect}
			faults, all[f], covered[f] = append(faults, f), of, map[int]bool{}
		}
	}
	counts := map[string]int{"sites": 0, "sites in one session": 0, "sessions": 0, "wrong answers": 0}
	try := func(f fault, when int) (hits int) {
		hit, _, wrong := faultAt(t, f.call, f.effect, when)
		counts["sessions"]++
		for _, s := range hit {
			covered[f][s.index] = true
		}
		for _, v := range wrong {
			counts["wrong answers"]++
			t.Errorf("%v at %d, sites %v: %s: %s", f, when, hit, v.environment, v.what)
		}
		return len(hit)
	}
	random, end := rand.New(rand.NewPCG(*seed, 6)), time.Now().Add(budget(6*time.Second))
	for long == 0 && time.Now().Before(end) {
		f := faults[random.IntN(len(faults))]
		try(f, 1+random.IntN(1+all[f]/2))
	}
	for _, f := range faults {
		for when := 1; long > 0 && try(f, when) > 0; when++ {
		}
	}
	for again := true; again && long > 0; { // the sites that no fault has hit yet, because of the threads
		again = false
		for _, f := range faults {
			if len(covered[f]) < all[f] && time.Now().Before(end) {
				again = true
				try(f, 1+random.IntN(all[f]))
			}
		}
	}
	for _, f := range faults {
		counts["sites"] += min(all[f], len(covered[f]))
		counts["sites in one session"] += all[f]
		t.Logf("%v: %d of %d", f, len(covered[f]), all[f])
	}
	record(t, "sites", started, counts)
}
