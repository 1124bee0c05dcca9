package main

// Sessions, and faults at each of their system calls that write. A session is a process with
// keeper and store that makes the calls of a script, one after the other, and prints each
// reply. strace traces it, kills it or makes its system calls fail. One thread does all
// accesses to the file, because strace counts calls by thread.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A sessionStep is one call of a script. A repetition of the call has no further effect.
type sessionStep struct {
	kind        callKind
	environment string
	id          string
	ttl         time.Duration
	wait, force bool
	reason      string
}

var sessionSlots = declaredEnvironments{}

func init() {
	if err := sessionSlots.Decode("uat,perf:2,a,b,c,d,e,f,g,h,i,j"); err != nil {
		panic(err)
	}
}

// fixedScript returns a script that has every kind of write and makes the file grow.
func fixedScript() []sessionStep {
	steps := []sessionStep{
		{kind: callRequest, environment: "uat", id: "holder-1", ttl: time.Hour},
		{kind: callRequest, environment: "uat", id: "waiter-1", wait: true},
		{kind: callRequest, environment: "uat", id: "waiter-2", wait: true},
		{kind: callRenew, environment: "uat", id: "holder-1", ttl: 2 * time.Hour},
		{kind: callRequest, environment: "perf", id: "perf-1", reason: strings.Repeat("r", 1000)},
		{kind: callRequest, environment: "perf", id: "perf-2", ttl: time.Minute},
		{kind: callRelease, environment: "uat", id: "holder-1"},
		{kind: callRequest, environment: "uat", id: "waiter-1", wait: true}, // it has the lease already
		{kind: callRelease, environment: "uat", id: "waiter-2"},
		{kind: callRelease, environment: "uat", force: true},
		{kind: callRelease, environment: "uat", id: "never-seen"},
	}
	for _, name := range "abcdefghij" {
		steps = append(steps, sessionStep{kind: callRequest, environment: string(name), id: "long-" + string(name), reason: strings.Repeat("r", 1000)})
	}
	for _, name := range "aceg" {
		steps = append(steps, sessionStep{kind: callRelease, environment: string(name), id: "long-" + string(name)})
	}
	return steps
}

// someScript returns n random steps. The same seed makes the same steps.
func someScript(seed uint64, n int) (steps []sessionStep) {
	chance := rand.New(rand.NewPCG(seed, 2))
	pick := func(from string) string { return strings.Fields(from)[chance.IntN(len(strings.Fields(from)))] }
	used := map[string]sessionStep{}
	for len(steps) < n {
		s := sessionStep{environment: pick("uat uat uat perf perf a b c d e f"), id: "id-" + pick("1 2 3 4 5 6 7 8 9"), wait: true}
		switch chance.IntN(8) {
		case 0, 1, 2, 3:
			s.kind, s.ttl = callRequest, time.Duration(chance.IntN(3))*time.Hour
			s.reason = strings.Repeat("r", chance.IntN(2)*chance.IntN(1000))
			if before, known := used[s.environment+s.id]; known {
				s = before
			}
			used[s.environment+s.id] = s
		case 4, 5:
			s.kind = callRelease
		case 6:
			s.kind, s.ttl = callRenew, time.Duration(1+chance.IntN(5))*time.Hour
		case 7:
			s.kind, s.id, s.force = callRelease, "", true
		}
		steps = append(steps, s)
	}
	return steps
}

func sessionScript(name string) []sessionStep {
	if name == "fixed" {
		return fixedScript()
	}
	seed, _ := strconv.ParseUint(name, 10, 64)
	return someScript(seed, 40)
}

func (s sessionStep) do(k *keeper) error {
	c := &call{kind: s.kind, environment: s.environment, wait: s.wait}
	switch s.kind {
	case callRequest:
		c.request = request{id: s.id, ttl: s.ttl, reason: s.reason}
		return k.requestSlot(context.Background(), c, 0).err
	case callRenew:
		c.renewal = renewal{selector: selector{id: s.id}, ttl: s.ttl, hasTTL: true, at: time.Now()}
	case callRelease:
		c.release = releaseRequest{selector: selector{id: s.id}, force: s.force}
	}
	return k.ask(c).err
}

