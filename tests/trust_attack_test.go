package tests

// The attack from outside: it runs the real binary and real clients, which behave in
// every way that the API allows, and records every call with its start and its end.
// The model in trust_linearizability_test.go checks the recorded replies.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An attack runs one server process after another on one file, and clients that call them.
type attack struct {
	t       *testing.T
	prefix  []string // the command that runs the binary: strace, or empty
	binary  string
	env     []string
	host    string
	db      string
	log     *lockedBuffer
	late    time.Duration
	slots   map[string][]string
	network *badNetwork // nil if every call goes to the server directly
	began   time.Time
	random  *rand.Rand
	names   atomic.Int64

	up       sync.RWMutex // write-locked while the server is down
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended
	restarts []restart

	mu       sync.Mutex
	entries  []entry
	answered time.Duration // the last moment at which the server is known to have run

	complaints []string // errors that are found without the model: a call or a start that never ends
	counts     map[string]int
	direct     *http.Client
	bad        *http.Client
}

// slack is how much later than by the rules a lease or a waiter may be seen to end, on
// a machine that runs other programs too. Other tests check the delay by the server's
// own clock.
const slack = 3 * time.Second

// newAttack starts a server. Its environments have one slot each; those whose name ends
// with a number have that many.
func newAttack(t *testing.T, binary string, seed uint64, prefix ...string) *attack {
	t.Helper()
	port := freePort()
	a := &attack{t: t, prefix: prefix, binary: binary, host: fmt.Sprint("127.0.0.1:", port), db: tempDB(t), log: &lockedBuffer{}, late: slack,
		began: time.Now(), random: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{},
		slots:  map[string][]string{"a": {"a"}, "b": {"b"}, "c": {"c"}, "m2": {"m2-1", "m2-2"}, "m3": {"m3-1", "m3-2", "m3-3"}, "quiet": {"quiet"}, "still": {"still"}, "shy": {"shy"}},
		direct: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
		bad:    &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	a.env = append(os.Environ(), "API_KEY="+testKey, fmt.Sprint("PORT=", port), "CALL_ME_DB="+a.db, "CALL_ME_ENVIRONMENTS=a,b,c,m2:2,m3:3,quiet,still,shy")
	a.start(a.prefix)
	t.Cleanup(func() {
		a.up.Lock()
		a.kill(syscall.SIGKILL)
		a.direct.CloseIdleConnections()
		if t.Failed() {
			log := a.log.String()
			t.Logf("the server said at last:\n%s", log[max(0, len(log)-4000):])
		}
	})
	return a
}

func (a *attack) complain(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.complaints = append(a.complaints, fmt.Sprintf(format, args...))
}

func (a *attack) failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.complaints) > 0
}

func (a *attack) now() time.Duration { return time.Since(a.began) }

func (a *attack) start(prefix []string) {
	args := append(slices.Clone(prefix), a.binary, "serve")
	a.cmd = exec.Command(args[0], args[1:]...)
	a.cmd.Env, a.cmd.Stderr = a.env, a.log
	if err := a.cmd.Start(); err != nil {
		a.complain("%v", err)
		return
	}
	cmd, ended := a.cmd, make(chan struct{})
	a.ended = ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if c, err := net.Dial("tcp", a.host); err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			return // revive starts it again
		default:
		}
	}
	a.complain("the server does not start")
}

func (a *attack) kill(signal syscall.Signal) {
	if a.cmd.Process != nil {
		a.cmd.Process.Signal(signal)
		<-a.ended
	}
}

// restart ends the server with the signal and starts it again.
func (a *attack) restart(signal syscall.Signal, prefix ...string) {
	a.up.Lock()
	defer a.up.Unlock()
	r := restart{killed: a.now()}
	a.kill(signal)
	r.started = a.now()
	a.start(prefix)
	r.ready = a.now()
	a.restarts = append(a.restarts, r)
}

