//go:build linux

package tests

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCycleOnEtcd measures a cycle on a server with a file, in turn with one that has its state
// in an etcd of three members on this machine; etcd-ns/op is the time of the second.
func BenchmarkCycleOnEtcd(b *testing.B) {
	shared := newEtcd(b).newShared("")
	shared.start()
	shared.waitToLead()
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			served, _ := newServed(b)
			onEtcd := compare(b, newRival(b, "floor"), served, clients, cycle, targetAt(b, shared.base, shared.cmd.Process))
			b.ReportMetric(float64(onEtcd)/float64(b.N), "etcd-ns/op")
		})
	}
}

// BenchmarkHandOverOnEtcd is BenchmarkHandOver with the state in an etcd of three members on this
// machine, and 100 waiters: the ratio of the mean hand-over to the mean of a commit and a round trip.
func BenchmarkHandOverOnEtcd(b *testing.B) {
	shared := newEtcd(b).newShared("")
	shared.start()
	shared.waitToLead()
	c := newCrowdAt(b, targetAt(b, shared.base, shared.cmd.Process), shared.daemon, 100)
	var times, trips []time.Duration
	spent, commits := c.commits()
	for b.Loop() {
		times = append(times, c.handOver())
		c.settle()
		trips = append(trips, c.trip())
	}
	spentThen, commitsThen := c.commits()
	commit := 1e3 * (spentThen - spent) / (commitsThen - commits)
	b.ReportMetric(commit, "commit-mean-ms")
	b.ReportMetric(meanMS(times)/(commit+meanMS(trips)), "times-both")
	reportTimes(b, "handover", times)
}

// settle returns when the server has treated all that it was sent: a batch that nobody waits for would be
// measured with the next hand-over.
func (c *crowd) settle() {
	c.holder.send(c.b, http.MethodPut, "id="+c.holder.id)
	c.holder.hear(c.b, http.StatusOK)
}

// BenchmarkTakeover measures how long it takes, after something has happened to the leader, until the
// holder has released its slot and the next real client has it; for member, how long the next three
// calls take together. Four pairs of servers, each with an etcd of its own, are measured at once, since
// they mostly wait. The servers are those that users have.
//
//	go test ./tests -run '^$' -bench Takeover/stopped -benchtime 200x -timeout 0
func BenchmarkTakeover(b *testing.B) {
	for _, c := range []struct {
		name           string
		pairs, waiters int
		happens        func(p *pair) (mend func()) // ends p.a, which leads, and what mend makes good
	}{
		{"stopped", 1, 100, func(p *pair) func() {
			p.a.cmd.Process.Signal(syscall.SIGTERM)
			return func() { p.a.cmd.Wait() } // it may wait for connections after another one leads
		}},
		{"killed", 4, 10, func(p *pair) func() { p.a.kill(); return func() {} }},
		{"both", 4, 10, func(p *pair) func() {
			m := p.etcd.leader()
			m.kill()
			p.a.kill()
			return func() { m.start(); p.etcd.waitFor(m) }
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var crowds []*takeoverCrowd
			for range min(c.pairs, b.N) { // the first time N is 1
				crowds = append(crowds, newTakeoverCrowd(b, c.waiters))
			}
			measureAtOnce(b, len(crowds), func(i int) time.Duration {
				var mend func()
				took := crowds[i].next(func() { mend = c.happens(crowds[i].p) })
				mend()
				crowds[i].restart()
				return took
			})
			for _, crowd := range crowds {
				for _, wrong := range crowd.p.wrong {
					b.Error(wrong)
				}
			}
		})
	}
	b.Run("member", func(b *testing.B) {
		var pairs []*pair
		for range 4 {
			pairs = append(pairs, newEtcd(b).newPair(binaryPath()))
		}
		runs := make([]int, len(pairs))
		measureAtOnce(b, len(pairs), func(i int) time.Duration {
			p := pairs[i]
			runs[i]++
			m, id := p.etcd.members[runs[i]%3], fmt.Sprint("request-", runs[i])
			m.signal(syscall.SIGSTOP)
			began := time.Now()
			p.want(p.a, 201, post, maybe(id, "&ttl=1h"))
			p.want(p.a, 200, put, maybe(id, ""))
			p.want(p.a, 204, del, maybe(id, ""))
			took := time.Since(began)
			m.signal(syscall.SIGCONT)
			p.etcd.waitFor(m)
			return took
		})
		for _, p := range pairs {
			p.wantOneTerm()
			for _, wrong := range p.wrong {
				b.Error(wrong)
			}
		}
	})
}

