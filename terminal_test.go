package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// paper returns a terminal without variables, and what it prints on stdout and on stderr.
func paper() (*terminal, *lockedBuffer, *lockedBuffer) {
	var out, err lockedBuffer
	t := newTerminalOn(&out, &err)
	t.getenv = func(string) string { return "" }
	return t, &out, &err
}

func TestAWaitIsLoggedBeforeAJobCountsAsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term, _, log := paper()
		w := term.newWaitDisplay(acquireOptions{environment: "uat", holder: "me"}, plainForm)
		defer w.done()
		held := errorJSON{Position: 3, HeldBy: []leaseJSON{{Slot: "uat", Holder: "ann", Fence: 1}}}
		w.queued(held)
		lines := func() int { return strings.Count(log.String(), "\n") }
		before := lines()
		printed := ""
		for minute := 1; minute <= 28; minute++ {
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := lines(); n != before {
				printed += fmt.Sprintf("%d:%d ", minute, n-before)
				before = n
			}
		}
		if printed != "4:1 12:1 20:1 28:1 " {
			t.Errorf("lines were printed after these minutes: %s\n%s", printed, log)
		}
		if !strings.HasSuffix(log.String(), "still waiting after 28m, 3rd in the queue; held by ann\n") {
			t.Errorf("the last line of\n%s", log)
		}
		before = lines()
		w.queued(held) // nothing has changed
		if lines() != before {
			t.Errorf("an unchanged line was told again:\n%s", log)
		}
		held.Position = 2
		w.queued(held)
		if !strings.HasSuffix(log.String(), "\nyou are 2nd in the queue now, after 28m\n") {
			t.Errorf("the last line of\n%s", log)
		}
		held.HeldBy = []leaseJSON{{Slot: "uat", Holder: "bob", Fence: 2}}
		held.Position = 1
		w.queued(held)
		if !strings.Contains(log.String(), "uat is held by bob\n") || !strings.HasSuffix(log.String(), "\nyou are next in the queue, after 28m\n") {
			t.Errorf("the last lines of\n%s", log)
		}
	})
}

// A failure before the first response prints no position in the queue, and the first response is
// printed in full.
func TestNoPositionIsPrintedBeforeTheFirstResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term, out, log := paper()
		w := term.newWaitDisplay(acquireOptions{environment: "uat", holder: "me"}, plainForm)
		defer w.done()
		until := time.Now().Add(time.Minute)
		w.retrying(errUnreachable, until)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if log.String() != "cannot reach; trying until "+clockTime(until)+"\n" { // the client repeats it
			t.Errorf("the last line of\n%s", log)
		}
		w.queued(errorJSON{Position: 1, HeldBy: []leaseJSON{{Slot: "uat", Holder: "ann", Fence: 1}}})
		if out.String() != "waiting for free slot on environment: uat\n" || !strings.HasSuffix(log.String(), "you are next in the queue\n") {
			t.Errorf("stdout %q, and\n%s", out, log)
		}
		if strings.Contains(log.String(), "answers again") {
			t.Errorf("it has never answered before:\n%s", log)
		}
	})
}

