//go:build unix

package tests

// Rows of two_servers_test.go about what operators do with etcd: they compact it, replace a member,
// upgrade it, delete a key, or give an address of another etcd.

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// A load is clients that request and release slots of their own until it is ended.
type load struct {
	stop   chan struct{}
	all    sync.WaitGroup
	cycles atomic.Int64
}

// load lets 8 clients call a. Each answer that is none of a lock that works is an error.
func (p *pair) load() *load {
	l := &load{stop: make(chan struct{})}
	for client := range 8 {
		l.all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				path := fmt.Sprintf("/maybe?environment=env-%d&id=request-%d&holder=x&ttl=1h", client, i)
				p.want(p.a, 201, post, path)
				p.want(p.a, 200, put, path)
				p.want(p.a, 204, del, path)
				l.cycles.Add(1)
			}
		})
	}
	return l
}

// end ends the clients, which must have come to something.
func (l *load) end(p *pair) {
	close(l.stop)
	l.all.Wait()
	if n := l.cycles.Load(); n < 50 {
		p.errorf("only %d cycles under load", n)
	}
	p.t.Logf("%d cycles", l.cycles.Load())
}

// rowCompacted: etcd is compacted while a server loads, so that what it reads is not there any more,
// and again and again under load. No caller notices.
func rowCompacted(t *testing.T, binary string) []string {
	p, member := newBehindLiar(t, binary)
	p.a.start()
	p.a.waitToLead()
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.a.kill()
	var once sync.Once
	member.beforePage.Store(func() { once.Do(p.etcd.compact) })
	p.a.start()
	p.a.waitToLead()
	if log := p.a.log.String(); strings.Contains(log, "cannot lead") {
		p.errorf("it gives up: %s", log)
	}
	if got := holders(p.a); !slices.Equal(got, []string{"first-id"}) {
		p.errorf("uat is held by %q", got)
	}
	l := p.load()
	for range 30 {
		p.etcd.compact()
		time.Sleep(20 * time.Millisecond)
	}
	l.end(p)
	return p.wrong
}

// compact makes a revision, and removes all revisions before it.
func (c *etcdCluster) compact() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	put, err := c.client.Put(ctx, "/other", "value")
	if err == nil {
		_, err = c.client.Compact(ctx, put.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		c.t.Error(err)
	}
}

// rowReplaced: under load each member of etcd is replaced by a new one without data, the leader of
// etcd too. No caller notices.
func rowReplaced(t *testing.T, binary string) []string {
	if leftOut(t, "a row in which members of etcd are replaced, which takes half a minute") {
		t.Skip("left out without -full")
	}
	p := newPair(t, binary)
	l := p.load()
	for i := range p.etcd.members {
		p.etcd.replace(i)
	}
	l.end(p)
	p.wantOneTerm()
	return p.wrong
}

// wantOneTerm notes an error unless a has led all the time.
func (p *pair) wantOneTerm() {
	if n := strings.Count(p.a.log.String(), "msg=leading "); n != 1 || !p.a.leads() {
		p.errorf("it has led %d times: %s", n, p.a.log)
	}
}

// replace replaces a member by a new one at the same address.
func (c *etcdCluster) replace(i int) {
	c.t.Helper()
	m := c.members[i]
	list, err := c.client.MemberList(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	at := slices.IndexFunc(list.Members, func(m *etcdserverpb.Member) bool { return m.Name == fmt.Sprint("m", i) })
	m.kill()
	// A change of the members is refused until the others have been connected for some seconds.
	try := func(what string, f func(context.Context) error) {
		c.t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			err := f(ctx)
			cancel()
			if err == nil {
				return
			} else if time.Now().After(end) {
				c.t.Fatalf("member %d: never: %s: %v", i, what, err)
			}
		}
	}
	try("the old member is removed", func(ctx context.Context) error {
		_, err := c.client.MemberRemove(ctx, list.Members[at].ID)
		if errors.Is(err, rpctypes.ErrMemberNotFound) { // it was, and the answer was lost
			return nil
		}
		return err
	})
	try("the new one is added", func(ctx context.Context) error {
		_, err := c.client.MemberAdd(ctx, list.Members[at].PeerURLs)
		if errors.Is(err, rpctypes.ErrPeerURLExist) {
			return nil
		}
		return err
	})
	m.setArg("--data-dir", m.arg("--data-dir")+"-new")
	m.setArg("--initial-cluster-state", "existing")
	m.start()
	c.waitFor(m)
}

