//go:build linux

package tests

// The benchmarks. They measure a server with its default settings and its file on the
// disk, beside the floor: the same API in memory on plain net/http, without anything else
// that a lock needs. Both are processes of their own and take turns within each
// benchmark, so that other load affects both equally. docs/performance.md has the
// results. BenchmarkCommit and BenchmarkPage are in the package of the program, because
// they use its functions.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// turns is the number of turns of call-me, and of the floor, in one benchmark.
const turns = 10

// A contender is a server that is measured.
type contender struct {
	url       string
	transport *http.Transport
	process   *os.Process
}

func targetAt(b testing.TB, base string, process *os.Process) *contender {
	t := &contender{base + "/maybe?environment=", &http.Transport{MaxIdleConnsPerHost: 20_000, DisableCompression: true}, process}
	b.Cleanup(t.transport.CloseIdleConnections)
	return t
}

// call sends one request and returns the status of the response; zero with an error.
func (t *contender) call(b testing.TB, method, query string) int {
	r, err := http.NewRequest(method, t.url+query, nil)
	if err != nil {
		b.Error(err)
		return 0
	}
	r.Header["X-Api-Key"] = []string{testKey}
	answer, err := t.transport.RoundTrip(r)
	if err != nil {
		b.Error(err)
		return 0
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	return answer.StatusCode
}

// usage is what a server has used since its start.
type usage struct {
	commits float64
	cpu     time.Duration
	allocs  float64 // memory allocations
	written int     // bytes written to the disk, also by the log and other processes; zero if not counted
}

func (t *contender) used(b testing.TB) (u usage) {
	base := strings.TrimSuffix(t.url, "/maybe?environment=")
	u.commits = scraped(b, base, "callme_commit_seconds_count")
	u.allocs = scraped(b, base, "go_memstats_mallocs_total")
	var user, system int // in ticks of 10 ms: sysconf(_SC_CLK_TCK) is 100 on all platforms of Go
	stat := procFile(b, t.process, "stat")
	if _, err := fmt.Sscan(strings.Join(strings.Fields(stat[strings.LastIndexByte(stat, ')'):])[12:14], " "), &user, &system); err != nil {
		b.Fatal(err)
	}
	u.cpu = time.Duration(user+system) * 10 * time.Millisecond
	u.written = writtenToDisk(os.TempDir())
	return u
}

// writtenToDisk returns how many bytes have been written to the device that has the
// folder; zero if unknown. The count of a process (/proc/PID/io) is that of the page
// cache: a sector that is written in place counts as the whole piece of the cache that
// has it, 256 kB, though 4 kB are written to the disk.
func writtenToDisk(folder string) (n int) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	device, longest := "", ""
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 4 && len(f[4]) >= len(longest) && strings.HasPrefix(folder+"/", strings.TrimSuffix(f[4], "/")+"/") {
			device, longest = f[2], f[4]
		}
	}
	stat, _ := os.ReadFile("/sys/dev/block/" + device + "/stat")
	if f := strings.Fields(string(stat)); len(f) > 6 {
		fmt.Sscan(f[6], &n) // in sectors of 512 bytes, on every device
	}
	return n * 512
}

func procFile(b testing.TB, p *os.Process, name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.Pid, name))
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// reportUsage reports what call-me has used since before, divided by n operations.
func (t *contender) reportUsage(b *testing.B, before usage, n int) {
	now := t.used(b)
	b.ReportMetric((now.commits-before.commits)/float64(n), "commits/op")
	b.ReportMetric(float64(now.cpu-before.cpu)/float64(n), "server-cpu-ns/op")
	b.ReportMetric((now.allocs-before.allocs)/float64(n), "server-allocs/op")
	if now.written > 0 {
		b.ReportMetric(float64(now.written-before.written)/float64(n), "written-B/op")
	}
}

