package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeServer replies to renewals: to the nth with answer(n), after the time slow. It records the
// times of the renewals in calls, and the deadlines that the renewer reports in told.
type fakeServer struct {
	mu     sync.Mutex
	calls  []time.Time
	answer func(n int) error
	limit  func(n int) time.Time // the end of the longest hold; nil if there is none
	slow   time.Duration
	told   []time.Time
}

func (l *fakeServer) tenure(ttl time.Duration) *renewer {
	return &renewer{ttl: ttl, grace: 5 * time.Second, onDeadline: func(d commandDeadline) { l.told = append(l.told, d.at) },
		renew: func(ctx context.Context) (time.Time, error) {
			l.mu.Lock()
			l.calls = append(l.calls, time.Now())
			n := len(l.calls)
			l.mu.Unlock()
			if l.slow > 0 {
				if err := sleep(ctx, l.slow); err != nil {
					return time.Time{}, errUnreachable
				}
			}
			limit := time.Time{}
			if l.limit != nil {
				limit = l.limit(n)
			}
			return limit, l.answer(n)
		}}
}

func always(err error) func(int) error { return func(int) error { return err } }

func TestALeaseIsRenewedEveryThirdOfItsTTLForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeServer{answer: always(nil)}
		ctx, cancel := context.WithTimeout(context.Background(), 4*24*time.Hour)
		defer cancel()
		start := time.Now()
		if err := l.tenure(2*time.Hour).run(ctx, start); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.calls); n < 4*24*3/2-3 || n > 4*24*3/2 {
			t.Errorf("%d renewals in four days", n)
		}
		for i, call := range l.calls[1:] {
			if gap := call.Sub(l.calls[i]); gap > 40*time.Minute+2*time.Second {
				t.Fatalf("renewal %d came after %v", i, gap)
			}
		}
	})
}

func TestADeadlineCountsFromWhenTheRenewalWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeServer{answer: always(nil), slow: 3 * time.Second}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start := time.Now()
		l.tenure(time.Minute).run(ctx, start)
		l.mu.Lock()
		defer l.mu.Unlock()
		// A deadline is 60 s minus the grace of 5 s and the margin of 4 s after the call was sent.
		if want := start.Add(51 * time.Second); !l.told[0].Equal(want) {
			t.Errorf("the first deadline is %v after the start", l.told[0].Sub(start))
		}
		if want := l.calls[0].Add(51 * time.Second); !l.told[1].Equal(want) {
			t.Errorf("the second deadline is %v after its renewal was sent", l.told[1].Sub(l.calls[0]))
		}
	})
}

// A server that is unreachable for half a ttl ends no lease, at whatever time it goes away,
// because renewals are sent every third of the ttl.
func TestAServerThatIsAwayForHalfATTLIsNotNoticed(t *testing.T) {
	for begin := time.Duration(0); begin < 40*time.Second; begin += 500 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			l := &fakeServer{answer: func(int) error {
				if gone := time.Since(start) - begin; gone > 0 && gone < 30*time.Second {
					return errUnreachable
				}
				return nil
			}}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			if err := l.tenure(time.Minute).run(ctx, start); err != nil {
				t.Errorf("away from %v on: %v", begin, err)
			}
		})
	}
}

func TestARenewerEndsBeforeTheLeaseExpires(t *testing.T) {
	for name, c := range map[string]struct {
		ttl, grace time.Duration
		answer     error
		slow       time.Duration
	}{
		"refused connections":        {time.Minute, 5 * time.Second, errUnreachable, 0},
		"no answer at all":           {time.Minute, 5 * time.Second, errUnreachable, time.Hour},
		"a refused key":              {time.Minute, 5 * time.Second, errKey, 0},
		"an answer that is nobody's": {time.Minute, 5 * time.Second, errNotCallMe, 0},
		"a short ttl":                {3 * time.Second, 5 * time.Second, errUnreachable, 0},
		"a long grace":               {time.Minute, time.Hour, errUnreachable, 0},
		"no grace":                   {time.Minute, 0, errUnreachable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &fakeServer{answer: always(c.answer), slow: c.slow}
				tenure := l.tenure(c.ttl)
				tenure.grace = c.grace
				start := time.Now()
				err := tenure.run(context.Background(), start)
				took := time.Since(start)
				if !errors.Is(err, errDeadline) {
					t.Errorf("ended with %v", err)
				}
				if took+tenure.shortGrace() >= c.ttl {
					t.Errorf("it ended after %v; with a grace of %v that is not before %v", took, tenure.shortGrace(), c.ttl)
				}
				if took < c.ttl/2 {
					t.Errorf("it ended after %v already", took)
				}
			})
		})
	}
}

func TestARefusedRenewalIsTheEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeServer{answer: always(errNotHeld)}
		start := time.Now()
		if err := l.tenure(time.Minute).run(context.Background(), start); !errors.Is(err, errNotHeld) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(start); took > 22*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A server that counts the longest hold by another clock, because it has started or taken over, may
// grant the slot to another holder earlier than the first one said, but not later.
func TestALongestHoldMayEndEarlierThanWasSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for moved, want := range map[time.Duration]time.Duration{0: time.Hour, -40 * time.Minute: 20 * time.Minute, time.Hour: time.Hour} {
			start := time.Now()
			l := &fakeServer{answer: always(nil), limit: func(n int) time.Time {
				if n < 10 {
					return start.Add(time.Hour)
				}
				return start.Add(time.Hour + moved)
			}}
			r := l.tenure(time.Minute)
			r.limit = start.Add(time.Hour)
			if err := r.run(context.Background(), start); !errors.Is(err, errLongestHold) {
				t.Errorf("ended with %v", err)
			}
			// The grace of 5 s and the margin of 4 s come before the end.
			if took := time.Since(start); took < want-11*time.Second || took > want-9*time.Second {
				t.Errorf("moved by %v: it took %v", moved, took)
			}
		}
	})
}

// A step of the wall clock, forward or back, moves no deadline: it is not by the wall clock.
func TestAStepOfTheWallClockMovesNoDeadline(t *testing.T) {
	now := clockNow()
	if isPast(now.Add(time.Hour), now) || !isPast(now, now) || !isPast(now, now.Add(time.Second)) {
		t.Error("without a step")
	}
	for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		stepped := stepWallClock(now, step)
		if moved := stepped.Round(0).Sub(now.Round(0)); moved != step {
			t.Fatalf("the test does not know time.Time: the wall clock is moved by %v, not by %v", moved, step)
		}
		if isPast(now.Add(time.Second), stepped) || !isPast(now.Add(-time.Second), stepped) {
			t.Errorf("with a step of %v", step)
		}
	}
}

// The clock of the leases is that of Go, and in advance of it by the time of each suspension.
func TestTheClockOfTheLeasesCountsSuspensions(t *testing.T) {
	before := time.Now()
	now := clockNow()
	if ahead := now.Sub(before); ahead < 0 || ahead > time.Second {
		t.Errorf("it is ahead by %v without a suspension", ahead)
	}
	suspension.mu.Lock()
	suspension.atStart -= time.Hour // as if the machine had slept for an hour since
	suspension.mu.Unlock()
	defer func() {
		suspension.mu.Lock()
		suspension.atStart, suspension.known = suspension.atStart+time.Hour, 0
		suspension.mu.Unlock()
	}()
	if ahead := clockNow().Sub(now); ahead < time.Hour || ahead > time.Hour+10*time.Second {
		t.Errorf("after an hour of suspension it has advanced by %v", ahead)
	}
}
