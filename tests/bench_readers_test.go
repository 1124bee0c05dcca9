//go:build linux

package tests

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// heavyReads are the answers that take long with many leases. The empty path is nobody who
// reads.
var heavyReads = []struct{ name, path string }{
	{"nobody", ""},
	{"environments", "/environments"},
	{"page", "/"},
	{"metrics", "/metrics"},
	{"history", "/history?limit=1000"},
}

// BenchmarkGrantBesideReaders measures a grant while two clients read without a pause, with
// 100,000 leases, each on an environment of its own. With BENCH_OTHER=PATH another build of
// call-me is measured in turn.
func BenchmarkGrantBesideReaders(b *testing.B) {
	file := heldByOthers(b, 100_000)
	for _, read := range heavyReads {
		b.Run("reader="+read.name, func(b *testing.B) {
			served, _ := newServed(b, "CALL_ME_DB="+copied(b, file))
			contenders, names := []*contender{served}, []string{"grant"}
			if other := os.Getenv("BENCH_OTHER"); other != "" {
				contenders, names = append(contenders, newOther(b, other, "CALL_ME_DB="+copied(b, file))), append(names, "other")
			}
			times, answers := make([][]time.Duration, len(contenders)), make([]float64, len(contenders))
			for turn := range turns {
				n := b.N*(turn+1)/turns - b.N*turn/turns
				for i, t := range contenders {
					spent, answered := t.grantsBeside(b, n, read.path)
					times[i], answers[i] = append(times[i], spent...), answers[i]+answered/turns
				}
			}
			for i, name := range names {
				reportTimes(b, name, times[i])
				b.ReportMetric(answers[i], name+"-reads/s")
			}
		})
	}
}

// grantsBeside returns how long each of n grants took beside two readers of the path, and
// how many answers these got in a second.
func (t *contender) grantsBeside(b *testing.B, n int, path string) (times []time.Duration, answered float64) {
	stop, read := make(chan struct{}), make([]int, 2)
	var readers sync.WaitGroup
	for i := range read {
		if path == "" {
			break
		}
		readers.Go(func() {
			reader := &contender{strings.TrimSuffix(t.url, "/maybe?environment="), t.transport, t.process}
			for {
				select {
				case <-stop:
					return
				default:
				}
				reader.want(b, http.StatusOK, http.MethodGet, path)
				read[i]++
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // the readers have begun
	began := time.Now()
	for range n {
		id := fmt.Sprintf("uat&id=request-%d", requests.Add(1))
		start := time.Now()
		t.want(b, http.StatusCreated, http.MethodPost, id)
		times = append(times, time.Since(start))
		t.want(b, http.StatusNoContent, http.MethodDelete, id)
	}
	close(stop)
	readers.Wait()
	return times, float64(read[0]+read[1]) / time.Since(began).Seconds()
}

// copied returns the path of a copy of a file.
func copied(b *testing.B, file string) string {
	content, err := os.ReadFile(file)
	path := filepath.Join(b.TempDir(), "copy.db")
	if err := cmp.Or(err, os.WriteFile(path, content, 0o600)); err != nil {
		b.Fatal(err)
	}
	return path
}