// crashAtRandom kills the server and starts it again at random intervals, until stop is
// closed. The mean interval is every. One in ten of the signals is SIGTERM.
func (a *attack) crashAtRandom(every time.Duration, stop <-chan struct{}) {
	random := rand.New(rand.NewPCG(a.random.Uint64(), 2))
	for {
		select {
		case <-stop:
			return
		case <-time.After(every/2 + rand.N(every)):
		}
		signal := syscall.SIGKILL
		if random.IntN(10) == 0 {
			signal = syscall.SIGTERM
		}
		a.restart(signal, a.prefix...)
		a.counts["crashes"]++
	}
}

// revive starts the server again each time something else has killed it, until stop is
// closed.
func (a *attack) revive(stop <-chan struct{}, prefix ...string) {
	for {
		a.up.RLock()
		ended := a.ended
		a.up.RUnlock()
		select {
		case <-stop:
			// Where strace kills the server, it is restarted without strace: nothing
			// would start it after the next kill. Elsewhere it is not restarted: what
			// ended on a full disk is in memory only, and a start loses it.
			if strings.Contains(strings.Join(prefix, " "), "signal=") {
				a.restart(syscall.SIGTERM)
			}
			return
		case <-ended:
		}
		a.up.Lock()
		if a.ended == ended {
			a.mu.Lock()
			r := restart{killed: a.answered}
			a.mu.Unlock()
			r.started = a.now()
			a.start(prefix)
			r.ready = a.now()
			a.restarts = append(a.restarts, r)
			a.counts["crashes"]++
		}
		a.up.Unlock()
	}
}

// waitUntilUp returns when no restart is in progress.
func (a *attack) waitUntilUp() {
	a.up.RLock()
	defer a.up.RUnlock()
}

