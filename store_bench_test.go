package main

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkCommit measures the commit that one call waits for: that of a grant, or of a
// release with the grant to the next waiter.
func BenchmarkCommit(b *testing.B) {
	held := func(n uint64) write { return encodeLease("uat", &lease{slot: "uat", fence: n, since: time.Now()}) }
	happened := func(kind eventKind, n uint64) write {
		return encodeEvent(&event{number: n, kind: kind, at: time.Now(), environment: "uat", slot: "uat", fence: n})
	}
	grant := func(n uint64) []write { return []write{held(n), happened(eventGranted, n)} }
	handOver := func(n uint64) []write {
		ended, waits := held(n), encodeWaiter("uat", &waiter{number: n, request: request{id: "request-1"}, since: time.Now()})
		left := encodeWaiter("uat", &waiter{number: n - 1})
		ended.value, left.value = nil, nil
		return []write{ended, happened(eventReleased, 2*n), left, waits, held(n), happened(eventGranted, 2*n+1)}
	}
	b.Run("grant", func(b *testing.B) { benchmarkCommit(b, grant) })
	b.Run("hand-over", func(b *testing.B) { benchmarkCommit(b, handOver) })
}

func benchmarkCommit(b *testing.B, writes func(n uint64) []write) {
	s := mustOpen(b, tempDB(b))
	defer s.close()
	var times []time.Duration
	for n := uint64(1); b.Loop(); n++ {
		saved := writes(n)
		start := time.Now()
		if err := s.save(n, saved, nil); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2])/1e6, "commit-p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100])/1e6, "commit-p99-ms")
}