// sessionProcess is the main function of a session. Its arguments are the file, the script and
// the first step. It prints "open STATE", and after each step N a line
// "step N ERROR anew BOOL tries COUNT STATE", where BOOL is whether the file was rewritten, and
// COUNT how often the call was made.
func sessionProcess() {
	runtime.LockOSThread()
	path, steps := os.Args[1], sessionScript(os.Args[2])
	first, _ := strconv.Atoi(os.Args[3])
	s, err := openStore(path)
	if err != nil {
		fmt.Printf("cannot open: %v\n", err)
		os.Exit(1)
	}
	k, err := loadKeeper(s, sessionSlots.slotsOf, testLimits, keeperLog{newMetrics(), slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Printf("cannot open: %v\n", err)
		os.Exit(1)
	}
	go func() {
		fmt.Printf("open %s\n", stateOf(k))
		for i := first; i < len(steps); i++ {
			before, _ := os.Stat(path)
			tries, err := 1, steps[i].do(k)
			for ; (errors.Is(err, errUnknown) || errors.Is(err, errFull)) && tries < 200; tries++ {
				time.Sleep(20 * time.Millisecond)
				err = steps[i].do(k)
			}
			file, _ := os.Stat(path)
			fmt.Printf("step %d %q anew %v tries %d %s\n", i, fmt.Sprint(err), !os.SameFile(file, before), tries, stateOf(k))
		}
		k.close()
	}()
	k.run()
	s.close()
	fmt.Println("done")
}

// stateOf returns the published state without fences and times, on one line.
func stateOf(k *keeper) string {
	var all []string
	for v := range k.published.Load().all() {
		for _, l := range v.leases {
			all = append(all, fmt.Sprintf("%s/%s:%s:%v", v.name, l.slot, l.id, l.ttl))
		}
		for i, p := range v.queue {
			all = append(all, fmt.Sprintf("%s#%d:%s", v.name, i+1, p.id))
		}
	}
	return strings.Join(all, " ")
}

// A sessionRun is the output of a session.
type sessionRun struct {
	opened string // the state at the start
	told   bool   // whether it has printed the state at the start
	steps  []sessionAnswer
	done   bool
	failed string // why it could not open the file; empty if it could
	err    error  // of the process
}

type sessionAnswer struct {
	step   int
	answer string
	anew   bool
	tries  int
	state  string
}

// runSession runs a session from the step first on, under strace with these arguments.
func runSession(t *testing.T, path, script string, first int, straceArgs ...string) sessionRun {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(path), "..", "session")
	if err := os.Symlink(exe, link); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	command := append(append([]string{"-f", "-qq"}, straceArgs...), link, path, script, fmt.Sprint(first))
	if !strings.Contains(strings.Join(command, " "), "SIGKILL") { // with --seccomp-bpf it is not delivered
		command = slices.Insert(command, 0, "--seccomp-bpf")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "strace", command...)
	var said, wrong bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &wrong
	r := sessionRun{}
	if r.err = cmd.Run(); ctx.Err() != nil {
		t.Fatalf("a session hangs: %q\n%s%s", command, said.String(), wrong.String())
	}
	if strings.Contains(wrong.String(), "panic") {
		t.Fatalf("a session broke down: %q\n%s", command, wrong.String())
	}
	lines := bufio.NewScanner(&said)
	for lines.Scan() {
		line := lines.Text()
		var a sessionAnswer
		switch {
		case strings.HasPrefix(line, "open "):
			r.opened, r.told = line[len("open "):], true
		case strings.HasPrefix(line, "cannot open: "):
			r.failed = line
		case line == "done":
			r.done = true
		default:
			if _, err := fmt.Sscanf(line, "step %d %q anew %t tries %d", &a.step, &a.answer, &a.anew, &a.tries); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			_, a.state, _ = strings.Cut(line, fmt.Sprintf(" tries %d ", a.tries))
			r.steps = append(r.steps, a)
		}
	}
	return r
}

// needStrace skips the test if strace is not installed. In CI it fails the test instead.
func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		missing(t, "strace")
	}
}

// A strike is a fault at the n-th call of a system call that writes.
type strike struct {
	call  string
	n     int
	fault string
}

// inject returns the argument of strace for the fault. With the suffix " again" the next two
// calls fail too, so that the first attempt to rewrite the file fails.
func (s strike) inject() string {
	fault, again := strings.CutSuffix(s.fault, " again")
	if again {
		return fmt.Sprintf("inject=%s:%s:when=%d..%d", s.call, fault, s.n, s.n+2)
	}
	return fmt.Sprintf("inject=%s:%s:when=%d", s.call, fault, s.n)
}

