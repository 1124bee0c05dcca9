package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"go.etcd.io/bbolt"
)

// withJournal gives new files a journal until the test ends.
func withJournal(t *testing.T) {
	t.Helper()
	before := journalSectors
	journalSectors = 512
	t.Cleanup(func() { journalSectors = before })
}

// asKilled is the file of a store as a killed server leaves it.
func asKilled(t testing.TB, s *store) []byte {
	t.Helper()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openBytes opens a store on a file with this content.
func openBytes(t testing.TB, folder string, b []byte) (*store, error) {
	t.Helper()
	path := filepath.Join(folder, "copy.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return openStore(path)
}

// aBookkeeper knows what a store should hold.
type aBookkeeper map[string][]byte

func (b aBookkeeper) note(writes []write) {
	for _, w := range writes {
		key := w.bucket + "\x00" + string(w.key)
		if delete(b, key); w.value != nil {
			b[key] = w.value
		}
	}
}

func (b aBookkeeper) check(t *testing.T, s *store) {
	t.Helper()
	want, last := maps.Clone(b), ""
	err := s.load(func(bucket string, key, value []byte) error {
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

// someWrites puts and deletes records, new and known ones.
func someWrites(chance *rand.Rand, n int) []write {
	writes := make([]write, n)
	for i := range writes {
		key := fmt.Append(nil, "key", chance.IntN(300))
		writes[i] = write{bucket: recordBuckets[chance.IntN(3)], key: key}
		if chance.IntN(3) > 0 {
			writes[i].value = seal(writes[i].bucket, key, func(c *coder) { c.bytes = append(c.bytes, make([]byte, chance.IntN(900))...) })
		}
	}
	return writes
}

// Whatever is saved, and wherever the server is killed, closed or its file
// written anew: what is read is what was saved.
func TestWhatIsInTheJournalIsReadAsIfItWereInItsPlace(t *testing.T) {
	withJournal(t)
	folder := fastFolder(t)
	chance := rand.New(rand.NewPCG(*seed, 7))
	s := mustOpen(t, filepath.Join(folder, "call-me.db"))
	defer func() { s.close() }()
	book, settled := aBookkeeper{}, 0
	for i := range 400 {
		writes := someWrites(chance, []int{0, 1, 3, 10, 100, 700}[chance.IntN(6)])
		if err := s.save(uint64(i), writes); err != nil {
			t.Fatal(err)
		}
		book.note(writes)
		if len(s.pending) == 0 && len(writes) > 0 {
			settled++
		}
		book.check(t, s)
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
			if s = mustOpen(t, s.path); len(s.pending) > 0 {
				t.Error("closing has left something in the journal")
			}
		case 2:
			if err := s.saveTight(uint64(i), nil); err != nil || len(s.pending) > 0 {
				t.Fatal(err, len(s.pending))
			}
			if err := s.reserve(); err != nil {
				t.Fatal(err)
			}
		}
		if s.header.counter != uint64(i) {
			t.Fatalf("the counter is %d, want %d", s.header.counter, i)
		}
		book.check(t, s)
	}
	if settled < 20 {
		t.Errorf("the journal was full %d times only", settled)
	}
}

// A power failure leaves any of the sectors of the last group as they were.
// Then the group was never saved, and nothing that is left of it may become
// part of another one.
func TestAGroupThatWasCutShortWasNeverSaved(t *testing.T) {
	withJournal(t)
	folder := fastFolder(t)
	s := mustOpen(t, filepath.Join(folder, "call-me.db"))
	defer s.close()
	writes := sampleWrites(13)
	if err := s.save(1, writes[:6]); err != nil {
		t.Fatal(err)
	}
	before, _ := contents(t, s)
	old := asKilled(t, s)
	if err := s.save(2, writes[6:36]); err != nil {
		t.Fatal(err)
	}
	after, _ := contents(t, s)
	now := asKilled(t, s)
	from, end := int(s.journal.offset), int(s.journal.offset)+s.journal.next*journalSector
	for bytes.Equal(now[from:from+journalSector], old[from:from+journalSector]) {
		from += journalSector
	}
	sectors := (end - from) / journalSector
	if sectors < 4 {
		t.Fatalf("the group has %d sectors", sectors)
	}
	other := sampleWrites(50)[120:] // as many sectors, and other records
	for kept := range 1 << sectors {
		b := slices.Clone(old)
		for i := range sectors {
			if kept&(1<<i) != 0 {
				copy(b[from+i*journalSector:][:journalSector], now[from+i*journalSector:])
			}
		}
		torn, err := openBytes(t, folder, b)
		if err != nil {
			t.Fatalf("sectors %b: %v", kept, err)
		}
		got, err := contents(t, torn)
		want := before
		if kept == 1<<sectors-1 {
			want = after
		}
		if err != nil || got != want {
			t.Errorf("sectors %b: %v, %d bytes of records, want %d", kept, err, len(got), len(want))
		}
		// The next group is cut short after each of its sectors.
		if err := torn.save(3, other); err != nil {
			t.Fatal(err)
		}
		want2, _ := contents(t, torn)
		next := asKilled(t, torn)
		torn.close()
		for cut := from; cut <= end; cut += journalSector {
			if !bytes.Equal(next[:from], b[:from]) || !bytes.Equal(next[end:], b[end:]) {
				break // it was settled, not written into the journal
			}
			mixed := slices.Concat(next[:cut], b[cut:])
			again, err := openBytes(t, folder, mixed)
			if err != nil {
				t.Fatalf("sectors %b, then cut at %d: %v", kept, cut, err)
			}
			if got, err := contents(t, again); err != nil || got != want && got != want2 {
				t.Errorf("sectors %b, then cut at %d: %v\n%s", kept, cut, err, got)
			}
			again.close()
		}
	}
}

func TestADamagedJournalIsRefused(t *testing.T) {
	withJournal(t)
	folder := fastFolder(t)
	s := mustOpen(t, filepath.Join(folder, "call-me.db"))
	defer s.close()
	chance := rand.New(rand.NewPCG(*seed, 8))
	strip := func(b []byte, at int) []byte { return b[int(s.journal.offset)+at*journalSector:][:journalSector] }
	blank := asKilled(t, s)
	for i := range 20 {
		if err := s.save(uint64(i), sampleWrites(3)); err != nil {
			t.Fatal(err)
		}
	}
	whole := asKilled(t, s)
	refused := func(what string, b []byte) {
		t.Helper()
		if got, err := openBytes(t, folder, b); !errors.Is(err, errDamaged) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
			if got != nil {
				got.close()
			}
		}
	}
	for at := range journalSectors {
		b := slices.Clone(whole)
		strip(b, at)[chance.IntN(journalSector)] ^= 1 << chance.IntN(8)
		refused(fmt.Sprint("a bit of sector ", at), b)
	}
	for at := range s.journal.next - 3 { // the last group can be missing: it may not have been answered
		b := slices.Clone(whole)
		copy(strip(b, at), strip(blank, at))
		refused(fmt.Sprint("sector as it was before: ", at), b)
	}
	for at := int(s.journal.offset) / damagePage * damagePage * 8; at < int(s.journal.offset)*8; at++ { // the head of its page
		b := slices.Clone(whole)
		b[at/8] ^= 1 << (at % 8)
		want, _ := contents(t, s)
		got, err := openBytes(t, folder, b)
		if err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("bit %d before the journal: %v", at, err)
		}
		if err == nil {
			if records, err := contents(t, got); err != nil || records != want {
				t.Errorf("bit %d before the journal: %v, %d bytes of records, want %d", at, err, len(records), len(want))
			}
			got.close()
		}
	}
	b := slices.Clone(whole)
	copy(strip(b, 3), strip(whole, 4))
	refused("a sector over another", b)
	b = slices.Clone(whole)
	clear(strip(b, s.journal.next+5))
	refused("a sector of zeros behind the last", b)
}

func TestAGroupThatDoesNotFitIsSavedInItsPlace(t *testing.T) {
	withJournal(t)
	s := mustOpen(t, tempDB(t))
	defer s.close()
	if err := s.save(1, sampleWrites(3)); err != nil || len(s.pending) != 9 {
		t.Fatal(err, len(s.pending))
	}
	if err := s.save(2, sampleWrites(3000)); err != nil || len(s.pending) != 0 {
		t.Fatal(err, len(s.pending))
	}
	if err := s.save(3, sampleWrites(3001)[9000:]); err != nil || len(s.pending) != 3 {
		t.Fatal(err, len(s.pending))
	}
	again, err := openBytes(t, t.TempDir(), asKilled(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if got, err := contents(t, again); err != nil || strings.Count(got, "\n") != 9003 || again.header.counter != 3 {
		t.Errorf("%v, %d records", err, strings.Count(got, "\n"))
	}
}

// The lists of a store keep their memory, but not what was in them.
func TestWhatIsSettledIsNotKeptInMemory(t *testing.T) {
	withJournal(t)
	for name, settle := range map[string]func(s *store) error{
		"settled":        func(s *store) error { return s.settle(2, nil) },
		"tight":          func(s *store) error { return s.saveTight(2, nil) },
		"a large one":    func(s *store) error { return s.settle(2, sampleWrites(mostKept)[3:]) },
		"written anew":   func(s *store) error { return s.rewrite(2, nil) },
		"space regained": func(s *store) error { return cmp.Or(s.saveTight(2, nil), s.reserve()) },
	} {
		s := mustOpen(t, tempDB(t))
		writes := sampleWrites(1)
		var values []weak.Pointer[byte]
		for _, w := range writes {
			values = append(values, weak.Make(&w.value[0]))
		}
		err := s.save(1, writes)
		writes = nil
		runtime.GC()
		if err != nil || values[0].Value() == nil {
			t.Fatalf("%s: %v; what is not settled is gone", name, err)
		}
		if err := settle(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		runtime.GC()
		for i, v := range values {
			if v.Value() != nil {
				t.Errorf("%s: value %d is kept", name, i)
			}
		}
		if len(s.seen) > 0 {
			t.Errorf("%s: %d keys are kept", name, len(s.seen))
		}
		runtime.KeepAlive(s)
		s.close()
	}
}

// A record is damaged, which only loading shows: closing must not settle
// anything into such a file.
func TestAFileThatIsRefusedWhenItIsLoadedIsLeftAsItIs(t *testing.T) {
	withJournal(t)
	s := mustOpen(t, tempDB(t))
	defer s.close()
	s.save(1, sampleWrites(3))
	s.settle(1, nil)
	s.save(2, sampleWrites(4)[9:])
	b := asKilled(t, s)
	at := bytes.Index(b, []byte("request-1"))
	for at >= 0 { // in pages of bbolt; the journal has it no more
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

// A file of format 1: no journal, and a header without its last field.
func TestAFileWithoutAJournalIsTakenOver(t *testing.T) {
	path := tempDB(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &lease{request: request{id: "12345678"}, slot: "uat", fence: 5}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{metaBucket, leaseBucket, lineBucket, historyBucket, reserveBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		h := header{format: 1, counter: 7}
		if err := put(tx, &h, []write{leaseRecord("uat", l)}); err != nil {
			return err
		}
		return tx.Bucket([]byte(metaBucket)).Put(stateKey, seal(metaBucket, stateKey, func(c *coder) {
			c.number(&h.format)
			c.number(&h.counter)
			c.number(&h.sum)
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	b, _ := os.ReadFile(path)
	full, err := openBytes(t, t.TempDir(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := full.upgrade(); err != nil { // as where there is no space for a new file
		t.Fatal(err)
	}
	if err := full.save(8, sampleWrites(1)); err != nil {
		t.Fatal(err)
	}
	full.close()
	full = mustOpen(t, full.path)
	if got, err := contents(t, full); err != nil || strings.Count(got, "\n") != 4 || full.old() || full.header.counter != 8 {
		t.Errorf("%v, %+v\n%s", err, full.header, got)
	}
	full.close()
	g := &rig{t: t, path: path, maxWaiters: 10}
	g.open()
	if a := g.take("x", 0); !errors.Is(a.err, errNoSlot) {
		t.Errorf("uat was held: %+v", a)
	}
	g.close()
	s := mustOpen(t, path)
	defer s.close()
	if s.old() || s.header.counter < 7 {
		t.Errorf("the header is %+v", s.header)
	}
}
