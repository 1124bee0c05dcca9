package main

import (
	"testing"
	"time"
)

// A clock that is set back before a start puts nobody before those that wait.
func TestWaitersStayInOrderWhenTheClockIsSetBackAtAStart(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		g.asks("holder-id", 0).wantLease(t)
		later := time.Now().Add(time.Hour) // by a clock that was an hour ahead
		for i, id := range []string{"first-id", "second-id"} {
			number := uint64(time.Now().UnixMilli() + 10 + int64(i))
			w := &waiter{request: request{id: id}, number: number, rank: later.UnixNano(), since: later}
			if err := g.store.save(w.number, []write{encodeWaiter("uat", w)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		g.restart()
		a := g.asks("third-id", time.Minute)
		v, err := g.keeper.view("uat")
		if err != nil || len(v.queue) != 3 || v.queue[0].id != "first-id" || v.queue[2].id != "third-id" {
			t.Errorf("the queue is %+v, %v", v, err)
		}
		a.leave()
	})
}