// scraped returns the value of a metric of /metrics; zero if there is none of that name.
func scraped(b testing.TB, base, name string) (value float64) {
	r, _ := http.NewRequest(http.MethodGet, base+"/metrics", nil)
	r.Header.Set("X-API-KEY", testKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.Fatalf("scraping: %s %v", answer.Status, err)
	}
	if _, after, found := strings.Cut(string(text), "\n"+name+" "); found {
		fmt.Sscan(after, &value)
	}
	return value
}

// want calls call, and fails the benchmark if the status is another one.
func (t *contender) want(b testing.TB, status int, method, query string) {
	if got := t.call(b, method, query); got != status {
		b.Errorf("%s %s: %d", method, query, got)
	}
}

// newRival starts a rival server as a process of its own.
func newRival(b testing.TB, which string) *contender {
	address := fmt.Sprint("127.0.0.1:", freePort())
	cmd := exec.Command(os.Args[0], rivalCommand, which, address, tempDB(b))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for until := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return targetAt(b, "http://"+address, cmd.Process)
		}
		if time.Now().After(until) {
			b.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// newServed starts the built binary with its log in a file.
func newServed(b testing.TB, env ...string) (*contender, *daemon) {
	d := makeDaemon(b, env...)
	log, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	d.stderr = log
	d.start()
	return targetAt(b, d.base, d.cmd.Process), d
}

// newOther starts another build of call-me, with more variables.
func newOther(b testing.TB, path string, env ...string) *contender {
	folder, host := b.TempDir(), fmt.Sprint("127.0.0.1:", freePort())
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, "serve")
	cmd.Env = []string{"API_KEY=" + testKey, "PORT=" + host[len("127.0.0.1:"):], "CALL_ME_DB=" + filepath.Join(folder, "call-me.db")}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err := waitForServer(http.DefaultClient, "http://"+host); err != nil {
		b.Fatal(err)
	}
	return targetAt(b, "http://"+host, cmd.Process)
}

// compare measures b.N operations on call-me, in turn with the floor, by the given number
// of concurrent clients. operation does one operation of one client. Beside ns/op, which
// is that of call-me, compare reports that of the floor, and call-me's share of the
// floor's speed. It returns the time of the other servers, which take turns too.
func compare(b *testing.B, floor, served *contender, clients int, operation func(b testing.TB, t *contender, client int), others ...*contender) (atOthers time.Duration) {
	for _, t := range append(others, floor, served) { // this makes the connections and fills the pools
		closedLoop(clients, 4*clients, func(client int) { operation(b, t, client) })
	}
	var atFloor, atServed time.Duration
	before := served.used(b)
	b.ResetTimer()
	b.StopTimer()
	for turn := range turns {
		n := b.N*(turn+1)/turns - b.N*turn/turns
		atFloor += closedLoop(clients, n, func(client int) { operation(b, floor, client) })
		b.StartTimer()
		atServed += closedLoop(clients, n, func(client int) { operation(b, served, client) })
		b.StopTimer()
		for _, t := range others {
			atOthers += closedLoop(clients, n, func(client int) { operation(b, t, client) })
		}
	}
	b.ReportMetric(float64(atFloor)/float64(b.N), "floor-ns/op")
	b.ReportMetric(float64(atFloor)/float64(atServed), "share")
	served.reportUsage(b, before, b.N)
	return atOthers
}

