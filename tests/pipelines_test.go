package tests

// Two concurrent pipelines of examples/pipeline.sh.

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Two pipelines with call-me never disturb each other. Without call-me their tests must fail,
// which shows that the check can fail.
func TestTwoPipelinesNeverDisturbEachOther(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the pipelines are shell scripts")
	}
	const rounds = 12
	run := func(t *testing.T, d *daemon, lock string, meanwhile func()) (disturbed, other int) {
		folder := t.TempDir()
		var mu sync.Mutex
		var both sync.WaitGroup
		for _, repo := range []string{"repo-a", "repo-b"} {
			both.Go(func() {
				for i := range rounds {
					cmd := exec.Command("sh", "examples/pipeline.sh", fmt.Sprint(repo, "-", i), folder)
					cmd.Env = append(d.env[:len(d.env):len(d.env)], "LOCK="+lock, fmt.Sprint("CALL_ME_HOLDER=", repo, "/", i))
					out, err := cmd.CombinedOutput()
					mu.Lock()
					if cmd.ProcessState.ExitCode() == 3 {
						disturbed++
					} else if err != nil {
						other++
						t.Logf("%v\n%s", err, out)
					}
					mu.Unlock()
				}
			})
		}
		if meanwhile != nil {
			meanwhile()
		}
		both.Wait()
		return disturbed, other
	}
	t.Run("without call-me they do", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		if disturbed, _ := run(t, d, "none", nil); disturbed == 0 {
			t.Error("the tests of two unlocked pipelines never failed: the check is worth nothing")
		} else {
			t.Logf("%d of %d runs were disturbed", disturbed, 2*rounds)
		}
	})
	t.Run("with call-me", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		if disturbed, other := run(t, d, "call-me", nil); disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
	})
	t.Run("while the server is killed and started again", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		disturbed, other := run(t, d, "call-me", func() {
			for range 6 {
				time.Sleep(300 * time.Millisecond)
				d.kill()
				d.start()
			}
		})
		if disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
	})
	t.Run("while pipelines are killed in the queue", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		killed := 0
		disturbed, other := run(t, d, "call-me", func() {
			for i := range 10 {
				cmd, out := d.client(fmt.Sprint("killed/", i), "request", "uat")
				cmd.Start()
				eventually(t, "the victim waits or has it", func() bool { return out.String() != "" })
				cmd.Process.Kill()
				cmd.Wait()
				if !strings.Contains(out.String(), "acquired") {
					killed++
				} else if release, out := d.client(fmt.Sprint("killed/", i), "release", "uat"); release.Run() != nil {
					t.Error(out)
				}
			}
		})
		if disturbed+other != 0 {
			t.Errorf("%d runs were disturbed, %d failed", disturbed, other)
		}
		if killed == 0 {
			t.Error("none was killed in the queue")
		}
	})
}
