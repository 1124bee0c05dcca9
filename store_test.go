package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
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

// contents returns all records of a store as text, a line each. It decodes each record; the
// error is the first one.
func contents(t testing.TB, s *store) (string, error) {
	t.Helper()
	var b strings.Builder
	_, err := s.load(func(bucket string, key, value []byte) error {
		var err error
		switch bucket {
		case leaseBucket:
			_, _, err = decodeLease(key, value)
		case queueBucket:
			_, _, err = decodeWaiter(key, value)
		default:
			_, err = decodeEvent(key, value)
		}
		fmt.Fprintf(&b, "%s %q %x\n", bucket, key, value)
		return err
	})
	return b.String(), err
}

// sampleWrites returns the writes of n leases, n waiters and n events.
func sampleWrites(n int) []write {
	var writes []write
	for i := range n {
		l := &lease{request: request{id: fmt.Sprint("request-", i), holder: "github:acme/shop/run/1/deploy", ttl: time.Hour}, slot: "uat", fence: uint64(i + 1), since: time.Unix(1e9, 5), ttl: time.Minute, waited: time.Second}
		p := &waiter{request: request{id: fmt.Sprint("waiting-", i), reason: "tests"}, number: uint64(1000 + i), since: time.Unix(1e9, 0)}
		e := &event{number: uint64(2000 + i), kind: eventExpired, at: time.Unix(2e9, 7), environment: "uat", slot: "uat", id: "x", holder: "h", fence: 7, held: time.Hour, by: "b", origin: origin{from: "f"}}
		env := fmt.Sprint("env", i)
		writes = append(writes, encodeLease(env, l), encodeWaiter(env, p), encodeEvent(e))
	}
	return writes
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	now := time.Unix(1700000000, 123456789)
	q := request{"id-12345", "holder\n\x1b", "https://x/y", "reason äö", 2 * time.Hour, "", -7, time.Hour, 90 * time.Minute,
		[]need{{"team/perf", ""}, {"team/perf", "blue"}, {"uat", ""}}, "acme/shop/deploy/main", 1 << 51, origin{"shop-ci", "github:acme", "::1"}, nil}
	l := lease{request: q, environment: "team/perf", slot: "blue", fence: 1 << 52, since: now, waited: time.Minute, ttl: time.Hour, longest: 3 * time.Hour}
	w := encodeLease("team/perf", &l)
	name, got, err := decodeLease(w.key, w.value)
	if err != nil || name != "team/perf" || !reflect.DeepEqual(*got, l) {
		t.Errorf("lease %+v, %q, %v", got, name, err)
	}
	p := waiter{request: request{slot: "blue", priority: 100, keyHold: time.Hour, origin: origin{key: "k", verified: "v", from: "f"}}, number: 1<<52 + 1, rank: -5, place: 1 << 50, since: now}
	w = encodeWaiter("uat", &p)
	name, gotPlace, err := decodeWaiter(w.key, w.value)
	if err != nil || name != "uat" || !reflect.DeepEqual(gotPlace, &p) {
		t.Errorf("place %+v, %q, %v", gotPlace, name, err)
	}
	e := event{3, eventForced, now, "uat", "blue", "id", "h", "u", "r", 2, time.Second, time.Hour, "by", "by-key", "to", "why", "https://by", origin{"key", "verified", "from"}}
	w = encodeEvent(&e)
	gotEvent, err := decodeEvent(w.key, w.value)
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
			if _, _, err := decodeLease(w.key, value); !errors.Is(err, errDamaged) {
				t.Errorf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
	other := encodeLease("env1", &lease{slot: "uat"}).key
	if _, _, err := decodeLease(other, w.value); !errors.Is(err, errDamaged) {
		t.Errorf("under another key: %v", err)
	}
	for n := range w.value {
		if _, _, err := decodeLease(w.key, w.value[:n]); !errors.Is(err, errDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestAFieldThatARecordDoesNotHaveYetIsZero(t *testing.T) {
	key := encodeLease("uat", &lease{slot: "uat"}).key
	old := request{id: "id", holder: "h"}
	value := encode(leaseBucket, key, func(c *codec) { c.request(&old) })
	_, l, err := decodeLease(key, value)
	if err != nil || !l.request.equal(old) || l.fence != 0 || l.ttl != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestTheStoreKeepsWhatWasSaved(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	writes := sampleWrites(50)
	if err := s.save(77, writes, nil); err != nil {
		t.Fatal(err)
	}
	gone := writes[3]
	gone.value = nil
	if err := s.save(78, []write{gone, writes[4]}, nil); err != nil {
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
	s.save(1, sampleWrites(3), nil)
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
	if err := first.save(1, sampleWrites(1), nil); err != nil {
		t.Error(err)
	}
}

func TestOfManyFirstStartsAtOnceOneGetsTheFile(t *testing.T) {
	noLinks := func(path string) (*store, error) {
		s := &store{path: path}
		return s, s.create(func(string, string) error { return syscall.EPERM })
	}
	for _, c := range []struct {
		name  string
		empty bool // an empty file exists at the start
		start func(path string) (*store, error)
	}{
		{"no file", false, openStore},
		{"an empty file", true, openStore},
		{"no links on the file system", false, noLinks},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := tempDB(t)
			if c.empty {
				os.WriteFile(path, nil, 0o600)
			}
			results := make(chan *store, 8)
			for range cap(results) {
				go func() {
					s, err := c.start(path)
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
			if s, err := openStore(path); err != nil {
				t.Error(err)
			} else {
				s.close()
			}
		})
	}
}

func TestAFileThatIsRewrittenKeepsItsLock(t *testing.T) {
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
	if err := s.save(10, sampleWrites(25), nil); err != nil {
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
		s.header.format = fileFormat + 1
		s.save(1, nil, nil)
		s.close()
	}
	for name, c := range map[string]struct {
		make func(path string)
		want string
	}{
		"text":          {func(path string) { os.WriteFile(path, bytes.Repeat([]byte("hello "), 2000), 0o600) }, "not a database of call-me"},
		"a short text":  {func(path string) { os.WriteFile(path, []byte("hello"), 0o600) }, "not a database of call-me"},
		"a short cut":   {func(path string) { mustOpen(t, path).close(); os.Truncate(path, 4811) }, "damaged"},
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

// The locks in a file of the call-me of 2019 are live leases. Such a file has a bucket
// "environments", with the value "locked" for each locked environment.
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
	g := &rig{t: t, path: path, limits: testLimits}
	g.open()
	if a := g.take("x", 0); !errors.Is(a.err, errNoSlot) {
		t.Errorf("uat was locked: %+v", a)
	}
	g.restart()
	if err := g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{is2019: true}}).err; err != nil {
		t.Error(err)
	}
	g.mustTake("x", 0)
	if v, _ := g.view("perf"); len(v.leases) != 1 {
		t.Error("perf is free")
	}
	g.close()
}

// A file is refused if one of its two meta pages is damaged: bbolt would use the other one, and
// if that is the older one, the last commit would be lost without an error.
func TestBothMetaPagesMustBeValid(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	s.save(1, sampleWrites(1), nil)
	s.save(2, sampleWrites(2), nil)
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
	size := os.Getpagesize()
	b := slices.Concat(sound[size:2*size], sound[:size], sound[2*size:])
	os.WriteFile(path, b, 0o600)
	if _, err := openStore(path); !errors.Is(err, errDamaged) {
		t.Errorf("in each other's place: %v", err)
	}
}

// The reserve finds space again in a file that was full and of which three quarters are
// deleted. Its free pages are scattered, and seldom consecutive. Which pages bbolt uses is
// random, so the test does it 20 times.
func TestTheReserveFindsItsPlaceInAFileThatWasFull(t *testing.T) {
	folder := fastFolder(t)
	for round := range 20 {
		s := mustOpen(t, filepath.Join(folder, fmt.Sprint(round)))
		s.db.MaxSize = 128 << 10
		var held []write
		for i, err := 0, error(nil); !errors.Is(err, errNoSpace); i++ {
			name := fmt.Sprint("env", i)
			w := encodeLease(name, &lease{request: request{id: "filling-it", reason: strings.Repeat("r", 1000)}, slot: name, fence: uint64(i + 1)})
			if err = s.save(uint64(i), []write{w}, nil); err == nil {
				held = append(held, w)
			}
		}
		for i, w := range held {
			if w.value = nil; i%4 == 3 {
				continue // this lease stays
			}
			if err := s.saveOnFullDisk(1000, []write{w}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.reserve(); err != nil {
			t.Errorf("round %d: of %d leases a fourth is left: %v", round, len(held), err)
		}
		s.close()
	}
}

// Every file that bbolt writes passes checkSound, also after its pages were split and merged
// by commits of 1 to 900 records.
func TestEveryFileThatWasWrittenIsSound(t *testing.T) {
	path := filepath.Join(fastFolder(t), "call-me.db")
	s := mustOpen(t, path)
	defer s.close()
	chance := rand.New(rand.NewPCG(*seed, 6))
	all := sampleWrites(1500)
	for i := range 100 {
		n := []int{1, 3, 30, 900}[chance.IntN(4)]
		from := chance.IntN(len(all) - n)
		var writes []write
		for _, w := range all[from : from+n] {
			switch chance.IntN(3) {
			case 0:
				writes = append(writes, w)
			case 1:
				w.value = encode(w.bucket, w.key, func(c *codec) { c.bytes = append(c.bytes, make([]byte, chance.IntN(1500))...) })
				writes = append(writes, w)
			case 2:
				writes = append(writes, write{w.bucket, w.key, nil})
			}
		}
		if err := s.save(uint64(i), writes, nil); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		if err := checkSound(f, info.Size()); err != nil {
			t.Fatalf("seed %d, after commit %d: %v", *seed, i, err)
		}
		f.Close()
	}
}

// A file is refused if a page does not begin with the key that its parent has for it: bbolt
// would read such a file, and change its contents with the next commit.
func TestAPageMustBeginWithTheKeyByWhichItIsKnown(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	s.save(1, sampleWrites(500), nil)
	s.close()
	b, _ := os.ReadFile(path)
	changed := 0
	for page := b; len(page) >= boltHeader; page = page[min(len(page), os.Getpagesize()):] {
		if nativeEndian.Uint16(page[8:]) != boltBranch {
			continue
		}
		key := boltHeader + int(nativeEndian.Uint32(page[boltHeader:])) // of the first element
		page[key]--
		os.WriteFile(path, b, 0o600)
		if _, err := openStore(path); !errors.Is(err, errDamaged) {
			t.Errorf("a smaller key in a branch: %v", err)
		}
		page[key]++
		changed++
	}
	if changed == 0 {
		t.Error("the file has no branch")
	}
}

// A page is refused if its elements share bytes. Otherwise the check of a small file could
// take an extremely long time: a bucket in such a value would be walked once for each element,
// and again in each bucket inside it.
func TestTheElementsOfAPageShareNothing(t *testing.T) {
	leaf := func(pos [2]uint32) error {
		page := make([]byte, 4096)
		nativeEndian.PutUint16(page[8:], boltLeaf)
		nativeEndian.PutUint16(page[10:], 2)
		data := boltHeader + 2*boltElement
		copy(page[data:], "aab")
		for i, pos := range pos {
			at := boltHeader + i*boltElement
			nativeEndian.PutUint32(page[at+4:], uint32(data-at)+pos)
			nativeEndian.PutUint32(page[at+8:], uint32(i+1)) // "a" and "ab", or "aa"
		}
		return (&soundFile{pageSize: 4096}).leaf(page, nil, nil, 0)
	}
	if err := leaf([2]uint32{0, 1}); err != nil {
		t.Errorf("behind one another: %v", err)
	}
	if err := leaf([2]uint32{0, 0}); !errors.Is(err, errDamaged) {
		t.Errorf("on one another: %v", err)
	}
	if err := leaf([2]uint32{2, 0}); !errors.Is(err, errDamaged) {
		t.Errorf("the second before the first: %v", err)
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

func TestOnlyWhatAKilledServerLeftIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd[name].db")
	mustOpen(t, path).close()
	temporary, err := createTemporary(path)
	if err != nil {
		t.Fatal(err)
	}
	temporary.Close()
	others := []string{path + ".copy.tmp", path + ".123.tmp", path + ".copy" + temporarySuffix, filepath.Join(filepath.Dir(path), "other.db.1"+temporarySuffix)}
	for _, name := range others {
		os.WriteFile(name, []byte("a copy that somebody made"), 0o600)
	}
	mustOpen(t, path).close()
	if _, err := os.Stat(temporary.Name()); err == nil {
		t.Error("what a server left is still there")
	}
	for _, name := range others {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("somebody's file: %v", err)
		}
	}
}

// Only a failed write for lack of space is a full disk: it has stored nothing. A failed sync
// has left its pages where bbolt reads them.
func TestASyncThatFailsForSpaceIsNotAFullDisk(t *testing.T) {
	write := &fs.PathError{Op: "write", Path: "call-me.db", Err: syscall.ENOSPC}
	for _, c := range []struct {
		err  error
		full bool
	}{{write, true}, {fmt.Errorf("x: %w", write), true}, {syscall.ENOSPC, false}, {&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, false}, {&fs.PathError{Op: "write", Err: syscall.EIO}, false}} {
		if isDiskFull(c.err) != c.full {
			t.Errorf("%v: %v", c.err, !c.full)
		}
	}
}

// asKilled returns the contents of a store's file as a killed server would leave it.
func asKilled(t testing.TB, s *store) []byte {
	t.Helper()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openBytes writes b to a file in the folder, and opens a store on it.
func openBytes(t testing.TB, folder string, b []byte) (*store, error) {
	t.Helper()
	path := filepath.Join(folder, "copy.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return openStore(path)
}

// aBookkeeper has the records that a store should have, by bucket and key.
type aBookkeeper map[string][]byte

func (b aBookkeeper) note(writes []write) {
	for _, w := range writes {
		key := w.bucket + "\x00" + string(w.key)
		if delete(b, key); w.value != nil {
			b[key] = w.value
		}
	}
}

func (b aBookkeeper) records() (all []write) {
	for _, name := range slices.Sorted(maps.Keys(b)) {
		bucket, key, _ := strings.Cut(name, "\x00")
		all = append(all, write{bucket, []byte(key), b[name]})
	}
	return all
}

func (b aBookkeeper) check(t *testing.T, s *store) {
	t.Helper()
	want, last := maps.Clone(b), ""
	_, err := s.load(func(bucket string, key, value []byte) error {
		name := bucket + "\x00" + string(key)
		if !bytes.Equal(want[name], value) {
			t.Errorf("%q is %x, want %x", name, value, want[name])
		}
		delete(want, name)
		if order := fmt.Sprint(slices.Index(recordBuckets, bucket), string(key)); order <= last {
			t.Errorf("%q comes too late", name)
		} else {
			last = order
		}
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v; %d records are missing", err, len(want))
	}
}

// someWrites returns n random writes. Each puts or deletes a record, which may exist.
func someWrites(chance *rand.Rand, n int) []write {
	writes := make([]write, n)
	for i := range writes {
		key := fmt.Append(nil, "key", chance.IntN(300))
		writes[i] = write{bucket: recordBuckets[chance.IntN(3)], key: key}
		if chance.IntN(3) > 0 {
			writes[i].value = encode(writes[i].bucket, key, func(c *codec) { c.bytes = append(c.bytes, make([]byte, chance.IntN(900))...) })
		}
	}
	return writes
}

// A store has exactly the records that were saved, also after the server was killed or
// stopped, or its file was rewritten.
func TestWhatIsReadIsWhatWasSaved(t *testing.T) {
	folder := fastFolder(t)
	chance := rand.New(rand.NewPCG(*seed, 7))
	s := mustOpen(t, filepath.Join(folder, "call-me.db"))
	defer func() { s.close() }()
	book := aBookkeeper{}
	for i := range 200 {
		writes := someWrites(chance, []int{0, 1, 3, 10, 100, 700}[chance.IntN(6)])
		if err := s.save(uint64(i), writes, nil); err != nil {
			t.Fatal(err)
		}
		book.note(writes)
		switch chance.IntN(8) {
		case 0: // killed
			b := asKilled(t, s)
			s.close()
			if err := os.WriteFile(s.path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, s.path)
		case 1:
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, s.path)
		case 2:
			if err := s.saveOnFullDisk(uint64(i), nil, nil); err != nil {
				t.Fatal(err)
			}
			if err := s.reserve(); err != nil {
				t.Fatal(err)
			}
		case 3:
			if err := s.rewrite(uint64(i), book.records()); err != nil {
				t.Fatal(err)
			}
		}
		if s.header.counter != uint64(i) {
			t.Fatalf("the counter is %d, want %d", s.header.counter, i)
		}
		book.check(t, s)
	}
}

func TestOfTheWritesOfOneKeyTheLastCounts(t *testing.T) {
	w := func(bucket, key, value string) write { return write{bucket, []byte(key), []byte(value)} }
	got := latestWrites([]write{w("a", "x", "1"), w("b", "x", "2"), {"a", []byte("x"), nil}, w("a", "y", "3"), w("a", "x", "4")})
	want := []write{w("b", "x", "2"), w("a", "y", "3"), w("a", "x", "4")}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A file that is refused at its loading is not changed by close. Here a record is damaged,
// which openStore does not find.
func TestAFileThatIsRefusedWhenItIsLoadedIsLeftAsItIs(t *testing.T) {
	s := mustOpen(t, tempDB(t))
	defer s.close()
	s.save(1, sampleWrites(3), nil)
	s.save(2, sampleWrites(4)[9:], nil)
	b := asKilled(t, s)
	at := bytes.Index(b, []byte("request-1"))
	for at >= 0 {
		b[at]++
		at = bytes.Index(b, []byte("request-1"))
	}
	damaged, err := openBytes(t, t.TempDir(), b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := contents(t, damaged); !errors.Is(err, errDamaged) {
		t.Errorf("reading it: %v", err)
	}
	damaged.close()
	if now, _ := os.ReadFile(damaged.path); !bytes.Equal(now, b) {
		t.Error("the file was changed")
	}
}
