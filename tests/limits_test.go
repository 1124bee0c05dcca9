//go:build linux

package tests

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The time limits of a connection, as the documentation and the code have them.
const (
	headerTime = 5 * time.Second  // until the header has arrived
	bodyTime   = 5 * time.Second  // until the body has arrived
	writeTime  = 10 * time.Second // until the client has read the response
)

// memory returns the resident memory of the server's process, in bytes.
func (d *daemon) memory() int {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		d.t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// The server closes connections that send slowly or read slowly, and serves other callers
// meanwhile.
func TestSlowCallersAreCutOff(t *testing.T) {
	t.Parallel()
	d, secure := newDaemon(t), newTLSDaemon(t)
	d.manyLeases()
	key := "X-API-KEY: " + testKey + "\r\n"
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		host, sends, drips string
		most               time.Duration
	}{
		"says nothing":                     {d.host, "", "", headerTime},
		"says nothing to TLS":              {secure.host, "", "", headerTime},
		"a header that drips":              {d.host, "GET /maybe HTTP/1.1\r\nX: ", "x", headerTime},
		"a body that never comes":          {d.host, "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\n" + key + "Content-Length: 10\r\n\r\n", "", bodyTime},
		"a body that drips":                {d.host, "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\n" + key + "Content-Length: 1000\r\n\r\n", "x", bodyTime},
		"a body that drips, without a key": {d.host, "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", "x", bodyTime},
		"a body that drips to nowhere":     {d.host, "POST /nowhere HTTP/1.1\r\nHost: x\r\n" + key + "Content-Length: 1000\r\n\r\n", "x", bodyTime},
		"chunks that drip":                 {d.host, "PUT /maybe?environment=uat HTTP/1.1\r\nHost: x\r\n" + key + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", bodyTime},
		"a body where none is read":        {d.host, "GET /page.css HTTP/1.1\r\nHost: x\r\n" + key + "Content-Length: 1000\r\n\r\n", "x", bodyTime},
	} {
		all.Go(func() {
			conn, err := net.Dial("tcp", c.host)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			start := time.Now()
			io.WriteString(conn, c.sends)
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for c.drips != "" {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Millisecond):
						io.WriteString(conn, c.drips)
					}
				}
			}()
			conn.SetReadDeadline(start.Add(4 * c.most))
			if _, err := io.Copy(io.Discard, conn); err != nil && os.IsTimeout(err) {
				t.Errorf("%s: connected after %v", name, time.Since(start))
			}
		})
	}
	all.Go(func() {
		conn, err := tls.Dial("tcp", secure.host, secure.authority.trust())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(4 * headerTime))
		if _, err := io.Copy(io.Discard, conn); err != nil && os.IsTimeout(err) {
			t.Error("silence after the handshake is not cut off")
		}
	})
	all.Go(func() { d.readsNothing(t) })
	for range 20 {
		if code, body := d.call("GET", "/maybe?environment=free"); code != 200 {
			t.Errorf("another caller got %d %s", code, body)
		}
	}
	all.Wait()
	eventually(t, "nobody is connected but us", func() bool { return d.connections() <= 2 })
}

// readsNothing sends requests whose responses are larger than the buffers, and never reads.
// It fails the test if the server does not close the connection.
func (d *daemon) readsNothing(t *testing.T) {
	conn, err := net.Dial("tcp", d.host)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	start := time.Now()
	for err == nil && time.Since(start) < 4*writeTime { // the server stops reading when it cannot write
		conn.SetWriteDeadline(time.Now().Add(4 * writeTime))
		_, err = fmt.Fprintf(conn, "GET /environments HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\n\r\n", testKey)
	}
	if err == nil || os.IsTimeout(err) {
		t.Errorf("the connection that reads nothing is still open after %v", time.Since(start))
	}
}

// connections returns how many connections the server's process has open.
func (d *daemon) connections() int {
	n := 0
	folder := fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid)
	entries, _ := os.ReadDir(folder)
	for _, e := range entries {
		if to, _ := os.Readlink(folder + "/" + e.Name()); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n - 1 // without the listener
}