// call makes one call and returns its entry, with the reply if one was received. If
// impatient is positive, the call is canceled after that time, which is too short for a
// reply.
func (a *attack) call(e entry, f fate, impatient time.Duration) entry {
	a.waitUntilUp()
	method, values := e.query()
	path := "/maybe?"
	if e.kind == look {
		path = "/environments?"
	}
	host, client := a.host, a.direct
	if a.network != nil && f != faithful {
		host, client = a.network.host(), a.bad
	}
	e.far = client == a.bad
	limit := e.wait + 10*time.Second
	if impatient > 0 {
		limit = impatient
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path+values.Encode(), nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("X-API-KEY", testKey)
	r.Header.Set(fateHeader, string(f))
	e.sent = a.now()
	e.hear(client.Do(r))
	e.heard = a.now()
	if e.status == 0 {
		e.heard = forever
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.status != unsent {
		a.entries = append(a.entries, e)
	}
	if e.status > 0 && client == a.direct {
		a.answered = max(a.answered, e.sent)
	}
	if a.network != nil && (f == repeated || f == repeatedAtOnce) {
		again := e
		again.status, again.heard, again.lease = 0, forever, leaseJSON{}
		a.entries = append(a.entries, again)
	}
	return e
}

// unsent is the status of a call that never reached the server.
const unsent = -1

func (e *entry) query() (method string, q url.Values) {
	q = url.Values{"environment": {e.environment}}
	set := func(name string, d time.Duration) {
		if d > 0 {
			q.Set(name, d.String())
		}
	}
	if e.kind == askNow || e.kind == askWait || e.kind == renewID || e.kind == endID {
		q.Set("id", "request-"+e.name)
	}
	switch e.kind {
	case askNow, askWait, askNoID:
		q.Set("holder", e.name)
		set("wait", e.wait)
		set("ttl", e.ttl)
		set("claim", e.claim)
		return http.MethodPost, q
	case renewID:
		set("ttl", e.ttl)
		return http.MethodPut, q
	case endHolder:
		q.Set("holder", e.name)
	case endForced:
		q.Set("force", "1")
		q.Set("fence", fmt.Sprint(e.fence))
	case plainAsk:
		return http.MethodPost, q
	case plainLook, look:
		return http.MethodGet, q
	}
	return http.MethodDelete, q
}

// hear stores the reply, or the error, in the entry.
func (e *entry) hear(response *http.Response, err error) {
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		e.status = unsent
		return
	case err != nil:
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return
	}
	seekKey(string(body))
	e.status = response.StatusCode
	var refused refusalJSON
	var seen environmentsJSON
	switch {
	case len(body) == 0:
	case e.kind == look && e.status == http.StatusOK:
		if err = json.Unmarshal(body, &seen); err == nil && len(seen.Environments) == 1 {
			e.view = seen.Environments[0]
		}
	case e.status < 300:
		err = json.Unmarshal(body, &e.lease)
	default:
		if err = json.Unmarshal(body, &refused); err == nil && refused.Ended != nil {
			e.how = string(refused.Ended.How)
		}
	}
	if err != nil {
		e.status = 599 // the server never sends it, and no step accepts it
	}
}

// A visitor is one client. It makes one request after another, and finishes each.
type visitor struct {
	*attack
	random *rand.Rand
	stop   <-chan struct{}
}

func (v *visitor) stopped() bool {
	select {
	case <-v.stop:
		return true
	default:
		return false
	}
}

func (v *visitor) chance(percent int) bool { return v.random.IntN(100) < percent }

func (v *visitor) fate() fate {
	if v.network == nil || v.chance(75) {
		return faithful
	}
	return fates[v.random.IntN(len(fates))]
}

func (v *visitor) rest(most time.Duration) { time.Sleep(time.Duration(v.random.Int64N(int64(most)))) }

// insist repeats a call until it has a reply other than 503 (outcome unknown). With
// fates, the first three tries may go through the bad network.
func (v *visitor) insist(e entry, fates bool) entry {
	for try := 0; ; try++ {
		f := faithful
		if fates && try < 3 {
			f = v.fate()
		}
		if got := v.call(e, f, 0); got.status > 0 && got.status != 503 {
			return got
		}
		if try > 600 || v.failed() {
			v.complain("%s of %q is never answered", kindNames[e.kind], e.name)
			return entry{}
		}
		time.Sleep(time.Duration(5+v.random.IntN(1+min(try, 50))) * time.Millisecond)
	}
}

// busy are the environments that visit uses. Each of the others has two or three callers
// at a time: without more callers, no other call wakes a waiter that the server has
// forgotten, and no other grant hides that a waiter was passed over.
var busy = []string{"a", "b", "c", "m2", "m3"}

// handOver holds a slot for 50 ms while another client waits for it.
func (v *visitor) handOver() {
	first, next := v.pair("quiet")
	next.wait = 300 * time.Millisecond
	if v.insist(first, false).status == 201 {
		v.beside(next, func() {
			time.Sleep(50 * time.Millisecond)
			v.end(first)
		})
	}
	v.end(first)
	v.end(next)
}

// outlive renews a lease once, late, and lets it expire. Another client waits for the
// slot meanwhile, longer than the expiry may take.
func (v *visitor) outlive() {
	first, next := v.pair("still")
	first.ttl, next.wait = time.Second, 3*time.Second+slack
	if v.insist(first, false).status == 201 {
		v.beside(next, func() {
			time.Sleep(700 * time.Millisecond)
			v.insist(entry{kind: renewID, environment: first.environment, name: first.name}, false)
		})
	}
	v.end(first)
	v.end(next)
}

// passBy requests, without wait, a slot that came free while the next waiter in the queue
// was between two polls.
func (v *visitor) passBy() {
	first, next := v.pair("shy")
	next.wait = time.Millisecond
	passer, _ := v.pair("shy")
	if v.insist(first, false).status == 201 {
		v.insist(next, false)
		v.end(first)
		v.insist(passer, false)
		v.insist(next, false)
	}
	for _, e := range []entry{first, next, passer} {
		v.end(e)
	}
	v.rest(20 * time.Millisecond)
}

func (v *visitor) pair(environment string) (first, next entry) {
	name := func() string { return fmt.Sprintf("%05d", v.names.Add(1)) }
	return entry{kind: askNow, environment: environment, name: name()}, entry{kind: askWait, environment: environment, name: name()}
}

func (v *visitor) beside(waits entry, meanwhile func()) {
	var waiting sync.WaitGroup
	waiting.Go(func() { v.call(waits, faithful, 0) })
	meanwhile()
	waiting.Wait()
}

// visit makes one request of a random kind, from its begin to its end.
func (v *visitor) visit() {
	environment := busy[v.random.IntN(len(busy))]
	e := entry{environment: environment, name: fmt.Sprintf("%05d", v.names.Add(1))}
	switch n := v.random.IntN(100); {
	case n < 50:
		v.waitAndHold(e)
	case n < 65:
		v.tryNow(e)
	case n < 72:
		v.withoutID(e)
	case n < 78:
		v.as2019(e)
	case n < 82:
		v.force(e)
	case n < 88 && v.network != nil:
		v.overtake(e)
	default:
		v.call(entry{kind: look, environment: environment}, faithful, 0)
		v.rest(5 * time.Millisecond)
	}
}

func (v *visitor) waitAndHold(e entry) {
	e.kind, e.wait = askWait, time.Duration(20+v.random.IntN(400))*time.Millisecond
	if v.chance(40) {
		e.ttl = time.Duration(1+v.random.IntN(2)) * time.Second
	}
	if v.chance(10) {
		e.claim = time.Second
	}
	var twin sync.WaitGroup
	if v.chance(10) { // the same request twice at the same time
		twin.Go(func() { v.call(e, faithful, 0) })
	}
	defer twin.Wait()
	for !v.stopped() {
		got := v.insist(e, true)
		if got.status == 201 {
			v.hold(e)
			return
		}
		if got.status == 410 || v.chance(15) {
			break
		}
		if v.network != nil && v.chance(1) {
			return // the waiter is still in the queue, and never polls again
		}
	}
	v.end(e)
}

// hold does what a holder does: it renews and releases the lease, or lets it expire.
func (v *visitor) hold(e entry) {
	for keep := e.ttl > 0 && v.chance(15); keep && !v.stopped(); v.rest(e.ttl / 4) {
		if v.insist(entry{kind: renewID, environment: e.environment, name: e.name}, true).status != 200 || v.chance(8) {
			break
		}
	}
	for v.chance(60) {
		renewal := entry{kind: renewID, environment: e.environment, name: e.name}
		if v.chance(10) {
			renewal.ttl = 2 * time.Second
		}
		v.insist(renewal, true)
		v.rest(10 * time.Millisecond)
	}
	if (e.ttl > 0 || e.claim > 0) && v.chance(25) {
		return // the lease expires
	}
	if v.chance(20) {
		v.insist(entry{kind: endHolder, environment: e.environment, name: e.name}, true)
	}
	v.end(e)
}

// end releases by id. Sometimes it then repeats earlier calls, as delayed messages would.
func (v *visitor) end(e entry) {
	v.insist(entry{kind: endID, environment: e.environment, name: e.name}, true)
	for _, kind := range []askKind{askNow, renewID, endID} {
		if v.chance(8) {
			late := e
			late.kind, late.wait = kind, 0
			if kind != askNow {
				late.ttl, late.claim = 0, 0
			}
			v.insist(late, false)
		}
	}
}

func (v *visitor) tryNow(e entry) {
	e.kind = askNow
	if v.chance(30) {
		e.ttl = time.Second
	}
	if got := v.insist(e, true); got.status == 201 {
		v.hold(e)
	} else {
		v.end(e)
	}
}

func (v *visitor) withoutID(e entry) {
	e.kind, e.wait, e.ttl = askNoID, time.Duration(20+v.random.IntN(300))*time.Millisecond, time.Second
	f := faithful
	if v.chance(15) {
		f = []fate{severed, hidden}[v.random.IntN(2)]
	}
	if got := v.call(e, f, 0); got.status == 201 {
		v.rest(20 * time.Millisecond)
		v.insist(entry{kind: endHolder, environment: e.environment, name: e.name}, false)
	}
}

func (v *visitor) as2019(e entry) {
	e.name, e.kind = "", plainLook
	v.call(e, faithful, 0)
	e.kind = plainAsk
	if got := v.call(e, faithful, 0); got.status == 201 || got.status == 0 || got.status == 503 {
		v.rest(10 * time.Millisecond)
		e.kind = plainEnd
		v.insist(e, false)
	}
}

// force ends a lease that another client may have.
func (v *visitor) force(e entry) {
	seen := v.call(entry{kind: look, environment: e.environment}, faithful, 0)
	for _, s := range seen.view.Slots {
		if s.Lease != nil && s.Lease.Holder != "" {
			v.call(entry{kind: endForced, environment: e.environment, name: string(s.Lease.Holder), fence: s.Lease.Fence}, v.fate(), 0)
			return
		}
	}
}

// overtake cancels its own request and ends it, while the request is still in the network.
func (v *visitor) overtake(e entry) {
	e.kind, e.wait = askWait, 200*time.Millisecond
	v.call(e, delayed, time.Duration(1+v.random.IntN(20))*time.Millisecond)
	v.end(e)
}

// era runs one part of an attack. Every environment is empty at its begin and at its end,
// so that each era can be checked by itself.
func (a *attack) era(length time.Duration, visitors int, patient bool, menace func(stop <-chan struct{})) {
	a.mu.Lock()
	a.entries, a.restarts = nil, nil
	a.mu.Unlock()
	stop := make(chan struct{})
	var menaces, clients sync.WaitGroup
	if menace != nil {
		menaces.Go(func() { menace(stop) })
	}
	for range visitors {
		v := &visitor{attack: a, random: rand.New(rand.NewPCG(a.random.Uint64(), 3)), stop: stop}
		clients.Go(func() {
			for !v.stopped() && !a.failed() {
				v.visit()
			}
		})
	}
	for _, pair := range []func(*visitor){(*visitor).handOver, (*visitor).outlive, (*visitor).passBy} {
		v := &visitor{attack: a, random: rand.New(rand.NewPCG(a.random.Uint64(), 7)), stop: stop}
		if patient {
			clients.Go(func() {
				for !v.stopped() && !a.failed() {
					pair(v)
				}
			})
		}
	}
	time.Sleep(length)
	close(stop)
	menaces.Wait()
	clients.Wait()
	if a.network != nil {
		a.network.drain()
	}
	for environment := range a.slots {
		clients.Go(func() { a.clear(environment) })
	}
	clients.Wait()
}

// clear ends every request of an environment, and complains if it does not become empty
// within 20 s.
func (a *attack) clear(environment string) {
	v := &visitor{attack: a, random: rand.New(rand.NewPCG(1, 4))}
	open := map[string]bool{}
	a.mu.Lock()
	for _, e := range a.entries {
		if e.environment == environment && (e.kind == askNow || e.kind == askWait) {
			open[e.name] = true
		}
	}
	for _, e := range a.entries {
		if e.kind == endID && (e.status == 204 || e.status == 409) {
			delete(open, e.name)
		}
	}
	a.mu.Unlock()
	for name := range open {
		v.insist(entry{kind: endID, environment: environment, name: name}, false)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		seen := v.insist(entry{kind: look, environment: environment}, false)
		empty := len(seen.view.Queue) == 0
		for _, s := range seen.view.Slots {
			switch {
			case s.Lease == nil:
				continue
			case s.Lease.Holder == "":
				v.insist(entry{kind: plainEnd, environment: environment}, false)
			default:
				v.insist(entry{kind: endForced, environment: environment, name: string(s.Lease.Holder), fence: s.Lease.Fence}, false)
			}
			empty = false
		}
		if empty {
			return
		}
		if time.Now().After(end) || a.failed() {
			a.complain("%s never becomes empty: %+v", environment, seen.view)
			return
		}
	}
}

// A verdict is one error that was found in an era.
type verdict struct {
	environment string // empty if the error is not that of one environment
	what        string
	transcript  *transcript
}

// check checks the era's calls with porcupine, each environment by itself.
func (a *attack) check() (wrong []verdict) {
	for _, what := range a.complaints {
		wrong = append(wrong, verdict{what: what})
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for environment, slots := range a.slots {
		tr := &transcript{restarts: a.restarts, slots: slots, late: a.late}
		for _, e := range a.entries {
			if e.environment != environment {
				continue
			}
			tr.entries = append(tr.entries, e)
			if e.known() {
				a.counts["answered operations"]++
			} else {
				a.counts["unanswered"]++
			}
			a.counts["operations"]++
		}
		all.Go(func() {
			if what := tr.judge(); what != "" {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, verdict{environment, what, tr})
			}
		})
	}
	all.Wait()
	return wrong
}

// effort returns how long porcupine may check one environment of an era. In 20 s it can
// use 2 GB of memory. In 2 s it uses less than a third of 1 GB, and nearly every history
// is decided by then.
func effort() time.Duration {
	if long == 0 {
		return 2 * time.Second
	}
	return 20 * time.Second
}

// judge returns what is wrong, or an empty string. It first assumes that no waiter was
// passed over, which makes the search short and is right for most histories. If that
// explains no order, it checks again without the assumption.
func (t *transcript) judge() string {
	for _, t.strict = range []bool{true, false} {
		operations, err := t.operations()
		if err != nil {
			return err.Error()
		}
		switch porcupine.CheckOperationsTimeout(porcupineModel(t.slots), operations, effort()) {
		case porcupine.Ok:
			return ""
		case porcupine.Unknown:
			if !t.strict || len(t.slots) == 1 {
				return undecided
			}
		}
		if len(t.slots) == 1 {
			break // with one slot it is no assumption
		}
	}
	return "no order of the calls explains their replies"
}

// undecided is the result of a history that porcupine did not decide within effort.
const undecided = "porcupine did not come to an end"

// write writes the calls, and how far porcupine could explain them, to a new folder, and
// returns its path.
func (v verdict) write(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "call-me-violation-")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, e := range v.transcript.entries {
		fmt.Fprintf(&b, "%s number %d\n", e, v.transcript.person(e.name).number)
	}
	for _, r := range v.transcript.restarts {
		fmt.Fprintf(&b, "restart %+v\n", r)
	}
	if err := os.WriteFile(filepath.Join(folder, "calls.txt"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := porcupineModel(v.transcript.slots)
	_, info := porcupine.CheckOperationsVerbose(m, v.transcript.all, 10*time.Second)
	if err := porcupine.VisualizePath(m, info, filepath.Join(folder, "history.html")); err != nil {
		t.Error(err)
	}
	return folder
}

// tell returns what is wrong, and the folder that has the details.
func (v verdict) tell(t *testing.T) string {
	if v.transcript == nil {
		return v.what
	}
	return fmt.Sprintf("%s: %s; see %s", v.environment, v.what, v.write(t))
}

// faults returns how many leases were lost, granted twice, or granted out of order. It
// uses no model, and checks only what must hold for leases that do not expire.
func (a *attack) faults() (lost, double, outOfOrder int) {
	type tenureSeen struct {
		lease       leaseJSON
		from, until time.Duration // the lease was certainly held
	}
	held := map[string]*tenureSeen{}
	timed := map[string]bool{}
	for _, e := range a.entries {
		timed[e.name] = timed[e.name] || e.ttl > 0 || e.claim > 0
	}
	for _, e := range a.entries {
		if e.status == 201 && e.lease.Holder != "" && !timed[e.name] && held[e.name] == nil {
			held[e.name] = &tenureSeen{e.lease, e.heard, forever}
		}
	}
	for _, e := range a.entries {
		if s := held[e.name]; s != nil && (e.kind == endID || e.kind == endHolder || e.kind == endForced) {
			s.until = min(s.until, e.sent)
		}
	}
	bySlot := map[string][]*tenureSeen{}
	for _, s := range held {
		if s.from < s.until {
			bySlot[string(s.lease.Slot)] = append(bySlot[string(s.lease.Slot)], s)
		}
	}
	for _, all := range bySlot {
		slices.SortFunc(all, func(x, y *tenureSeen) int { return int(x.from - y.from) })
		for i := 1; i < len(all); i++ {
			if all[i-1].until > all[i].from {
				double++
			}
		}
	}
	fences := map[string]uint64{}
	for _, e := range a.entries {
		if e.lease.Fence != 0 {
			fences[string(e.lease.Holder)] = e.lease.Fence
		}
	}
	for _, e := range a.entries {
		if e.kind != look || e.status != 200 {
			continue
		}
		for name, s := range held {
			if string(s.lease.Environment) == e.environment && s.from < e.sent && e.heard < s.until && !slices.ContainsFunc(e.view.Slots, func(j slotJSON) bool {
				return j.Lease != nil && j.Lease.Fence == s.lease.Fence && string(j.Lease.Holder) == name
			}) {
				lost++
			}
		}
		for i, p := range e.view.Queue {
			if len(a.slots[e.environment]) > 1 {
				break // with several slots a disconnected waiter may be passed over
			}
			for _, q := range e.view.Queue[i+1:] {
				if fences[string(p.Holder)] != 0 && fences[string(q.Holder)] != 0 && fences[string(p.Holder)] > fences[string(q.Holder)] {
					outOfOrder++
				}
			}
		}
	}
	return lost, double, outOfOrder
}

// report fails the test for each verdict, and counts those that are undecided.
func (a *attack) report(wrong []verdict) {
	for _, v := range wrong {
		if v.what == undecided {
			a.counts["undecided"]++
			if long > 0 {
				a.t.Logf("%s: %s; see %s", v.environment, v.what, v.write(a.t))
			}
			continue
		}
		a.counts["violations"]++
		a.t.Errorf("%s", v.tell(a.t))
	}
}

func (e entry) String() string {
	heard := "never"
	if e.heard != forever {
		heard = fmt.Sprintf("%.6f", e.heard.Seconds())
	}
	text := fmt.Sprintf("%.6f %s %s %s wait %v ttl %v claim %v -> %d fence %d %s %s", e.sent.Seconds(), heard, kindNames[e.kind], e.name, e.wait, e.ttl, e.claim,
		e.status, e.lease.Fence, e.lease.Slot, e.how)
	if e.kind != look {
		return text
	}
	for _, s := range e.view.Slots {
		if s.Lease != nil {
			text += fmt.Sprintf(" %s=%s(%d)", s.Slot, s.Lease.Holder, s.Lease.Fence)
		}
	}
	for _, p := range e.view.Queue {
		text += " <" + string(p.Holder)
	}
	return text
}

// attackable prepares a campaign. Without -long a campaign runs in parallel with other
// tests; with -long each runs alone.
func attackable(t *testing.T) {
	t.Helper()
	if long == 0 {
		t.Parallel()
	}
	if runtime.GOOS == "windows" {
		t.Skip("no kill -9 here")
	}
}

// rounds calls round with one seed after another until the budget is spent or the test
// has failed. With -long it runs as many at once as there are processors. It returns the
// sums of their counts of these names.
func rounds(t *testing.T, short time.Duration, names []string, round func(t *testing.T, seed uint64, left time.Duration) map[string]int) map[string]int {
	end := time.Now().Add(budget(short))
	var mu sync.Mutex
	number, sums := uint64(0), map[string]int{}
	for _, name := range names {
		sums[name] = 0
	}
	one := func(t *testing.T) {
		mu.Lock()
		seed := *seed + number
		number++
		mu.Unlock()
		counts := round(t, seed, time.Until(end))
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			sums[name] += counts[name]
		}
	}
	lanes := 1
	if long > 0 {
		lanes = runtime.NumCPU()
	}
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				t.Run("", one)
			}
		})
	}
	all.Wait()
	return sums
}

