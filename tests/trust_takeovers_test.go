//go:build unix

package tests

// Takeovers, again and again, each with one release under way: many pairs of servers share an etcd.
// Unlike two_servers_load_test.go, there is little load, and what must hold is checked by itself.

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A succession is a pair of servers with one slot, its holder, and a queue.
type succession struct {
	*pair
	random *rand.Rand
	held   string // by this id
	queue  []string
	fence  uint64 // of the last grant
	names  int
	counts map[string]int
}

const queueOfSuccession = 5

// newSuccession returns a pair with a prefix of its own.
func (c *etcdCluster) newSuccession(t *testing.T, binary, prefix string, random *rand.Rand) *succession {
	s := &succession{pair: &pair{t: t, etcd: c}, random: random, counts: map[string]int{}}
	s.a, s.b = c.newShared(binary), c.newShared(binary)
	for _, server := range []*sharedServer{s.a, s.b} {
		for i, variable := range server.env {
			if strings.HasPrefix(variable, "CALL_ME_STORE=") {
				server.env[i] = strings.TrimSuffix(variable, "/test") + prefix
			}
		}
	}
	s.a.start()
	s.a.waitToLead()
	s.b.start()
	s.held = s.name()
	status, body := s.sure(s.a, post, maybe(s.held, "&ttl=1h"))
	s.granted(s.held, status, body)
	for range queueOfSuccession {
		s.enter()
	}
	return s
}

// sure calls a server until it has an answer: on a busy machine the other one may lead meanwhile.
func (s *succession) sure(server *sharedServer, method, path string) (status int, body string) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if status, body = server.call(method, path); status != 503 && status != 0 {
			break
		}
	}
	return status, body
}

func (s *succession) name() string {
	s.names++
	return fmt.Sprint("request-", s.names)
}

// granted notes an error unless the answer is a grant with a new fence.
func (s *succession) granted(id string, status int, body string) {
	var l leaseJSON
	if json.Unmarshal([]byte(body), &l); status != 201 || l.Holder != id || l.Fence <= s.fence {
		s.errorf("%d %.300s, want the grant of %s after the fence %d", status, body, id, s.fence)
	}
	s.fence = max(s.fence, l.Fence)
}

// enter adds a waiter at the end of the queue.
func (s *succession) enter() {
	s.queue = append(s.queue, s.name())
	s.ask(len(s.queue) - 1)
}

// ask lets a waiter ask again, and notes an error unless it has its place.
func (s *succession) ask(i int) {
	status, body := s.sure(s.a, post, maybe(s.queue[i], "&ttl=1h&wait=0s"))
	var r refusalJSON
	if json.Unmarshal([]byte(body), &r); status != 403 || r.Position != i+1 {
		s.errorf("%s got %d %.300s, want place %d", s.queue[i], status, body, i+1)
	}
}

// takeOver ends or stops the leader while its slot is released, and checks what the other server knows.
// Errors are noted.
func (s *succession) takeOver() {
	how := []string{"killed", "killed", "told to end", "stopped"}[s.random.IntN(4)]
	released := later(s.a, del, maybe(s.held, ""))
	time.Sleep(time.Duration(s.random.IntN(3000)) * time.Microsecond)
	switch how {
	case "killed":
		s.a.kill()
	case "told to end":
		s.a.cmd.Process.Signal(syscall.SIGTERM)
		s.a.cmd.Wait()
	case "stopped":
		s.a.stop()
	}
	s.b.waitToLead()
	if how == "stopped" {
		s.a.cmd.Process.Signal(syscall.SIGCONT)
	} else {
		s.a.start()
	}
	wasReleased := (<-released).status == 204
	seen := holders(s.b)
	if wasReleased && len(seen) > 0 || len(seen) > 1 || len(seen) == 1 && seen[0] != s.held {
		s.errorf("%s: the slot is held by %q; %s has released it: %v", how, seen, s.held, wasReleased)
	}
	s.a, s.b = s.b, s.a
	if status, body := s.sure(s.a, del, maybe(s.held, "")); status != 204 {
		s.errorf("%s: a release that may be a repeated one: %d %s", how, status, body)
	}
	for _, i := range s.random.Perm(len(s.queue) - 1) { // those behind the first
		s.ask(i + 1)
	}
	s.held, s.queue = s.queue[0], s.queue[1:]
	status, body := s.sure(s.a, post, maybe(s.held, "&ttl=1h&wait=0s"))
	s.granted(s.held, status, body)
	s.enter()
	eventually(s.t, "the other stands by", func() bool { status, _ := s.b.call("GET", "/healthz"); return status == 200 && !s.b.leads() })
	if status, body := s.sure(s.b, put, maybe(s.held, "")); status != 200 {
		s.errorf("%s: a renewal by way of the other server: %d %s", how, status, body)
	}
	s.counts["takeovers"]++
	s.counts[how]++
}

// Whenever the leader ends, the other server knows what it has answered: no release, place or fence is
// lost.
func TestTrustTakeovers(t *testing.T) {
	needsEtcd(t)
	if long == 0 {
		t.Skip("its short form is the row killed of TestTwoServers")
	}
	started := time.Now()
	const pairs = 4
	names := []string{"takeovers", "killed", "told to end", "stopped", "wrong"}
	counts := rounds(t, 0, names, func(t *testing.T, seed uint64, left time.Duration) map[string]int {
		c := newEtcd(t)
		var all sync.WaitGroup
		var mu sync.Mutex
		sums := map[string]int{}
		for i := range pairs {
			s := c.newSuccession(t, "", fmt.Sprint("/pair-", i), rand.New(rand.NewPCG(seed, uint64(i))))
			all.Go(func() {
				for end := time.Now().Add(left); time.Now().Before(end) && len(s.wrong) == 0; {
					s.takeOver()
				}
				mu.Lock()
				defer mu.Unlock()
				for _, wrong := range s.wrong {
					t.Errorf("pair %d, after %d takeovers: %s\n%s\n%s", i, s.counts["takeovers"], wrong, s.a.log, s.b.log)
					sums["wrong"]++
				}
				for name, n := range s.counts {
					sums[name] += n
				}
			})
		}
		all.Wait()
		return sums
	})
	record(t, "takeovers", started, counts)
}
