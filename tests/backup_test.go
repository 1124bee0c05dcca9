package tests

// A backup of a busy server, and a server that starts from it.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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
		// The previous copy may still be ending: the output may have other lines before.
		if cmd, out := d.client("operator", "backup", copied); cmd.Run() != nil || !strings.Contains(out.String(), copied+": ") {
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
	if err := os.WriteFile(restored.file(), text, 0o600); err != nil {
		t.Fatal(err)
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
	if len(uat.Queue) != 2 || uat.Queue[0].Holder != "bob" || uat.Queue[1].Holder != "eve" {
		t.Errorf("the queue is %+v", uat.Queue)
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
