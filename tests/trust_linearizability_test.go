package tests

// The attack under each way to fail, and the check of what its clients saw with porcupine.
// The model is in trust_world_test.go, trust_steps_test.go and trust_transcript_test.go.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A verdict is one error that was found in an era.
type verdict struct {
	environment string // empty if the error is not that of one environment
	what        string
	transcript  *transcript
}

// check checks the era's calls with porcupine, each setting by itself. The pauses of all are of
// each.
func (a *attack) check() (wrong []verdict) {
	for _, what := range a.complaints {
		wrong = append(wrong, verdict{what: what})
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, g := range a.parts {
		tr := &transcript{setting: g, restarts: a.restarts, late: a.late}
		for _, e := range a.entries {
			isOfAll := e.pauses() && e.environment == ""
			if !isOfAll && !slices.Contains(g.environments, e.environment) {
				continue
			}
			tr.entries = append(tr.entries, e)
			if e.known() {
				a.counts["answered operations"]++
			} else {
				a.counts["unanswered"]++
			}
			a.counts["operations"]++
		}
		a.counts["histories"]++
		all.Go(func() {
			if what := tr.judge(); what != "" {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, verdict{strings.Join(g.environments, " and "), what, tr})
			}
		})
	}
	all.Wait()
	return wrong
}

// effort returns how long porcupine may check one environment of an era. In 20 s it can
// use 2 GB of memory. In 2 s it uses less than a third of 1 GB, and nearly every history
// is decided by then.
func effort() time.Duration {
	if long == 0 {
		return 2 * time.Second
	}
	return 20 * time.Second
}

// judge returns what is wrong, or an empty string. It first assumes that no waiter was
// passed over, which makes the search short and is right for most histories. If that
// explains no order, it checks again without the assumption.
func (t *transcript) judge() string {
	tries := []bool{true, false}
	if len(t.slots) == 1 || !t.isPlain() { // it is no assumption, or not made
		tries = tries[:1]
	}
	for _, t.strict = range tries {
		operations, err := t.operations()
		if err != nil {
			return err.Error()
		}
		switch porcupine.CheckOperationsTimeout(porcupineModel(t.setting), operations, effort()) {
		case porcupine.Ok:
			return ""
		case porcupine.Unknown:
			if !t.strict || len(tries) == 1 {
				return undecided
			}
		}
	}
	return "no order of the calls explains their replies"
}

// undecided is the result of a history that porcupine did not decide within effort.
const undecided = "porcupine did not come to an end"

// write writes the calls, and how far porcupine could explain them, to a new folder, and
// returns its path.
func (v verdict) write(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "call-me-violation-")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, e := range v.transcript.entries {
		fmt.Fprintf(&b, "%s number %d\n", e, v.transcript.person(e.name).number)
	}
	for _, r := range v.transcript.restarts {
		fmt.Fprintf(&b, "restart %+v\n", r)
	}
	if err := os.WriteFile(filepath.Join(folder, "calls.txt"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := porcupineModel(v.transcript.setting)
	_, info := porcupine.CheckOperationsVerbose(m, v.transcript.all, 10*time.Second)
	if err := porcupine.VisualizePath(m, info, filepath.Join(folder, "history.html")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "order.txt"), v.transcript.longestOrder(info), 0o600); err != nil {
		t.Error(err)
	}
	return folder
}

// longestOrder returns the longest order of the steps that porcupine found, with the worlds after
// each, and the steps that begin before the end of it and are not in it.
func (t *transcript) longestOrder(info porcupine.LinearizationInfo) []byte {
	var longest []porcupine.Operation
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(longest) {
			longest = order
		}
	}
	var b bytes.Buffer
	state, last, done := t.begin(), int64(0), map[any]bool{}
	for _, o := range longest {
		state, last, done[o.Input] = state.step(o.Input.(*step)), max(last, o.Call), true
		fmt.Fprintf(&b, "%s\n\t%v\n", o.Input.(*step), state)
	}
	b.WriteString("\nnot in the order:\n")
	for _, o := range t.all {
		if !done[o.Input] && o.Call <= last+int64(time.Second/10) {
			fmt.Fprintf(&b, "%s\n", o.Input.(*step))
		}
	}
	return b.Bytes()
}

func (s *step) String() string {
	return fmt.Sprintf("%.6f %.6f %s %+v", s.from.Seconds(), s.to.Seconds(), s.text, s.seen)
}

// tell returns what is wrong, and the folder that has the details.
func (v verdict) tell(t *testing.T) string {
	if v.transcript == nil {
		return v.what
	}
	return fmt.Sprintf("%s: %s; see %s", v.environment, v.what, v.write(t))
}

// report fails the test for each verdict, and counts those that are undecided.
func (a *attack) report(wrong []verdict) {
	for _, v := range wrong {
		if v.what == undecided {
			a.counts["undecided"]++
			if long > 0 {
				a.t.Logf("%s: %s; see %s", v.environment, v.what, v.write(a.t))
			}
			continue
		}
		a.counts["violations"]++
		a.t.Errorf("%s", v.tell(a.t))
	}
}

