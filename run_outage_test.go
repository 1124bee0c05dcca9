package main

import (
	"context"
	"os"
	"regexp"
	"sort"
	"testing"
	"testing/synctest"
	"time"
)

// outlives reports whether a run with this ttl outlives a server that is away for a time, from
// begin on, the time since a renewal.
func outlives(t *testing.T, ttl, begin, away time.Duration) bool {
	lost := false
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := &fakeServer{answer: func(int) error {
			if gone := time.Since(start) - begin; gone >= 0 && gone < away {
				return errUnreachable
			}
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), begin+away+ttl)
		defer cancel()
		lost = l.tenure(ttl).run(ctx, start) != nil
	})
	return !lost
}

// longestOutages measures how long the server may be away for a run with this ttl: whenever it
// goes away, and at best. It tries beginnings and lengths that differ by step, and of those only
// as many as it takes to find where the run stops to outlive them.
func longestOutages(t *testing.T, ttl, step time.Duration) (certain, best time.Duration) {
	certain = ttl
	for begin := step / 2; begin < ttl/3+step; begin += step {
		lost := sort.Search(int(ttl/step), func(steps int) bool {
			return !outlives(t, ttl, begin, time.Duration(steps)*step)
		})
		longest := time.Duration(lost-1) * step
		certain, best = min(certain, longest), max(best, longest)
	}
	return certain, best
}

// The table of docs/operations.md says how long an outage each ttl rides out.
func TestTheDocumentedOutagesAreRiddenOut(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `--ttl (\\w+)`[^|]* \\| (\\w+) \\| (\\w+) \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 5 {
		t.Fatalf("docs/operations.md has %d rows", len(rows))
	}
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			var told [3]time.Duration
			for i, text := range row[1:] {
				if told[i], err = time.ParseDuration(text); err != nil {
					t.Fatal(err)
				}
			}
			ttl := told[0]
			certain, best := longestOutages(t, ttl, ttl/60)
			t.Logf("ttl %v: %v whenever it begins, %v at best", ttl, certain, best)
			if off := certain - told[1]; off < -ttl/60 || off > ttl/10 {
				t.Errorf("the page says %v for certain; measured %v", told[1], certain)
			}
			if off := best - told[2]; off < -ttl/20 || off > ttl/60 {
				t.Errorf("the page says %v at best; measured %v", told[2], best)
			}
			for begin := time.Duration(0); begin < ttl/3; begin += ttl / 40 { // the promise itself
				if !outlives(t, ttl, begin, told[1]) {
					t.Errorf("away from %v on, it is lost after %v", begin, told[1])
				}
			}
		})
	}
}