// A server that is killed at random loses no lease that it has reported, grants no slot
// twice, and keeps the order of the queue.
func TestTrustCrashes(t *testing.T) {
	attackable(t)
	started := time.Now()
	record(t, "crashes", started, rounds(t, 5*time.Second, []string{"crashes", "answered operations", "lost", "double", "out of order"},
		func(t *testing.T, seed uint64, left time.Duration) map[string]int {
			a := newAttack(t, binaryPath(), seed)
			for end := time.Now().Add(min(left, time.Minute)); time.Now().Before(end) && !t.Failed(); {
				a.era(min(3*time.Second, time.Until(end)), 24, false, func(stop <-chan struct{}) { a.crashAtRandom(50*time.Millisecond, stop) })
				lost, double, outOfOrder := a.faults()
				a.counts["lost"] += lost
				a.counts["double"] += double
				a.counts["out of order"] += outOfOrder
				a.report(a.check())
			}
			return a.counts
		}))
}

// strace returns a command line that runs a command under strace and injects the faults.
// Each fault has the syntax of strace's -e inject.
func strace(t *testing.T, faults ...string) []string {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		missing(t, "strace")
	}
	if out, err := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		missing(t, "the right to trace a process: "+string(out))
	}
	args := []string{"strace", "-D", "-f", "-qq", "-o", os.DevNull, "-e", "trace=pwrite64,fdatasync,fsync"}
	for _, f := range faults {
		args = append(args, "-e", "inject="+f)
	}
	return args
}

