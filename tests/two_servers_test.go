//go:build unix

package tests

// Two servers on one etcd: whatever happens to one of them, nobody is told what the other one does
// not know. Each row is a fault. It returns what was wrong, so that the bugs in
// testdata/bugs/two-servers show that it can find something.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A pair is two servers on one etcd. a leads.
type pair struct {
	t    testing.TB
	etcd *etcdCluster
	a, b *sharedServer

	mu    sync.Mutex
	wrong []string
}

func newPair(t *testing.T, binary string, flags ...string) *pair {
	t.Helper()
	return newEtcd(t, flags...).newPair(binary)
}

// newPair returns two servers with some variables.
func (c *etcdCluster) newPair(binary string, env ...string) *pair {
	t := c.t
	t.Helper()
	p := &pair{t: t, etcd: c}
	p.a, p.b = c.newShared(binary, env...), c.newShared(binary, env...)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	eventually(t, "the second server stands by", func() bool { status, _ := p.b.call("GET", "/healthz"); return status == 200 })
	return p
}

// newBehindLiar returns a server that is not started, and reaches of etcd only a liar.
func newBehindLiar(t *testing.T, binary string) (*pair, *liar) {
	p := &pair{t: t, etcd: newEtcd(t)}
	p.a = p.etcd.newShared(binary)
	member := newLiar(t, p.etcd.members[0])
	p.a.reach(member.address)
	return p, member
}