func TestAGigabyteOfBodyCostsNoMemory(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.call("GET", "/environments")
	before := d.memory()
	for _, how := range []string{"Content-Length: 1073741824\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n40000000\r\n"} {
		for range 8 {
			conn, err := net.Dial("tcp", d.host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() {
				fmt.Fprintf(conn, "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\n%s", testKey, how)
				part := make([]byte, 1<<20)
				for sent := 0; sent < 1<<30; sent += len(part) {
					if _, err := conn.Write(part); err != nil {
						return
					}
				}
			}()
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || line != "HTTP/1.1 413 Request Entity Too Large\r\n" {
				t.Errorf("%q: %q, %v", how, line, err)
			}
		}
	}
	if grown := d.memory() - before; grown > 16<<20 {
		t.Errorf("the server has grown by %d MB", grown>>20)
	}
}

// A server at its limit of open files keeps running, and recovers by itself.
func TestTheServerRecoversFromTheLimitOfOpenFiles(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prlimit"); err != nil {
		missing(t, "prlimit")
	}
	d := makeDaemon(t)
	d.wrapper = []string{"prlimit", "--nofile=90:90"}
	d.start()
	d.call("POST", "/maybe?environment=uat&id=12345678")
	var stuck []net.Conn
	for range 300 {
		conn, err := net.DialTimeout("tcp", d.host, time.Second)
		if err != nil {
			break // the backlog of the listener is full too
		}
		stuck = append(stuck, conn)
	}
	if n := d.connections(); n > 45 {
		t.Errorf("%d connections were let in: nothing is left for the server itself", n)
	}
	for i := range 20 { // the server closes the oldest connections
		if code, body := d.call("GET", "/maybe?environment=free"); code != 200 {
			t.Errorf("call %d, beside those who are stuck: %d %s", i, code, body)
		}
	}
	for _, conn := range stuck {
		conn.Close()
	}
	eventually(t, "it serves again", func() bool {
		code, _ := d.call("PUT", "/maybe?environment=uat&id=12345678")
		return code == 200
	})
	if code, body := d.call("GET", "/backup"); code != 200 {
		t.Errorf("a backup: %d %.100s", code, body)
	}
	if code, _ := d.call("POST", "/maybe?environment=uat&id=waiting-1&wait=0s"); code != 403 {
		t.Errorf("the first in the queue is told %d", code)
	}
	go d.call("POST", "/maybe?environment=uat&id=waiting-1&wait=20s")
	eventually(t, "it waits", func() bool {
		_, body := d.call("GET", "/environments")
		return strings.Contains(body, `"connected":true`)
	})
	if code, body := d.call("POST", "/maybe?environment=uat&id=waiting-2&wait=20s"); code != 503 || !strings.Contains(body, "too many are waiting") {
		t.Errorf("the request over the limit got %d %s", code, body)
	}
	d.call("DELETE", "/maybe?environment=uat&id=waiting-1")
}

func TestTheKeyIsInNoProcessList(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.call("POST", "/maybe?environment=uat&id=12345678")
	for _, args := range [][]string{{"request", "uat"}, {"run", "other", "--", "sleep", "60"}} {
		cmd, out := d.client("somebody", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Signal(os.Interrupt)
		eventually(t, "it waits or runs", func() bool {
			return strings.Contains(out.String(), "in the queue") || strings.Contains(out.String(), "acquired")
		})
	}
	seen := 0
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if program, _, _ := strings.Cut(string(text), "\x00"); program == binaryPath() {
			seen++
			seekKey(string(text))
		}
	}
	if seen < 3 { // at least the server and two clients
		t.Errorf("only %d of our processes were seen", seen)
	}
}

