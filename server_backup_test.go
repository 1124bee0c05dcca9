package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A server that starts with a restored copy grants no fence that was granted before, even if
// the numbers of a busy server were ahead of the clock, or the clock is wrong (invariant 5).
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

// A response that is not a complete, undamaged copy never replaces the last good copy.
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
			writeJSON(w, http.StatusUnauthorized, errorJSON{Code: 401, Message: "missing or wrong API key"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := httptest.NewServer(answer)
			defer h.Close()
			dir := t.TempDir()
			path := filepath.Join(dir, "copy.db")
			os.WriteFile(path, []byte("the last good one"), 0o600)
			c, err := newClient(clientConfig{Host: serverURL(h.URL), KeyConfig: KeyConfig{APIKey: testKey}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			publish := func(temporary string) error {
				_, err := publishCopy(temporary, path)
				return err
			}
			if err := c.backup(ctx, path, publish, nil); err == nil {
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
