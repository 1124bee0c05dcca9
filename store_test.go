package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func tempDB(t testing.TB) string { return filepath.Join(t.TempDir(), "call-me.db") }

func mustOpen(t testing.TB, path string) *store {
	t.Helper()
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// contents are all records of a store, readable.
func contents(t testing.TB, s *store) (string, error) {
	t.Helper()
	var b strings.Builder
	err := s.load(func(bucket string, key, value []byte) error {
		var err error
		switch bucket {
		case leaseBucket:
			_, _, err = readLease(key, value)
		case lineBucket:
			_, _, err = readPlace(key, value)
		default:
			_, err = readEvent(key, value)
		}
		fmt.Fprintf(&b, "%s %q %x\n", bucket, key, value)
		return err
	})
	return b.String(), err
}

// sampleWrites are n leases, places and events.
func sampleWrites(n int) []write {
	var writes []write
	for i := range n {
		l := &lease{request: request{id: fmt.Sprint("request-", i), holder: "github:acme/shop/run/1/deploy", ttl: time.Hour}, slot: "uat", fence: uint64(i + 1), since: time.Unix(1e9, 5), ttl: time.Minute, waited: time.Second}
		p := &place{request: request{id: fmt.Sprint("waiting-", i), reason: "tests"}, number: uint64(1000 + i), since: time.Unix(1e9, 0)}
		e := &event{number: uint64(2000 + i), kind: expired, at: time.Unix(2e9, 7), environment: "uat", slot: "uat", id: "x", holder: "h", fence: 7, held: time.Hour, by: "b", from: "f"}
		env := fmt.Sprint("env", i)
		writes = append(writes, leaseRecord(env, l), placeRecord(env, p), eventRecord(e))
	}
	return writes
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	now := time.Unix(1700000000, 123456789)
	l := lease{request: request{"id-12345", "holder\n\x1b", "https://x/y", "reason äö", 2 * time.Hour}, slot: "blue", fence: 1 << 52, since: now, waited: time.Minute, ttl: time.Hour}
	w := leaseRecord("team/perf", &l)
	name, got, err := readLease(w.key, w.value)
	if err != nil || name != "team/perf" || *got != l {
		t.Errorf("lease %+v, %q, %v", got, name, err)
	}
	p := place{request: l.request, number: 1<<52 + 1, since: now}
	w = placeRecord("uat", &p)
	name, gotPlace, err := readPlace(w.key, w.value)
	if err != nil || name != "uat" || *gotPlace != p {
		t.Errorf("place %+v, %q, %v", gotPlace, name, err)
	}
	e := event{3, forced, now, "uat", "blue", "id", "h", "u", "r", 2, time.Second, time.Hour, "by", "from"}
	w = eventRecord(&e)
	gotEvent, err := readEvent(w.key, w.value)
	if err != nil || *gotEvent != e {
		t.Errorf("event %+v, %v", gotEvent, err)
	}
}

func TestEveryBitOfARecordIsUnderItsChecksum(t *testing.T) {
	w := sampleWrites(1)[0]
	for i := range w.value {
		for bit := range 8 {
			value := slices.Clone(w.value)
			value[i] ^= 1 << bit
			if _, _, err := readLease(w.key, value); !errors.Is(err, errDamaged) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
	other := leaseKey("env1", "uat")
	if _, _, err := readLease(other, w.value); !errors.Is(err, errDamaged) {
		t.Errorf("under another key: %v", err)
	}
	for n := range w.value {
		if _, _, err := readLease(w.key, w.value[:n]); !errors.Is(err, errDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestAFieldThatARecordDoesNotHaveYetIsZero(t *testing.T) {
	key := leaseKey("uat", "uat")
	old := request{id: "id", holder: "h"}
	value := seal(leaseBucket, key, func(c *coder) { old.code(c) })
	_, l, err := readLease(key, value)
	if err != nil || l.request != old || l.fence != 0 || l.ttl != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestTheStoreKeepsWhatWasSaved(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	writes := sampleWrites(50)
	if err := s.save(77, writes); err != nil {
		t.Fatal(err)
	}
	gone := writes[3]
	gone.value = nil
	if err := s.save(78, []write{gone, writes[4]}); err != nil {
		t.Fatal(err)
	}
	before, err := contents(t, s)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	s = mustOpen(t, path)
	defer s.close()
	after, err := contents(t, s)
	if err != nil || before != after || s.header.counter != 78 || strings.Count(after, "\n") != 149 {
		t.Errorf("%v, counter %d, %d records", err, s.header.counter, strings.Count(after, "\n"))
	}
}

func TestALostRecordIsNoticed(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	s.save(1, sampleWrites(3))
	s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(leaseBucket))
		key, _ := b.Cursor().First()
		return b.Delete(key)
	})
	if _, err := contents(t, s); !errors.Is(err, errDamaged) {
		t.Errorf("reading a file without one of its records: %v", err)
	}
	s.close()
}

func TestASecondServerOnTheSameFileIsRefusedAndTheFirstUnaffected(t *testing.T) {
	path := tempDB(t)
	first := mustOpen(t, path)
	defer first.close()
	start := time.Now()
	if _, err := openStore(path); !errors.Is(err, errInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("the second got %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := first.save(1, sampleWrites(1)); err != nil {
		t.Error(err)
	}
}

func TestOfManyFirstStartsAtOnceOneGetsTheFile(t *testing.T) {
	path := tempDB(t)
	results := make(chan *store, 8)
	for range cap(results) {
		go func() {
			s, err := openStore(path)
			if err != nil && !errors.Is(err, errInUse) {
				t.Error(err)
			}
			results <- s
		}()
	}
	var open []*store
	for range cap(results) {
		if s := <-results; s != nil && s.db != nil {
			open = append(open, s)
		}
	}
	if len(open) != 1 {
		t.Errorf("%d have opened it", len(open))
	}
	for _, s := range open {
		s.close()
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 1 {
		t.Errorf("files are left: %v", left)
	}
}

func TestAFileThatIsWrittenAnewKeepsItsLock(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	defer s.close()
	writes := sampleWrites(20)
	if err := s.rewrite(9, writes); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(path); !errors.Is(err, errInUse) {
		t.Errorf("another server got %v", err)
	}
	if got, err := contents(t, s); err != nil || strings.Count(got, "\n") != 60 {
		t.Errorf("%v\n%s", err, got)
	}
	if err := s.save(10, sampleWrites(25)); err != nil {
		t.Error(err)
	}
}

func TestAFileThatIsNotOursIsRefusedAndLeftAsItIs(t *testing.T) {
	bolt := func(path string) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
		db.Close()
	}
	newer := func(path string) {
		s := mustOpen(t, path)
		s.header.format = format + 1
		s.save(1, nil)
		s.close()
	}
	for name, c := range map[string]struct {
		make func(path string)
		want string
	}{
		"text":          {func(path string) { os.WriteFile(path, bytes.Repeat([]byte("hello "), 2000), 0o600) }, "damaged"},
		"a short text":  {func(path string) { os.WriteFile(path, []byte("hello"), 0o600) }, "damaged"},
		"zeros":         {func(path string) { os.WriteFile(path, make([]byte, 32<<10), 0o600) }, "damaged"},
		"another bbolt": {bolt, "not call-me's"},
		"a newer one":   {newer, "newer call-me"},
		"a folder":      {func(path string) { os.Mkdir(path, 0o700) }, "folder"},
	} {
		t.Run(name, func(t *testing.T) {
			path := tempDB(t)
			c.make(path)
			before, _ := os.ReadFile(path)
			_, err := openStore(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
	t.Run("an empty one is a first start", func(t *testing.T) {
		path := tempDB(t)
		os.WriteFile(path, nil, 0o600)
		mustOpen(t, path).close()
	})
}

// A file of the 2019 call-me: a bucket "environments" with "locked" values.
func TestTheLocksOf2019AreTakenOver(t *testing.T) {
	path := tempDB(t)
	db, err := bbolt.Open(path, 0o666, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error {
		b, _ := tx.CreateBucket([]byte("environments"))
		b.Put([]byte("uat"), []byte("locked"))
		return b.Put([]byte("perf"), []byte("locked"))
	})
	db.Close()
	g := &rig{t: t, path: path, maxWaiters: 10}
	g.open()
	if a := g.take("x", 0); !errors.Is(a.err, errNoSlot) {
		t.Errorf("uat was locked: %+v", a)
	}
	g.restart()
	if err := g.ask(&call{kind: callRelease, environment: "uat", departure: departure{plain: true}}).err; err != nil {
		t.Error(err)
	}
	g.mustTake("x", 0)
	if v, _ := g.view("perf"); len(v.leases) != 1 {
		t.Error("perf is free")
	}
	g.close()
}

// Damage by the hundred: the state must be the same, or the file refused;
// never a panic, never other leases, and the file stays as it is.
func TestADamagedFileIsRefusedOrHarmless(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	for i := range 40 { // several commits, so that pages have been freed and used again
		if err := s.save(uint64(i), sampleWrites(i*4)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := contents(t, s)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damages := []struct {
		name   string
		damage func(b []byte, r *rand.Rand) []byte
	}{
		{"a bit", func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
		{"a byte of a page's header", func(b []byte, r *rand.Rand) []byte {
			b[r.IntN(len(b)/4096)*4096+r.IntN(80)] = byte(r.Uint32())
			return b
		}},
		{"a sector of zeros", func(b []byte, r *rand.Rand) []byte { clear(b[r.IntN(len(b)/512)*512:][:512]); return b }},
		{"a page of zeros", func(b []byte, r *rand.Rand) []byte { clear(b[r.IntN(len(b)/4096)*4096:][:4096]); return b }},
		{"two pages swapped", func(b []byte, r *rand.Rand) []byte {
			x, y := b[r.IntN(len(b)/4096)*4096:][:4096], b[r.IntN(len(b)/4096)*4096:][:4096]
			z := slices.Clone(x)
			copy(x, y)
			copy(y, z)
			return b
		}},
		{"cut off", func(b []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))] }},
		{"garbage behind", func(b []byte, r *rand.Rand) []byte { return append(b, bytes.Repeat([]byte{0xa5}, 5000)...) }},
		{"noise", func(b []byte, r *rand.Rand) []byte {
			for i := r.IntN(len(b) - 64); r.IntN(64) > 0; i++ {
				b[i%len(b)] = byte(r.Uint32())
			}
			return b
		}},
	}
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	refused, same := 0, 0
	for _, d := range damages {
		for seed := range rounds {
			file := filepath.Join(t.TempDir(), "damaged.db")
			b := d.damage(slices.Clone(sound), rand.New(rand.NewPCG(uint64(seed), 1)))
			if len(b) == 0 {
				continue
			}
			os.WriteFile(file, b, 0o600)
			got, err := func() (string, error) {
				s, err := openStore(file)
				if err != nil {
					return "", err
				}
				defer s.close()
				return contents(t, s)
			}()
			switch {
			case err == nil && got == want:
				same++
			case err == nil:
				t.Fatalf("%s, seed %d: other records were read", d.name, seed)
			case !errors.Is(err, errDamaged):
				t.Fatalf("%s, seed %d: %v", d.name, seed, err)
			default:
				refused++
			}
			if now, _ := os.ReadFile(file); !bytes.Equal(now, b) {
				t.Fatalf("%s, seed %d: the file was changed", d.name, seed)
			}
		}
	}
	t.Logf("%d refused, %d harmless", refused, same)
	if refused < rounds || same < rounds {
		t.Errorf("%d refused, %d harmless: the damage is not what it was meant to be", refused, same)
	}
}

// Of two meta pages bbolt takes the older one when the newer is damaged: the
// last commit would be lost without a word.
func TestBothMetaPagesMustBeValid(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	s.save(1, sampleWrites(1))
	s.save(2, sampleWrites(2))
	s.close()
	sound, _ := os.ReadFile(path)
	for page := range 2 {
		b := slices.Clone(sound)
		b[page*os.Getpagesize()+40] ^= 1
		os.WriteFile(path, b, 0o600)
		if _, err := openStore(path); !errors.Is(err, errDamaged) {
			t.Errorf("meta page %d damaged: %v", page, err)
		}
	}
}

func TestADatabaseBehindALinkIsReplacedWhereItIs(t *testing.T) {
	folder := t.TempDir()
	real, link := filepath.Join(folder, "data", "real.db"), filepath.Join(folder, "call-me.db")
	os.Mkdir(filepath.Dir(real), 0o700)
	mustOpen(t, real).close()
	if err := os.Symlink(real, link); err != nil {
		t.Skip(err)
	}
	s := mustOpen(t, link)
	defer s.close()
	if err := s.rewrite(7, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	if _, err := openStore(real); !errors.Is(err, errInUse) {
		t.Errorf("a second server on the real file: %v", err)
	}
	os.Symlink(filepath.Join(folder, "nowhere"), filepath.Join(folder, "dangling.db"))
	if _, err := openStore(filepath.Join(folder, "dangling.db")); err == nil || !strings.Contains(err.Error(), "link to nowhere") {
		t.Errorf("a dangling link: %v", err)
	}
}

func TestWhatAKilledServerLeftAsideIsSwept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd[name].db")
	mustOpen(t, path).close()
	os.WriteFile(path+".123.tmp", []byte("half a database"), 0o600)
	mustOpen(t, path).close()
	if _, err := os.Stat(path + ".123.tmp"); err == nil {
		t.Error("it is still there")
	}
}

// Only a write that found no space has stored nothing. A sync that fails has
// left its pages where bbolt reads them.
func TestASyncThatFailsForSpaceIsNotAFullDisk(t *testing.T) {
	write := &fs.PathError{Op: "write", Path: "call-me.db", Err: syscall.ENOSPC}
	for _, c := range []struct {
		err  error
		full bool
	}{{write, true}, {fmt.Errorf("x: %w", write), true}, {syscall.ENOSPC, false}, {&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, false}, {&fs.PathError{Op: "write", Err: syscall.EIO}, false}} {
		if isFull(c.err) != c.full {
			t.Errorf("%v: %v", c.err, !c.full)
		}
	}
}