// closedLoop does n operations in total with the given number of concurrent clients, and
// returns how long that took. Each client starts its next operation when the one before
// it has ended.
func closedLoop(clients, n int, operation func(client int)) time.Duration {
	start := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	for client := range min(clients, n) {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				operation(client)
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

var clientCounts = []int{1, 16, 64, 256}

var requests atomic.Int64

// cycle does an acquire and a release with the parameters of the real client. Each client
// has its own environment.
func cycle(b testing.TB, t *contender, client int) {
	id := fmt.Sprintf("environment-%d&id=request-%d", client, requests.Add(1))
	t.want(b, http.StatusCreated, http.MethodPost, id+fmt.Sprintf("&holder=github:acme/shop/run/%d/deploy&ttl=2m&wait=25s&claim=30s", client))
	t.want(b, http.StatusNoContent, http.MethodDelete, id)
}

// BenchmarkCycle measures an acquire and a release, beside the floor and the bare server.
// With BENCH_OTHER=PATH another build of call-me replaces the bare server.
func BenchmarkCycle(b *testing.B) {
	for _, clients := range clientCounts {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			served, _ := newServed(b)
			floor := newRival(b, "floor")
			if other := os.Getenv("BENCH_OTHER"); other != "" {
				atOther := compare(b, floor, served, clients, cycle, newOther(b, other))
				b.ReportMetric(float64(atOther)/float64(b.N), "other-ns/op")
				return
			}
			atBare := compare(b, floor, served, clients, cycle, newRival(b, "bare"))
			b.ReportMetric(float64(atBare)/float64(b.N), "bare-ns/op")
		})
	}
}

// BenchmarkCheck measures the GET of 2019.
func BenchmarkCheck(b *testing.B) {
	for _, clients := range clientCounts {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			served, _ := newServed(b)
			compare(b, newRival(b, "floor"), served, clients, func(b testing.TB, t *contender, client int) {
				t.want(b, http.StatusOK, http.MethodGet, "uat")
			})
		})
	}
}

// BenchmarkCycleAmongOthers measures a cycle while other environments have leases. It must
// not cost more.
func BenchmarkCycleAmongOthers(b *testing.B) {
	for _, others := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("environments=%d", others), func(b *testing.B) {
			served, _ := newServed(b, "CALL_ME_DB="+heldByOthers(b, others))
			compare(b, newRival(b, "floor"), served, 16, cycle)
		})
	}
}

// heldByOthers makes a file with n leases, each on an environment of its own.
func heldByOthers(b testing.TB, n int) (path string) {
	served, d := newServed(b)
	var next atomic.Int64
	closedLoop(256, n, func(int) {
		i := next.Add(1)
		served.want(b, http.StatusCreated, http.MethodPost, fmt.Sprintf("others-%[1]d&id=request-%[1]d&holder=github:acme/shop/run/%[1]d/deploy&ttl=1h", i))
	})
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
	return d.file()
}

// BenchmarkRenewal measures a renewal, which writes nothing to the disk.
func BenchmarkRenewal(b *testing.B) {
	for _, clients := range clientCounts {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			served, _ := newServed(b)
			floor := newRival(b, "floor")
			for client := range clients {
				query := fmt.Sprintf("environment-%d&id=request-%d&ttl=2m", client, client)
				served.want(b, http.StatusCreated, http.MethodPost, query)
			}
			compare(b, floor, served, clients, func(b testing.TB, t *contender, client int) {
				t.want(b, http.StatusOK, http.MethodPut, fmt.Sprintf("environment-%d&id=request-%d", client, client))
			})
		})
	}
}

// BenchmarkCheckUnderWrites measures a check while 16 clients acquire and release without
// a pause.
func BenchmarkCheckUnderWrites(b *testing.B) {
	served, _ := newServed(b)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for client := range 16 {
		writers.Go(func() {
			for name := fmt.Sprintf("environment-%d", client); ; {
				select {
				case <-stop:
					return
				default:
				}
				served.want(b, http.StatusCreated, http.MethodPost, name)
				served.want(b, http.StatusNoContent, http.MethodDelete, name)
			}
		})
	}
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		served.want(b, http.StatusOK, http.MethodGet, "uat")
		times = append(times, time.Since(start))
	}
	close(stop)
	writers.Wait()
	reportTimes(b, "check", times)
}