// waitFor waits until a member has all that was stored.
func (c *etcdCluster) waitFor(m *etcdMember) {
	c.t.Helper()
	alone, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + m.address}, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	defer alone.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := alone.Get(ctx, "/")
		cancel()
		if err == nil {
			return
		} else if time.Now().After(end) {
			c.t.Fatalf("a member does not answer: %v: %s", err, m.log)
		}
	}
}

// arg returns the value of a flag of the member.
func (m *etcdMember) arg(flag string) string { return m.args[slices.Index(m.args, flag)+1] }

// setArg changes it.
func (m *etcdMember) setArg(flag, value string) { m.args[slices.Index(m.args, flag)+1] = value }

// olderEtcds is what rowUpgraded begins with.
var olderEtcds = flag.String("older-etcds", "", "the paths of etcd of older versions, the oldest first, with commas between: "+
	"TestTwoServers/upgraded begins with the first, and ends with the one that is built")

// rowUpgraded: under load etcd is upgraded from one version to the next, member by member. No caller
// notices. From 3.4 to 3.6, and from 3.6 to 3.7: an etcd 3.7 cannot read what 3.4 has written to its log
// seconds before.
func rowUpgraded(t *testing.T, binary string) []string {
	if *olderEtcds == "" {
		t.Skip("left out without -older-etcds")
	}
	newest, err := etcdBinary()
	if err != nil {
		t.Fatal(err)
	}
	versions := append(strings.Split(*olderEtcds, ","), newest)
	p := startEtcd(t, etcdOptions{binary: versions[0]}).newPair(binary)
	l := p.load()
	for _, version := range versions[1:] {
		before := p.etcd.version()
		for _, m := range p.etcd.members {
			m.signal(syscall.SIGTERM)
			m.cmd.Wait()
			m.args[0] = version
			m.start()
			p.etcd.waitFor(m)
		}
		eventually(t, "all of etcd has the new version", func() bool { return p.etcd.version() != before })
		t.Logf("%s -> %s", before, p.etcd.version())
	}
	l.end(p)
	p.wantOneTerm()
	return p.wrong
}

// version returns the version that all members have.
func (c *etcdCluster) version() string {
	c.t.Helper()
	response, err := http.Get("http://" + c.members[0].address + "/version")
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	var v struct{ Etcdcluster string }
	if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
		c.t.Fatal(err)
	}
	return v.Etcdcluster
}

// rowStateRemoved: somebody deletes the key of the state, or all keys. The leader says so and leads no
// more, and nobody begins without what was there, until an operator restarts the servers.
func rowStateRemoved(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	all := []*sharedServer{p.a, p.b}
	remains := func(what string, prefix string) {
		time.Sleep(300 * time.Millisecond) // so that both have looked
		p.etcd.removeAll(prefix)
		time.Sleep(2 * time.Second) // until the term has ended, and another would have begun
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			for _, s := range all {
				if status, body := s.call(post, maybe("second-id", "&wait=0s")); status != 503 {
					p.errorf("without %s: %d %s", what, status, body)
				}
			}
		}
		for _, s := range all {
			if log := s.log.String(); !strings.Contains(log, "etcd has lost its state") {
				p.errorf("without %s it does not say why it does not lead: %s", what, log)
			}
			s.kill()
		}
	}
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	remains("the state", "/test/meta/state")
	p.wantRefused(p.etcd.newShared(binary), "a move was not finished")
	p.etcd.removeAll("/test/")

	for _, s := range all {
		s.start()
	}
	eventually(t, "one of them leads", func() bool { return p.a.leads() || p.b.leads() })
	eventually(t, "the slot is free", func() bool { status, _ := p.a.call(post, maybe("third-id", "&ttl=1h")); return status == 201 })
	remains("any key", "/test/")
	return p.wrong
}

// removeAll deletes all keys with a prefix.
func (c *etcdCluster) removeAll(prefix string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.client.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
		c.t.Fatal(err)
	}
}

