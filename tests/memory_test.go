package tests

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fillHistory takes and releases n leases whose texts have the largest size, with clients
// that use an environment each.
func (d *daemon) fillHistory(n int) {
	const clients = 64
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	send := func(method string, form url.Values) int {
		r, err := http.NewRequest(method, d.base+"/maybe", strings.NewReader(form.Encode()))
		if err != nil {
			d.t.Error(err)
			return 0
		}
		r.Header.Set("X-API-KEY", d.key)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := transport.RoundTrip(r)
		if err != nil {
			d.t.Error(err)
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			for i := range n / clients {
				id := fmt.Sprintf("%d-%0120d", client, i)
				environment := fmt.Sprint("env-", client)
				taken := send("POST", url.Values{"environment": {environment}, "id": {id}, "holder": {strings.Repeat("h", 250-len(id)) + id},
					"url": {"https://ci.example/" + strings.Repeat("u", 2020)}, "reason": {strings.Repeat("r", 1024)}, "ttl": {"1h"}})
				freed := send("DELETE", url.Values{"environment": {environment}, "id": {id}})
				if taken != 201 || freed != 204 {
					d.t.Errorf("client %d: taking is answered %d, releasing %d", client, taken, freed)
					return
				}
			}
		})
	}
	all.Wait()
}

var huge = flag.Bool("huge", false, "TestMemoryAndFileAreBounded also takes 420,000 leases "+
	"and fills a history of 1 GB: it needs 3 GB of memory and of disk")

// peakMemory returns the largest memory that the server's process has had, in bytes, the mapped
// parts of its file included.
func (d *daemon) peakMemory() int {
	d.t.Helper()
	return d.statusBytes("VmHWM")
}

// statusBytes returns a field of the status that the system has of the server's process, in
// bytes. It skips the test where the system has none.
func (d *daemon) statusBytes(field string) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	found := regexp.MustCompile(field + `:\s*(\d+) kB`).FindSubmatch(status)
	if err != nil || found == nil {
		d.t.Skip("the system does not say how much memory a process has had")
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n << 10
}

// backupMemory reads GET /backup to its end. It returns the size of the copy, and by how much
// the memory of the server that is no mapped file grew meanwhile, at most, both in bytes.
func (d *daemon) backupMemory() (size int64, grown int) {
	d.t.Helper()
	before := d.statusBytes("RssAnon")
	r, err := http.NewRequest("GET", d.base+"/backup", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-KEY", d.key)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	part := make([]byte, 1<<20)
	for err == nil {
		var n int
		n, err = response.Body.Read(part)
		size += int64(n)
		grown = max(grown, d.statusBytes("RssAnon")-before)
	}
	if err != io.EOF || response.StatusCode != http.StatusOK {
		d.t.Errorf("GET /backup is answered %s, and ends with %v", response.Status, err)
	}
	return size, grown
}

// fileSize returns the size of the database in bytes.
func (d *daemon) fileSize() int {
	d.t.Helper()
	info, err := os.Stat(d.file())
	if err != nil {
		d.t.Fatal(err)
	}
	return int(info.Size())
}

// However many leases with full texts come and go, memory and file have a limit, and a start
// takes no more. The long form makes the table of docs/performance.md: go test -run
// TestMemoryAndFileAreBounded ./tests -full -v
func TestMemoryAndFileAreBounded(t *testing.T) {
	type stage struct {
		history            string
		leases             int
		maxMemory, maxFile int
	}
	stages := []stage{{"2MB", 4_000, 80e6, 20e6}}
	if !leftOut(t, "the default limit, with 68,000 leases") {
		stages = append(stages, stage{"64MB", 68_000, 200e6, 200e6})
	}
	if *huge {
		stages = append(stages, stage{"64MB", 420_000, 200e6, 200e6}, stage{"1GB", 60_000, 2e9, 2e9})
	}
	for _, s := range stages {
		d := newDaemon(t, "CALL_ME_HISTORY="+s.history)
		idle := d.peakMemory()
		if !strings.Contains(d.want(200, "GET", "/metrics"), "\ngo_gc_gogc_percent 400\n") {
			t.Error("an idle server collects garbage as if it were large")
		}
		d.fillHistory(s.leases)
		if s.leases > 10_000 && !strings.Contains(d.want(200, "GET", "/metrics"), "\ngo_gc_gogc_percent 30\n") {
			t.Error("a large server collects garbage as if it were small")
		}
		memory, file := d.peakMemory(), d.fileSize()
		size, grown := d.backupMemory()
		d.kill()
		d.start()
		again := d.peakMemory()
		t.Logf("| %s | %d | %d | %d | %d | %d | %d |", s.history, s.leases, idle/1e6, memory/1e6, file/1e6, again/1e6, grown/1e6)
		if raceDetector {
			continue // its memory is not that of the program
		}
		if memory > s.maxMemory || file > s.maxFile || again > s.maxMemory {
			t.Errorf("CALL_ME_HISTORY=%s: %d bytes of memory, %d in the file, %d after a start", s.history, memory, file, again)
		}
		if size < int64(file)/2 || grown > 50e6 {
			t.Errorf("CALL_ME_HISTORY=%s: a copy of %d bytes took %d bytes of memory", s.history, size, grown)
		}
		if code, body := d.call("GET", "/history?limit=1"); code != 200 || !strings.Contains(body, `"released"`) {
			t.Errorf("the history is answered %d %.200s", code, body)
		}
	}
}