// The server runs under the conditions of the container: as another user, without
// capabilities, and with write permission for the folder of the database only.
func TestTheServerNeedsNoRootNoCapabilityAndNoWritableRoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can take privileges away")
	}
	d := makeDaemon(t)
	data := t.TempDir()
	if err := errors.Join(os.Chown(data, 65532, 65532), os.Chmod(filepath.Dir(data), 0o755)); err != nil {
		t.Fatal(err)
	}
	d.env = append(d.env, "CALL_ME_DB="+data+"/call-me.db", "DATA="+data)
	d.wrapper = []string{"unshare", "--mount", "sh", "-c", `mount --bind "$DATA" "$DATA" && mount -o remount,bind,ro / && if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi &&
		exec setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"`, "sh"}
	d.start()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Uid:\t65532\t65532") || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		t.Fatalf("%v\n%s", err, status)
	}
	if code, body := d.call("POST", "/maybe?environment=uat&id=12345678"); code != 201 {
		t.Errorf("%d %s", code, body)
	}
	if code, body := d.call("GET", "/backup"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// stuckKinds are the ways in which a connection can be stuck: what it sends, and whether it
// reads the responses. A deaf one does not.
var stuckKinds = []struct {
	name, sends string
	deaf        bool
}{
	{"says nothing", "", false},
	{"half a header", "GET /maybe HTTP/1.1\r\nX: ", false},
	{"half a body", "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nX-API-KEY: " + testKey + "\r\nContent-Length: 9\r\n\r\nhold", false},
	{"half a body without a key", "POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhold", false},
	{"reads no answer", strings.Repeat("GET /environments HTTP/1.1\r\nHost: x\r\nX-API-KEY: "+testKey+"\r\n\r\n", 200), true},
	{"has had its answer", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", false},
}

// stick keeps the given number of connections stuck until the test ends. A connection that
// the server closes is made again. stick returns when all have been stuck once. Its results
// are functions that return how many are connected, and how often one was closed.
func (d *daemon) stick(most int) (stuck, cut func() int64) {
	var all, once sync.WaitGroup
	var connected, again atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	for i := range most {
		kind := stuckKinds[i%len(stuckKinds)]
		once.Add(1)
		all.Go(func() {
			first := sync.OnceFunc(once.Done)
			defer first()
			for ctx.Err() == nil {
				conn, err := net.Dial("tcp", d.host)
				if err != nil {
					d.t.Error(err)
					return
				}
				connected.Add(1)
				done := context.AfterFunc(ctx, func() { conn.Close() })
				if kind.deaf {
					conn.(*net.TCPConn).SetReadBuffer(4096)
				}
				io.WriteString(conn, kind.sends)
				first()
				if !kind.deaf {
					io.Copy(io.Discard, conn)
				} else {
					for err == nil { // until the connection is closed
						_, err = io.WriteString(conn, kind.sends)
					}
				}
				done()
				conn.Close()
				connected.Add(-1)
				again.Add(1)
			}
		})
	}
	d.t.Cleanup(func() {
		stop()
		all.Wait()
	})
	once.Wait()
	return connected.Load, again.Load
}

// manyStuck returns how many connections are stuck in tests: 5,000, or fewer if the limit
// of open files is lower.
func manyStuck() int { return min(5000, openFiles()-500) }

func TestManyStuckConnectionsLeaveOthersAlone(t *testing.T) {
	if raceDetector {
		t.Skip("it looks at times")
	}
	calls, most := 200, manyStuck()
	if leftOut(t, "5,000 connections instead of 500") {
		calls, most = 50, min(most, 500)
	}
	d := newDaemon(t)
	d.manyLeases()
	times := func() (median, p99 time.Duration) {
		var all []time.Duration
		for range calls {
			start := time.Now()
			if code, body := d.call("POST", "/maybe?environment=uat"); code != 201 {
				t.Fatal(code, body)
			}
			all = append(all, time.Since(start))
			d.call("DELETE", "/maybe?environment=uat")
		}
		slices.Sort(all)
		return all[len(all)/2], all[len(all)*99/100]
	}
	median, p99 := times()
	t.Logf("alone: median %v, p99 %v", median, p99)
	stuck, cut := d.stick(most)
	median, p99 = times()
	t.Logf("beside %d that are stuck: median %v, p99 %v; %d were cut off meanwhile", stuck(), median, p99, cut())
}

// manyLeases makes the response of GET /environments 25 kB long. Many of these responses
// are larger than any socket buffer.
func (d *daemon) manyLeases() {
	for i := range 20 {
		d.call("POST", fmt.Sprintf("/maybe?environment=%d&reason=%s", i, strings.Repeat("r", 1000)))
	}
}