// rowOtherEtcd: an address of etcd is that of another etcd. A server does not start with both, and one
// that runs uses only the etcd that it knows.
func rowOtherEtcd(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	other := newEtcd(t)
	mixed := p.etcd.newShared(binary)
	mixed.reach(p.etcd.members[0].address, other.members[0].address)
	p.wantRefused(mixed, "the addresses are of two different etcd")
	stray := p.etcd.newShared(binary) // which reaches at its start only what is not its etcd
	stray.links[0].retarget(other.members[0].address)
	stray.links[1].set(linkCut)
	stray.links[2].set(linkCut)
	stray.start()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if stray.leads() {
			p.errorf("a server leads on another etcd")
			break
		}
	}
	stray.kill()

	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	for i, l := range p.a.links[:2] {
		l.retarget(other.members[i].address)
	}
	for range 20 {
		p.want(p.a, 200, put, maybe("first-id", ""))
		p.want(p.a, 403, post, maybe("other-id", "&wait=0s"))
	}
	for _, s := range []*sharedServer{p.a, p.b} {
		for i, l := range s.links {
			l.retarget(other.members[i].address)
		}
	}
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if p.b.leads() { // or if a has begun anew
			p.errorf("a server leads on another etcd")
			break
		}
	}
	p.want(p.a, 503, put, maybe("first-id", ""))
	for _, s := range []*sharedServer{p.a, p.b} {
		for i, l := range s.links {
			l.retarget(p.etcd.members[i].address)
		}
	}
	eventually(t, "the lease is where it was", func() bool { status, _ := p.b.call(put, maybe("first-id", "")); return status == 200 })
	return p.wrong
}

// rowRemembered: what a server has in memory only, and what its successor makes of the history again:
// which slot was used longest ago, and how long a waiter is likely to wait.
func rowRemembered(t *testing.T, binary string) []string {
	p := newEtcd(t).newPair(binary, "CALL_ME_ENVIRONMENTS=uat,perf:3")
	perf := func(id string) string { return "/maybe?environment=perf&ttl=1h&holder=x&id=request-" + id }
	slots := map[string]string{}
	granted := func(s *sharedServer, id string) string {
		status, body := s.call(post, perf(id))
		var l leaseJSON
		if json.Unmarshal([]byte(body), &l); status != 201 {
			p.errorf("%s: %d %s", id, status, body)
		}
		return l.Slot
	}
	for _, id := range []string{"one", "two", "three"} {
		slots[id] = granted(p.a, id)
	}
	for _, id := range []string{"two", "three", "one"} { // so that the slot of two is the one to be given next
		p.want(p.a, 204, del, perf(id))
	}
	for i := range 6 { // so that there is an estimate of uat
		id := fmt.Sprint("request-", i)
		p.want(p.a, 201, post, maybe(id, "&ttl=1h"))
		p.want(p.a, 204, del, maybe(id, ""))
	}
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.want(p.a, 403, post, maybe("waiter-id", "&wait=0s"))
	if _, body := p.a.call("GET", "/environments?environment=uat"); !strings.Contains(body, "estimated_wait_seconds") {
		p.errorf("no estimate before: %s", body)
	}
	p.a.kill()
	p.b.waitToLead()
	if _, body := p.b.call("GET", "/environments?environment=uat"); !strings.Contains(body, "estimated_wait_seconds") {
		p.errorf("no estimate after a takeover: %s", body)
	}
	for _, id := range []string{"two", "three", "one"} {
		if got := granted(p.b, "next-"+id); got != slots[id] {
			p.errorf("%s was given, want %s, which was used longest ago", got, slots[id])
		}
	}
	return p.wrong
}

// debiansEtcd is an etcd without the fix of its issue 15247: a leader that hangs goes on to renew leases.
const debiansEtcd = "/usr/bin/etcd"

// rowHungOnDisk: the disk of the leader of etcd hangs, which is the only member that the leader of the
// servers reaches. The others elect another leader of etcd, and the old one renews leases all the same.
func rowHungOnDisk(t *testing.T, binary string) []string {
	strace, err := exec.LookPath("strace")
	if out, _ := exec.Command(debiansEtcd, "--version").Output(); err != nil || !strings.Contains(string(out), " 3.4.") {
		t.Skip("strace, or an etcd 3.4 at " + debiansEtcd + ", is not there: apt-get install strace etcd-server")
	}
	p := &pair{t: t, etcd: startEtcd(t, etcdOptions{binary: debiansEtcd})}
	hung := p.etcd.leader()
	p.a, p.b = p.etcd.newShared(binary), p.etcd.newShared(binary)
	p.a.reach(hung.address)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	hold := exec.Command(strace, "-f", "-p", fmt.Sprint(hung.cmd.Process.Pid), "-o", os.DevNull,
		"-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60000000")
	said := &lockedBuffer{}
	hold.Stderr = said
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hold.Process.Kill(); hold.Wait() })
	eventually(t, "strace holds the disk", func() bool { return strings.Contains(said.String(), "attached") })
	hanging := later(p.a, post, "/maybe?environment=other&id=hanging-id&holder=x") // a disk hangs when it is used
	p.wantReplaced()
	if got := <-hanging; got.status/100 == 2 {
		p.errorf("a call that could not be stored got %d %s", got.status, got.body)
	}
	return p.wrong
}