// measureAtOnce calls one b.N times, lanes of them at once, each with the number of its lane, and
// reports the times that it returns.
func measureAtOnce(b *testing.B, lanes int, one func(lane int) time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	var times []time.Duration
	left := b.N
	b.ResetTimer()
	for lane := range lanes {
		all.Go(func() {
			for {
				mu.Lock()
				left--
				isOver := left < 0
				mu.Unlock()
				if isOver {
					return
				}
				took := one(lane)
				mu.Lock()
				times = append(times, took)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	reportTimes(b, "takeover", times)
	b.ReportMetric(float64(times[len(times)-1])/1e6, "takeover-max-ms")
}

// A takeoverCrowd is a pair of servers, with real clients that know both and wait for one slot.
type takeoverCrowd struct {
	p       *pair
	waiting []*exec.Cmd
	logs    []*lockedBuffer
	names   int
}

func newTakeoverCrowd(b *testing.B, waiters int) *takeoverCrowd {
	c := &takeoverCrowd{p: newEtcd(b).newPair(binaryPath())}
	c.p.want(c.p.a, 201, post, maybe("first-id", "&ttl=1h"))
	for range waiters {
		c.addWaiter()
	}
	return c
}

// addWaiter starts a client, which is then the last one in the queue.
func (c *takeoverCrowd) addWaiter() {
	c.names++
	cmd, log := exec.Command(binaryPath(), "request", "uat"), &lockedBuffer{}
	cmd.Env = append(c.p.a.env[:len(c.p.a.env):len(c.p.a.env)],
		"HOST="+c.p.a.host+","+c.p.b.host, fmt.Sprint("CALL_ME_HOLDER=waiter-", c.names))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		c.p.t.Fatal(err)
	}
	c.p.t.Cleanup(func() { cmd.Process.Kill() })
	c.waiting, c.logs = append(c.waiting, cmd), append(c.logs, log)
	eventually(c.p.t, "it waits", func() bool { return connected(c.p.a.daemon) == len(c.waiting) })
}

// next returns the time from what happens to the leader until the next client has the slot.
func (c *takeoverCrowd) next(happens func()) time.Duration {
	began := time.Now()
	happens()
	eventually(c.p.t, "the slot is released", func() bool {
		status, _ := c.p.b.call(del, "/maybe?environment=uat&force=1")
		return status == http.StatusNoContent
	})
	if err := c.waiting[0].Wait(); err != nil {
		c.p.errorf("%v: %s", err, c.logs[0])
	}
	took := time.Since(began)
	for _, log := range c.logs {
		if strings.Contains(log.String(), "end of the queue") {
			c.p.errorf("a client has lost its place: %s", log)
		}
	}
	c.waiting, c.logs = c.waiting[1:], c.logs[1:]
	return took
}

// restart starts the server that has ended, as the one that stands by.
func (c *takeoverCrowd) restart() {
	c.p.a.start()
	eventually(c.p.t, "it stands by", func() bool { status, _ := c.p.a.call("GET", "/healthz"); return status == 200 })
	c.p.a, c.p.b = c.p.b, c.p.a
	c.addWaiter()
	time.Sleep(2 * time.Second) // a client whose polls fail again and again asks less often
}
