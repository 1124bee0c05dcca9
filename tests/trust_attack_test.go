package tests

// The attack from outside: it runs the real binary and real clients, which behave in
// every way that the API allows, and records every call with its start and its end.
// trust_linearizability_test.go checks the recorded replies with the model of trust_world_test.go.
// What the clients do is in trust_visitors_test.go and trust_visitors_rules_test.go.

import (
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// An attack runs one server process after another on one file, and clients that call them.
type attack struct {
	t       *testing.T
	prefix  []string // the command that runs the binary: strace, or empty
	binary  string
	env     []string
	host    string
	hosts   []string // of several servers that share their state: each call goes to one of them
	db      string
	log     *lockedBuffer
	late    time.Duration
	parts   []*setting  // the environments, those that requests name together in one
	network *badNetwork // nil if every call goes to the server directly
	began   time.Time
	random  *rand.Rand
	names   atomic.Int64

	up       sync.RWMutex // write-locked while the server is down
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended
	restarts []restart
	eraBegan time.Duration // of an attack on several servers

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

// newRules are environments in which requests are for certain slots and for several, with
// priorities and keys, and are removed or paused. In the others they are for one slot, and
// equal.
var newRules = []string{"n", "p2", "x", "y2", "idle", "left", "next"}

// settings returns the environments, those that requests name together in one setting. They
// have one slot each; those whose name ends with a number have that many.
func settings() (parts []*setting, declared string) {
	for _, names := range [][]string{{"a"}, {"b"}, {"c"}, {"m2"}, {"m3"}, {"quiet"}, {"still"}, {"shy"}, {"n"}, {"p2"}, {"x", "y2"}, {"idle"}, {"left", "next"}} {
		g := &setting{environments: names}
		for i, name := range names {
			count, err := strconv.Atoi(name[1:])
			declared += name + ","
			if err != nil {
				g.slots, g.of = append(g.slots, name), append(g.of, i)
				continue
			}
			declared = fmt.Sprintf("%s:%d,", strings.TrimSuffix(declared, ","), count)
			for k := range count {
				g.slots, g.of = append(g.slots, fmt.Sprint(name, "-", k+1)), append(g.of, i)
			}
		}
		parts = append(parts, g)
	}
	return parts, strings.TrimSuffix(declared, ",")
}

// newAttack starts a server.
func newAttack(t *testing.T, binary string, seed uint64, prefix ...string) *attack {
	t.Helper()
	port := freePort()
	parts, declared := settings()
	a := &attack{t: t, prefix: prefix, binary: binary, host: fmt.Sprint("127.0.0.1:", port), db: tempDB(t), log: &lockedBuffer{}, late: slack,
		began: time.Now(), random: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{},
		parts:  parts,
		direct: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
		bad:    &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	a.env = append(os.Environ(), "API_KEY="+testKey, fmt.Sprint("PORT=", port), "CALL_ME_DB="+a.db, "CALL_ME_ENVIRONMENTS="+declared)
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
	switch {
	case e.kind == look:
		path = "/environments?"
	case e.pauses():
		path = "/pause?"
	}
	host, client := a.host, a.direct
	if a.network != nil && f != faithful {
		host, client = a.network.host(), a.bad
	}
	if len(a.hosts) > 0 {
		host = a.hosts[rand.IntN(len(a.hosts))]
	}
	e.far = client == a.bad || len(a.hosts) > 0 // one server passes calls on to the other
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
		again.status, again.heard, again.leases, again.number = 0, forever, nil, 0
		a.entries = append(a.entries, again)
	}
	return e
}

// unsent is the status of a call that never reached the server.
const unsent = -1

func (e *entry) query() (method string, q url.Values) {
	q = url.Values{}
	set := func(name, text string) {
		if text != "" {
			q.Set(name, text)
		}
	}
	last := func(name string, d time.Duration) {
		if d > 0 {
			q.Set(name, d.String())
		}
	}
	number := func(name string, n uint64) {
		if n > 0 {
			q.Set(name, fmt.Sprint(n))
		}
	}
	if all := e.all(); len(all) > 0 {
		q["environment"] = all
	}
	if e.asks() || e.kind == renewID || e.kind == endID || e.kind == handID {
		q.Set("id", "request-"+e.name)
	}
	switch e.kind {
	case askNow, askWait, askNoID, takeID:
		e.queryRequest(q)
		last("wait", e.wait)
		last("ttl", e.ttl)
		last("claim", e.claim)
		number("first", e.first)
		if e.kind == takeID {
			number("take", e.fence)
		}
		set("supersede", e.key)
		return http.MethodPost, q
	case renewID:
		last("ttl", e.ttl)
		return http.MethodPut, q
	case endHolder:
		q.Set("holder", e.name)
	case handID:
		q.Set("to", e.other)
		last("ttl", e.ttl)
	case endForced, removeForced:
		q.Set("force", "1")
		number("fence", e.fence)
		number("waiter", e.waiter)
	case pauseSlots, resumeSlots:
		return e.queryPause(q), q
	case plainAsk:
		return http.MethodPost, q
	case plainLook, look:
		return http.MethodGet, q
	}
	return http.MethodDelete, q
}

// queryRequest sets the parameters of a POST that say who asks for what.
func (e *entry) queryRequest(q url.Values) {
	q.Set("holder", e.name)
	if e.priority != 0 {
		q.Set("priority", fmt.Sprint(e.priority))
	}
	switch {
	case e.beside != "" && e.slot+e.besideSlot != "":
		q["slot"] = []string{e.slot, e.besideSlot}
	case e.slot != "":
		q.Set("slot", e.slot)
	}
}

// queryPause sets the parameters of a call of /pause, and returns its method.
func (e *entry) queryPause(q url.Values) (method string) {
	q.Set("holder", e.other)
	if e.environment == "" {
		q.Set("all", "1")
	}
	if e.slot != "" {
		q.Set("slot", e.slot)
	}
	if e.kind == resumeSlots {
		return http.MethodDelete
	}
	if e.ttl > 0 {
		q.Set("for", e.ttl.String())
	}
	if e.force {
		q.Set("force", "1")
	}
	return http.MethodPut
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
	var granted struct {
		leaseJSON
		Leases []leaseJSON `json:"leases"`
	}
	switch {
	case len(body) == 0:
	case e.kind == look && e.status == http.StatusOK:
		if err = json.Unmarshal(body, &seen); err == nil && len(seen.Environments) == 1 {
			e.view = seen.Environments[0]
		}
	case e.pauses() && e.status == http.StatusOK:
	case e.status < 300:
		err = json.Unmarshal(body, &granted)
		e.leases = granted.Leases
		if granted.Fence != 0 {
			e.leases = append(e.leases, granted.leaseJSON)
		}
	default:
		err = json.Unmarshal(body, &refused)
		e.number = refused.Number
		if err == nil && refused.Ended != nil {
			e.how = refused.Ended.How
		}
	}
	if err != nil {
		e.status = 599 // the server never sends it, and no step accepts it
	}
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
	for _, pair := range []func(*visitor){(*visitor).handOver, (*visitor).outlive, (*visitor).passBy, (*visitor).leavePair, (*visitor).waitForResume} {
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
	for _, g := range a.parts {
		clients.Go(func() { a.clear(g) })
	}
	clients.Wait()
}

// clear ends every request and pause of a setting, and complains if it does not become empty
// within 20 s.
func (a *attack) clear(g *setting) {
	v := &visitor{attack: a, random: rand.New(rand.NewPCG(1, 4))}
	open := map[string]entry{}
	a.mu.Lock()
	for _, e := range a.entries {
		if slices.Contains(g.environments, e.environment) && e.asks() {
			open[e.name] = e
		}
	}
	for _, e := range a.entries {
		if e.kind == endID && (e.status == 204 || e.status == 409) && e.beside == open[e.name].beside {
			delete(open, e.name)
		}
	}
	a.mu.Unlock()
	for _, e := range open {
		v.insist(e.again(endID), false)
	}
	for _, environment := range g.environments {
		for end := time.Now().Add(20 * time.Second); !v.clearOnce(environment); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) || a.failed() {
				a.complain("%s never becomes empty", environment)
				return
			}
		}
	}
}

// clearOnce ends what a look at an environment shows. It reports whether that is nothing.
func (v *visitor) clearOnce(environment string) bool {
	seen := v.insist(entry{kind: look, environment: environment}, false)
	for _, p := range seen.view.Pauses {
		v.insist(entry{kind: resumeSlots, environment: p.Environment, slot: p.Slot, other: p.By}, false)
	}
	empty := len(seen.view.Queue)+len(seen.view.Pauses) == 0
	for _, s := range seen.view.Slots {
		switch {
		case s.Lease == nil:
			continue
		case s.Lease.Holder == "":
			v.insist(entry{kind: plainEnd, environment: environment}, false)
		default:
			v.insist(entry{kind: endForced, environment: environment, name: s.Lease.Holder, fence: s.Lease.Fence}, false)
		}
		empty = false
	}
	return empty && seen.status == http.StatusOK
}
