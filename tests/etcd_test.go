//go:build unix

package tests

// Real etcd for the tests of two servers: three members, built from testdata/etcd, and links
// through which the servers reach them.

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdBinary builds etcd once, and returns its path. go's cache has it the next time.
var etcdBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "etcd")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-C", "testdata/etcd", "-o", path, "go.etcd.io/etcd/server/v3")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// An etcdCluster is three members of one etcd, which are stopped when the test ends.
type etcdCluster struct {
	t       testing.TB
	members []*etcdMember
	peers   []*peerLink      // by which the members reach each other; nil if they do directly
	client  *clientv3.Client // by its own connections, not through links
}

type etcdMember struct {
	t       testing.TB
	address string // for clients
	args    []string
	log     *lockedBuffer
	cmd     *exec.Cmd
}

// newEtcd starts three members. Its least ttl is a second.
func newEtcd(t testing.TB, flags ...string) *etcdCluster {
	t.Helper()
	return startEtcd(t, etcdOptions{}, flags...)
}

// etcdOptions are what a test may want of an etcd.
type etcdOptions struct {
	trust       *tls.Config // if it is not nil, clients use TLS
	isDivisible bool        // a member can be cut off from the others
	binary      string      // if it is not empty, instead of the one that is built
}

// startEtcd does what newEtcd does.
func startEtcd(t testing.TB, o etcdOptions, flags ...string) *etcdCluster {
	t.Helper()
	scheme := "http://"
	if o.trust != nil {
		scheme = "https://"
	}
	binary, err := cmp.Or(o.binary, *otherEtcd), error(nil)
	if binary == "" {
		binary, err = etcdBinary()
	}
	if err != nil {
		missing(t, fmt.Sprintf("etcd (go build -C testdata/etcd go.etcd.io/etcd/server/v3: %.300v)", err))
	}
	c := &etcdCluster{t: t}
	folder := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		if folder, err = os.MkdirTemp("/dev/shm", "call-me-etcd"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(folder) })
	}
	var listen, peers, all []string
	for i := range 3 {
		host := fmt.Sprint("127.0.0.1:", freePort())
		listen, peers = append(listen, "http://"+host), append(peers, "http://"+host)
		if o.isDivisible {
			l := newPeerLink(t, host)
			c.peers, peers[i] = append(c.peers, l), "http://"+l.address
		}
		all = append(all, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	var addresses []string
	for i := range 3 {
		m := &etcdMember{t: t, address: fmt.Sprint("127.0.0.1:", freePort()), log: &lockedBuffer{}}
		m.args = append([]string{binary, "--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(folder, fmt.Sprint(i)),
			"--listen-client-urls", scheme + m.address, "--advertise-client-urls", scheme + m.address,
			"--listen-peer-urls", listen[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new",
			"--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "error"}, flags...)
		c.members = append(c.members, m)
		addresses = append(addresses, scheme+m.address)
		m.start()
		t.Cleanup(m.kill)
	}
	c.client, err = clientv3.New(clientv3.Config{Endpoints: addresses, TLS: o.trust, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close() })
	eventually(t, "etcd has a quorum", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := c.client.Get(ctx, "/")
		return err == nil
	})
	return c
}

func (m *etcdMember) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.args[0], m.args[1:]...)
	m.cmd.Stderr = m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
}

// kill ends the member with SIGKILL, also one that is stopped.
func (m *etcdMember) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

func (m *etcdMember) signal(s syscall.Signal) { m.cmd.Process.Signal(s) }

// leader returns the member that leads etcd.
func (c *etcdCluster) leader() *etcdMember {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, m := range c.members {
		if status, err := c.client.Status(ctx, "http://"+m.address); err == nil && status.Leader == status.Header.MemberId {
			return m
		}
	}
	c.t.Fatal("etcd has no leader")
	return nil
}

// get returns the values of the keys with a prefix.
func (c *etcdCluster) get(prefix string) map[string]string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	got, err := c.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		c.t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range got.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

// remove deletes a key, by hand.
func (c *etcdCluster) remove(key string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	got, err := c.client.Delete(ctx, key)
	if err != nil || got.Deleted != 1 {
		c.t.Fatalf("deleting %q: %v", key, err)
	}
}

// fillTo writes until each member has used that many bytes. The members differ in what they have
// used for the same keys, the more so the larger the values are.
func (c *etcdCluster) fillTo(size int64) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for used := int64(0); used < size; {
		for range 4 {
			if _, err := c.client.Put(ctx, "/filler/big", strings.Repeat("x", 50_000)); err != nil {
				c.t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Millisecond) // what etcd has used is known after its next commit
		used = size
		for _, m := range c.members {
			status, err := c.client.Status(ctx, "http://"+m.address)
			if err != nil {
				c.t.Fatal(err)
			}
			used = min(used, status.DbSize)
		}
	}
}

// refusedLeases returns how many leases were not granted because there is no space.
func (c *etcdCluster) refusedLeases() int {
	c.t.Helper()
	count := regexp.MustCompile(`grpc_server_handled_total{grpc_code="ResourceExhausted",grpc_method="LeaseGrant"[^}]*} (\d+)`)
	refused := 0
	for _, m := range c.members {
		response, err := http.Get("http://" + m.address + "/metrics")
		if err != nil {
			c.t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, found := range count.FindAllSubmatch(text, -1) {
			n, _ := strconv.Atoi(string(found[1]))
			refused += n
		}
	}
	return refused
}

// fill writes until the quota is used up.
func (c *etcdCluster) fill() {
	c.t.Helper()
	big := strings.Repeat("x", 200<<10)
	for i := range 1000 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := c.client.Put(ctx, fmt.Sprint("/filler/", i), big)
		cancel()
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("there is space for everything")
}

// makeSpace does what an operator does: delete, compact, defragment, disarm.
func (c *etcdCluster) makeSpace() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	deleted, err := c.client.Delete(ctx, "/filler/", clientv3.WithPrefix())
	if err == nil {
		_, err = c.client.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical())
	}
	for _, m := range c.members {
		if err == nil {
			_, err = c.client.Defragment(ctx, "http://"+m.address)
		}
	}
	if err == nil {
		_, err = c.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// sharedBinary is the program with the times of tests: the leader's key lasts 2 s.
var sharedBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "call-me-shared")
	return path, build(path, "-ldflags", "-X main.leaderTTL=2s")
})

