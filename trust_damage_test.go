package main

// Damaged files. The server must refuse a damaged file, or read the same records from it as
// before the damage. It must not panic, hang, read other records or change the file.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const damagePage = 4096

// A damage is a way to change a sound file. before is the file as it was a commit before.
type damage struct {
	name string
	do   func(b, before []byte, r *rand.Rand) []byte
}

func onePage(b []byte, r *rand.Rand) []byte {
	return b[r.IntN(len(b)/damagePage)*damagePage:][:damagePage]
}

func noise(b []byte, r *rand.Rand) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

var damages = []damage{
	{"a bit", func(b, _ []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
	{"some bits", func(b, _ []byte, r *rand.Rand) []byte {
		for range 2 + r.IntN(30) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return b
	}},
	{"a bit of a page's head", func(b, _ []byte, r *rand.Rand) []byte { onePage(b, r)[r.IntN(80)] ^= 1 << r.IntN(8); return b }},
	{"a byte of a page's head", func(b, _ []byte, r *rand.Rand) []byte { onePage(b, r)[r.IntN(80)] = byte(r.Uint32()); return b }},
	{"a number of a page's head", func(b, _ []byte, r *rand.Rand) []byte {
		at := onePage(b, r)[r.IntN(64)&^3:]
		nativeEndian.PutUint32(at, []uint32{0, 1, 2, 0xffff, 1 << 31, 1<<32 - 1, uint32(r.IntN(200))}[r.IntN(7)])
		return b
	}},
	{"a meta page", func(b, _ []byte, r *rand.Rand) []byte {
		b[r.IntN(2)*damagePage+boltHeader+r.IntN(boltMeta)] ^= 1 << r.IntN(8)
		return b
	}},
	{"both meta pages", func(b, _ []byte, r *rand.Rand) []byte {
		for page := range 2 {
			b[page*damagePage+boltHeader+r.IntN(boltMeta)] ^= 1 << r.IntN(8)
		}
		return b
	}},
	{"one meta page over the other", func(b, _ []byte, r *rand.Rand) []byte {
		from := r.IntN(2)
		copy(b[(1-from)*damagePage:][:damagePage], b[from*damagePage:][:damagePage])
		return b
	}},
	{"meta pages of zeros", func(b, _ []byte, r *rand.Rand) []byte { clear(b[r.IntN(2)*damagePage : 2*damagePage]); return b }},
	{"a sector of zeros", func(b, _ []byte, r *rand.Rand) []byte { clear(b[r.IntN(len(b)/sector)*sector:][:sector]); return b }},
	{"a page of zeros", func(b, _ []byte, r *rand.Rand) []byte { clear(onePage(b, r)); return b }},
	{"a page of ones", func(b, _ []byte, r *rand.Rand) []byte {
		copy(onePage(b, r), bytes.Repeat([]byte{0xff}, damagePage))
		return b
	}},
	{"a page of noise", func(b, _ []byte, r *rand.Rand) []byte { noise(onePage(b, r), r); return b }},
	{"noise", func(b, _ []byte, r *rand.Rand) []byte { noise(onePage(b, r)[r.IntN(damagePage):], r); return b }},
	{"two pages swapped", func(b, _ []byte, r *rand.Rand) []byte {
		x, y := onePage(b, r), onePage(b, r)
		z := slices.Clone(x)
		copy(x, y)
		copy(y, z)
		return b
	}},
	{"a page over another", func(b, _ []byte, r *rand.Rand) []byte { copy(onePage(b, r), slices.Clone(onePage(b, r))); return b }},
	{"a page as it was before", func(b, before []byte, r *rand.Rand) []byte {
		if before == nil {
			return b
		}
		at := (2 + r.IntN(min(len(b), len(before))/damagePage-2)) * damagePage
		copy(b[at:at+damagePage], before[at:])
		return b
	}},
	{"shifted by some bytes", func(b, _ []byte, r *rand.Rand) []byte {
		return slices.Insert(b, r.IntN(len(b)), make([]byte, 1+r.IntN(20))...)
	}},
	{"cut off", func(b, _ []byte, r *rand.Rand) []byte { return b[:1+r.IntN(len(b)-1)] }},
	{"cut off after a page", func(b, _ []byte, r *rand.Rand) []byte { return b[:(1+r.IntN(len(b)/damagePage-1))*damagePage] }},
	{"garbage behind", func(b, _ []byte, r *rand.Rand) []byte {
		more := make([]byte, 1+r.IntN(3*damagePage))
		noise(more, r)
		return append(b, more...)
	}},
}

// soundFiles returns the files that are damaged: one that is nearly empty, one with pages that
// were freed and used again, and a large one with branch pages. For each it returns the
// contents, the contents a commit before, and the records as text.
func soundFiles(t *testing.T) (files [][3][]byte) {
	t.Helper()
	for _, commits := range [][]int{{1, 2}, {10, 40, 20, 60, 5, 80, 100, 90}, {100, 700, 400, 800, 1200}} {
		path := tempDB(t)
		s := mustOpen(t, path)
		var before []byte
		for i, n := range commits {
			var writes []write
			if i > 0 { // delete what the commit before had more
				for _, w := range sampleWrites(commits[i-1])[min(3*n, 3*commits[i-1]):] {
					w.value = nil
					writes = append(writes, w)
				}
			}
			if err := s.save(uint64(i), append(writes, sampleWrites(n)...), nil); err != nil {
				t.Fatal(err)
			}
			if i == len(commits)-2 {
				before, _ = os.ReadFile(path)
			}
		}
		want, err := contents(t, s)
		if err != nil {
			t.Fatal(err)
		}
		s.close()
		now := asKilled(t, s)
		files = append(files, [3][]byte{now, before, []byte(want)})
	}
	return files
}

// readDamaged opens and reads the file as the server does. hangs is true if that takes longer
// than ten seconds.
func readDamaged(t *testing.T, path string) (records string, err error, hangs bool) {
	type result struct {
		records string
		err     error
	}
	done := make(chan result, 1)
	go func() {
		s, err := openStore(path)
		if err != nil {
			done <- result{"", err}
			return
		}
		records, err := contents(t, s)
		s.close()
		done <- result{records, err}
	}()
	select {
	case r := <-done:
		return r.records, r.err, false
	case <-time.After(10 * time.Second):
		return "", nil, true
	}
}

// goesOn commits more records to a file that was read, and reads it again. It returns what was
// wrong.
func goesOn(t *testing.T, path, records string) error {
	s, err := openStore(path)
	if err != nil {
		return err
	}
	more := sampleWrites(1300)[3*1250:]
	if err := s.save(1<<40, more, nil); err != nil {
		return err
	}
	s.close()
	if s, err = openStore(path); err != nil {
		return err
	}
	defer s.close()
	after, err := contents(t, s)
	if want := strings.Count(records, "\n") + len(more); err == nil && strings.Count(after, "\n") != want {
		return fmt.Errorf("%d records, want %d", strings.Count(after, "\n"), want)
	}
	return err
}

func TestTrustDamage(t *testing.T) {
	if os.Getpagesize() != damagePage {
		t.Skipf("the pages of this machine have %d bytes", os.Getpagesize())
	}
	started, spend := time.Now(), budget(4*time.Second)
	chance := rand.New(rand.NewPCG(*seed, 5))
	files, folder := soundFiles(t), fastFolder(t)
	path := filepath.Join(folder, "call-me.db")
	tried, refused, differences, panics, hangs := 0, 0, 0, 0, 0
	for differences+panics+hangs == 0 && time.Since(started) < spend {
		for i, d := range damages {
			f := files[(tried+i)%len(files)]
			b := d.do(slices.Clone(f[0]), f[1], chance)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			tried++
			got, err, hung := readDamaged(t, path)
			if now, _ := os.ReadFile(path); !bytes.Equal(now, b) {
				t.Errorf("%s: the file was changed", d.name)
			}
			var broke runtime.Error
			switch {
			case hung:
				hangs++
				t.Errorf("%s: reading it hangs", d.name)
			case errors.As(err, &broke) || err != nil && strings.Contains(err.Error(), "goroutine "):
				panics++
				t.Errorf("%s: %v", d.name, err)
			case err == nil && got != string(f[2]):
				differences++
				t.Errorf("%s: other records were read", d.name)
			case err == nil:
				if err := goesOn(t, path, got); err != nil {
					differences++
					t.Errorf("%s: it was read, but then: %v", d.name, err)
				}
			case !errors.Is(err, errDamaged) || strings.Contains(err.Error(), "\n"):
				t.Errorf("%s: the refusal is %v", d.name, err)
			default:
				refused++
			}
		}
	}
	if refused < tried/5 || refused > tried*19/20 {
		t.Errorf("%d of %d were refused: the damage is not what it was meant to be", refused, tried)
	}
	record(t, "damage", started, map[string]int{"damaged files": tried, "refused": refused, "panics": panics, "hangs": hangs, "silent differences": differences})
}
