package tests

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var gapTrials = flag.Int("gap-trials", 16, "trials of TestTheGapBetweenTwoHolders, with -full")

// beatCommand is the argument with which this test binary writes the time each millisecond
// and ignores SIGTERM: see beat.
const beatCommand = "beat-until-killed"

func init() { helperCommands[beatCommand] = beat }

// beat writes the time of the system's clock into a file each millisecond, for ever.
func beat(path string) {
	signal.Ignore(syscall.SIGTERM)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(1)
	}
	for {
		file.WriteAt(fmt.Appendf(nil, "%020d", bootTime()), 0)
		time.Sleep(time.Millisecond)
	}
}

// bootTime returns the time of a clock that all processes share and nobody sets.
func bootTime() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return t.Nano()
}

// Between the last moment in which the command of a holder runs and the moment in which the
// next one has the slot there is a gap, also on a busy machine, when call-me is stopped and
// when it cannot reach the server. The test fails if there is none; it logs the least.
func TestTheGapBetweenTwoHolders(t *testing.T) {
	trials := *gapTrials
	if leftOut(t, "all but 2 trials of the gap") {
		trials = 2
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t)
	var calm atomic.Bool
	defer calm.Store(true)
	if *full {
		for range 4 {
			go func() {
				for !calm.Load() { // takes a processor
				}
			}()
		}
	}
	var mu sync.Mutex
	var gaps []time.Duration
	var wait sync.WaitGroup
	limit := make(chan struct{}, 4)
	for n := range trials {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			gap := gapOf(t, d, self, n)
			mu.Lock()
			gaps = append(gaps, gap)
			mu.Unlock()
		})
	}
	wait.Wait()
	slices.Sort(gaps)
	t.Logf("%d trials at a ttl of 3s: the least gap is %v, the median %v", len(gaps), gaps[0], gaps[len(gaps)/2])
	if gaps[0] <= 0 {
		t.Error("two holders had the slot at once")
	}
}

// gapOf makes one trial. In half of them call-me is stopped, in half its server is away.
func gapOf(t *testing.T, d *daemon, self string, n int) time.Duration {
	w := newWire(t, d.host)
	environment := fmt.Sprint("gap", n)
	r := d.newTrial(t, environment, []string{"HOST=" + w.Addr().String()}, "--ttl", "3s", "--", self, beatCommand, "beats")
	r.start()
	beats := func() int64 {
		text, _ := os.ReadFile(filepath.Join(r.folder, "beats"))
		at, _ := strconv.ParseInt(strings.TrimLeft(string(text), "0"), 10, 64)
		return at
	}
	eventually(t, "the command beats", func() bool { return beats() != 0 })
	time.Sleep(time.Duration(n%10) * 100 * time.Millisecond)
	if n%2 == 0 {
		r.cmd.Process.Signal(syscall.SIGSTOP)
	} else {
		w.set(time.Hour, false)
		defer w.Close()
	}
	d.want(201, "POST", fmt.Sprintf("/maybe?environment=%s&id=the-next-one&holder=next&wait=30s", environment))
	granted := bootTime()
	time.Sleep(100 * time.Millisecond)
	last := beats()
	r.cmd.Process.Signal(syscall.SIGCONT)
	<-r.ended
	d.want(204, "DELETE", "/maybe?environment="+environment+"&id=the-next-one")
	return time.Duration(granted - last)
}
