package main

// Tests of what a key allows its requests.

import (
	"errors"
	"testing"
	"time"
)

// overLimit returns the name of the limit that an error is about; empty for another one.
func overLimit(err error) string {
	var e limitError
	if !errors.As(err, &e) || !errors.Is(err, errForbidden) {
		return ""
	}
	return e.limit
}

func TestALimitBindsNewRequestsOnly(t *testing.T) {
	limits := &keyLimits{ttl: time.Hour, hold: 2 * time.Hour, places: 1, priority: 3}
	for name, c := range map[string]struct {
		q    request
		want string
	}{
		"within all":          {request{ttl: time.Hour, maxHold: 2 * time.Hour, priority: 3}, ""},
		"a longer ttl":        {request{ttl: time.Hour + 1, priority: 3}, "max-ttl"},
		"without end":         {request{ttl: 0}, "max-ttl"},
		"a longer hold":       {request{ttl: 1, maxHold: 2*time.Hour + 1}, "max-hold"},
		"a higher priority":   {request{ttl: 1, priority: 4}, "max-priority"},
		"a negative priority": {request{ttl: 1, priority: -100}, ""},
		"more places":         {request{ttl: 1, needs: []need{{"uat", ""}, {"uat", ""}}}, "max-places"},
	} {
		b := newBench(t, "blue", "green")
		c.q.id, c.q.key, c.q.limits = "first", "shop", limits
		o := b.post(c.q, true)
		if got := overLimit(o.err); got != c.want || o.err != nil && got == "" {
			t.Errorf("%s: %v, want %q", name, o.err, c.want)
			continue
		}
		if c.want != "" {
			continue
		}
		c.q.limits = &keyLimits{ttl: time.Second, hold: time.Second, places: 1} // lower now
		if o := b.post(c.q, true); len(o.own) != 1 {
			t.Errorf("%s: the same id again: %+v", name, o)
		}
		c.q.id = "second"
		c.q.ttl, c.q.maxHold, c.q.priority, c.q.limits = time.Second, 0, 0, limits
		if o := b.post(c.q, true); overLimit(o.err) != "max-places" {
			t.Errorf("%s: a second request: %+v", name, o)
		}
	}
}

// A priority of zero or less needs no limit.
func TestAPriorityUpToZeroIsAllowed(t *testing.T) {
	for priority, want := range map[int]string{1: "max-priority", 0: "", -1: ""} {
		b := newBench(t)
		if o := b.post(request{id: "a", priority: priority, origin: origin{key: "shop"}, limits: &keyLimits{}}, false); overLimit(o.err) != want {
			t.Errorf("%d: %v, want %q", priority, o.err, want)
		}
	}
}

// A renewal with the ttl that the lease has is bound by no limit, one with another ttl is.
func TestALimitBindsAChangeOfTheTTLOnly(t *testing.T) {
	lower := &keyLimits{ttl: time.Hour}
	for name, c := range map[string]struct {
		q    renewal
		want string
	}{
		"none sent":  {renewal{}, ""},
		"unchanged":  {renewal{ttl: 4 * time.Hour, hasTTL: true}, ""},
		"longer":     {renewal{ttl: 5 * time.Hour, hasTTL: true}, "max-ttl"},
		"shorter":    {renewal{ttl: 3 * time.Hour, hasTTL: true}, "max-ttl"},
		"no end":     {renewal{ttl: 0, hasTTL: true}, "max-ttl"},
		"as allowed": {renewal{ttl: time.Hour, hasTTL: true}, ""},
	} {
		b := newBench(t)
		b.post(request{id: "a", ttl: 4 * time.Hour}, false)
		c.q.id, c.q.limits = "a", lower
		before := *b.e.leases[0]
		o := b.extend(c.q)
		if got := overLimit(o.err); got != c.want || o.err != nil && got == "" {
			t.Errorf("%s: %v, want %q", name, o.err, c.want)
		}
		if after := b.e.leases[0]; c.want != "" && after.ttl != before.ttl {
			t.Errorf("%s: it was refused, and the ttl is %v", name, after.ttl)
		}
	}
}