// BenchmarkCheckAmongStuck measures a check and a cycle while connections of every kind of
// stuckKinds are open. Each connects again as soon as the server closes it.
func BenchmarkCheckAmongStuck(b *testing.B) {
	for _, stuck := range []int{0, 5000} {
		b.Run(fmt.Sprintf("stuck=%d", stuck), func(b *testing.B) {
			d := newDaemon(b)
			d.manyLeases()
			connected, cut := d.stick(min(stuck, manyStuck()))
			t := targetAt(b, d.base, d.cmd.Process)
			var checks, cycles []time.Duration
			cutBefore, began := cut(), time.Now()
			for b.Loop() {
				start := time.Now()
				t.want(b, http.StatusOK, http.MethodGet, "uat")
				checks = append(checks, time.Since(start))
				start = time.Now()
				t.want(b, http.StatusCreated, http.MethodPost, "uat")
				t.want(b, http.StatusNoContent, http.MethodDelete, "uat")
				cycles = append(cycles, time.Since(start))
			}
			reportTimes(b, "check", checks)
			reportTimes(b, "cycle", cycles)
			b.ReportMetric(float64(connected()), "stuck")
			b.ReportMetric(float64(cut()-cutBefore)/time.Since(began).Seconds(), "cut/s")
			b.ReportMetric(float64(d.memory())/1e6, "server-MB")
		})
	}
}

// BenchmarkStart measures the time from the start of the process until it replies, and the
// memory of an idle server.
func BenchmarkStart(b *testing.B) {
	for _, leases := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("leases=%d", leases), func(b *testing.B) {
			d := newDaemon(b, "CALL_ME_DB="+heldByOthers(b, leases))
			for b.Loop() {
				b.StopTimer()
				d.cmd.Process.Signal(syscall.SIGTERM)
				d.cmd.Wait()
				b.StartTimer()
				d.start()
			}
			time.Sleep(time.Second) // until the server is idle
			b.ReportMetric(float64(d.memory())/1e6, "idle-MB")
		})
	}
}

// BenchmarkRequestCommand measures what a job waits for if a slot is free: the request
// command, from the start of its process to its end. The floor is the same binary with
// --version.
func BenchmarkRequestCommand(b *testing.B) {
	d := newDaemon(b)
	run := func(args ...string) time.Duration {
		cmd, out := d.client("job", args...)
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatalf("%v: %v %s", args, err, out)
		}
		return time.Since(start)
	}
	var times, floor []time.Duration
	for b.Loop() {
		times = append(times, run("request", "uat"))
		run("release", "uat")
		floor = append(floor, run("--version"))
	}
	reportTimes(b, "request", times)
	reportTimes(b, "version", floor)
}

// A crowd is the connections of many waiters for one slot of a server of its own. line has
// them in the order of the queue.
type crowd struct {
	b      testing.TB
	served *contender
	d      *daemon
	holder *standing
	line   []*standing
	named  int
}

// A standing is the connection of one waiter, on which one request is held open.
type standing struct {
	net.Conn
	answer *bufio.Reader
	id     string
}

func (c *crowd) name() string {
	c.named++
	return fmt.Sprintf("request-%08d", c.named)
}

// newCrowd starts a server, acquires the slot, and adds the given number of waiters.
func newCrowd(b testing.TB, waiting int) *crowd {
	served, d := newServed(b)
	return newCrowdAt(b, served, d, waiting)
}

// newCrowdAt does the same at a server that runs.
func newCrowdAt(b testing.TB, served *contender, d *daemon, waiting int) *crowd {
	c := &crowd{b: b, served: served, d: d, line: make([]*standing, waiting)}
	c.holder = c.connect()
	c.holder.ask(b, c.name(), "0s")
	c.holder.hear(b, http.StatusCreated)
	for done := 0; done < waiting; {
		var some []*standing
		for range min(100, waiting-done) {
			w := c.connect()
			w.ask(b, c.name(), "0s")
			some = append(some, w)
		}
		for _, w := range some {
			c.line[w.hear(b, http.StatusForbidden).Position-1] = w
			w.ask(b, w.id, "5m")
			done++
		}
	}
	return c
}

func (c *crowd) connect() *standing {
	conn, err := net.Dial("tcp", c.d.host)
	if err != nil {
		c.b.Fatal(err)
	}
	c.b.Cleanup(func() { conn.Close() })
	return &standing{Conn: conn, answer: bufio.NewReaderSize(conn, 1024)}
}