var writingCalls = []string{"pwrite64", "fdatasync", "fsync", "ftruncate", "linkat", "renameat", "unlinkat"}

// strikesOn returns every fault at every write and sync of the fixed script, and the output of
// the session without a fault.
func strikesOn(t *testing.T, folder string) (all []strike, whole sessionRun) {
	path := filepath.Join(folder, "whole", "call-me.db")
	os.MkdirAll(filepath.Dir(path), 0o700)
	trace := filepath.Join(folder, "whole.trace")
	whole = runSession(t, path, "fixed", 0, "-o", trace, "-e", "trace="+strings.Join(writingCalls, ","))
	if !whole.done || len(whole.steps) != len(fixedScript()) {
		t.Fatalf("the session without a fault: %+v", whole)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range writingCalls {
		count := strings.Count(string(text), " "+call+"(")
		for n := range count {
			for _, fault := range []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"} {
				all = append(all, strike{call, n + 1, fault})
			}
			if call == "fdatasync" || call == "pwrite64" || call == "renameat" {
				all = append(all, strike{call, n + 1, "error=EIO again"})
			}
		}
	}
	return all, whole
}

// struck runs a session with one fault, and then a session without faults for the rest of the
// script. It returns what was wrong, the empty text if nothing was.
func struck(t *testing.T, folder string, s strike, whole sessionRun) string {
	os.RemoveAll(folder)
	os.MkdirAll(filepath.Join(folder, "db"), 0o700)
	path := filepath.Join(folder, "db", "call-me.db")
	r := runSession(t, path, "fixed", 0, "-o", "/dev/null", "-e", s.inject())
	stateAfter := func(step int) string {
		if step < 0 {
			return ""
		}
		return whole.steps[step].state
	}
	last := -1
	for i, a := range r.steps {
		if want := whole.steps[i]; a.step != i || a.answer != want.answer || a.state != want.state {
			return fmt.Sprintf("step %d: %+v, want %+v", i, a, want)
		}
		if a.tries > 1 && !a.anew && strings.HasPrefix(s.fault, "error=EIO") {
			return fmt.Sprintf("step %d: the file was not written anew after a failure", i)
		}
		last = i
	}
	if killed := s.fault == "signal=SIGKILL"; !killed && r.failed == "" && last < len(whole.steps)-1 {
		return fmt.Sprintf("it ended after step %d: %v", last, r.err)
	}
	again := runSession(t, path, "fixed", last+1, "-o", "/dev/null", "-e", "trace=none")
	if again.failed != "" || !again.done {
		return fmt.Sprintf("after it: %q, %v", again.failed, again.err)
	}
	if again.opened != stateAfter(last) && (last == len(whole.steps)-1 || again.opened != stateAfter(last+1)) {
		return fmt.Sprintf("after step %d the file says %q", last, again.opened)
	}
	for _, a := range again.steps {
		if want := whole.steps[a.step]; a.answer != want.answer || a.state != want.state {
			return fmt.Sprintf("step %d after the start: %+v, want %+v", a.step, a, want)
		}
	}
	mustOpen(t, path).close() // a start removes the temporary files of the one before
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		return fmt.Sprintf("files are left: %q", left)
	}
	return ""
}

// With a fault at any write or sync, the server's replies and the state of its file are as
// without one. The short form tries some of the faults, the long form all.
func TestTrustStrikes(t *testing.T) {
	if raceDetector {
		t.Skip("the session is another process")
	}
	needStrace(t)
	started := time.Now()
	folder := fastFolder(t)
	all, whole := strikesOn(t, folder)
	rand.New(rand.NewPCG(*seed, 3)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	done, wrong, kinds := 0, 0, map[string]int{}
	for _, s := range all {
		if long == 0 && time.Since(started) > 5*time.Second {
			break
		}
		if what := struck(t, filepath.Join(folder, "struck"), s, whole); what != "" {
			t.Errorf("%s: %s", s.inject(), what)
			wrong++
		}
		done++
		kinds[s.fault]++
	}
	t.Logf("of %d strikes: %v", len(all), kinds)
	record(t, "strikes", started, map[string]int{"strikes": done, "wrong answers": wrong})
}
