//go:build linux

package tests

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkCycleOnEtcd measures a cycle on a server with a file, in turn with one that has its state
// in an etcd of three members on this machine; etcd-ns/op is the time of the second.
func BenchmarkCycleOnEtcd(b *testing.B) {
	shared := newEtcd(b).newShared("")
	shared.start()
	shared.waitToLead()
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			served, _ := newServed(b)
			onEtcd := compare(b, newRival(b, "floor"), served, clients, cycle, targetAt(b, shared.base, shared.cmd.Process))
			b.ReportMetric(float64(onEtcd)/float64(b.N), "etcd-ns/op")
		})
	}
}

// BenchmarkHandOverOnEtcd is BenchmarkHandOver with the state in an etcd of three members on this
// machine, and 100 waiters: the ratio of the mean hand-over to the mean of a commit and a round trip.
func BenchmarkHandOverOnEtcd(b *testing.B) {
	shared := newEtcd(b).newShared("")
	shared.start()
	shared.waitToLead()
	c := newCrowdAt(b, targetAt(b, shared.base, shared.cmd.Process), shared.daemon, 100)
	var times, trips []time.Duration
	spent, commits := c.commits()
	for b.Loop() {
		times = append(times, c.handOver())
		trips = append(trips, c.trip())
	}
	spentThen, commitsThen := c.commits()
	commit := 1e3 * (spentThen - spent) / (commitsThen - commits)
	b.ReportMetric(commit, "commit-mean-ms")
	b.ReportMetric(meanMS(times)/(commit+meanMS(trips)), "times-both")
	reportTimes(b, "handover", times)
}