func (w *standing) send(b testing.TB, method, query string) {
	if _, err := fmt.Fprintf(w, "%s /maybe?environment=uat&%s HTTP/1.1\r\nHost: call-me\r\nX-API-KEY: %s\r\n\r\n", method, query, testKey); err != nil {
		b.Fatal(err)
	}
}

func (w *standing) ask(b testing.TB, id, wait string) {
	w.id = id
	w.send(b, http.MethodPost, "ttl=1h&holder=github:acme/shop/run/1/deploy&id="+id+"&wait="+wait)
}

func (w *standing) hear(b testing.TB, status int) (told refusalJSON) {
	answer, err := http.ReadResponse(w.answer, nil)
	if err != nil {
		b.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != status {
		b.Fatalf("%s: answered %d %s, want %d", w.id, answer.StatusCode, text, status)
	}
	json.Unmarshal(text, &told)
	return told
}

// handOver releases the slot of the holder, and returns the time until the next holder has
// its reply. The previous holder then enters the queue at its end.
func (c *crowd) handOver() time.Duration {
	start := time.Now()
	c.holder.send(c.b, http.MethodDelete, "id="+c.holder.id)
	c.line[0].hear(c.b, http.StatusCreated)
	took := time.Since(start)
	c.holder.hear(c.b, http.StatusNoContent)
	id := c.name()
	c.holder.ask(c.b, id, "0s")
	c.holder.hear(c.b, http.StatusForbidden)
	c.holder.ask(c.b, id, "5m")
	c.line = append(c.line, c.holder)
	c.holder, c.line = c.line[0], c.line[1:]
	return took
}

// trip returns the time of a call that changes nothing.
func (c *crowd) trip() time.Duration {
	start := time.Now()
	c.holder.send(c.b, http.MethodGet, "")
	c.holder.hear(c.b, http.StatusForbidden)
	return time.Since(start)
}

// BenchmarkHandOver measures hand-overs. A hand-over begins when a release is sent, and
// ends when the next holder has its reply; every reply follows one commit. It cannot be
// faster than one commit and one round trip. The benchmark reports the mean times of
// these, and the ratio of the mean hand-over to their sum. Half of the commits are those
// of the hand-overs. In the other half, which write less, the last holder enters the queue.
func BenchmarkHandOver(b *testing.B) {
	for _, waiting := range []int{1, 64, 1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := newCrowd(b, waiting)
			bolt := plainBolt(b)
			var times, trips, bolts []time.Duration
			spent, commits := c.commits()
			for b.Loop() {
				times = append(times, c.handOver())
				trips = append(trips, c.trip())
				bolts = append(bolts, bolt())
			}
			spentThen, commitsThen := c.commits()
			commit := 1e3 * (spentThen - spent) / (commitsThen - commits)
			b.ReportMetric(commit, "commit-mean-ms")
			b.ReportMetric(meanMS(times)/(commit+meanMS(trips)), "times-both")
			b.ReportMetric(meanMS(bolts), "bbolt-mean-ms")
			b.ReportMetric(meanMS(times)/(meanMS(bolts)+meanMS(trips)), "times-bbolt")
			reportTimes(b, "handover", times)
			reportTimes(b, "trip", trips)
			b.ReportMetric(float64(c.d.memory())/1e6, "server-MB")
		})
	}
}

