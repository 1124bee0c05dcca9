package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestABackupOfABusyServerIsRestored(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	fences := atomic.Uint64{}
	take := func(path string) (l leaseJSON) {
		code, body := d.call("POST", path)
		if err := json.Unmarshal([]byte(body), &l); code != 201 || err != nil {
			t.Errorf("%s: %d %s", path, code, body)
		}
		for old := fences.Load(); l.Fence > old && !fences.CompareAndSwap(old, l.Fence); old = fences.Load() {
		}
		return l
	}
	held := take("/maybe?environment=uat&id=12345678&holder=ann&ttl=1h&reason=tests")
	d.call("POST", "/maybe?environment=uat&id=waiting-1&holder=bob&wait=0s")
	d.call("POST", "/maybe?environment=uat&id=waiting-2&holder=eve&wait=0s")
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for w := range 3 {
		busy.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				take(fmt.Sprintf("/maybe?environment=busy-%d&id=busy-%04d", w, i))
				d.call("DELETE", fmt.Sprintf("/maybe?environment=busy-%d&id=busy-%04d", w, i))
			}
		})
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	for range 4 {
		if cmd, out := d.client("operator", "backup", copied); cmd.Run() != nil || !strings.HasPrefix(out.String(), copied+": ") {
			t.Error(out)
		}
	}
	take("/maybe?environment=later&id=12345678")
	close(stop)
	busy.Wait()
	d.kill()

	text, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	restored := makeDaemon(t)
	for _, entry := range restored.env {
		if name, found := strings.CutPrefix(entry, "CALL_ME_DB="); found {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	restored.start()
	_, body := restored.call("GET", "/environments?environment=uat")
	var all environmentsJSON
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	uat := all.Environments[0]
	if l := uat.Slots[0].Lease; l == nil || l.Fence != held.Fence || l.Holder != "ann" || l.Reason != "tests" || l.TTLSeconds != 3600 {
		t.Errorf("the lease is %+v, was %+v", l, held)
	}
	if len(uat.Line) != 2 || uat.Line[0].Holder != "bob" || uat.Line[1].Holder != "eve" {
		t.Errorf("the line is %+v", uat.Line)
	}
	if code, body := restored.call("PUT", "/maybe?environment=uat&id=12345678"); code != 200 {
		t.Errorf("its owner is told %d %s", code, body)
	}
	before := fences.Load()
	d = restored
	if l := take("/maybe?environment=next&id=12345678"); l.Fence <= before {
		t.Errorf("fence %d after %d", l.Fence, before)
	}
	if code, body := restored.call("PUT", "/maybe?environment=later&id=12345678"); code != 409 {
		t.Errorf("who got a slot after the copy is told %d %s", code, body)
	}
}

// A busy server's numbers may be ahead of the clock, and the clock may be
// wrong: neither may lead to a fence that was given before.
func TestFencesOfARestoredCopyAreLargerWhateverTheClockSays(t *testing.T) {
	path := tempDB(t)
	s := mustOpen(t, path)
	if err := s.rewrite(uint64(time.Now().UnixMilli())+1<<31, nil); err != nil {
		t.Fatal(err)
	}
	s.close()
	g := &rig{t: t, path: path, maxWaiters: 10}
	g.open()
	g.mustTake("12345678", 0)
	file, err := (&server{keeper: g.keeper, database: g.path}).copyAside()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	g.free("12345678")
	last := g.mustTake("abcdefgh", 0).fence
	g.close()

	restored := &rig{t: t, path: file.Name(), maxWaiters: 10}
	restored.open()
	defer restored.close()
	if err := restored.free("12345678"); err != nil {
		t.Errorf("the lease of the copy: %v", err)
	}
	if fence := restored.mustTake("zyxwvuts", 0).fence; fence <= last {
		t.Errorf("fence %d after %d", fence, last)
	}
}

func TestOneCopyAtATimeAndNothingStaysAside(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678")
	r := s.call("GET /backup").want(t, 200, "")
	if r.Header.Get("Content-Type") != "application/octet-stream" || r.ContentLength != int64(len(r.body)) {
		t.Errorf("%v", r.Header)
	}
	file := filepath.Join(t.TempDir(), "copy.db")
	os.WriteFile(file, []byte(r.body), 0o600)
	if n, err := checkFile(file); err != nil || n != (recordCount{leases: 1, events: 1}) {
		t.Errorf("%+v, %v", n, err)
	}
	s.call("HEAD /backup").want(t, 200, "")
	s.call("GET /backup?x=1").want(t, 422, "unknown")
	s.server.copying.Lock()
	s.call("GET /backup").want(t, 503, "another copy is being made")
	s.server.copying.Unlock()
	if left, _ := filepath.Glob(s.path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What is not a whole copy never takes the place of the last good one.
func TestABackupThatFailsLeavesTheLastOneAlone(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678")
	good := s.call("GET /backup").body
	damaged := []byte(good)
	for i := bytes.Index(damaged, []byte("12345678")); i >= 0 && i < len(damaged); i += len(damaged) {
		damaged[i] ^= 1
	}
	for name, answer := range map[string]http.HandlerFunc{
		"damaged": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(damaged)
		},
		"a page": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<h1>Access denied</h1>") },
		"no key": func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusUnauthorized, refusalJSON{Code: 401, Message: "missing or wrong API key"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := httptest.NewServer(answer)
			defer h.Close()
			dir := t.TempDir()
			path := filepath.Join(dir, "copy.db")
			os.WriteFile(path, []byte("the last good one"), 0o600)
			c, err := newClient(clientConfig{Host: host(h.URL), KeyConfig: KeyConfig{APIKey: testKey}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := c.backup(ctx, path, nil); err == nil {
				t.Error("no error")
			}
			if text, _ := os.ReadFile(path); string(text) != "the last good one" {
				t.Errorf("it was replaced by %d bytes", len(text))
			}
			if files, _ := os.ReadDir(dir); len(files) != 1 {
				t.Errorf("left behind: %v", files)
			}
		})
	}
}
