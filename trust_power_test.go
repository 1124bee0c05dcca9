package main

// Power failures. strace records the writes, syncs and renames of a session. After each of
// these calls, the test makes disks as a power failure at that moment may leave them, and
// opens them. Of what was not synced, a disk may have any part, in sectors of 512 bytes and
// in any order. A failed sync makes nothing durable, and a later sync does not do it either.
// Each disk must have the state of the last reply, or the state of the next one.

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const sector = 512

// A fileWrite is one change of a file: bytes at an offset, or a new size.
type fileWrite struct {
	offset int
	data   []byte
	size   int // the new size; -1 if bytes are written
}

// A tracedFile is the contents of a file, which may have no name or several.
type tracedFile struct {
	sure    []byte      // what a sync has made durable
	pending []fileWrite // not synced yet
	doubted []fileWrite // their sync failed: no later sync makes them durable
}

// A tracedDisk is a folder as the process sees it, and what of it is durable.
type tracedDisk struct {
	folder  string
	files   map[string]*tracedFile
	sure    map[string]*tracedFile
	pending []map[string]*tracedFile // the names after each change since the last sync of the folder
	open    map[string]*tracedFile   // by descriptor
	folders map[string]bool          // the descriptors of the folder
}

// A tracedCall is one system call that has ended.
type tracedCall struct {
	call   string
	args   []string // strings without quotes and escapes
	result int
}

var (
	tracePattern = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)\) += (-?\d+)`)
	unfinished   = regexp.MustCompile(`^(\d+) +(\w+\(.*) <unfinished \.\.\.>$`)
	resumed      = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// readTrace reads the output of strace -f -xx. It joins calls that strace splits in two lines.
func readTrace(t *testing.T, path string) (lines []tracedCall) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begun := map[string]string{}
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		line := scan.Text()
		if m := unfinished.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + begun[m[1]] + m[2]
		}
		m := tracePattern.FindStringSubmatch(line)
		if m == nil {
			continue // the line of an exit or a signal
		}
		result, _ := strconv.Atoi(m[4])
		l := tracedCall{call: m[2], result: result}
		for _, arg := range strings.Split(m[3], ", ") {
			if quoted, found := strings.CutPrefix(arg, `"`); found {
				raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `\x`, ""))
				if err != nil {
					t.Fatalf("%s: %.200q", err, arg)
				}
				arg = string(raw)
			}
			l.args = append(l.args, arg)
		}
		lines = append(lines, l)
	}
	if scan.Err() != nil {
		t.Fatal(scan.Err())
	}
	return lines
}

