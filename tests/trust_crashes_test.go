package tests

// Crashes under load: what must hold for the leases that do not expire, whatever the model
// says. And what all attacks have in common.

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// faults returns how many leases were lost, granted twice, or granted out of order. It
// uses no model, and checks only what must hold for leases that do not expire.
func (a *attack) faults() (lost, double, outOfOrder int) {
	type tenureSeen struct {
		lease       leaseJSON
		from, until time.Duration // the lease was certainly held
	}
	held := map[string]*tenureSeen{}
	timed := map[string]bool{}
	for _, e := range a.entries {
		timed[e.name] = timed[e.name] || e.ttl > 0 || e.claim > 0
	}
	for _, e := range a.entries {
		if e.status == 201 && len(e.leases) == 1 && !timed[e.name] && held[e.name] == nil {
			held[e.name] = &tenureSeen{e.leases[0], e.heard, forever}
		}
	}
	for _, e := range a.entries {
		if s := held[e.name]; s != nil && (e.kind == endID || e.kind == endHolder || e.kind == endForced || e.kind == handID) {
			s.until = min(s.until, e.sent)
		}
		if s := held[e.other]; s != nil && e.kind == takeID {
			s.until = min(s.until, e.sent)
		}
	}
	bySlot := map[string][]*tenureSeen{}
	for _, s := range held {
		if s.from < s.until {
			bySlot[s.lease.Slot] = append(bySlot[s.lease.Slot], s)
		}
	}
	for _, all := range bySlot {
		slices.SortFunc(all, func(x, y *tenureSeen) int { return int(x.from - y.from) })
		for i := 1; i < len(all); i++ {
			if all[i-1].until > all[i].from {
				double++
			}
		}
	}
	fences := map[string]uint64{}
	for _, e := range a.entries {
		for _, l := range e.leases {
			fences[l.Holder] = l.Fence
		}
	}
	for _, e := range a.entries {
		if e.kind != look || e.status != 200 {
			continue
		}
		for name, s := range held {
			if s.lease.Environment == e.environment && s.from < e.sent && e.heard < s.until && !slices.ContainsFunc(e.view.Slots, func(j slotJSON) bool {
				return j.Lease != nil && j.Lease.Fence == s.lease.Fence && j.Lease.Holder == name
			}) {
				lost++
			}
		}
		for i, p := range e.view.Queue {
			if !slices.ContainsFunc(a.parts, func(g *setting) bool { return len(g.slots) == 1 && g.slots[0] == e.environment }) {
				break // with several slots a disconnected waiter may be passed over
			}
			for _, q := range e.view.Queue[i+1:] {
				if fences[p.Holder] != 0 && fences[q.Holder] != 0 && fences[p.Holder] > fences[q.Holder] {
					outOfOrder++
				}
			}
		}
	}
	return lost, double, outOfOrder
}

// attackable prepares a campaign. Without -long a campaign runs in parallel with other
// tests; with -long each runs alone.
func attackable(t *testing.T) {
	t.Helper()
	if long == 0 {
		t.Parallel()
	}
	if runtime.GOOS == "windows" {
		t.Skip("no kill -9 here")
	}
}

// rounds calls round with one seed after another until the budget is spent or the test
// has failed. With -long it runs as many at once as there are processors. It returns the
// sums of their counts of these names.
func rounds(t *testing.T, short time.Duration, names []string, round func(t *testing.T, seed uint64, left time.Duration) map[string]int) map[string]int {
	end := time.Now().Add(budget(short))
	var mu sync.Mutex
	number, sums := uint64(0), map[string]int{}
	for _, name := range names {
		sums[name] = 0
	}
	one := func(t *testing.T) {
		mu.Lock()
		seed := *seed + number
		number++
		mu.Unlock()
		counts := round(t, seed, time.Until(end))
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			sums[name] += counts[name]
		}
	}
	lanes := 1
	if long > 0 {
		lanes = runtime.NumCPU()
	}
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				t.Run("", one)
			}
		})
	}
	all.Wait()
	return sums
}

// A server that is killed at random loses no lease that it has reported, grants no slot
// twice, and keeps the order of the queue.
func TestTrustCrashes(t *testing.T) {
	attackable(t)
	started := time.Now()
	record(t, "crashes", started, rounds(t, 5*time.Second, []string{"crashes", "answered operations", "lost", "double", "out of order"},
		func(t *testing.T, seed uint64, left time.Duration) map[string]int {
			a := newAttack(t, binaryPath(), seed)
			for end := time.Now().Add(min(left, time.Minute)); time.Now().Before(end) && !t.Failed(); {
				a.era(min(3*time.Second, time.Until(end)), 24, false, func(stop <-chan struct{}) { a.crashAtRandom(50*time.Millisecond, stop) })
				lost, double, outOfOrder := a.faults()
				a.counts["lost"] += lost
				a.counts["double"] += double
				a.counts["out of order"] += outOfOrder
				a.report(a.check())
			}
			return a.counts
		}))
}

// strace returns a command line that runs a command under strace and injects the faults.
// Each fault has the syntax of strace's -e inject.
func strace(t *testing.T, faults ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		missing(t, "strace")
	}
	if out, err := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		missing(t, "the right to trace a process: "+string(out))
	}
	args := []string{"strace", "-D", "-f", "-qq", "-o", os.DevNull, "-e", "trace=pwrite64,fdatasync,fsync"}
	for _, f := range faults {
		args = append(args, "-e", "inject="+f)
	}
	return args
}