// The longest hold of the key counts from the grant, for a waiter too, and what is left of it goes
// with a lease that is handed over: so nobody gets around it.
func TestTheLongestHoldOfTheKey(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", origin: origin{key: "shop"}, limits: &keyLimits{hold: time.Hour}}, false)
	if l := b.e.leases[0]; l.longest != time.Hour || !l.deadline.Equal(b.now.Add(time.Hour)) {
		t.Errorf("it lasts %v, until %v", l.longest, l.deadline)
	}
	b.now = b.now.Add(20 * time.Minute)
	b.step(func(r *batch) { b.e.handOver(r, releaseRequest{selector: selector{id: "a"}, to: "ann"}) })
	if l := b.e.leases[0]; l.longest != 40*time.Minute || l.key != "shop" || l.holder != "ann" {
		t.Errorf("it was handed over as %+v", l)
	}
	b.post(request{id: "b", origin: origin{key: "shop"}, limits: &keyLimits{hold: time.Minute}}, true)
	b.pass(40 * time.Minute)
	if l := b.e.leases[0]; l.id != "b" || l.longest != time.Minute {
		t.Errorf("the waiter has %+v", l)
	}
}

// Places are counted over all environments, waiting and held, by the name of the key alone.
func TestPlacesAreCountedByTheNameOfTheKey(t *testing.T) {
	b := newBench(t)
	b.others["perf"] = newEnvironment("perf", []string{"perf"})
	limits := &keyLimits{places: 3}
	ask := func(id, key, holder string, needs ...need) error {
		return b.post(request{id: id, holder: holder, needs: needs, origin: origin{key: key}, limits: limits}, true).err
	}
	for _, c := range []struct {
		id, key, holder string
		needs           []need
		want            string
	}{
		{"a", "shop", "ann", nil, ""},
		{"b", "shop", "bob", nil, ""},
		{"c", "shop", "cid", []need{{"perf", ""}, {"uat", ""}}, "max-places"},
		{"d", "web", "ann", []need{{"perf", ""}, {"uat", ""}}, ""},
		{"e", "shop", "eve", nil, ""},
		{"f", "shop", "fay", nil, "max-places"},
		{"g", "", "fay", nil, ""},
		{"a", "shop", "ann", nil, ""}, // the same request again
	} {
		if err := ask(c.id, c.key, c.holder, c.needs...); overLimit(err) != c.want || err != nil && c.want == "" {
			t.Errorf("%s of %q: %v, want %q", c.id, c.key, err, c.want)
		}
	}
	if b.places["shop"] != 3 || b.places["web"] != 2 || len(b.places) != 2 {
		t.Errorf("counted %v", b.places)
	}
	b.endID("a")
	b.endID("b")
	if err := ask("h", "shop", "hal", need{"perf", ""}, need{"uat", ""}); err != nil {
		t.Errorf("with two places: %v", err)
	}
	for _, id := range []string{"d", "e", "h", "g"} {
		b.step(func(r *batch) { b.e.release(r, releaseRequest{selector: selector{id: id}}, "perf") })
	}
	if len(b.places) != 0 {
		t.Errorf("nobody has a place, but counted are %v", b.places)
	}
}

// Who waits for two slots of one environment has two places.
func TestEachSlotOfAnEnvironmentIsAPlace(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("holder")
	ask := func(id string, needs ...need) error {
		limits := &keyLimits{places: 2}
		return b.post(request{id: id, needs: needs, origin: origin{key: "shop"}, limits: limits}, true).err
	}
	if err := ask("a", need{"uat", ""}, need{"uat", ""}); err != nil || b.places["shop"] != 2 {
		t.Errorf("for two slots: %v, counted %v", err, b.places)
	}
	if err := ask("b"); overLimit(err) != "max-places" {
		t.Errorf("a third place: %v", err)
	}
	b.endID("a")
	if len(b.places) != 0 {
		t.Errorf("nobody has a place, but counted are %v", b.places)
	}
}