// A sharedServer is a server with its state in etcd, which it reaches through links of its own.
type sharedServer struct {
	*daemon
	links  []*link // to the members of etcd
	inward *link   // by which the other servers reach it
}

// newShared returns a server that is not started. A binary other than the empty one has a bug.
func (c *etcdCluster) newShared(binary string, env ...string) *sharedServer {
	c.t.Helper()
	fresh, err := sharedBinary()
	if err != nil {
		c.t.Fatal(err)
	}
	s := &sharedServer{daemon: makeDaemon(c.t)}
	var members []string
	for _, m := range c.members {
		l := newLink(c.t, m.address)
		s.links = append(s.links, l)
		members = append(members, l.address)
	}
	s.inward = newLink(c.t, s.host)
	s.binary = cmp.Or(binary, fresh)
	for i, variable := range s.env { // a file and etcd exclude each other
		if strings.HasPrefix(variable, "CALL_ME_DB=") {
			s.env[i] = "CALL_ME_DB="
		}
	}
	s.reach(members...)
	s.env = append(s.env, "CALL_ME_ADVERTISE=http://"+s.inward.address)
	s.env = append(s.env, env...)
	s.http.Timeout = 15 * time.Second
	return s
}

// reach makes the addresses those of etcd.
func (s *sharedServer) reach(addresses ...string) {
	s.env = append(s.env, "CALL_ME_STORE=etcd://"+strings.Join(addresses, ",")+"/test")
}

// all sets the state of all links to etcd.
func (s *sharedServer) all(state linkState) {
	for _, l := range s.links {
		l.set(state)
	}
}

// leads reports whether the server says that it leads.
func (s *sharedServer) leads() bool {
	status, _ := s.call("GET", "/healthz?leader=1")
	return status == 200
}

// waitToLead returns how long it took until the server leads.
func (s *sharedServer) waitToLead() time.Duration {
	s.t.Helper()
	started := time.Now()
	eventually(s.t, "the server leads", s.leads)
	return time.Since(started)
}

// ended returns the error of the process once it has ended by itself; nil if it goes on.
func (s *sharedServer) ended() error {
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		s.cmd.Process.Kill()
		<-ended
		return nil
	}
}

// stop stops the process, and returns once it has stopped: after the signal alone it still runs for
// a moment, and may answer.
func (s *sharedServer) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	for !status.Stopped() {
		_, err := syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) || status.Exited() || status.Signaled() {
			s.t.Fatalf("the server has not stopped: %v, %v: %s", err, status, s.log)
		}
	}
}
