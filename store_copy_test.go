package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openedCopy returns a copy of the keeper's store.
func (g *rig) openedCopy() storeCopy {
	g.t.Helper()
	c, err := g.openCopy(fenceGap)
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// fill makes n leases with a reason of 1 kB, each on an environment of its own, and then
// releases them if that is wanted. A lease that is there is released first.
func (g *rig) fill(n int, release bool) {
	g.t.Helper()
	for i := range n {
		name := fmt.Sprint("env", i)
		g.ids++
		q := request{id: fmt.Sprint("filling-", g.ids), reason: strings.Repeat("x", 1000)}
		g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{force: true}})
		if r := g.ask(&call{kind: callRequest, environment: name, request: q}); r.err != nil {
			g.t.Fatal(r.err)
		}
		if release {
			g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{selector: selector{id: q.id}}})
		}
	}
}

// A copy is what was stored when it was opened, however the file changes while it is read.
func TestACopyIsOfOneMomentWhileTheFileGrows(t *testing.T) {
	g := rigWithHistory(t, 0)
	defer func() { g.close() }()
	g.fill(20, false)
	c := g.openedCopy()
	defer c.Close()
	if !c.patient {
		t.Fatal("it is not patient")
	}
	head := make([]byte, 10_000)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	before := g.store.mark.size
	for range 10 {
		g.fill(20, true)
		g.fill(20, false)
	}
	if now := g.store.mark.size; now < 2*before {
		t.Errorf("the file has grown from %d to %d bytes only", before, now)
	}
	path := saveCopy(t, io.MultiReader(strings.NewReader(string(head)), c), c.size)
	if n, err := checkFile(path); err != nil || n != (recordCount{leases: 20, events: 20}) {
		t.Errorf("%+v, %v", n, err)
	}
}

// The file can be rewritten, and closed, while a copy of it is read: bbolt alone would wait
// for the reader.
func TestARewriteEndsTheCopyThatIsRead(t *testing.T) {
	g := rigWithHistory(t, 0)
	g.fill(50, false)
	for what, change := range map[string]func(){
		"rewrite": func() {
			g.betweenBatches(func() {
				_, records := g.snapshot()
				if err := g.store.rewrite(g.lastNumber, records); err != nil {
					t.Error(err)
				}
			})
		},
		"close": func() { g.restart() },
	} {
		c := g.openedCopy()
		if _, err := io.ReadFull(c, make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { change(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s waits for the reader of a copy", what)
		}
		if _, err := io.ReadAll(c); !errors.Is(err, errNoCopy) {
			t.Errorf("%s: reading on: %v", what, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		g.mustTake("after-"+what, 0)
		g.free("after-" + what)
		again := g.openedCopy()
		if n, err := checkFile(saveCopy(t, again, again.size)); err != nil || n.leases != 50 {
			t.Errorf("after %s: %+v, %v", what, n, err)
		}
		again.Close()
	}
	g.close()
}

// A file that may soon outgrow its map is not kept from growing by a reader.
func TestAFileThatNearsTheEndOfItsMapIsNotHeldByAReader(t *testing.T) {
	before := mapSize
	mapSize = 1 << 20
	defer func() { mapSize = before }()
	g := rigWithHistory(t, 0)
	g.store.db.AllocSize = 4 << 10 // the file has no space to spare
	defer func() { g.close() }()
	if c := g.openedCopy(); !c.patient {
		t.Fatal("it is not patient")
	}
	done := make(chan struct{})
	go func() { g.fill(600, false); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the grants wait for the reader of a copy")
	}
	c := g.openedCopy()
	if c.patient {
		t.Error("it is patient")
	}
	if n, err := checkFile(saveCopy(t, c, c.size)); err != nil || n.leases != 600 {
		t.Errorf("%+v, %v", n, err)
	}
	c.Close()
	if n, err := checkFile(copyOf(t, g)); err != nil || n.leases != 600 {
		t.Errorf("by way of a temporary file: %+v, %v", n, err)
	}
}

// While a copy is read, no page of the file can be used again. A busy server may not fill its
// disk because of a slow reader.
func TestASlowReaderDoesNotMakeTheFileGrowWithoutEnd(t *testing.T) {
	g := rigWithHistory(t, 0)
	defer func() { g.close() }()
	g.fill(20, false)
	c := g.openedCopy()
	defer c.Close()
	for range 40 {
		g.fill(20, true)
	}
	if size := g.store.mark.size; size > 4*maxGrowth {
		t.Errorf("the file has %d bytes", size)
	}
	g.fill(20, false)
	if n, err := checkFile(saveCopy(t, c, c.size)); err != nil || n != (recordCount{leases: 20, events: 20}) {
		t.Errorf("%+v, %v", n, err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "call-me-backup-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