func (e entry) String() string {
	heard := "never"
	if e.heard != forever {
		heard = fmt.Sprintf("%.6f", e.heard.Seconds())
	}
	text := fmt.Sprintf("%.6f %s %s %q %s %s", e.sent.Seconds(), heard, kindNames[e.kind], e.all(), e.name, e.terms())
	text += fmt.Sprintf(" -> %d %s", e.status, e.how)
	for _, l := range e.leases {
		text += fmt.Sprintf(" %s=%d", l.Slot, l.Fence)
	}
	if e.number != 0 {
		text += fmt.Sprint(" number ", e.number)
	}
	if e.kind != look {
		return text
	}
	for _, s := range e.view.Slots {
		if s.Lease != nil {
			text += fmt.Sprintf(" %s=%s(%d)", s.Slot, s.Lease.Holder, s.Lease.Fence)
		}
	}
	for _, p := range e.view.Queue {
		text += fmt.Sprintf(" <%s(%d)", p.Holder, p.Number)
	}
	for _, p := range e.view.Pauses {
		text += fmt.Sprintf(" paused %s by %s", target(p.Environment, p.Slot), p.By)
	}
	return text
}

// terms returns what a call asks for.
func (e entry) terms() string {
	var all []string
	add := func(name string, value any) {
		if text := fmt.Sprint(value); text != "" && text != "0" && text != "0s" && text != "false" {
			all = append(all, name+"="+text)
		}
	}
	for name, value := range map[string]any{"wait": e.wait, "ttl": e.ttl, "claim": e.claim, "slot": e.slot, "beside": e.besideSlot, "priority": e.priority,
		"key": e.key, "first": e.first, "fence": e.fence, "waiter": e.waiter, "other": e.other, "force": e.force, "far": e.far} {
		add(name, value)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// A menace is the kind of failure that an era has besides those of the network.
type menace struct {
	name    string
	patient bool     // the era is long enough to show a lease that should end and does not
	faults  []string // faults of the disk, as strace injects them
	crashes time.Duration
}

// menaces returns one menace of each kind. random chooses when their faults occur.
func menaces(random *rand.Rand) []menace {
	// The faults are at least 400 calls apart: a rewrite of the file, which makes a write
	// for each page, could never finish otherwise.
	at := func() string { return fmt.Sprintf(":when=%d+%d", 5+random.IntN(30), 400+random.IntN(100)) }
	call := []string{"fdatasync", "pwrite64"}[random.IntN(2)]
	return []menace{
		{name: "crashes", crashes: 200 * time.Millisecond},
		{name: "failed syncs", faults: []string{"fdatasync:error=EIO" + at()}},
		{name: "network", patient: true},
		{name: "failed writes", faults: []string{"pwrite64:error=EIO" + at()}},
		{name: "full disk", faults: []string{"pwrite64:error=ENOSPC" + at()}},
		{name: "slow syncs", faults: []string{"fdatasync:delay_enter=200000" + at()}},
		{name: "kills at a sync or write", faults: []string{fmt.Sprintf("%s:signal=SIGKILL:when=%d", call, 5+random.IntN(30))}},
	}
}

// suffer runs one era under a menace, and returns its verdicts.
func (a *attack) suffer(m menace) []verdict {
	a.prefix, a.late = nil, slack
	if m.faults != nil {
		a.prefix, a.late = strace(a.t, m.faults...), 3*slack
	}
	a.restart(syscall.SIGTERM, a.prefix...)
	length := time.Second
	if m.patient {
		length = 3 * time.Second
	}
	a.era(length, 16, m.patient, func(stop <-chan struct{}) {
		if m.crashes > 0 {
			a.crashAtRandom(m.crashes, stop)
		} else {
			a.revive(stop, a.prefix...)
		}
	})
	return a.check()
}

// With any failures of the network and the disk, and with crashes, there is an order of
// all calls in which each reply is the one that the rules give.
func TestTrustLinearizability(t *testing.T) {
	attackable(t)
	started := time.Now()
	counts := rounds(t, time.Second, []string{"operations", "unanswered", "crashes", "histories", "undecided", "violations"},
		func(t *testing.T, seed uint64, _ time.Duration) map[string]int {
			a := newAttack(t, binaryPath(), seed)
			a.network = newBadNetwork(t, a.host, 150*time.Millisecond)
			all := menaces(a.random)
			if long == 0 && leftOut(t, "all but three of the seven ways to fail") {
				a.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				all = all[:3]
			}
			for _, m := range all {
				if a.report(a.suffer(m)); t.Failed() {
					t.Logf("in an era of %s %v", m.name, m.faults)
					break
				}
			}
			return a.counts
		})
	t.Logf("%.1f %% of the histories are undecided", 100*float64(counts["undecided"])/float64(max(1, counts["histories"])))
	record(t, "linearizability", started, counts)
}

// The model keeps a lease whose grant had no reply for its full ttl after a restart, and
// no longer.
func TestTheModelEndsALeaseWithoutAReplyAfterARestart(t *testing.T) {
	t.Parallel()
	const s = time.Second
	seen := func(at time.Duration, holders ...string) entry {
		e := entry{kind: look, environment: "a", sent: at, heard: at + s/100, status: 200, view: environmentJSON{Slots: []slotJSON{{}}}}
		for _, h := range holders {
			e.view.Slots[0].Lease = &leaseJSON{Environment: "a", Holder: h, Slot: "a", Fence: 7}
		}
		return e
	}
	asked := entry{kind: askNoID, environment: "a", name: "lonely", wait: s / 5, ttl: s, sent: s / 10, heard: forever}
	for free, right := range map[time.Duration]bool{3 * s / 2: false, 5 * s / 2: true} {
		tr := transcript{setting: &setting{[]string{"a"}, []string{"a"}, []int{0}}, late: s / 10, restarts: []restart{{killed: s, started: s, ready: 11 * s / 10}},
			entries: []entry{asked, seen(s/2, "lonely"), seen(6*s/5, "lonely"), seen(free)}}
		if wrong := tr.judge(); (wrong == "") != right {
			t.Errorf("free %v after the start: %q", free-s, wrong)
		}
	}
}