// A request for several environments says of each that it lacks who has it or for whom it is
// kept, and of the others that they are kept for it.
func TestAWaitForSeveralEnvironmentsSaysWhy(t *testing.T) {
	o := acquireOptions{environment: "uat", needs: []slotNeed{{environment: "uat"}, {environment: "perf"}, {environment: "web"}}}
	first := errorJSON{Environment: "perf", Position: 2, WaitsFor: []lackJSON{
		{Environment: "perf", Position: 2, HeldBy: []leaseJSON{{Slot: "perf", Holder: "ann", Fence: 1}}},
		{Environment: "web", Position: 1, Kept: []keptJSON{{Slot: "web", Holder: "bob", Position: 1, WaitsFor: []needJSON{{Environment: "qa", Slot: "blue"}}}}},
	}}
	synctest.Test(t, func(t *testing.T) {
		term, out, log := paper()
		w := term.newWaitDisplay(o, plainForm)
		defer w.done()
		w.queued(first)
		if want := "waiting for free slot on environment: uat\nwaiting for free slot on environment: perf\nwaiting for free slot on environment: web\n"; out.String() != want {
			t.Errorf("stdout %q", out)
		}
		lines := strings.Split(log.String(), "\n")
		if lines[0] != "perf is held by ann" || !strings.HasSuffix(log.String(), "\nweb is kept for bob, which waits for qa blue\n"+
			"kept for you meanwhile: uat\nyou are 2nd in the queue of perf and next in the queue of web\n") {
			t.Errorf("stderr\n%s", log)
		}
		time.Sleep(shortQuietTime)
		synctest.Wait()
		if !strings.HasSuffix(log.String(), "\nstill waiting after 4m, 2nd in the queue of perf and next in the queue of web; perf is held by ann; web is kept for bob, which waits for qa blue\n") {
			t.Errorf("after some minutes\n%s", log)
		}
		second := errorJSON{Environment: "web", Position: 1, WaitsFor: []lackJSON{{Environment: "web", Position: 1, Kept: []keptJSON{{Slot: "web", Holder: "bob", Position: 1}}}}}
		w.queued(second)
		if !strings.HasSuffix(log.String(), "\nweb is offered to bob, which has to ask for it within 10s\nkept for you meanwhile: uat and perf\nyou are next in the queue of web, after 4m\n") {
			t.Errorf("then\n%s", log)
		}
		before := log.String()
		w.queued(second)
		if log.String() != before {
			t.Errorf("the same again\n%s", log)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		term, _, log := paper()
		term.getenv = func(name string) string {
			return map[string]string{runTagsVariable: "(7-x)", leasesVariable: `[{"environment":"qa","slot":"qa","fence":7}]`}[name]
		}
		o.forRun = true
		w := term.newWaitDisplay(o, runForm)
		defer w.done()
		w.queued(first)
		w.queued(first)
		if log.String() != "call-me: this waits within a call-me run that keeps qa meanwhile; two such waits can wait for each other forever\n"+
			"hint: ask for both at once: call-me run qa uat perf web -- ...\n"+
			"call-me: waiting for uat, perf and web, 2nd in the queue of perf and next in the queue of web; perf is held by ann; web is kept for bob, which waits for qa blue\n" {
			t.Errorf("stderr\n%s", log)
		}
	})
}

// After a line that the server is unreachable, one line reports that it replies again.
func TestTheReturnOfAServerIsPrintedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term, _, log := paper()
		w := term.newWaitDisplay(acquireOptions{environment: "uat", holder: "me"}, plainForm)
		defer w.done()
		refused := errorJSON{Position: 1, HeldBy: []leaseJSON{{Slot: "uat", Holder: "ann", Fence: 1}}}
		w.queued(refused)
		w.retrying(errUnreachable, time.Time{})
		for range 2 {
			w.queued(refused)
		}
		if text := log.String(); !strings.HasSuffix(text, "you are next in the queue\ncannot reach; trying until it answers\nthe server answers again\n") {
			t.Errorf("the end of\n%s", text)
		}
	})
}

func TestATerminalShowsOneLineInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term, out, screen := paper()
		w := term.newWaitDisplay(acquireOptions{environment: "uat"}, plainForm)
		w.mu.Lock()
		w.columns, term.err.(*output).isTerminal = 60, true
		w.mu.Unlock()
		w.queued(errorJSON{Position: 1, HeldBy: []leaseJSON{{Slot: "uat", Holder: untrusted(strings.Repeat("long", 30)), Fence: 1}}})
		time.Sleep(90 * time.Second)
		synctest.Wait()
		frames := strings.Split(screen.String(), "\r\x1b[K")
		last := frames[len(frames)-1]
		if len(frames) != 91 || !strings.HasPrefix(last, "waiting 1m30s for uat, next in the queue; held by longlong") || len([]rune(last)) != 59 {
			t.Errorf("%d frames, the last is %q", len(frames), last)
		}
		w.acquired(grantedJSON{leaseJSON: leaseJSON{Environment: "uat", Slot: "uat"}}, 90*time.Second)
		w.done()
		if !strings.HasSuffix(screen.String(), last+"\r\x1b[Kuat is yours until you release it: call-me release uat\n") {
			t.Errorf("the screen is not clean at the end: %q", screen.String()[len(screen.String())-200:])
		}
		if out.String() != "waiting for free slot on environment: uat\nacquired slot for environment: uat\nwaited 1m30s\n" {
			t.Errorf("stdout %q", out)
		}
	})
}

func TestWatchPrintsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		term, out, log := paper()
		ctx, cancel := context.WithCancel(context.Background())
		var fence atomic.Uint64
		var fails atomic.Bool
		look := func() (environmentsJSON, error) {
			if fails.Load() {
				return environmentsJSON{}, errUnreachable
			}
			return environmentsJSON{Environments: []environmentJSON{{Environment: "uat", Slots: []slotJSON{{Slot: "uat", Lease: &leaseJSON{Slot: "uat", Fence: fence.Load(), HeldSeconds: float64(time.Now().Unix())}}}}}}, nil
		}
		ended := make(chan error)
		follow := func(ctx context.Context, _ chan<- struct{}) error { <-ctx.Done(); return ctx.Err() }
		go func() { ended <- term.watch(ctx, false, look, follow) }()
		tables := func() int {
			time.Sleep(time.Minute)
			synctest.Wait()
			return strings.Count(out.String(), "ENVIRONMENT")
		}
		if n := tables(); n != 1 {
			t.Errorf("%d tables though nothing changed", n)
		}
		fence.Store(2)
		if n := tables(); n != 2 {
			t.Errorf("%d tables after a change", n)
		}
		fails.Store(true)
		if n := tables(); n != 2 || strings.Count(log.String(), "cannot reach; trying again") != 1 {
			t.Errorf("%d tables while the server is away, %s", n, log)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		gone, cancel := context.WithCancel(context.Background())
		defer cancel()
		if err := term.watch(gone, false, look, follow); !errors.Is(err, errUnreachable) {
			t.Errorf("a server that is away from the start: %v", err)
		}
	})
}

func TestTheTableFitsTheTerminal(t *testing.T) {
	long := environmentsJSON{Environments: []environmentJSON{{Environment: "uat", Slots: []slotJSON{
		{Slot: "uat", Lease: &leaseJSON{Slot: "uat", Holder: untrusted(strings.Repeat("holder/", 20)), Reason: untrusted(strings.Repeat("reason ", 20)), Since: time.Now()}}, {Slot: "other"}}}}}
	for _, columns := range []int{80, 120, 200} {
		term, _, _ := paper()
		var b bytes.Buffer
		term.table(&b, long, columns, false)
		for line := range strings.Lines(b.String()) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > columns {
				t.Errorf("%d columns in a terminal of %d: %s", n, columns, line)
			}
		}
	}
	term, _, _ := paper()
	var plain, coloured bytes.Buffer
	term.table(&plain, long, 0, false)
	term.table(&coloured, long, 0, true)
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(plain.String(), strings.Repeat("holder/", 20)) {
		t.Errorf("in a log: %q", plain.String())
	}
	if !strings.Contains(coloured.String(), "\x1b[32mfree\x1b[0m") {
		t.Errorf("in colours: %q", coloured.String())
	}
}

func TestColoursAreForTerminalsOfPeopleWhoWantThem(t *testing.T) {
	term, _, _ := paper()
	if term.coloured(&bytes.Buffer{}) {
		t.Error("a log is coloured")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if isTerminal(file) || width(file) != 0 {
		t.Error("/dev/null is a terminal")
	}
}

func TestPositionsDurationsAndQuotes(t *testing.T) {
	for position, want := range map[int]string{0: "in the queue", 1: "next in the queue", 2: "2nd in the queue", 3: "3rd in the queue", 4: "4th in the queue", 11: "11th in the queue",
		12: "12th in the queue", 13: "13th in the queue", 21: "21st in the queue", 22: "22nd in the queue", 101: "101st in the queue", 111: "111th in the queue", 1012: "1012th in the queue"} {
		if got := queuePosition(position); got != want {
			t.Errorf("%d is %q, want %q", position, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 1499 * time.Millisecond: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", 2 * time.Hour: "2h",
		2*time.Hour + time.Second: "2h0m1s", 2*time.Hour + 5*time.Minute: "2h5m", 10 * time.Minute: "10m"} {
		if got := durationText(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for word, want := range map[string]string{"uat": "uat", "team/perf": "team/perf", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'", "github:acme/shop/run/1/x": "github:acme/shop/run/1/x"} {
		if got := quote(word); got != want {
			t.Errorf("%q is quoted %s, want %s", word, got, want)
		}
	}
	if got := printable("a\nb\x1b[31m\u202ec\u200b"); got != "a b?[31m?c?" {
		t.Errorf("%q", got)
	}
	yesterday := time.Now().AddDate(0, 0, -1)
	if !strings.HasPrefix(clockTime(yesterday), yesterday.Local().Format("2006-01-02 ")) {
		t.Errorf("yesterday is %s", clockTime(yesterday))
	}
}
