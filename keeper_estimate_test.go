package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func minutes(all ...int) (durations []time.Duration) {
	for _, n := range all {
		durations = append(durations, time.Duration(n)*time.Minute)
	}
	return durations
}

func TestEstimates(t *testing.T) {
	now := time.Now()
	since := func(ago, left int, kept bool) leaseView {
		v := leaseView{lease: &lease{since: now.Add(-time.Duration(ago) * time.Minute)}, kept: kept}
		if left > 0 {
			v.deadline = now.Add(time.Duration(left) * time.Minute)
		}
		return v
	}
	queue := func(requests ...request) (all []*waiter) {
		for _, q := range requests {
			all = append(all, &waiter{request: q})
		}
		return all
	}
	usual := minutes(10, 30, 20, 10, 30)
	anyone := request{}
	const none = -1 // of unknownWait
	for name, c := range map[string]struct {
		holds []time.Duration
		v     view
		want  []time.Duration
	}{
		"too few holds":             {usual[:4], view{slots: []string{"a"}, leases: []leaseView{since(5, 0, true)}}, nil},
		"a free slot":               {usual, view{slots: []string{"a"}}, minutes(0)},
		"the rest of the median":    {usual, view{slots: []string{"a"}, leases: []leaseView{since(5, 0, true)}}, minutes(15)},
		"of those that were longer": {usual, view{slots: []string{"a"}, leases: []leaseView{since(25, 0, true)}}, minutes(5)},
		"longer than all":           {usual, view{slots: []string{"a"}, leases: []leaseView{since(31, 0, true)}}, minutes(none)},
		"longer than all, and a ttl that nobody renews": {usual, view{slots: []string{"a"}, leases: []leaseView{since(31, 7, false)}}, minutes(7)},
		"longer than all, and a ttl that is renewed":    {usual, view{slots: []string{"a"}, leases: []leaseView{since(31, 7, true)}}, minutes(none)},
		"a ttl that ends earlier":                       {usual, view{slots: []string{"a"}, leases: []leaseView{since(5, 7, false)}}, minutes(7)},
		"a ttl that ends later":                         {usual, view{slots: []string{"a"}, leases: []leaseView{since(5, 70, false)}}, minutes(15)},
		"a queue": {usual, view{slots: []string{"a", "b"}, leases: []leaseView{since(5, 0, true), since(15, 0, true)},
			queue: queue(anyone, anyone, anyone)}, minutes(15, 15, 35, 35)},
		"waiters for more than any slot": {usual, view{slots: []string{"a"}, leases: []leaseView{since(5, 0, true)},
			queue: queue(request{slot: "a"}, anyone, request{needs: []need{{"uat", ""}, {"perf", ""}}})}, minutes(none, 35, none, 75)},
		"more leases than slots": {usual, view{slots: []string{"a"}, leases: []leaseView{since(5, 0, true), since(15, 0, true)}}, minutes(15)},
		"a pause":                {usual, view{slots: []string{"a", "b"}, pauses: []*pause{{slot: "b"}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.v.estimates(c.holds, now)
			for i := range c.want {
				if c.want[i] == none*time.Minute {
					c.want[i] = unknownWait
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestHoldsAreTheLastOnesOfTheEnvironment(t *testing.T) {
	s := &publishedState{}
	for i := range 50 {
		s.history = append(s.history, &event{kind: eventReleased, environment: []string{"uat", "perf"}[i%2], fence: 1, held: time.Duration(i)},
			&event{kind: eventGranted, environment: "uat", fence: 1, held: 77},
			&event{kind: eventAbandoned, environment: "uat", held: 77})
	}
	got := s.holdsOf("uat")
	if len(got) != estimateHolds || got[0] != 48 || got[1] != 46 || got[estimateHolds-1] != 10 {
		t.Errorf("%v", got)
	}
}

// In a week of jobs on two slots, whose lengths are spread as those of builds are, half of the
// estimates that waiters get when they come are less than 40 % off.
func TestTheMedianErrorOfEstimatesInAWeek(t *testing.T) {
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 1))
		length := func() time.Duration {
			return time.Duration(20 * math.Exp(random.NormFloat64()*0.5) * float64(time.Minute))
		}
		type job struct{ came, length time.Duration }
		type hold struct{ from, until time.Duration }
		start := time.Now()
		var queue []job
		var estimates []time.Duration // of the queue
		var running []hold
		var ended []time.Duration
		var errors []float64
		grant := func(at time.Duration) {
			for len(running) < 2 && len(queue) > 0 {
				if estimate, waited := estimates[0], at-queue[0].came; estimate != unknownWait && waited > 0 {
					errors = append(errors, math.Abs(estimate.Seconds()-waited.Seconds())/waited.Seconds())
				}
				running = append(running, hold{at, at + queue[0].length})
				queue, estimates = queue[1:], estimates[1:]
			}
		}
		for now := time.Duration(0); now < 7*24*time.Hour; now += 10 * time.Second {
			for i := 0; i < len(running); {
				if h := running[i]; h.until <= now {
					ended = slices.Insert(ended, 0, h.until-h.from)
					running = slices.Delete(running, i, i+1)
				} else {
					i++
				}
			}
			grant(now)
			if random.Float64() < 10.0/60/12.5 { // a job in 12.5 minutes on average: the slots are busy for 9 h in 10
				v := view{slots: []string{"a", "b"}}
				for _, h := range running {
					v.leases = append(v.leases, leaseView{lease: &lease{since: start.Add(h.from)}, kept: true})
				}
				for range queue {
					v.queue = append(v.queue, &waiter{})
				}
				estimate := unknownWait
				if all := v.estimates(ended[:min(len(ended), estimateHolds)], start.Add(now)); all != nil {
					estimate = all[len(all)-1]
				}
				queue, estimates = append(queue, job{now, length()}), append(estimates, estimate)
				grant(now)
			}
		}
		slices.Sort(errors)
		middle := errors[len(errors)/2]
		t.Logf("%d waits, median error %.0f %%", len(errors), 100*middle)
		if middle >= 0.4 {
			t.Errorf("seed %d: the median error of %d estimates is %.0f %%", seed, len(errors), 100*middle)
		}
	}
}
