//go:build unix

package tests

// Two servers under load: the attack of trust_attack_test.go, with calls to both.

import (
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"
)

// takeoverSlack is how much later than by the rules a waiter may be seen to end: the first absence
// after a takeover is 30 s instead of 10.
const takeoverSlack = 20*time.Second + slack

// newSharedAttack returns an attack on two servers. A binary other than the empty one has a bug.
func newSharedAttack(t *testing.T, binary string, seed uint64) (*attack, *pair) {
	t.Helper()
	parts, declared := settings()
	p := newEtcd(t).newPair(binary, "CALL_ME_ENVIRONMENTS="+declared)
	return &attack{t: t, hosts: []string{p.a.host, p.b.host}, late: takeoverSlack, parts: parts,
		began: time.Now(), random: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{},
		direct: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}, p
}

// takeOver sends the leader a signal that ends or stops it, and starts it again, or lets it go on, once
// the other server leads.
func (a *attack) takeOver(p *pair, signal syscall.Signal) {
	if p.b.leads() { // on a busy machine a leader may lose its lease
		p.a, p.b = p.b, p.a
	}
	r := restart{killed: a.now(), started: a.now()}
	if signal == syscall.SIGSTOP {
		p.a.stop()
	} else {
		p.a.cmd.Process.Signal(signal)
		p.a.cmd.Wait()
	}
	p.b.waitToLead()
	r.ready = a.now()
	a.restarts = append(a.restarts, r)
	if signal == syscall.SIGSTOP {
		time.Sleep(rand.N(time.Second)) // what it knows is not so any more
		p.a.cmd.Process.Signal(syscall.SIGCONT)
	} else {
		p.a.start()
	}
	eventually(a.t, "it stands by", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	p.a, p.b = p.b, p.a
	a.counts["takeovers"]++
}

// sufferTakeovers runs one era in which the leader is killed, stopped for a while, or told to end, and
// returns its verdicts.
func (a *attack) sufferTakeovers(p *pair) []verdict {
	random := rand.New(rand.NewPCG(a.random.Uint64(), 2))
	a.eraBegan = a.now()
	a.era(8*time.Second, 16, false, func(stop <-chan struct{}) {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second + rand.N(time.Second)):
			}
			signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM}
			a.takeOver(p, signals[random.IntN(4)])
		}
	})
	a.addTakeovers(p)
	return a.check()
}

var (
	beganToLead = regexp.MustCompile(`(?m)^time=(\S+) .* msg=leading `)
	ledNoMore   = regexp.MustCompile(`(?m)^time=(\S+) .* msg="leading no more" `)
)

// timesOf returns the times of the lines of a log that a pattern finds.
func timesOf(t testing.TB, line *regexp.Regexp, log *lockedBuffer) (times []time.Time) {
	for _, m := range line.FindAllStringSubmatch(log.String(), -1) {
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, at)
	}
	return times
}

// addTakeovers adds the takeovers of the era that nobody has asked for, as the logs have them, and drops
// those that were none, since the server that was sent a signal did not lead. When the term before one
// that nobody has asked for was over is not known.
func (a *attack) addTakeovers(p *pair) {
	var began []time.Duration
	for _, s := range []*sharedServer{p.a, p.b} {
		for _, at := range timesOf(a.t, beganToLead, s.log) {
			began = append(began, at.Sub(a.began))
		}
	}
	slices.Sort(began)
	a.restarts = slices.DeleteFunc(a.restarts, func(r restart) bool {
		return !slices.ContainsFunc(began, func(at time.Duration) bool { return r.killed <= at && at <= r.ready })
	})
	for i, at := range began {
		isPlanned := func(r restart) bool { return r.killed <= at && at <= r.ready }
		if at < a.eraBegan || slices.ContainsFunc(a.restarts, isPlanned) {
			continue
		}
		before := a.eraBegan
		if i > 0 {
			before = max(before, began[i-1])
		}
		a.restarts = append(a.restarts, restart{before, before, at + time.Second/10})
		a.counts["takeovers nobody asked for"]++
	}
}

// rowLoad: under load, whenever the leader is killed, stopped or told to end, there is an order of all calls
// to both servers in which each reply is the one that the rules give.
func rowLoad(t *testing.T, binary string) (wrong []string) {
	a, p := newSharedAttack(t, binary, *seed)
	for _, v := range a.sufferTakeovers(p) {
		if v.what != undecided {
			wrong = append(wrong, v.tell(t))
		}
	}
	t.Log(countsText(a.counts))
	return wrong
}

// The long form of rowLoad.
func TestTrustTwoServers(t *testing.T) {
	needsEtcd(t)
	if long == 0 {
		t.Skip("its short form is a row of TestTwoServers")
	}
	started := time.Now()
	counts := rounds(t, 0, []string{"operations", "unanswered", "takeovers", "takeovers nobody asked for", "histories", "undecided", "violations"},
		func(t *testing.T, seed uint64, left time.Duration) map[string]int {
			a, p := newSharedAttack(t, "", seed)
			for end := time.Now().Add(left); time.Now().Before(end) && !t.Failed(); {
				a.report(a.sufferTakeovers(p))
			}
			return a.counts
		})
	record(t, "two-servers", started, counts)
}
