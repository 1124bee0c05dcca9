package main

import (
	"errors"
	"testing"
	"time"
)

// The longest hold goes on over a start: what is left of it by the wall clock, however often
// the lease is renewed. The full ttl that a start gives stands.
func TestTheLongestHoldGoesOnOverAStart(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.close()
		g.limits.longestHold = time.Hour
		g.open()
		renew := func(environment, id string) error {
			return g.keeper.ask(&call{kind: callRenew, environment: environment,
				renewal: renewal{selector: selector{id: id}, at: time.Now()}}).err
		}
		g.keeper.ask(&call{kind: callRequest, environment: "uat", request: request{id: "run", ttl: 10 * time.Minute}})
		g.keeper.ask(&call{kind: callRequest, environment: "perf", request: request{id: "forever"}})
		time.Sleep(5 * time.Minute)
		g.close()
		time.Sleep(25 * time.Minute)
		g.open()
		for minute := range 30 {
			if err := errors.Join(renew("uat", "run"), renew("perf", "forever")); err != nil {
				t.Fatalf("%d min after the start: %v", minute, err)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(2 * time.Second)
		if renew("uat", "run") == nil || renew("perf", "forever") == nil {
			t.Error("a lease lasts longer than the longest hold")
		}
	})
}
