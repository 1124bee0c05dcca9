package main

// A session in which each kind of change is stored once, and a fault at every
// system call of it that touches the disk, the first start included.

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// session makes each kind of change once, one after another, and insists on
// an answer.
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
	} {
		v.insist(e, false)
	}
}

// A diskSite is one system call of a session, counted among those of its name.
type diskSite struct {
	call  string
	index int
}

// The system calls that touch the disk, and the errors that they may return.
var diskCalls = map[string][]string{"pwrite64": {"EIO", "ENOSPC"}, "fdatasync": {"EIO", "ENOSPC"}, "fsync": {"EIO"}, "ftruncate": {"EIO", "ENOSPC"},
	"linkat": {"EIO", "ENOSPC"}, "openat": {}, "unlinkat": {}}

// faultAt runs a session with one fault, and returns which sites it has hit.
// strace counts for each thread by itself, so it may be several, or none.
func faultAt(t *testing.T, call, effect string, when int) (hit []diskSite, wrong []verdict) {
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
	for environment := range a.slots {
		a.clear(environment)
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
	return sitesHit(string(text), call), a.check()
}

var traceLine = regexp.MustCompile(`(?m)^(\d+) +(.*)$`)

// sitesHit reads from strace's output which calls got the fault: those that
// are marked, or the last one before the process was killed by it.
func sitesHit(trace, call string) (hit []diskSite) {
	count, latest := 0, map[string]int{}
	for _, m := range traceLine.FindAllStringSubmatch(trace, -1) {
		pid, what := m[1], m[2]
		if strings.HasPrefix(what, call+"(") {
			count++
			latest[pid] = count
		}
		if strings.Contains(what, "INJECTED") {
			hit = append(hit, diskSite{call, latest[pid]})
		}
	}
	return hit
}

// At whatever call of a session the process is killed, or the disk fails,
// everything that was answered stands, and every answer is right.
func TestTrustSites(t *testing.T) {
	attackable(t)
	started := time.Now()
	type fault struct {
		call, effect string
	}
	var faults []fault
	for call, errors := range diskCalls {
		faults = append(faults, fault{call, "signal=SIGKILL"})
		for _, e := range errors {
			faults = append(faults, fault{call, "error=" + e})
		}
	}
	slices.SortFunc(faults, func(x, y fault) int { return strings.Compare(x.call+x.effect, y.call+y.effect) })
	covered := map[fault]map[int]bool{}
	runs, wrongAnswers := 0, 0
	for _, f := range faults {
		covered[f] = map[int]bool{}
		for when, idle := 1, 0; idle < 2; when++ {
			hit, wrong := faultAt(t, f.call, f.effect, when)
			runs++
			for _, s := range hit {
				covered[f][s.index] = true
			}
			if idle++; len(hit) > 0 {
				idle = 0
			}
			for _, v := range wrong {
				wrongAnswers++
				t.Errorf("%v at %d, sites %v: %s: %s", f, when, hit, v.environment, v.what)
			}
		}
		t.Logf("%v: %d sites", f, len(covered[f]))
	}
	sites := 0
	for _, c := range covered {
		sites += len(c)
	}
	record(t, "sites", started, map[string]int{"sites": sites, "runs": runs, "wrong answers": wrongAnswers})
}