// A menace is the kind of failure that an era has besides those of the network.
type menace struct {
	name    string
	patient bool     // the era is long enough to show a lease that should end and does not
	faults  []string // faults of the disk, as strace injects them
	crashes time.Duration
}

// menaces returns one menace of each kind. random chooses when their faults occur.
func menaces(random *rand.Rand) []menace {
	// The faults are at least 400 calls apart: a rewrite of the file, which makes a write
	// for each page, could never finish otherwise.
	at := func() string { return fmt.Sprintf(":when=%d+%d", 5+random.IntN(30), 400+random.IntN(100)) }
	call := []string{"fdatasync", "pwrite64"}[random.IntN(2)]
	return []menace{
		{name: "crashes", crashes: 200 * time.Millisecond},
		{name: "failed syncs", faults: []string{"fdatasync:error=EIO" + at()}},
		{name: "network", patient: true},
		{name: "failed writes", faults: []string{"pwrite64:error=EIO" + at()}},
		{name: "full disk", faults: []string{"pwrite64:error=ENOSPC" + at()}},
		{name: "slow syncs", faults: []string{"fdatasync:delay_enter=200000" + at()}},
		{name: "kills at a sync or write", faults: []string{fmt.Sprintf("%s:signal=SIGKILL:when=%d", call, 5+random.IntN(30))}},
	}
}

