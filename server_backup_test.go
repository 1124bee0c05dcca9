package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
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
	g := &rig{t: t, path: path, limits: testLimits}
	g.open()
	g.mustTake("12345678", 0)
	copies := map[string]string{"from the file": copyOf(t, g)}
	g.betweenBatches(func() { g.store.saveFailed = true })
	copies["from memory"] = copyOf(t, g)
	g.betweenBatches(func() { g.store.saveFailed = false })
	g.free("12345678")
	last := g.mustTake("abcdefgh", 0).fence
	g.close()

	for how, path := range copies {
		restored := &rig{t: t, path: path, limits: testLimits}
		restored.open()
		if err := restored.free("12345678"); err != nil {
			t.Errorf("the lease of the copy %s: %v", how, err)
		}
		if fence := restored.mustTake("zyxwvuts", 0).fence; fence <= last {
			t.Errorf("%s: fence %d after %d", how, fence, last)
		}
		restored.close()
	}
}

// copyOf returns the path of a copy as GET /backup sends it.
func copyOf(t *testing.T, g *rig) string {
	t.Helper()
	from, err := (&server{keeper: g.keeper}).openCopy()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	return saveCopy(t, from, from.size)
}

// saveCopy reads a copy to its end, checks its size, and returns the path of a file with it.
func saveCopy(t *testing.T, from io.Reader, size int64) string {
	t.Helper()
	text, err := io.ReadAll(from)
	if err != nil || int64(len(text)) != size {
		t.Fatalf("%d bytes of %d, %v", len(text), size, err)
	}
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
	patience := map[string]time.Duration{"damaged": 20 * time.Second, "a page": 20 * time.Second, "no key": 20 * time.Second,
		"cut off": time.Second} // the client tries it again
	for name, answer := range map[string]http.HandlerFunc{
		"damaged": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(versionHeader, apiVersion)
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(damaged)
		},
		"cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(len(good)))
			w.Header().Set(versionHeader, apiVersion)
			io.WriteString(w, good[:len(good)-1])
		},
		"a page": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<h1>Access denied</h1>", 404) },
		"no key": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(versionHeader, apiVersion)
			writeJSON(w, http.StatusUnauthorized, errorJSON{Code: 401, Message: "missing or wrong API key"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := httptest.NewServer(answer)
			defer h.Close()
			dir := t.TempDir()
			path := filepath.Join(dir, "copy.db")
			os.WriteFile(path, []byte("the last good one"), 0o600)
			c, err := newClient(clientConfig{Host: serverURLs{h.URL}, KeyConfig: KeyConfig{APIKey: testKey}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience[name])
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

// A reader that is too slow is cut off, and its place is free then. The times are those of a
// fake clock.
func TestASlowReaderOfACopyIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		bytes int           // that it reads at a time
		every time.Duration // before it reads again
		until time.Duration // until it is cut off; zero: it gets all
	}{
		"who reads nothing":          {1, 2 * copyTime, writeTime},
		"who stops":                  {1 << 20, 2 * copyTime, writeTime},
		"who reads 20 kB a second":   {20_000, time.Second, copyTime},
		"who reads 2 kB a second":    {2_000, time.Second, writeTime},
		"who reads 100 kB a second":  {100_000, time.Second, 0},
		"who reads as fast as it is": {1 << 20, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := rigWithHistory(t, 4000)
				s := &server{keeper: g.keeper, metrics: g.metrics, log: quietLog()}
				s.keys.set([]acceptedKey{plainKey(testKey)})
				callers, h := make(pipeListener), s.http(s.routes())
				go h.Serve(newLimitedListener(callers, 10))
				ours, theirs := net.Pipe()
				callers <- theirs
				start := time.Now()
				io.WriteString(ours, "GET /backup HTTP/1.1\r\nHost: call-me\r\nX-API-KEY: "+testKey+"\r\n\r\n")
				r, err := http.ReadResponse(bufio.NewReader(ours), nil)
				if err != nil || r.StatusCode != 200 || r.ContentLength < 3<<20 {
					t.Fatal(r, err)
				}
				ended := make(chan time.Duration, 1)
				go func() {
					for !s.copying.TryLock() { // waiting for a mutex would stop the clock
						time.Sleep(100 * time.Millisecond)
					}
					ended <- time.Since(start)
					s.copying.Unlock()
				}()
				part, received := make([]byte, c.bytes), int64(0)
				for received < r.ContentLength && time.Since(start) < 2*copyTime {
					n, err := io.ReadFull(r.Body, part[:min(int64(len(part)), r.ContentLength-received)])
					received += int64(n)
					if err != nil {
						break
					}
					time.Sleep(c.every)
				}
				took := <-ended
				switch {
				case c.until == 0 && received != r.ContentLength:
					t.Errorf("it received %d of %d bytes", received, r.ContentLength)
				case c.until != 0 && (took < c.until || took > c.until+writeTime || received == r.ContentLength):
					t.Errorf("the copy ended after %v, want %v; %d of %d bytes", took, c.until, received, r.ContentLength)
				}
				g.mustTake("later", 0)
				h.Close()
				ours.Close()
				g.close()
			})
		})
	}
}

// rigWithHistory returns a rig whose file has so many events of about 1 kB.
func rigWithHistory(t *testing.T, events int) *rig {
	t.Helper()
	path := filepath.Join(fastFolder(t), "call-me.db")
	s := mustOpen(t, path)
	var records []write
	for i := range events {
		records = append(records, encodeEvent(&event{number: uint64(i + 1), kind: eventReleased, at: time.Now(),
			environment: "uat", id: fmt.Sprint("id-", i), reason: strings.Repeat("x", 1000)}))
	}
	if err := s.rewrite(uint64(events), records); err != nil {
		t.Fatal(err)
	}
	s.close()
	g := &rig{t: t, path: path, limits: testLimits}
	g.open()
	return g
}