func decimal(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// apply applies a call of the process to the disk. A failed call changes nothing, but a failed
// sync moves the pending writes to the doubted ones.
func (d *tracedDisk) apply(l tracedCall) {
	rename := func(from, to string, keep bool) {
		names := map[string]*tracedFile{}
		for name, f := range d.files {
			names[name] = f
		}
		if names[to] = names[from]; !keep {
			delete(names, from)
		}
		d.names(names)
	}
	if l.result < 0 {
		if f := d.open[l.args[0]]; f != nil && (l.call == "fdatasync" || l.call == "fsync") {
			f.doubted = append(f.doubted, f.pending...)
			f.pending = nil
		}
		return
	}
	switch l.call {
	case "exit":
		d.open, d.folders = map[string]*tracedFile{}, map[string]bool{}
	case "openat":
		d.openat(l.args[1], fmt.Sprint(l.result), strings.Contains(l.args[2], "O_CREAT"))
	case "close":
		delete(d.open, l.args[0])
		delete(d.folders, l.args[0])
	case "pwrite64":
		if f := d.open[l.args[0]]; f != nil {
			f.pending = append(f.pending, fileWrite{decimal(l.args[3]), []byte(l.args[1])[:l.result], -1})
		}
	case "ftruncate":
		if f := d.open[l.args[0]]; f != nil {
			f.pending = append(f.pending, fileWrite{size: decimal(l.args[1])})
		}
	case "fdatasync", "fsync":
		if f := d.open[l.args[0]]; f != nil {
			for _, w := range f.pending {
				f.sure = w.whole(f.sure)
				f.doubted = w.coverAll(f.doubted)
			}
			f.pending = nil
		}
		if d.folders[l.args[0]] {
			d.sure, d.pending = d.files, nil
		}
	case "linkat":
		rename(l.args[1], l.args[3], true)
	case "renameat":
		rename(l.args[1], l.args[3], false)
	case "unlinkat":
		names := map[string]*tracedFile{}
		for name, f := range d.files {
			if name != l.args[1] {
				names[name] = f
			}
		}
		d.names(names)
	}
}

func (d *tracedDisk) names(names map[string]*tracedFile) {
	d.files = names
	d.pending = append(d.pending, names)
}

func (d *tracedDisk) openat(path, descriptor string, create bool) {
	delete(d.open, descriptor)
	delete(d.folders, descriptor)
	switch {
	case path == d.folder:
		d.folders[descriptor] = true
	case filepath.Dir(path) != d.folder:
	case d.files[path] != nil:
		d.open[descriptor] = d.files[path]
	case create:
		f := &tracedFile{}
		names := map[string]*tracedFile{path: f}
		for name, f := range d.files {
			names[name] = f
		}
		d.names(names)
		d.open[descriptor] = f
	}
}

// whole returns the file after the write. It may change b.
func (w fileWrite) whole(b []byte) []byte {
	if w.size >= 0 {
		if w.size <= len(b) {
			return b[:w.size]
		}
		return append(b, make([]byte, w.size-len(b))...)
	}
	if end := w.offset + len(w.data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[w.offset:], w.data)
	return b
}

// coverAll returns the older writes without the bytes that w has overwritten. w is durable, so
// these bytes can no longer be on the disk.
func (w fileWrite) coverAll(older []fileWrite) (left []fileWrite) {
	for _, o := range older {
		from, to := max(w.offset, o.offset), min(w.offset+len(w.data), o.offset+len(o.data))
		switch {
		case w.size >= 0 || o.size >= 0 || from >= to:
			left = append(left, o)
			continue
		case o.offset < from:
			left = append(left, fileWrite{o.offset, o.data[:from-o.offset], -1})
		}
		if end := o.offset + len(o.data); to < end {
			left = append(left, fileWrite{to, o.data[to-o.offset:], -1})
		}
	}
	return left
}

// torn returns the file after a part of the write: some of its sectors. It may change b.
func (w fileWrite) torn(b []byte, chance *rand.Rand) []byte {
	if w.size >= 0 {
		return w.whole(b)
	}
	b = fileWrite{w.offset + len(w.data), nil, -1}.whole(b)
	first, last := 0, len(w.data)/sector
	switch chance.IntN(3) {
	case 0: // only sectors at the beginning
		last = chance.IntN(last + 1)
	case 1: // only sectors at the end
		first = chance.IntN(last + 1)
	}
	odd := chance.IntN(2) == 0
	for i := first; i < last; i++ {
		if !odd || chance.IntN(2) == 0 {
			copy(b[w.offset+i*sector:], w.data[i*sector:(i+1)*sector])
		}
	}
	return b
}

// after returns contents that the file may have after a power failure. With up to ten writes
// that are not durable, n below the number of their subsets selects a subset. Otherwise chance
// decides: each write is there in whole, in part or not at all, in half of the cases in
// another order.
func (f *tracedFile) after(n int, chance *rand.Rand) []byte {
	b := slices.Clone(f.sure)
	open := slices.Concat(f.doubted, f.pending)
	if k := len(open); k <= 10 && n < 1<<k {
		for i, w := range open {
			if n>>i&1 == 1 {
				b = w.whole(b)
			}
		}
		return b
	}
	if chance.IntN(2) == 0 {
		chance.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	}
	for _, w := range open {
		switch chance.IntN(3) {
		case 0:
			b = w.whole(b)
		case 1:
			b = w.torn(b, chance)
		}
	}
	return b
}

// now returns the contents of the file as the process sees it.
func (f *tracedFile) now() []byte {
	b := slices.Clone(f.sure)
	for _, w := range slices.Concat(f.doubted, f.pending) {
		b = w.whole(b)
	}
	return b
}

// lay makes one disk that a power failure may leave, in the folder. It removes what the folder
// had before. n is that of after.
func (d *tracedDisk) lay(folder string, n int, chance *rand.Rand) error {
	names := d.sure
	if chances := append([]map[string]*tracedFile{d.sure}, d.pending...); len(chances) > 1 {
		names = chances[chance.IntN(len(chances))]
	}
	left, _ := filepath.Glob(filepath.Join(folder, "*"))
	for _, name := range left {
		os.Remove(name)
	}
	laid := map[*tracedFile][]byte{}
	for name, f := range names {
		if laid[f] == nil {
			laid[f] = f.after(n, chance)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), laid[f], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// diskState reads a file as the server does at its start. It returns one text for each record.
func diskState(path string) ([]string, error) {
	s, err := openStore(path)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	all := []string{}
	_, err = s.load(func(bucket string, key, value []byte) error {
		switch bucket {
		case leaseBucket:
			name, l, err := decodeLease(key, value)
			all = append(all, fmt.Sprintf("lease %s/%s %v %v %d", name, l.slot, l.request, l.ttl, l.fence))
			return err
		case queueBucket:
			name, p, err := decodeWaiter(key, value)
			all = append(all, fmt.Sprintf("place %s %v %d", name, p.request, p.number))
			return err
		}
		e, err := decodeEvent(key, value)
		all = append(all, fmt.Sprintf("event %v %s %s %d", e.kind, e.environment, e.id, e.number))
		return err
	})
	return all, err
}

// fits reports whether the state is the one before a step or the one after it. In the one
// after it, new records may have other numbers, because a step may be tried more than once.
func fits(state, before, after []string) bool {
	if slices.Equal(state, before) {
		return true
	}
	blur := func(s string) string { return s[:strings.LastIndexByte(s, ' ')] }
	left := slices.Clone(after)
	for _, s := range state {
		i := slices.Index(left, s)
		if i < 0 && !slices.Contains(before, s) {
			i = slices.IndexFunc(left, func(l string) bool { return blur(l) == blur(s) && !slices.Contains(before, l) })
		}
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return len(left) == 0
}

// A blackout is one traced session.
type blackout struct {
	lines  []tracedCall
	folder string
	states [][]string // the state at each start, and after each step
}

var stepMark = regexp.MustCompile(`^(open|step (\d+)) `)

// traceSession traces a session of one or several processes, one for each element of faults
// at most. An element has the arguments of strace that inject faults into the process. If a
// fault kills the process, the next one continues the script.
func traceSession(t *testing.T, folder, script string, faults ...[]string) *blackout {
	t.Helper()
	os.RemoveAll(folder)
	path := filepath.Join(folder, "db", "call-me.db")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	b := &blackout{folder: filepath.Dir(path)}
	steps, starts, done := 0, 0, false
	for i := 0; !done && i < len(faults); i++ {
		trace := filepath.Join(folder, fmt.Sprint("trace", i))
		r := runSession(t, path, script, steps, append([]string{"-o", trace, "-xx", "-s", "100000000",
			"-e", "trace=openat,close,write,pwrite64,fdatasync,fsync,ftruncate,linkat,renameat,unlinkat"}, faults[i]...)...)
		if r.failed != "" {
			t.Fatalf("process %d of %q: %s", i, faults, r.failed)
		}
		if r.told {
			starts++
		}
		steps, done = steps+len(r.steps), r.done
		b.lines = append(append(b.lines, readTrace(t, trace)...), tracedCall{call: "exit", args: []string{""}})
	}
	if !done {
		t.Fatalf("the session did not end: %q", faults)
	}
	// The expected states are those of the file at each reply.
	d := b.disk()
	read := filepath.Join(folder, "read")
	os.Mkdir(read, 0o700)
	for _, l := range b.lines {
		d.apply(l)
		if l.call != "write" || l.args[0] != "1" || !stepMark.MatchString(l.args[1]) {
			continue
		}
		file := filepath.Join(read, "call-me.db")
		if err := os.WriteFile(file, d.files[path].now(), 0o600); err != nil {
			t.Fatal(err)
		}
		state, err := diskState(file)
		if err != nil {
			t.Fatal(err)
		}
		b.states = append(b.states, state)
	}
	if len(b.states) != len(sessionScript(script))+starts {
		t.Fatalf("%d states of %d steps and %d starts", len(b.states), len(sessionScript(script)), starts)
	}
	if real, err := os.ReadFile(path); err != nil || !bytes.Equal(real, d.files[path].now()) {
		t.Fatalf("the trace does not give the file that there is: %v", err)
	}
	return b
}

func (b *blackout) disk() *tracedDisk {
	return &tracedDisk{folder: b.folder, files: map[string]*tracedFile{}, sure: map[string]*tracedFile{}, open: map[string]*tracedFile{}, folders: map[string]bool{}}
}

// outages counts the disks, and those that were wrong.
type outages struct{ images, lost, unreadable int }

// each opens disks after every call of the session: all subsets of up to six writes that are
// not durable, and some more. It stops after more than ten errors, or if goOn returns
// false.
func (b *blackout) each(t *testing.T, folder string, more int, chance *rand.Rand, o *outages, goOn func() bool) {
	os.Mkdir(folder, 0o700)
	file := filepath.Join(folder, "call-me.db")
	d, step := b.disk(), -1
	for _, l := range b.lines {
		d.apply(l)
		if l.call == "write" && l.args[0] == "1" && stepMark.MatchString(l.args[1]) {
			step++
		}
		if !slices.Contains(writingCalls, l.call) && l.call != "openat" {
			continue
		}
		open := 0
		for _, f := range d.files {
			open = max(open, len(f.pending)+len(f.doubted))
		}
		for n := range 1<<min(open, 6) + more {
			if !goOn() {
				return
			}
			if err := d.lay(folder, n, chance); err != nil {
				t.Fatal(err)
			}
			o.images++
			state, err := diskState(file)
			before, after := b.states[max(step, 0)], b.states[min(step+1, len(b.states)-1)]
			switch {
			case err != nil:
				o.unreadable++
				t.Errorf("after %s in step %d, choice %d: %v", l.call, step, n, err)
			case step < 0 && len(state) > 0, !fits(state, before, after):
				o.lost++
				t.Errorf("after %s in step %d, choice %d: the disk says\n%q, want\n%q or\n%q", l.call, step, n, state, before, after)
			}
			if o.lost+o.unreadable > 10 {
				return
			}
		}
	}
}

// After a power failure at any moment, the server has the state of the last reply or that of
// the next one. The first session is the fixed script, the others are random. Of three
// sessions, one has a failed sync. In another one, a process is killed after a failed sync and
// before the rewritten file is in place, up to three times, or while a new file gets its name.
func TestTrustPower(t *testing.T) {
	if raceDetector {
		t.Skip("the session is another process")
	}
	needStrace(t)
	started, spend := time.Now(), budget(6*time.Second)
	chance := rand.New(rand.NewPCG(*seed, 4))
	folder := fastFolder(t)
	o, sessions := outages{}, 0
	goOn := func() bool { return time.Since(started) < spend && o.lost+o.unreadable == 0 }
	for ; goOn(); sessions++ {
		script, faults := "fixed", [][]string{}
		if sessions > 0 {
			script = fmt.Sprint(chance.Uint64N(1 << 40))
		}
		failing := func(from int) string {
			return fmt.Sprintf("inject=fdatasync:error=EIO:when=%d", from+chance.IntN(30))
		}
		switch {
		case sessions%3 == 1:
			faults = append(faults, []string{"-e", failing(3)}) // the first two make the file
		case sessions%3 == 2 && chance.IntN(4) == 0:
			faults = append(faults, []string{"-e", fmt.Sprint("inject=fsync:signal=SIGKILL:when=", 1+chance.IntN(2))})
		case sessions%3 == 2:
			// From the second process on, the first sync is that of the start.
			for from := 3; len(faults) == 0 || len(faults) < 3 && chance.IntN(2) == 0; from = 2 {
				faults = append(faults, []string{"-e", failing(from), "-e", "inject=renameat:signal=SIGKILL:when=1"})
			}
		}
		b := traceSession(t, filepath.Join(folder, "session"), script, append(faults, nil)...)
		more := 20
		if long == 0 {
			more = 1
		}
		b.each(t, filepath.Join(folder, "image"), more, chance, &o, goOn)
	}
	record(t, "power", started, map[string]int{"images": o.images, "lost": o.lost, "unreadable": o.unreadable, "sessions": sessions})
}