// A request that takes the place of an older one of its key needs no further place.
func TestTheNewestNeedsNoFurtherPlace(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	push := func(id, key string) result {
		return b.post(request{id: id, holder: "h-" + id, supersede: "main", origin: origin{key: key}, limits: &keyLimits{places: 1}}, true)
	}
	push("old", "shop")
	if o := push("new", "shop"); o.err != nil {
		t.Errorf("the newer one: %v", o.err)
	}
	push("other", "web") // another team has the same text
	b.want("uat:holder", "new other")
}

// Who names no id touches only what was taken with a key of the same name, or with one that has
// none. Whoever knows the id may use it.
func TestALeaseOfAnotherKey(t *testing.T) {
	for name, c := range map[string]struct {
		taken, by string
		mine      bool
	}{
		"the same":                   {"shop", "shop", true},
		"another":                    {"shop", "web", false},
		"taken without a name":       {"", "web", true},
		"an admin or a nameless key": {"shop", "", true},
	} {
		begin := func() *bench {
			b := newBench(t)
			b.post(request{id: "a", holder: "ann", origin: origin{key: c.taken}}, false)
			return b
		}
		b, which := begin(), selector{holder: "ann", key: c.by}
		results := map[string]result{"renew": b.extend(renewal{selector: which}), "release": b.end(releaseRequest{selector: which})}
		b = begin()
		b.step(func(r *batch) {
			results["hand over"] = b.e.handOver(r, releaseRequest{selector: which, to: "bob"})
		})
		b = newBench(t)
		b.post(request{origin: origin{key: c.taken}}, false)
		results["the call of 2019"] = b.end(releaseRequest{selector: selector{key: c.by}, is2019: true})
		for what, o := range results {
			if c.mine && (o.err != nil || len(o.own) != 1) || !c.mine && !errors.Is(o.err, errNotHeld) {
				t.Errorf("%s: %s: %+v", name, what, o)
			}
		}
		b = begin()
		if o := b.end(releaseRequest{selector: selector{id: "a", key: ""}}); o.err != nil || len(b.e.leases) != 0 {
			t.Errorf("%s: by the id: %v", name, o.err)
		}
	}
}

// A release that would repeat an earlier one is none while the holder's lease is another key's.
func TestAnEarlierReleaseDoesNotHideTheLeaseOfAnotherKey(t *testing.T) {
	b := newBench(t)
	which := selector{holder: "ann", key: "web"}
	for _, key := range []string{"web", "shop"} {
		b.post(request{id: "id-" + key, holder: "ann", origin: origin{key: key}}, false)
		o := b.end(releaseRequest{selector: which})
		if want := map[string]error{"web": nil, "shop": errOtherKey}[key]; !errors.Is(o.err, want) {
			t.Errorf("taken by %s: %v", key, o.err)
		}
	}
	b.endID("id-shop")
	b.post(request{id: "again", holder: "ann", origin: origin{key: "web"}}, false)
	b.step(func(r *batch) { b.e.handOver(r, releaseRequest{selector: which, to: "bob"}) })
	b.end(releaseRequest{selector: selector{holder: "bob", key: "web"}})
	b.post(request{id: "last", holder: "ann", origin: origin{key: "shop"}}, false)
	b.step(func(r *batch) {
		if o := b.e.handOver(r, releaseRequest{selector: which, to: "bob"}); !errors.Is(o.err, errOtherKey) {
			t.Errorf("the hand-over: %v", o.err)
		}
	})
}

// A batch that is undone has taken no place.
func TestTheCountOfPlacesIsUndone(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", origin: origin{key: "shop"}}, true)
	b.post(request{id: "b", origin: origin{key: "shop"}}, true)
	r := b.batch()
	b.e.request(r, request{id: "c", origin: origin{key: "shop"}}, true, 0)
	b.e.release(r, releaseRequest{selector: selector{id: "a"}})
	b.e.serveQueue(r)
	r.undo()
	if b.places["shop"] != 2 {
		t.Errorf("counted %v", b.places)
	}
}

