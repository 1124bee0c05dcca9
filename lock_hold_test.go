package main

import (
	"errors"
	"testing"
	"time"
	"unsafe"
)

// After a start, the longest hold goes on with what is left of it by the wall clock, and is
// never longer than all of it. A ttl that is given anew stands.
func TestTheRestOfTheLongestHoldAfterAStart(t *testing.T) {
	start := time.Now()
	for name, c := range map[string]struct {
		since         time.Duration // before the start
		longest, ttl  time.Duration
		limit, expiry time.Duration // after the start; zero for none
	}{
		"no longest hold":        {time.Hour, 0, time.Minute, 0, time.Minute},
		"neither":                {time.Hour, 0, 0, 0, 0},
		"some is left":           {20 * time.Minute, time.Hour, time.Minute, 40 * time.Minute, time.Minute},
		"some is left, no ttl":   {20 * time.Minute, time.Hour, 0, 40 * time.Minute, 40 * time.Minute},
		"it was over long ago":   {9 * time.Hour, time.Hour, time.Minute, -1, time.Minute},
		"the clock was set back": {-9 * time.Hour, time.Hour, time.Minute, time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lease{since: start.Add(-c.since).Round(0), longest: c.longest, ttl: c.ttl}
			l.start(start)
			l.limitAfterStart(start)
			after := func(at time.Time) time.Duration {
				switch {
				case at.IsZero():
					return 0
				case at.Equal(start):
					return -1
				}
				return at.Sub(start)
			}
			if after(l.limit) != c.limit || after(l.deadline) != c.expiry {
				t.Errorf("limit %v, deadline %v; want %v and %v", after(l.limit), after(l.deadline), c.limit, c.expiry)
			}
			if !l.since.Equal(start.Add(-c.since)) {
				t.Errorf("it is held since %v, want %v", l.since, start.Add(-c.since))
			}
		})
	}
}

// A step of the wall clock after the start changes nothing of what the limit and the holder are told.
func TestAStepOfTheWallClockMovesNoLongestHold(t *testing.T) {
	start := time.Now()
	l := &lease{since: start.Add(-20 * time.Minute).Round(0), longest: time.Hour, ttl: time.Minute}
	l.start(start)
	l.limitAfterStart(start)
	now := stepWallClock(start.Add(time.Minute), 2*time.Hour)
	if held, left := now.Sub(l.since), l.limit.Sub(now); held != 21*time.Minute || left != 39*time.Minute {
		t.Errorf("it was held for %v, and %v are left", held, left)
	}
}

// stepWallClock returns the time that time.Now would return if the wall clock was set by step
// at t. A time.Time with a monotonic reading has the seconds of the wall clock in its first
// word, above 30 bits of nanoseconds.
func stepWallClock(t time.Time, step time.Duration) time.Time {
	*(*int64)(unsafe.Pointer(&t)) += int64(step/time.Second) << 30
	return t
}

func TestARequestWithAnotherLongestHoldIsAnother(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", maxHold: time.Hour}, true)
	if o := b.post(request{id: "a", maxHold: time.Minute}, true); !errors.Is(o.err, errDifferent) {
		t.Errorf("%v", o.err)
	}
	if o := b.post(request{id: "a", maxHold: time.Hour}, true); o.err != nil {
		t.Error(o.err)
	}
}

func TestHowLongALeaseLasts(t *testing.T) {
	const h = time.Hour
	for _, c := range []struct{ ttl, longest, want time.Duration }{{0, 0, 0}, {h, 0, h}, {0, h, h}, {h, 2 * h, h}, {2 * h, h, h}} {
		l := &lease{ttl: c.ttl, longest: c.longest}
		if got := l.lasts(); got != c.want {
			t.Errorf("ttl %v, longest hold %v: %v, want %v", c.ttl, c.longest, got, c.want)
		}
	}
}