// wantReplaced waits until b leads, and gives the slot that first-id holds to another there. It returns
// what was wrong so far, with each time that a still renews the first lease or shows it.
func (p *pair) wantReplaced() (wrong []string) {
	p.t.Helper()
	p.b.waitToLead()
	p.want(p.b, 204, del, maybe("first-id", ""))
	p.want(p.b, 201, post, maybe("later-id", ""))
	for range 10 {
		if status, body := p.a.call(put, maybe("first-id", "")); status < 400 {
			p.errorf("a renewal got %d %s from a server that leads no more", status, body)
		}
		if got := holders(p.a); len(got) > 0 {
			p.errorf("it still shows %q", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return p.wrong
}

// errorf notes that something is wrong.
func (p *pair) errorf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// want notes an error unless the call gets the status.
func (p *pair) want(s *sharedServer, status int, method, path string) {
	if got, body := s.call(method, path); got != status {
		p.errorf("%s %s: %d %.200s, want %d", method, path, got, body, status)
	}
}

// holders returns who holds uat, as a server sees it; nil if it does not answer.
func holders(s *sharedServer) []string {
	var seen environmentsJSON
	status, body := s.call("GET", "/environments?environment=uat")
	if status != 200 || json.Unmarshal([]byte(body), &seen) != nil {
		return nil
	}
	all := []string{}
	for _, e := range seen.Environments {
		for _, s := range e.Slots {
			if s.Lease != nil {
				all = append(all, s.Lease.Holder)
			}
		}
	}
	return all
}

// An answerOf is what a call got, and when.
type answerOf struct {
	status int
	body   string
}

// later makes a call, whose answer comes through the channel.
func later(s *sharedServer, method, path string) chan answerOf {
	got := make(chan answerOf, 1)
	go func() {
		status, body := s.call(method, path)
		got <- answerOf{status, body}
	}()
	return got
}

const post, put, del = "POST", "PUT", "DELETE"

func maybe(id string, more string) string {
	return "/maybe?environment=uat&id=" + id + "&holder=" + id + more
}

// rowEarlyEnd: the leader's key is gone while the leader hangs on etcd, before it can know. Another
// server leads. The first one acknowledges nothing, and stores nothing.
func rowEarlyEnd(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.a.all(linkHeld)
	p.etcd.remove("/test/meta/leader")
	renewed := later(p.a, put, maybe("first-id", ""))
	p.b.waitToLead()
	again := later(p.a, put, maybe("first-id", ""))
	time.Sleep(50 * time.Millisecond) // so that the calls are not of one batch, if none waits for etcd
	granted := later(p.a, post, "/maybe?environment=perf&id=second-id&holder=x&ttl=1h")
	released := later(p.a, del, maybe("first-id", ""))
	time.Sleep(50 * time.Millisecond)
	p.a.all(linkOpen)
	for name, c := range map[string]chan answerOf{
		"a renewal": renewed, "a later renewal": again, "a request": granted, "a release": released} {
		if got := <-c; got.status < 400 {
			p.errorf("%s got %d %.200s from a server that leads no more", name, got.status, got.body)
		}
	}
	if got := holders(p.b); !slices.Equal(got, []string{"first-id"}) {
		p.errorf("uat is held by %q", got)
	}
	if strings.Contains(p.a.log.String(), "environment=perf") {
		p.errorf("the first server has granted perf: %s", p.a.log)
	}
	p.want(p.b, 204, del, maybe("first-id", ""))
	if got := holders(p.a); len(got) > 0 {
		p.errorf("the first server still shows %q", got)
	}
	if !p.b.leads() {
		p.errorf("the second server leads no more: %s", p.b.log)
	}
	return p.wrong
}

// rowEarlyGrant: as rowEarlyEnd, but the leader hangs while it stores a grant, which arrives when
// another server leads that has stored nothing yet.
func rowEarlyGrant(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	lead, next := p.a, p.b
	for i := range 3 {
		id := fmt.Sprint("request-", i)
		lead.all(linkHeld)
		granted := later(lead, post, maybe(id, "&ttl=1h"))
		time.Sleep(20 * time.Millisecond)
		p.etcd.remove("/test/meta/leader")
		next.waitToLead()
		lead.all(linkOpen)
		if got := <-granted; got.status < 400 {
			p.errorf("%s got %d %s from a server that leads no more", id, got.status, got.body)
		}
		if got := holders(next); len(got) > 0 {
			p.errorf("uat is held by %q", got)
		}
		eventually(t, "it stands by", func() bool { status, _ := lead.call("GET", "/healthz"); return status == 200 && !lead.leads() })
		lead, next = next, lead
	}
	return p.wrong
}

// rowStopped: the leader is stopped until a successor has given its slot to another, with calls in
// its sockets, some of which it has begun to read. It acknowledges none, and shows nothing of the
// state before.
func rowStopped(t *testing.T, binary string) []string {
	return stopped(newPair(t, binary), linkOpen, func() {})
}

// rowStoppedAway: as rowStopped, but when it goes on etcd does not answer it.
func rowStoppedAway(t *testing.T, binary string) []string {
	return stopped(newPair(t, binary), linkHeld, func() {})
}

// stopped calls meanwhile when the leader has stopped. Its links to etcd are awake when it goes on.
func stopped(p *pair, awake linkState, meanwhile func()) []string {
	t := p.t
	status, body := p.a.call(post, maybe("first-id", "&ttl=2s"))
	var first, next leaseJSON
	if json.Unmarshal([]byte(body), &first); status != 201 {
		p.errorf("the first grant: %d %s", status, body)
	}
	p.want(p.a, 201, post, "/maybe?environment=perf&id=other-id&holder=other&ttl=1h")
	changes := []*slowCall{
		beginCall(t, p.a, put, maybe("first-id", "")),
		beginCall(t, p.a, post, "/maybe?environment=web&id=third-id&holder=third"),
		beginCall(t, p.a, del, "/maybe?environment=perf&id=other-id"),
	}
	var looks []*slowCall
	look := func() {
		for range 5 {
			for _, path := range []string{"/environments?environment=uat", "/history?environment=uat", "/"} {
				looks = append(looks, beginCall(t, p.a, "GET", path))
			}
		}
	}
	look()
	time.Sleep(50 * time.Millisecond) // so that it has begun to read them
	p.a.stop()
	look() // these are on connections that it has not accepted
	renewed := later(p.a, put, maybe("first-id", ""))
	for _, c := range slices.Concat(changes, looks) {
		c.finish()
	}
	meanwhile()
	p.b.waitToLead()
	eventually(t, "the lease of first-id ends", func() bool {
		status, body = p.b.call(post, maybe("later-id", "&ttl=1h"))
		return status == 201
	})
	if json.Unmarshal([]byte(body), &next); next.Fence <= first.Fence {
		p.errorf("the fence %d is given after %d", next.Fence, first.Fence)
	}
	p.a.all(awake)
	p.a.cmd.Process.Signal(syscall.SIGCONT)
	for _, c := range changes {
		if got := c.answer(); got.status/100 == 2 {
			p.errorf("%s got %d %.300s", c.what, got.status, got.body)
		}
	}
	if got := <-renewed; got.status/100 == 2 {
		p.errorf("a renewal that was sent meanwhile got %d %s", got.status, got.body)
	}
	for _, c := range looks {
		if got := c.answer(); got.status == 200 && !strings.Contains(got.body, "later-id") {
			p.errorf("%s got an old state: %.300s", c.what, got.body)
		}
	}
	p.a.all(linkOpen)
	eventually(t, "the first server stands by", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	for _, s := range []*sharedServer{p.a, p.b} {
		if got := holders(s); !slices.Equal(got, []string{"later-id"}) {
			p.errorf("uat is held by %q", got)
		}
	}
	return p.wrong
}

// rowLostAnswers: etcd stores what it is sent, and its answers are lost.
func rowLostAnswers(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for i := range 3 {
		id := fmt.Sprint("request-", i)
		p.a.all(linkSwallow)
		got := later(p.a, post, maybe(id, "&ttl=1h"))
		time.Sleep(beyondAttempt)
		p.a.all(linkOpen)
		if a := <-got; a.status != 201 {
			p.errorf("%s got %d %s", id, a.status, a.body)
		}
		p.a.all(linkSwallow)
		got = later(p.a, del, maybe(id, ""))
		time.Sleep(beyondAttempt)
		p.a.all(linkOpen)
		if a := <-got; a.status != 204 {
			p.errorf("the release of %s got %d %s", id, a.status, a.body)
		}
	}
	p.wantOneTerm()
	_, body := p.a.call("GET", "/history?environment=uat")
	if granted, released := strings.Count(body, `"granted"`), strings.Count(body, `"released"`); granted != 3 || released != 3 {
		p.errorf("%d grants and %d releases: %s", granted, released, body)
	}
	return p.wrong
}

// rowNothingArrives: what the leader sends never arrives.
func rowNothingArrives(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.a.all(linkHeld)
	granted := later(p.a, post, "/maybe?environment=perf&id=second-id&holder=x")
	time.Sleep(50 * time.Millisecond) // so that the grant is sent first: the leader waits for its answer then
	renewed := later(p.a, put, maybe("first-id", ""))
	for name, c := range map[string]chan answerOf{"a renewal": renewed, "a request": granted} {
		if got := <-c; got.status != 503 {
			p.errorf("%s got %d %s while etcd cannot be reached", name, got.status, got.body)
		}
	}
	p.b.waitToLead()
	if got := holders(p.b); !slices.Equal(got, []string{"first-id"}) {
		p.errorf("uat is held by %q", got)
	}
	p.want(p.b, 204, del, maybe("first-id", ""))
	if got := holders(p.a); len(got) > 0 {
		p.errorf("the server that is cut off still shows %q", got)
	}
	p.a.all(linkCut) // what was held is lost
	p.a.all(linkOpen)
	eventually(t, "it stands by", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	p.want(p.a, 200, "GET", "/maybe?environment=perf")
	return p.wrong
}

// rowLateAnswer: a transaction arrives again after others.
func rowLateAnswer(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for i := range 3 { // whichever member is asked first
		p.a.links[i].set(linkHeld)
		id := fmt.Sprint("request-", i)
		p.want(p.a, 201, post, maybe(id, "&ttl=1h"))
		p.want(p.a, 204, del, maybe(id, ""))
		p.a.links[i].set(linkLate)
		time.Sleep(400 * time.Millisecond)
		p.a.links[i].set(linkOpen)
	}
	p.a.kill()
	for end := time.Now().Add(15 * time.Second); !p.b.leads(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.errorf("the second server does not lead: %s", p.b.log)
			return p.wrong
		}
	}
	if got := holders(p.b); len(got) > 0 || got == nil {
		p.errorf("after the takeover uat is held by %q: %s", got, p.b.log)
	}
	return p.wrong
}

// rowKilled: the leader is killed under load, again and again. No grant that was acknowledged is
// lost or given twice, no place is lost, and the fences grow.
func rowKilled(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("holder-0", "&ttl=1h"))
	const waiters = 10
	var waiting []chan answerOf
	for i := range waiters {
		id := fmt.Sprint("waiter-", i)
		if status, _ := p.a.call(post, maybe(id, "&ttl=1h&wait=0s")); status != 403 {
			p.errorf("%s: %d", id, status)
		}
	}
	servers := []*sharedServer{p.a, p.b}
	fence, held := uint64(0), "holder-0"
	for round := range 3 {
		lead, next := servers[round%2], servers[(round+1)%2]
		released := later(lead, del, maybe(held, ""))
		time.Sleep(time.Duration(round) * time.Millisecond)
		lead.kill()
		<-released
		took := next.waitToLead()
		t.Logf("another server leads after %v", took.Round(time.Millisecond))
		lead.start()
		waiting = nil
		for i := round; i < waiters; i++ { // they all ask again, the last first
			waiting = append(waiting, later(next, post, maybe(fmt.Sprint("waiter-", waiters-1-i+round), "&ttl=1h&wait=3s")))
		}
		if status, body := next.call(del, maybe(held, "")); status != 204 {
			p.errorf("a release that is repeated: %d %s", status, body)
		}
		first := fmt.Sprint("waiter-", round)
		granted := 0
		for _, c := range waiting {
			got := <-c
			var l leaseJSON
			if got.status == 403 {
				continue
			}
			if json.Unmarshal([]byte(got.body), &l); got.status != 201 || l.Holder != first || l.Fence <= fence {
				p.errorf("round %d: %d %s, want the grant of %s after the fence %d", round, got.status, got.body, first, fence)
			}
			fence, granted = l.Fence, granted+1
		}
		if granted != 1 {
			p.errorf("round %d: %d grants", round, granted)
		}
		held = first
	}
	return p.wrong
}

// rowMemberLost: one member of etcd is stopped, each in turn. No other server leads, and calls are
// late by one attempt at most.
func rowMemberLost(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for i, m := range p.etcd.members {
		m.signal(syscall.SIGSTOP)
		for j := range 5 {
			id := fmt.Sprintf("request-%d-%d", i, j)
			for deadline := time.Now().Add(3 * time.Second); ; { // etcd may elect a leader meanwhile
				status, body := p.a.call(post, maybe(id, "&ttl=1h"))
				if status == 201 {
					break
				}
				if time.Now().After(deadline) {
					p.errorf("%s got %d %s", id, status, body)
					break
				}
			}
			p.want(p.a, 204, del, maybe(id, ""))
		}
		m.signal(syscall.SIGCONT)
		time.Sleep(700 * time.Millisecond)
	}
	return p.wrong
}

// rowStalledRead: the answer to a confirmation comes when another server leads already. It is none
// for the calls that came after the question.
func rowStalledRead(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	lead, next := p.a, p.b
	for range 6 {
		lead.all(linkBackHeld)
		time.Sleep(260 * time.Millisecond) // a leader asks four times a second
		p.etcd.remove("/test/meta/leader")
		renewed := later(lead, put, maybe("first-id", ""))
		next.waitToLead()
		lead.all(linkOpen)
		if got := <-renewed; got.status < 400 {
			p.errorf("a renewal got %d %s from a server that leads no more", got.status, got.body)
		}
		eventually(t, "it stands by", func() bool { status, _ := lead.call("GET", "/healthz"); return status == 200 && !lead.leads() })
		lead, next = next, lead
	}
	return p.wrong
}

// rowHungMember: the only member that the leader knows hangs, and yet renews its lease.
func rowHungMember(t *testing.T, binary string) []string {
	p, member := newBehindLiar(t, binary)
	p.b = p.etcd.newShared(binary)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	member.hangs.Store(true)
	return p.wantReplaced()
}

// rowAbsent: those who waited when the leader died may be in a poll that they do not know to be
// dead. They have 30 s to come back.
func rowAbsent(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.want(p.a, 403, post, maybe("waiter-id", "&wait=0s"))
	p.a.kill()
	p.b.waitToLead()
	time.Sleep(25 * time.Second)
	p.want(p.b, 204, del, maybe("first-id", ""))
	p.want(p.b, 403, post, "/maybe?environment=uat&holder=passer-by")
	p.want(p.b, 201, post, maybe("waiter-id", "&wait=0s"))
	return p.wrong
}

// rowCircle: a server that takes another for the leader, which does the same, answers.
func rowCircle(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	status, body := callPassed(p.b)
	if status != 503 {
		p.errorf("a call that was passed on, to a server that does not lead: %d %s", status, body)
	}
	p.b.inward.set(linkCut)
	p.a.inward.set(linkCut) // the standby does not reach the leader
	p.want(p.a, 200, "GET", "/maybe?environment=uat")
	p.want(p.b, 503, "GET", "/maybe?environment=uat")
	if status, body := p.b.call("GET", "/metrics"); status != 200 || !strings.Contains(body, "\ncallme_leader 0\n") {
		p.errorf("the metrics of a standby: %d %.300s", status, body)
	}
	time.Sleep(6 * time.Second)
	if p.b.leads() {
		p.errorf("a standby that does not reach the leader leads")
	}
	p.want(p.b, 503, "GET", "/healthz")
	p.a.inward.set(linkOpen)
	eventually(t, "it reaches the leader", func() bool { status, _ := p.b.call("GET", "/healthz"); return status == 200 })
	p.want(p.b, 201, post, maybe("first-id", ""))
	return p.wrong
}

// callPassed makes a call as another server passes it on.
func callPassed(s *sharedServer) (status int, body string) {
	r, _ := http.NewRequest("GET", s.base+"/maybe?environment=uat&holder=x", nil)
	r.Header.Set("X-API-KEY", s.key)
	r.Header.Set("Call-Me-Passed", "another")
	response, err := s.http.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// rowQuorumLost: two members of etcd are away for longer than the ttl of a lease, and than the leader may
// go without a proof. They are killed: one that is stopped ends the leader's key when it goes on, since it
// was asked to. The key, which gets its full ttl again, would last 8 s.
func rowQuorumLost(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=3s"))
	p.want(p.a, 403, post, maybe("waiter-id", "&wait=0s"))
	lost := p.etcd.members[1:]
	for _, m := range lost {
		m.kill()
	}
	eventually(t, "the leader ends its term", func() bool { return strings.Contains(p.a.log.String(), "leading no more") })
	for _, s := range []*sharedServer{p.a, p.b} {
		p.want(s, 503, "GET", "/maybe?environment=uat")
		p.want(s, 503, put, maybe("first-id", ""))
	}
	time.Sleep(4 * time.Second) // longer than it tries to delete its key
	for _, m := range lost {
		m.start()
	}
	started := time.Now()
	for {
		if status, _ := p.a.call(put, maybe("first-id", "")); status == 200 {
			break
		} else if time.Since(started) > 5*time.Second || status == 409 {
			p.errorf("a renewal got %d, %v after the quorum was back", status, time.Since(started))
			return p.wrong
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("back after %v", time.Since(started).Round(time.Millisecond))
	eventually(t, "the other server is back", func() bool { status, _ := p.b.call(del, maybe("first-id", "")); return status == 204 })
	eventually(t, "the next has its slot", func() bool { status, _ := p.b.call(post, maybe("waiter-id", "&wait=0s")); return status == 201 })
	return p.wrong
}

// rowNoSpace: the quota of etcd is used up, and later there is space again.
func rowNoSpace(t *testing.T, binary string) []string {
	p := newPair(t, binary, "--quota-backend-bytes", "8000000")
	p.want(p.a, 201, post, maybe("first-id", "&ttl=2s"))
	p.want(p.a, 403, post, maybe("waiter-id", "&wait=0s&ttl=1h"))
	p.etcd.fill()
	started := time.Now()
	for time.Since(started) < 3*time.Second { // longer than the ttl
		p.want(p.a, 200, put, maybe("first-id", ""))
		p.want(p.a, 503, post, "/maybe?environment=perf&id=other-id&holder=x")
		time.Sleep(100 * time.Millisecond)
	}
	p.want(p.a, 503, del, maybe("first-id", ""))
	p.want(p.a, 503, "GET", "/healthz")
	p.want(p.a, 200, "GET", "/healthz?leader=1")
	p.want(p.b, 200, "GET", "/healthz")
	p.want(p.b, 200, put, maybe("first-id", "")) // which it passes on
	p.want(p.a, 200, put, maybe("first-id", ""))
	p.etcd.makeSpace()
	eventually(t, "it is healthy again", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	p.want(p.a, 200, put, maybe("first-id", ""))
	p.want(p.a, 204, del, maybe("first-id", ""))
	p.want(p.a, 201, post, maybe("waiter-id", "&wait=0s&ttl=1h"))
	if n := strings.Count(p.a.log.String(), "msg=leading "); n != 1 || p.b.leads() {
		p.errorf("it has led %d times: %s", n, p.a.log)
	}
	p.a.kill()
	p.b.waitToLead()
	if got := holders(p.b); !slices.Equal(got, []string{"waiter-id"}) {
		p.errorf("after a takeover uat is held by %q", got)
	}
	return p.wrong
}

// rowSpaceUnclear: while etcd is full, some of its answers are lost, as when a member is
// defragmented. Nobody else could begin to lead, so the leader stays.
func rowSpaceUnclear(t *testing.T, binary string) []string {
	p := newPair(t, binary, "--quota-backend-bytes", "8000000")
	p.want(p.a, 201, post, maybe("first-id", "&ttl=2s"))
	p.etcd.fill()
	p.want(p.a, 503, post, "/maybe?environment=perf&id=other-id&holder=x")
	for round := range 2 {
		for _, l := range p.a.links { // whichever member is asked first
			l.set(linkSwallow)
			time.Sleep(beyondAttempt)
			l.set(linkOpen)
			p.want(p.a, 200, put, maybe("first-id", ""))
			p.want(p.a, 503, post, fmt.Sprintf("/maybe?environment=perf&id=other-id-%d&holder=x", round))
		}
	}
	p.etcd.makeSpace()
	eventually(t, "it is healthy again", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	p.want(p.a, 204, del, maybe("first-id", ""))
	p.want(p.a, 201, post, "/maybe?environment=perf&id=another-id&holder=x&wait=0s")
	if n := strings.Count(p.a.log.String(), "msg=leading "); n != 1 || p.b.leads() {
		p.errorf("it has led %d times: %s", n, p.a.log)
	}
	return p.wrong
}

// rowSpaceCrossed: etcd stores a transaction and answers that it has no space.
func rowSpaceCrossed(t *testing.T, binary string) []string {
	p, member := newBehindLiar(t, binary)
	p.a.start()
	p.a.waitToLead()
	for i := range 3 {
		id := fmt.Sprint("request-", i)
		member.isFull.Store(true)
		p.want(p.a, 201, post, maybe(id, "&ttl=1h"))
		member.isFull.Store(true)
		p.want(p.a, 204, del, maybe(id, ""))
	}
	p.wantOneTerm()
	return p.wrong
}

// rowRace: three servers start at once on an empty prefix.
func rowRace(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: newEtcd(t)}
	for round := range 3 {
		var servers []*sharedServer
		for range 3 {
			s := p.etcd.newShared(binary)
			for i, variable := range s.env {
				s.env[i] = strings.Replace(variable, "/test", fmt.Sprint("/race-", round), 1)
			}
			servers = append(servers, s)
		}
		var started sync.WaitGroup
		for _, s := range servers {
			started.Go(s.start)
		}
		started.Wait()
		count := func(isIt func(*sharedServer) bool) (n int) {
			for _, s := range servers {
				if isIt(s) {
					n++
				}
			}
			return n
		}
		eventually(t, "all are healthy", func() bool {
			return count(func(s *sharedServer) bool { status, _ := s.call("GET", "/healthz"); return status == 200 }) == 3
		})
		began := count(func(s *sharedServer) bool { return strings.Contains(s.log.String(), "msg=leading ") })
		ended := count(func(s *sharedServer) bool { return strings.Contains(s.log.String(), "leading no more") })
		if began != 1+ended { // on a busy machine a leader may lose its lease
			p.errorf("%d servers have begun to lead, and %d lead no more", began, ended)
		}
		for i, s := range servers {
			want := 403
			if i == 0 {
				want = 201
			}
			p.want(s, want, post, maybe(fmt.Sprint("request-", i), ""))
		}
	}
	return p.wrong
}

// rowHandOver: the leader is told to stop, again and again, while real clients wait with both
// addresses. No place is lost, and the next grant comes within 2 s.
func rowHandOver(t *testing.T, binary string) []string {
	waiters, times := 10, 4
	if !leftOut(t, "100 waiters and 40 hand-overs instead of 10 and 4") {
		waiters, times = 100, 40
	}
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	hosts := "HOST=" + p.a.host + "," + p.b.host
	var cmds []*exec.Cmd
	var logs []*lockedBuffer
	for i := range waiters {
		cmd, log := p.a.client(fmt.Sprint("waiter-", i), "request", "uat")
		cmd.Env = append(cmd.Env, hosts)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds, logs = append(cmds, cmd), append(logs, log)
		eventually(t, "it waits", func() bool { return connected(p.a.daemon) == i+1 })
	}
	lead, next := p.a, p.b
	held := "/maybe?environment=uat&force=1"
	for i := range times {
		lead.cmd.Process.Signal(syscall.SIGTERM)
		started := time.Now()
		next.waitToLead()
		p.want(next, 204, del, held)
		done := make(chan error, 1)
		go func() { done <- cmds[i].Wait() }()
		select {
		case err := <-done:
			if err != nil {
				p.errorf("%v: %s", err, logs[i])
			}
		case <-time.After(5 * time.Second):
			p.errorf("the next has no slot after 5 s: %s", logs[i])
			return p.wrong
		}
		t.Logf("the next has the slot after %v", time.Since(started).Round(time.Millisecond))
		lead.cmd.Wait() // it may wait for connections after another one leads
		lead.start()
		eventually(t, "it stands by", func() bool { status, _ := lead.call("GET", "/healthz"); return status == 200 })
		lead, next = next, lead
	}
	for i, log := range logs {
		if strings.Contains(log.String(), "end of the queue") {
			p.errorf("waiter %d has lost its place: %s", i, log)
		}
	}
	for _, cmd := range cmds[times:] {
		cmd.Process.Kill()
		cmd.Wait()
	}
	return p.wrong
}

// rowEdited: somebody deletes a record by hand. The server that loads the rest says so, and stops.
func rowEdited(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	for key := range p.etcd.get("/test/leases/") {
		p.etcd.remove(key)
	}
	p.a.kill()
	if err := p.b.ended(); err == nil || !strings.Contains(p.b.log.String(), "records are missing") {
		p.errorf("%v: %s", err, p.b.log)
	}
	return p.wrong
}

// rowHung: the keeper of the leader hangs, but not the rest of it. Another server leads, and the
// process ends, so that it is started again.
func rowHung(t *testing.T, binary string) []string {
	if binary == "" {
		binary = faulty(t, "keeper-hangs")
	}
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	hanging := later(p.a, post, "/maybe?environment=hang&id=hanging-id&holder=x")
	t.Logf("another server leads after %v", p.b.waitToLead().Round(time.Millisecond))
	if got := holders(p.b); !slices.Equal(got, []string{"first-id"}) {
		p.errorf("uat is held by %q", got)
	}
	if err := p.a.ended(); err == nil || !strings.Contains(p.a.log.String(), "the keeper hangs") {
		p.errorf("%v: %s", err, p.a.log)
	}
	if got := <-hanging; got.status/100 == 2 {
		p.errorf("a call that nobody has treated got %d %s", got.status, got.body)
	}
	return p.wrong
}

// rowHungAtOnce: as rowHung, but the keeper hangs before it has done anything.
func rowHungAtOnce(t *testing.T, binary string) []string {
	if binary == "" {
		binary = faulty(t, "keeper-hangs-at-once")
	}
	p := &pair{t: t, etcd: newEtcd(t)}
	p.a, p.b = p.etcd.newShared(binary), p.etcd.newShared("")
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	t.Logf("another server leads after %v", p.b.waitToLead().Round(time.Millisecond))
	if err := p.a.ended(); err == nil || !strings.Contains(p.a.log.String(), "the keeper hangs") {
		p.errorf("%v: %s", err, p.a.log)
	}
	return p.wrong
}

// rowStoppedShortly: a leader that was stopped, but for less time than another one needs to lead, goes on.
// Its keeper has not hung.
func rowStoppedShortly(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	for range 3 {
		p.a.stop()
		time.Sleep(3400 * time.Millisecond) // a keeper hangs after 3 s; the key was renewed up to 2 s before
		p.a.cmd.Process.Signal(syscall.SIGCONT)
		p.want(p.a, 200, "GET", "/maybe?environment=uat")
		time.Sleep(2 * time.Second) // its key is renewed
	}
	p.wantOneTerm()
	return p.wrong
}

// faulty builds a binary with one of the faults that rows need.
func faulty(t *testing.T, name string) string {
	t.Helper()
	all := patches(t, "faults")
	i := slices.IndexFunc(all, func(f patch) bool { return f.name == name })
	binary := filepath.Join(t.TempDir(), "call-me")
	if err := build(binary, "-overlay", all[i].overlay(t), "-ldflags", "-X main.leaderTTL=2s"); err != nil {
		t.Fatal(err)
	}
	return binary
}

// rowTwins: two servers have the same address. The one that does not lead says so, and ends.
func rowTwins(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: newEtcd(t)}
	p.a = p.etcd.newShared(binary)
	p.b = p.etcd.newShared(binary, "CALL_ME_ADVERTISE=http://"+p.a.inward.address)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	if err := p.b.ended(); err == nil || !strings.Contains(p.b.log.String(), "has the address of this one") {
		p.errorf("%v: %s", err, p.b.log)
	}
	p.a.kill()
	p.a.env = append(p.a.env, "CALL_ME_ENVIRONMENTS=uat,perf")
	p.a.start() // the key of its last life is there, with other environments
	p.a.waitToLead()
	p.want(p.a, 201, post, maybe("first-id", ""))
	return p.wrong
}

// rowNearlyFull: etcd has used nearly all of its quota, and the leader says so.
func rowNearlyFull(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: newEtcd(t, "--quota-backend-bytes", "20000000")}
	p.etcd.fillTo(17_000_000)
	p.a = p.etcd.newShared(binary)
	p.a.start()
	p.a.waitToLead()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(p.a.log.String(), "etcd is nearly full"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.errorf("it does not say so: %s", p.a.log)
			break
		}
	}
	return p.wrong
}

// rowFullAtStart: etcd is full and no server leads. A server says so once, and leads when there is space.
func rowFullAtStart(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: newEtcd(t, "--quota-backend-bytes", "8000000")}
	p.etcd.fill()
	p.a = p.etcd.newShared(binary)
	p.a.start()
	eventually(t, "it has tried to lead ten times", func() bool { return p.etcd.refusedLeases() >= 10 })
	if n := strings.Count(p.a.log.String(), "level=WARN"); n != 1 || !strings.Contains(p.a.log.String(), "how to make space") {
		p.errorf("it warns %d times: %s", n, p.a.log)
	}
	p.etcd.makeSpace()
	p.a.waitToLead()
	p.want(p.a, 201, post, maybe("first-id", ""))
	if n := strings.Count(p.a.log.String(), "etcd answers again"); n != 1 {
		p.errorf("it says %d times that etcd answers: %s", n, p.a.log)
	}
	return p.wrong
}

// rows are the faults by their names.
var rows = map[string]func(t *testing.T, binary string) []string{
	"early-end":       rowEarlyEnd,
	"early-grant":     rowEarlyGrant,
	"stopped":         rowStopped,
	"stopped-away":    rowStoppedAway,
	"lost-answers":    rowLostAnswers,
	"nothing-arrives": rowNothingArrives,
	"late-answer":     rowLateAnswer,
	"killed":          rowKilled,
	"load":            rowLoad,
	"loading":         rowLoading,
	"member-lost":     rowMemberLost,
	"stalled-read":    rowStalledRead,
	"hung-member":     rowHungMember,
	"absent":          rowAbsent,
	"circle":          rowCircle,
	"quorum-lost":     rowQuorumLost,
	"no-space":        rowNoSpace,
	"space-unclear":   rowSpaceUnclear,
	"space-crossed":   rowSpaceCrossed,
	"race":            rowRace,
	"hand-over":       rowHandOver,
	"edited":          rowEdited,
	"divided":         rowDivided,
	"vanished":        rowVanished,
	"all-killed":      rowAllKilled,
	"both-killed":     rowBothKilled,
	"versions":        rowVersions,
	"slow":            rowSlow,
	"stopped-shortly": rowStoppedShortly,
	"hung":            rowHung,
	"hung-at-once":    rowHungAtOnce,
	"twins":           rowTwins,
	"nearly-full":     rowNearlyFull,
	"full-at-start":   rowFullAtStart,
	"settings":        rowSettings,
	"last-answers":    rowLastAnswers,
	"compacted":       rowCompacted,
	"replaced":        rowReplaced,
	"upgraded":        rowUpgraded,
	"state-removed":   rowStateRemoved,
	"other-etcd":      rowOtherEtcd,
	"remembered":      rowRemembered,
	"hung-on-disk":    rowHungOnDisk,
	"clock-back":      rowClockBack,
	"clock-ahead":     rowClockAhead,
	"last-passed":     rowLastPassed,
	"queries":         rowQueries,
	"many":            rowMany,
	"small-only":      rowSmallOnly,
	"rolling":         rowRolling,
}

// usualTimes are the rows whose servers have the times of a server outside of tests, since the leader
// must stay in them: with those of tests it leads no more after 1.5 s without an answer of etcd, which
// is what a fault and a busy machine may come to together.
var usualTimes = []string{"lost-answers", "space-unclear", "space-crossed", "no-space", "many", "slow", "quorum-lost",
	"compacted", "replaced", "upgraded", "stopped-shortly"}

// beyondAttempt is more than the 1.5 s that a server waits for a member of etcd with these times.
const beyondAttempt = 1700 * time.Millisecond

// Every row holds.
func TestTwoServers(t *testing.T) {
	needsEtcd(t)
	for name, row := range rows {
		if (name == "absent" || name == "vanished") && leftOut(t, "two rows that take half a minute each") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary := ""
			if slices.Contains(usualTimes, name) {
				binary = binaryPath()
			}
			for _, wrong := range row(t, binary) {
				t.Error(wrong)
			}
		})
	}
}

// Each bug is seen in the row, or by the test of the functions, that it names.
func TestTwoServersBugs(t *testing.T) {
	tried := patches(t, "two-servers")
	for _, bug := range tried {
		bug.overlay(t) // it still applies
	}
	needsEtcd(t)
	if leftOut(t, fmt.Sprintf("all but two of %d bugs of two servers", len(tried))) {
		rand.New(rand.NewPCG(*seed, 9)).Shuffle(len(tried), func(i, j int) { tried[i], tried[j] = tried[j], tried[i] })
		tried = slices.DeleteFunc(tried, func(p patch) bool { return p.shownIn == "absent" })[:2]
	}
	for _, bug := range tried {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			if bug.shownBy != "" {
				if out, fails := bug.fails(bug.overlay(t)); !fails {
					t.Errorf("%s does not see it: %s", bug.shownBy, out)
				}
				return
			}
			binary, ttl := filepath.Join(t.TempDir(), "call-me"), "2s"
			if slices.Contains(usualTimes, bug.shownIn) {
				ttl = "8s"
			}
			if err := build(binary, "-overlay", bug.overlay(t), "-ldflags", "-X main.leaderTTL="+ttl); err != nil {
				t.Fatal(err)
			}
			wrong := rows[bug.shownIn](t, binary)
			if len(wrong) == 0 {
				t.Errorf("not seen: %s", bug.says)
				return
			}
			t.Log(wrong[0])
		})
	}
}