// What a limit says names the key and the limit, as the file of keys has it.
func TestTheTextOfALimit(t *testing.T) {
	for want, e := range map[string]limitError{
		`the key "shop" allows max-ttl=1h0m0s`: {key: "shop", limit: "max-ttl", length: time.Hour},
		`the key "shop" allows max-places=3`:   {key: "shop", limit: "max-places", number: 3},
		`the key "shop" allows max-priority=0`: {key: "shop", limit: "max-priority"},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

// Who has renewed, paused, resumed and handed over is in what is recorded of it.
func TestTheOriginOfAChangeIsRecorded(t *testing.T) {
	b := newBench(t)
	by := origin{key: "shop", verified: "ci:shop", from: "10.0.0.1"}
	b.post(request{id: "a", ttl: time.Hour, origin: by}, false)
	r := b.step(func(r *batch) {
		b.e.renew(r, renewal{selector: selector{id: "a"}, ttl: time.Minute, hasTTL: true, at: b.now, by: origin{key: "root", from: "10.0.0.2"}})
	})
	if c := r.changes[0]; c.by != (origin{key: "root", from: "10.0.0.2"}) || c.newLease.origin != by {
		t.Errorf("the renewal is recorded as by %+v, of a lease of %+v", c.by, c.newLease.origin)
	}
	b.step(func(r *batch) {
		b.e.handOver(r, releaseRequest{selector: selector{id: "a"}, to: "ann", origin: origin{key: "root", from: "10.0.0.3"}})
	})
	events := b.past.events[len(b.past.events)-2:]
	if e := events[0]; e.origin != (origin{"shop", "ci:shop", "10.0.0.3"}) || e.byKey != "root" {
		t.Errorf("the end is recorded as %+v by %q", e.origin, e.byKey)
	}
	if e := events[1]; e.origin != (origin{key: "shop", from: "10.0.0.3"}) || e.byKey != "" {
		t.Errorf("the grant is recorded as %+v by %q", e.origin, e.byKey)
	}
	for _, resume := range []bool{false, true} {
		b.step(func(r *batch) { b.e.pause(r, pauseRequest{by: "ann", resume: resume, origin: by}) })
		if e := b.past.events[len(b.past.events)-1]; e.origin != by || e.byKey != "shop" {
			t.Errorf("resumed %v is recorded as %+v by %q", resume, e.origin, e.byKey)
		}
		if !resume && b.e.pauses[0].key != "shop" {
			t.Errorf("the pause is of %q", b.e.pauses[0].key)
		}
	}
}

// The error has the key, the limit, and what it allows.
func TestTheErrorHasWhatTheLimitAllows(t *testing.T) {
	limits := &keyLimits{ttl: time.Hour, hold: 2 * time.Hour, places: 1, priority: 3}
	for _, c := range []struct {
		q    request
		want limitError
	}{
		{request{ttl: 0}, limitError{key: "shop", limit: "max-ttl", length: time.Hour}},
		{request{ttl: 1, maxHold: 3 * time.Hour}, limitError{key: "shop", limit: "max-hold", length: 2 * time.Hour}},
		{request{ttl: 1, priority: 4}, limitError{key: "shop", limit: "max-priority", number: 3}},
		{request{ttl: 1, needs: []need{{"uat", ""}, {"uat", ""}}}, limitError{key: "shop", limit: "max-places", number: 1}},
	} {
		b := newBench(t, "blue", "green")
		c.q.id, c.q.key, c.q.limits = "a", "shop", limits
		var got limitError
		if o := b.post(c.q, true); !errors.As(o.err, &got) || got != c.want {
			t.Errorf("%+v, want %+v", o.err, c.want)
		}
	}
}

// What was superseded has the key of its own, and by which key and from which address it was
// ended; also a request that begins anew, and is older than one that waits.
func TestTheOriginOfWhatIsSuperseded(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	ask := func(id, from string, first uint64) event {
		b.post(request{id: id, holder: "h-" + id, url: "https://ci/" + id, reason: "r-" + id, supersede: "main", first: first, origin: origin{key: "shop", verified: "ci:" + id, from: from}}, true)
		return *b.past.events[len(b.past.events)-1]
	}
	ask("old", "10.0.0.1", 0)
	if e := ask("new", "10.0.0.2", 0); e.kind != eventSuperseded || e.origin != (origin{"shop", "ci:old", "10.0.0.2"}) || e.byKey != "shop" {
		t.Errorf("%s of %+v by %q", e.kind, e.origin, e.byKey)
	}
	if e := ask("late", "10.0.0.3", 1); e.kind != eventSuperseded || e.origin != (origin{"shop", "ci:late", "10.0.0.3"}) || e.byKey != "shop" ||
		e.reason != "r-late" || e.holder != "h-late" || e.url != "https://ci/late" {
		t.Errorf("%s of %+v by %q: %+v", e.kind, e.origin, e.byKey, e)
	}
}

// A waiter that leaves, one that is removed, a lease that is taken and an id that is closed have
// who did it.
func TestTheOriginOfEnds(t *testing.T) {
	by := origin{key: "root", from: "10.0.0.9"}
	last := func(b *bench) event { return *b.past.events[len(b.past.events)-1] }
	for _, remove := range []bool{false, true} {
		b := newBench(t)
		b.must("holder")
		b.post(request{id: "w", origin: origin{"shop", "ci", "10.0.0.1"}}, true)
		q := releaseRequest{selector: selector{id: "w"}, origin: by}
		if remove {
			q = releaseRequest{force: true, waiter: b.e.queue[0].number, origin: by}
		}
		b.end(q)
		if e := last(b); e.origin != (origin{"shop", "ci", "10.0.0.9"}) || e.byKey != "root" {
			t.Errorf("removed %v: %+v by %q", remove, e.origin, e.byKey)
		}
	}
	b := newBench(t)
	b.end(releaseRequest{selector: selector{id: "unknown"}, origin: by})
	if e := last(b); e.kind != eventClosed || e.origin != by {
		t.Errorf("closed: %+v", e.origin)
	}
	b.post(request{id: "h", origin: origin{"shop", "ci", "10.0.0.1"}}, false)
	b.step(func(r *batch) {
		b.e.take(r, request{id: "t", origin: by}, takeover{fence: b.e.leases[0].fence, from: "10.0.0.9"}, 0)
	})
	events := b.past.events[len(b.past.events)-2:]
	if e := events[0]; e.kind != eventTaken || e.origin != (origin{"shop", "ci", "10.0.0.9"}) || e.byKey != "root" {
		t.Errorf("taken: %+v by %q", e.origin, e.byKey)
	}
	if e := events[1]; e.kind != eventGranted || e.origin != by {
		t.Errorf("granted: %+v", e.origin)
	}
}

// A request that takes over a lease of its own key needs no further place, one of another does.
func TestATakeoverNeedsAPlace(t *testing.T) {
	for key, want := range map[string]string{"root": "", "shop": "max-places"} {
		b := newBench(t, "blue", "green")
		b.post(request{id: "a", origin: origin{key: key}}, false)
		b.post(request{id: "b", slot: "green", origin: origin{key: "root"}}, false)
		limits := &keyLimits{places: 2}
		if key == "shop" {
			limits.places = 1
		}
		var o result
		b.step(func(r *batch) {
			o = b.e.take(r, request{id: "t", origin: origin{key: "root"}, limits: limits}, takeover{fence: b.e.leases[0].fence}, 0)
		})
		if overLimit(o.err) != want || o.err != nil && want == "" {
			t.Errorf("of %s: %v, want %q", key, o.err, want)
		}
		if want == "" && only(o.own).limits != nil {
			t.Error("the lease keeps the limits")
		}
	}
}

// A request that waits takes a lease over whatever became of the limits of its key meanwhile.
func TestATakeoverByAWaiterNeedsNoNewLimit(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.post(request{id: "w", origin: origin{key: "root"}}, true)
	var o result
	b.step(func(r *batch) {
		q := request{id: "w", origin: origin{key: "root"}, limits: &keyLimits{places: 1, ttl: time.Second}}
		o = b.e.take(r, q, takeover{fence: b.e.leases[0].fence}, 0)
	})
	if o.err != nil || only(o.own).id != "w" {
		t.Errorf("%v, %v", o.own, o.err)
	}
}