// plainBolt returns a function that commits records as large as those of a hand-over to a
// bbolt file of its own, and returns how long that took. The record of the waiter is
// committed before and not measured, because it is so in call-me.
func plainBolt(b *testing.B) func() time.Duration {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "plain.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	type record struct {
		bucket, key string
		size        int // zero if it is deleted
	}
	commit := func(records ...record) {
		err := db.Update(func(tx *bbolt.Tx) error {
			for _, r := range records {
				bucket, err := tx.CreateBucketIfNotExists([]byte(r.bucket))
				if err == nil && r.size > 0 {
					err = bucket.Put([]byte(r.key), make([]byte, r.size))
				} else if err == nil {
					err = bucket.Delete([]byte(r.key))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	header, n := record{"meta", "state", 12}, 0
	return func() time.Duration {
		n += 3
		waits, served := record{"queue", fmt.Sprintf("uat-%08d", n), 72}, record{"queue", fmt.Sprintf("uat-%08d", n), 0}
		commit(waits, header)
		start := time.Now()
		commit(record{"leases", "uat-uat", 76}, record{"history", fmt.Sprintf("%08d", n+1), 81}, record{"history", fmt.Sprintf("%08d", n+2), 81}, served, header)
		return time.Since(start)
	}
}

// BenchmarkQueue measures entering and leaving a queue, and a cycle on another environment.
// Neither must cost more with a long queue.
func BenchmarkQueue(b *testing.B) {
	for _, waiting := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := newCrowd(b, waiting)
			measure := func(b *testing.B, operation func()) {
				for range 20 { // by then all calls of the queue have been handled
					operation()
				}
				before := c.served.used(b)
				for b.Loop() {
					operation()
				}
				c.served.reportUsage(b, before, b.N)
			}
			b.Run("its-own", func(b *testing.B) {
				w := c.connect()
				measure(b, func() {
					w.ask(b, c.name(), "0s")
					w.hear(b, http.StatusForbidden)
					w.send(b, http.MethodDelete, "id="+w.id)
					w.hear(b, http.StatusNoContent)
				})
			})
			b.Run("of-others", func(b *testing.B) {
				measure(b, func() { cycle(b, c.served, 0) })
			})
		})
	}
}

// commits returns the total seconds that the server's commits have taken, and their
// number, from its metrics.
func (c *crowd) commits() (spent, n float64) {
	return scraped(c.b, c.d.base, "callme_commit_seconds_sum"), scraped(c.b, c.d.base, "callme_commit_seconds_count")
}

// untilWaiting waits until the server's metrics show n waiters.
func (c *crowd) untilWaiting(n float64) {
	for scraped(c.b, c.d.base, `callme_waiting{environment="uat"}`) != n {
		time.Sleep(time.Millisecond)
	}
}

// BenchmarkLeave measures the time until the queue is empty after all waiters without an
// id, which end with their connections, disconnect at the same time.
func BenchmarkLeave(b *testing.B) {
	for _, waiting := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := newCrowd(b, 0)
			for b.Loop() {
				b.StopTimer()
				line := make([]*standing, waiting)
				for i := range line {
					line[i] = c.connect()
					line[i].send(b, http.MethodPost, "wait=5m")
				}
				c.untilWaiting(float64(waiting))
				b.StartTimer()
				for _, w := range line {
					w.Close()
				}
				c.untilWaiting(0)
			}
		})
	}
}

// BenchmarkReturn measures the time after a kill -9 until the server has started again and
// every waiter has polled and has its position from before.
func BenchmarkReturn(b *testing.B) {
	for _, waiting := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := newCrowd(b, waiting)
			for b.Loop() {
				b.StopTimer()
				c.d.kill()
				for _, w := range c.line {
					w.Close()
				}
				b.StartTimer()
				c.d.start()
				for i, w := range c.line {
					c.line[i] = c.connect()
					c.line[i].ask(b, w.id, "0s")
				}
				for i, w := range c.line {
					if told := w.hear(b, http.StatusForbidden); told.Position != i+1 {
						b.Fatalf("%s has place %d, and had %d", w.id, told.Position, i+1)
					}
					w.ask(b, w.id, "5m")
				}
			}
		})
	}
}

func meanMS(times []time.Duration) float64 {
	var sum time.Duration
	for _, d := range times {
		sum += d
	}
	return sum.Seconds() * 1e3 / float64(len(times))
}

// reportTimes reports the median and the 99th percentile.
func reportTimes(b *testing.B, name string, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2])/1e6, name+"-p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100])/1e6, name+"-p99-ms")
}