// A slowCall is a call of which all has been sent but for its last bytes.
type slowCall struct {
	what string
	conn net.Conn
	rest string
}

// beginCall sends a call but for the last byte of its body, or of its header if it has none.
func beginCall(t testing.TB, s *sharedServer, method, path string) *slowCall {
	t.Helper()
	conn, err := net.Dial("tcp", s.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c, body := &slowCall{what: method + " " + path, conn: conn}, ""
	if method != "GET" {
		path, body, _ = strings.Cut(path, "?")
	}
	all := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nX-API-KEY: %s\r\n", method, path, s.host, s.key)
	if body != "" {
		all += fmt.Sprintf("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n", len(body))
	}
	all += "\r\n" + body
	c.rest = all[len(all)-1:]
	io.WriteString(conn, all[:len(all)-1])
	return c
}

// finish sends the rest.
func (c *slowCall) finish() { io.WriteString(c.conn, c.rest) }

// answer returns the answer; its status is zero if the connection ended without one.
func (c *slowCall) answer() answerOf {
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
	if err != nil {
		return answerOf{0, err.Error()}
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answerOf{0, err.Error()}
	}
	return answerOf{response.StatusCode, string(body)}
}

// A file moves to etcd, and back by a backup: leases, queue and history are the same, and the
// fences go on. A prefix with anything is refused.
func TestMovingToEtcdAndBack(t *testing.T) {
	needsEtcd(t)
	c := newEtcd(t)
	d := newDaemon(t)
	d.want(201, post, maybe("first-id", "&ttl=1h"))
	for i := range 300 {
		d.want(201, post, fmt.Sprint("/maybe?environment=perf&holder=x&id=request-", i))
		d.want(204, del, fmt.Sprint("/maybe?environment=perf&holder=x&id=request-", i))
	}
	d.want(403, post, maybe("waiter-id", "&wait=0s"))
	d.want(200, put, "/pause?environment=web&reason=maintenance")
	history := func(d *daemon) string { return d.want(200, "GET", "/history?limit=1000") }
	before, queue := history(d), queueOf(d)
	d.kill()

	var addresses []string
	for _, m := range c.members {
		addresses = append(addresses, m.address)
	}
	store := "etcd://" + strings.Join(addresses, ",") + "/test"
	move := func() (string, error) {
		cmd := mortal(t, "move", d.file(), store)
		cmd.Env = slices.DeleteFunc(slices.Clone(d.env), func(v string) bool { return strings.HasPrefix(v, "CALL_ME_DB=") })
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := move(); err != nil || !strings.Contains(out, "moved 605 records") {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := move(); err == nil || !strings.Contains(out, "etcdctl del --prefix") {
		t.Errorf("a second move: %v: %s", err, out)
	}
	s := c.newShared("")
	s.start()
	s.waitToLead()
	if after := history(s.daemon); after != before || queueOf(s.daemon) != queue {
		t.Errorf("the history was\n%s\nand is\n%s", before, after)
	}
	var given, later leaseJSON
	json.Unmarshal([]byte(s.want(201, post, "/maybe?environment=perf&holder=x&id=after-the-move")), &given)

	file := filepath.Join(t.TempDir(), "back.db")
	backup, out := s.client("operator", "backup", file)
	if err := backup.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.kill()
	back := newDaemon(t, "CALL_ME_DB="+file)
	if queueOf(back) != queue {
		t.Errorf("the queue was %s and is %s", queue, queueOf(back))
	}
	back.want(204, del, "/maybe?environment=perf&id=after-the-move")
	json.Unmarshal([]byte(back.want(201, post, "/maybe?environment=perf&holder=x&id=after-the-return")), &later)
	if given.Fence == 0 || later.Fence < given.Fence+1<<32 {
		t.Errorf("the fence was %d and is %d", given.Fence, later.Fence)
	}
}

// What can never work is refused in one line.
func TestSettingsOfEtcdThatAreRefused(t *testing.T) {
	needsEtcd(t)
	c := newEtcd(t)
	lead := c.newShared("", "CALL_ME_ENVIRONMENTS=uat,perf")
	lead.start()
	lead.waitToLead()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.client.Put(ctx, "/others/key", "value"); err != nil {
		t.Fatal(err)
	}
	address := c.members[0].address
	for _, r := range []struct {
		env  []string
		want string
	}{
		{[]string{"CALL_ME_ENVIRONMENTS=uat"}, "other environments than this server"},
		{[]string{"CALL_ME_STORE=etcd://" + address + "/others"}, "not call-me's"},
		{[]string{"CALL_ME_STORE=etcd://" + address + "/test", "CALL_ME_ADVERTISE="}, "CALL_ME_ADVERTISE must be set"},
		{[]string{"CALL_ME_STORE=http://" + address}, "no address of etcd"},
		{[]string{"CALL_ME_ETCD_USER=call-me"}, "belong together"},
		{[]string{"CALL_ME_ETCD_CA_FILE=ca.pem"}, "etcds://"},
	} {
		s := c.newShared("", append([]string{"CALL_ME_ENVIRONMENTS=uat,perf"}, r.env...)...)
		s.wantRefused(r.want)
	}
}

// With TLS, a user and a password: a server that has them leads, also after its token has ended,
// and one that has not is refused in one line.
func TestEtcdWithTLSAndAPassword(t *testing.T) {
	needsEtcd(t)
	a := newAuthority(t)
	folder := t.TempDir()
	certificate, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	a.issue(certificate, key)
	c := startEtcd(t, etcdOptions{trust: a.trust()}, "--cert-file", certificate, "--key-file", key, "--auth-token-ttl", "2", "--bcrypt-cost", "4")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, errRoot := c.client.UserAdd(ctx, "root", "the-root-password")
	_, errRootRole := c.client.RoleAdd(ctx, "root")
	_, errRootGrant := c.client.UserGrantRole(ctx, "root", "root")
	_, errUser := c.client.UserAdd(ctx, "call-me", "the-password")
	_, errRole := c.client.RoleAdd(ctx, "locks")
	_, errAllow := c.client.RoleGrantPermission(ctx, "locks", "/test/", clientv3.GetPrefixRangeEnd("/test/"),
		clientv3.PermissionType(clientv3.PermReadWrite))
	_, errGrant := c.client.UserGrantRole(ctx, "call-me", "locks")
	_, errEnable := c.client.AuthEnable(ctx)
	if err := errors.Join(errRoot, errRootRole, errRootGrant, errUser, errRole, errAllow, errGrant, errEnable); err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, m := range c.members {
		addresses = append(addresses, m.address)
	}
	store := "etcds://" + strings.Join(addresses, ",") + "/test"
	password, wrong := filepath.Join(folder, "password"), filepath.Join(folder, "wrong")
	os.WriteFile(password, []byte("the-password\n"), 0o600)
	os.WriteFile(wrong, []byte("another\n"), 0o600)
	server := func(file, authority, store string) *sharedServer {
		return c.newShared(binaryPath(), "CALL_ME_STORE="+store, "CALL_ME_ETCD_CA_FILE="+authority,
			"CALL_ME_ETCD_USER=call-me", "CALL_ME_ETCD_PASSWORD_FILE="+file)
	}
	s := server(password, a.file, store)
	s.start()
	s.waitToLead()
	for i := range 10 { // longer than a token lasts
		s.want(201, post, maybe(fmt.Sprint("request-", i), ""))
		s.want(204, del, maybe(fmt.Sprint("request-", i), ""))
		time.Sleep(500 * time.Millisecond)
	}
	if n := strings.Count(s.log.String(), "msg=leading "); n != 1 {
		t.Errorf("it has led %d times: %s", n, s.log)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: c.client.Endpoints(), TLS: a.trust(), Logger: zap.NewNop(),
		Username: "root", Password: "the-root-password"})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.UserChangePassword(ctx, "call-me", "a-new-password"); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(password, []byte("a-new-password\n"), 0o600)
	eventually(t, "it uses the new password", func() bool {
		status, _ := s.call(post, maybe("later-request", ""))
		return status == 201
	})
	for what, r := range map[string]*sharedServer{
		"invalid user ID or password": server(wrong, a.file, store),
		"certificate":                 server(password, newAuthority(t).file, store),
		"permission denied":           server(password, a.file, strings.Replace(store, "/test", "/elsewhere", 1)),
	} {
		r.wantRefused(what)
	}
}

// wantRefused fails the test unless the server ends at its start, and says what.
func (s *sharedServer) wantRefused(what string) {
	s.t.Helper()
	if wrong := s.refuses(what); wrong != "" {
		s.t.Error(wrong)
	}
}

// refuses returns what is wrong unless the server ends at its start, and says what.
func (s *sharedServer) refuses(what string) (wrong string) {
	cmd := exec.Command(s.binary, "serve")
	cmd.Env, cmd.Stderr = s.env, s.log
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(s.log.String(), what) {
			return fmt.Sprintf("%v: %s, want %q", err, s.log, what)
		}
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-ended
		return fmt.Sprintf("want %q, but it serves: %s", what, s.log)
	}
	return ""
}

// wantRefused notes an error unless a server ends at its start, and says what.
func (p *pair) wantRefused(s *sharedServer, what string) {
	if wrong := s.refuses(what); wrong != "" {
		p.errorf("%s", wrong)
	}
}
