//go:build unix

package tests

// Rows of two_servers_test.go in which etcd is slow, divided, or ends as a whole, or in which the
// servers are of two versions.

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// rowAllKilled: all servers and all of etcd are killed under load, and started again. What was
// acknowledged is as it was.
func rowAllKilled(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	const clients = 8
	for round := range 3 {
		type known struct {
			id   string // of the last request; it is held unless its release was acknowledged
			free bool
			ok   bool // the last call had an answer
		}
		states := make([]known, clients)
		var all sync.WaitGroup
		stop := make(chan struct{})
		for i := range clients {
			all.Go(func() {
				s := &states[i]
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					path := fmt.Sprintf("/maybe?environment=env-%d&id=request-%d-%d&holder=x&ttl=1h", i, round, n)
					status, _ := p.a.call(post, path)
					*s = known{fmt.Sprintf("request-%d-%d", round, n), false, status == 201}
					if status != 201 {
						return
					}
					status, _ = p.a.call(del, path)
					s.free, s.ok = true, status == 204
					if status != 204 {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(500+100*round) * time.Millisecond)
		for _, m := range p.etcd.members {
			m.signal(syscall.SIGKILL)
		}
		p.a.cmd.Process.Signal(syscall.SIGKILL)
		p.b.cmd.Process.Signal(syscall.SIGKILL)
		close(stop)
		all.Wait()
		p.a.cmd.Wait()
		p.b.cmd.Wait()
		for _, m := range p.etcd.members {
			m.cmd.Wait()
			m.start()
		}
		p.a.start()
		p.b.start()
		eventually(t, "one of them leads", func() bool { return p.a.leads() || p.b.leads() })
		if p.b.leads() {
			p.a, p.b = p.b, p.a
		}
		for i, s := range states {
			path := fmt.Sprintf("/maybe?environment=env-%d&id=%s&holder=x", i, s.id)
			status, body := p.a.call(put, path)
			if want := map[bool]int{true: 409, false: 200}[s.free]; s.ok && status != want {
				p.errorf("env-%d %+v: a renewal gets %d %s, want %d", i, s, status, body, want)
			}
			p.a.call(del, path)
		}
	}
	return p.wrong
}

// rowBothKilled: the leader of etcd is killed together with the leader of the servers.
func rowBothKilled(t *testing.T, binary string) []string {
	p := newPair(t, binary)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.want(p.a, 403, post, maybe("waiter-id", "&wait=0s"))
	p.etcd.leader().kill()
	p.a.kill()
	t.Logf("another server leads after %v", p.b.waitToLead().Round(time.Millisecond))
	p.want(p.b, 200, put, maybe("first-id", ""))
	p.want(p.b, 204, del, maybe("first-id", ""))
	p.want(p.b, 201, post, maybe("waiter-id", "&wait=0s"))
	return p.wrong
}

// rowVersions: the leader is of a newer version, which has stored another format. A server of this
// version passes calls on to it, but does not lead, and says why.
func rowVersions(t *testing.T, binary string) []string {
	newer := faulty(t, "newer-format")
	p := newPair(t, binary)
	older, other := p.a, p.b
	other.kill()
	other.binary = newer
	other.start()
	p.want(older, 201, post, maybe("first-id", "&ttl=1h"))
	older.stop()
	other.waitToLead()
	p.want(other, 200, put, maybe("first-id", "&ttl=2h")) // this stores the newer format
	older.cmd.Process.Signal(syscall.SIGCONT)
	eventually(t, "the older one stands by", func() bool { status, _ := older.call("GET", "/healthz"); return status == 200 })
	p.want(older, 200, put, maybe("first-id", ""))
	p.etcd.newShared(binary).wantRefused("its format is 2, this call-me knows 1")
	other.kill()
	eventually(t, "the older one says why it does not lead", func() bool {
		return strings.Contains(older.log.String(), "its format is 2, this call-me knows 1")
	})
	p.want(older, 503, "GET", "/maybe?environment=uat")
	other.start()
	other.waitToLead()
	eventually(t, "the older one stands by again", func() bool { status, _ := older.call("GET", "/healthz"); return status == 200 })
	if got := holders(older); !slices.Equal(got, []string{"first-id"}) {
		p.errorf("uat is held by %q", got)
	}
	return p.wrong
}

// rowDivided: the only member that the leader reaches is cut off from the other two. It still knows
// the key of the leader, but that is no proof.
func rowDivided(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: startEtcd(t, etcdOptions{isDivisible: true})}
	p.a, p.b = p.etcd.newShared(binary), p.etcd.newShared(binary)
	p.a.reach(p.etcd.members[0].address)
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	p.etcd.isolate(0)
	return p.wantReplaced()
}

// rowVanished: the machine of the leader vanishes, while real clients are in polls that never end. None
// of them loses its place.
func rowVanished(t *testing.T, binary string) []string {
	const waiters = 12
	p := newPair(t, binary)
	front := newLink(t, p.a.host)
	p.want(p.a, 201, post, maybe("first-id", "&ttl=1h"))
	var cmds []*exec.Cmd
	var logs []*lockedBuffer
	for i := range waiters {
		cmd, log := p.a.client(fmt.Sprint("waiter-", i), "request", "uat")
		cmd.Env = append(cmd.Env, "HOST="+front.address+","+p.b.host)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		cmds, logs = append(cmds, cmd), append(logs, log)
		eventually(t, "it waits", func() bool { return connected(p.a.daemon) == i+1 })
	}
	started := time.Now()
	front.set(linkGone)
	p.a.stop()
	p.b.waitToLead()
	for i := range waiters {
		p.want(p.b, 204, del, "/maybe?environment=uat&force=1")
		if err := cmds[i].Wait(); err != nil || strings.Contains(logs[i].String(), "end of the queue") {
			p.errorf("waiter %d: %v: %s", i, err, logs[i])
		}
		if got := holders(p.b); !slices.Equal(got, []string{fmt.Sprint("waiter-", i)}) {
			p.errorf("uat is held by %q, want waiter-%d", got, i)
			return p.wrong
		}
		t.Logf("waiter %d has its slot after %v", i, time.Since(started).Round(100*time.Millisecond))
	}
	return p.wrong
}

// rowSlow: each answer of etcd takes long. The leader stays the same while an answer takes less than an
// attempt; when it takes longer, nobody is answered, and afterwards all is as before.
func rowSlow(t *testing.T, binary string) []string {
	p := &pair{t: t, etcd: newEtcd(t)}
	var delay atomic.Int64
	p.a, p.b = p.etcd.newShared(binary), p.etcd.newShared(binary)
	for _, s := range []*sharedServer{p.a, p.b} {
		var addresses []string
		for _, m := range p.etcd.members {
			addresses = append(addresses, newSlowLink(t, m.address, &delay))
		}
		s.reach(addresses...)
	}
	p.a.start()
	p.a.waitToLead()
	p.b.start()
	p.want(p.a, 201, post, "/maybe?environment=perf&id=other-id&holder=other&ttl=8s")
	for i, d := range []time.Duration{300 * time.Millisecond, time.Second} {
		delay.Store(int64(d))
		id := fmt.Sprint("request-", i)
		p.want(p.a, 201, post, maybe(id, "&ttl=1h"))
		p.want(p.a, 200, put, "/maybe?environment=perf&id=other-id&holder=other")
		p.want(p.a, 200, put, maybe(id, ""))
		p.want(p.a, 204, del, maybe(id, ""))
	}
	if n := strings.Count(p.a.log.String(), "msg=leading "); n != 1 || !p.a.leads() {
		p.errorf("it has led %d times: %s", n, p.a.log)
	}
	p.want(p.a, 200, put, "/maybe?environment=perf&id=other-id&holder=other")
	delay.Store(int64(3 * time.Second)) // longer than an attempt, and for longer than the lease lasts
	time.Sleep(9 * time.Second)
	p.want(p.a, 503, "GET", "/maybe?environment=perf")
	p.want(p.a, 503, put, "/maybe?environment=perf&id=other-id&holder=other")
	delay.Store(0)
	eventually(t, "one of them leads, and is reached", func() bool { status, _ := p.a.call("GET", "/healthz"); return status == 200 })
	p.want(p.a, 200, put, "/maybe?environment=perf&id=other-id&holder=other")
	return p.wrong
}

// newSlowLink returns an address that forwards connections to a target. What comes back arrives
// after a delay.
func newSlowLink(t *testing.T, target string, delay *atomic.Int64) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	type part struct {
		due  time.Time
		text []byte
	}
	serve := func(near net.Conn) {
		defer near.Close()
		far, err := net.DialTimeout("tcp", target, 5*time.Second)
		if err != nil {
			return
		}
		defer far.Close()
		go func() { io.Copy(far, near); far.Close() }()
		parts := make(chan part, 1000)
		go func() {
			defer close(parts)
			buffer := make([]byte, 64<<10)
			for {
				n, err := far.Read(buffer)
				if err != nil {
					return
				}
				parts <- part{time.Now().Add(time.Duration(delay.Load())), bytes.Clone(buffer[:n])}
			}
		}()
		for p := range parts {
			time.Sleep(time.Until(p.due))
			if _, err := near.Write(p.text); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(near)
		}
	}()
	return listener.Addr().String()
}

// rowLoading: etcd is slow while a server loads what it has, or does not answer. A slow load is no keeper
// that hangs; one without an answer ends with the term, or when the server is told to stop.
func rowLoading(t *testing.T, binary string) []string {
	p, member := newBehindLiar(t, binary)
	member.lost.Store(2)
	p.a.start()
	p.a.waitToLead()
	if strings.Contains(p.a.log.String(), "the keeper hangs") {
		p.errorf("%s", p.a.log)
	}
	p.a.kill()

	const all = 1 << 40
	begin := func() {
		member.lost.Store(all)
		p.a.start()
		eventually(t, "it loads", func() bool { return member.lost.Load() < all })
	}
	begin()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(p.a.log.String(), "this server cannot lead"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.errorf("it loads for ever: %s", p.a.log)
			break
		}
	}
	p.a.kill()
	begin()
	p.a.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- p.a.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		p.errorf("it does not stop: %s", p.a.log)
		p.a.cmd.Process.Kill()
		<-ended
	}
	return p.wrong
}