// suffer runs one era under a menace, and returns its verdicts.
func (a *attack) suffer(m menace) []verdict {
	a.prefix, a.late = nil, slack
	if m.faults != nil {
		a.prefix, a.late = strace(a.t, m.faults...), 3*slack
	}
	a.restart(syscall.SIGTERM, a.prefix...)
	length := time.Second
	if m.patient {
		length = 3 * time.Second
	}
	a.era(length, 10, m.patient, func(stop <-chan struct{}) {
		if m.crashes > 0 {
			a.crashAtRandom(m.crashes, stop)
		} else {
			a.revive(stop, a.prefix...)
		}
	})
	return a.check()
}

// With any failures of the network and the disk, and with crashes, there is an order of
// all calls in which each reply is the one that the rules give.
func TestTrustLinearizability(t *testing.T) {
	attackable(t)
	started := time.Now()
	record(t, "linearizability", started, rounds(t, time.Second, []string{"operations", "unanswered", "crashes", "undecided", "violations"},
		func(t *testing.T, seed uint64, _ time.Duration) map[string]int {
			a := newAttack(t, binaryPath(), seed)
			a.network = newBadNetwork(t, a.host, 150*time.Millisecond)
			all := menaces(a.random)
			if long == 0 && leftOut(t, "all but three of the seven ways to fail") {
				a.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				all = all[:3]
			}
			for _, m := range all {
				if a.report(a.suffer(m)); t.Failed() {
					t.Logf("in an era of %s %v", m.name, m.faults)
					break
				}
			}
			return a.counts
		}))
}
