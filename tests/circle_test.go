//go:build linux || darwin

package tests

// Requests for several environments never wait for each other in a circle, in whatever order
// people type them, and nobody is overtaken.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// circle are the environments that the runs of a round ask for at the same time: two in both
// orders, each alone, and three pairs in a ring.
var circle = []string{"a b", "b a", "a", "b", "b c", "c a"}

func TestRunsOfSeveralEnvironmentsNeverStandStill(t *testing.T) {
	t.Parallel()
	rounds := 1000
	if leftOut(t, "960 of 1000 rounds") {
		rounds = 40
	}
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=a,b,c")
	folder := t.TempDir()
	script := filepath.Join(folder, "use.sh") // fails if another run uses one of them
	os.WriteFile(script, []byte("#!/bin/sh\nmkdir \"$@\" && exec rmdir \"$@\"\n"), 0o755)
	var runs sync.WaitGroup
	for i, names := range circle {
		environments := strings.Fields(names)
		args := slices.Concat([]string{"run", "--timeout", "90s"}, environments, []string{"--", script}, environments)
		runs.Go(func() {
			for round := range rounds {
				cmd, out := d.client(fmt.Sprintf("%d.%d", i, round), args...)
				cmd.Dir = folder
				if err := cmd.Run(); err != nil {
					t.Errorf("round %d of run %s: %v\n%s", round, names, err, out)
					return
				}
			}
		})
	}
	runs.Wait()
	d.inOrder(len(circle) * rounds)
}

// inOrder fails the test unless, by the history, each environment was granted in the order in
// which the requests for it have entered the queue, at least count requests together. All
// environments have one slot, and nobody has left a queue.
func (d *daemon) inOrder(count int) {
	d.t.Helper()
	type grant struct {
		Environment   string
		Event, Holder string
		At            time.Time
		Fence         uint64
		WaitedSeconds float64 `json:"waited_seconds"`
	}
	grants, holders := map[string][]grant{}, map[string]bool{}
	before := ""
	for {
		var page struct {
			Events []grant
			Next   uint64
		}
		if err := json.Unmarshal([]byte(d.want(200, "GET", "/history?limit=1000&since=24h"+before)), &page); err != nil {
			d.t.Fatal(err)
		}
		for _, g := range page.Events {
			switch g.Event {
			case "granted":
				grants[g.Environment] = append(grants[g.Environment], g)
				holders[g.Holder] = true
			case "released":
			default:
				d.t.Errorf("%+v", g)
			}
		}
		if page.Next == 0 {
			break
		}
		before = fmt.Sprint("&before=", page.Next)
	}
	if len(holders) < count {
		d.t.Errorf("%d requests were granted, want %d", len(holders), count)
	}
	waited := 0
	for name, all := range grants {
		slices.SortFunc(all, func(a, b grant) int { return cmp.Compare(a.Fence, b.Fence) })
		latest := time.Time{}
		for _, g := range all {
			entered := g.At.Add(-time.Duration(g.WaitedSeconds * float64(time.Second)))
			if entered.Before(latest.Add(-2 * time.Millisecond)) { // times are cut to milliseconds
				d.t.Errorf("%s: %s entered %v before one that was granted earlier", name, g.Holder, latest.Sub(entered))
			}
			if g.WaitedSeconds > 0 {
				waited++
			}
			if entered.After(latest) {
				latest = entered
			}
		}
	}
	if waited == 0 {
		d.t.Error("nobody has waited")
	}
	d.t.Logf("%d grants to requests that had waited", waited)
}
