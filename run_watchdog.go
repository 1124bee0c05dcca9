//go:build linux || darwin

package main

// The watchdog: a small process of its own session that outlives call-me. It
// hears each new deadline through a pipe. When the pipe ends without a word,
// because call-me was killed, or when the deadline passes, because call-me was
// stopped, it ends the command's group, on Linux also what has left the group,
// and releases the slot.

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// watchdogCommand is the hidden command that a watchdog runs.
const watchdogCommand = "watchdog"

// killTime is how long the group may take to end when call-me was killed.
const killTime = 500 * time.Millisecond

// An order is what a watchdog begins with.
type watchdogConfig struct {
	Base        string
	Keys        KeyConfig
	CAFile      string
	Environment string
	ID          string
	Grace       time.Duration // between SIGTERM and SIGKILL at the deadline
	Tag         string        // of the command; empty: what has left its group is left alone
}

// A word is what call-me says to its watchdog.
type watchdogMessage struct {
	Config   *watchdogConfig `json:",omitempty"`
	Deadline time.Time       `json:",omitzero"`  // by the wall clock
	Left     time.Duration   `json:",omitempty"` // until then, by the monotonic clock
	Group    *int            `json:",omitempty"` // to end; 0: none any more
	Done     bool            `json:",omitempty"` // the slot is released
}

func (h *heldRun) watchdogConfig(grace time.Duration) watchdogConfig {
	o := watchdogConfig{Base: h.client.base, Keys: h.client.keys, CAFile: h.client.caFile, Environment: h.options.environment, ID: h.grant.id, Grace: grace}
	if !h.leaveRunning {
		o.Tag = h.tag
	}
	return o
}

// A watchdog is the process, as call-me sees it. When it dies, another takes
// its place, and is told all that the first one knew.
type watchdog struct {
	mu        sync.Mutex
	config    watchdogConfig
	cmd       *exec.Cmd
	pipe      io.WriteCloser
	until     time.Time
	group     int
	dismissed bool
}

// theWatchdog is the one that runs; there is never more than one.
var currentWatchdog struct {
	mu  sync.Mutex
	pid int
}

func watchdogPID() int {
	currentWatchdog.mu.Lock()
	defer currentWatchdog.mu.Unlock()
	return currentWatchdog.pid
}

func startWatchdog(o watchdogConfig) (*watchdog, error) {
	g := &watchdog{config: o}
	return g, g.start()
}

func (g *watchdog) start() error {
	self, err := ownBinary()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, watchdogCommand) // #nosec G204 -- it is this very program
	cmd.Args[0] = "call-me"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	currentWatchdog.mu.Lock()
	currentWatchdog.pid = cmd.Process.Pid
	currentWatchdog.mu.Unlock()
	g.cmd, g.pipe = cmd, pipe
	g.send(watchdogMessage{Config: &g.config})
	go g.restart(cmd)
	return nil
}

// replace starts another watchdog when this one ends too early.
func (g *watchdog) restart(cmd *exec.Cmd) {
	cmd.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dismissed {
		return
	}
	time.Sleep(50 * time.Millisecond) // not in a tight circle, if it cannot live
	if g.start() == nil {
		g.send(watchdogMessage{Deadline: g.until.Round(0), Left: time.Until(g.until), Group: &g.group})
	}
}

// say writes one word. When the watchdog is dead it is lost; the next one is
// told again.
func (g *watchdog) send(w watchdogMessage) {
	line, err := json.Marshal(w)
	if err == nil {
		g.pipe.Write(append(line, '\n'))
	}
}

// deadline tells until when the command may run.
func (g *watchdog) setDeadline(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = t
	g.send(watchdogMessage{Deadline: t.Round(0), Left: time.Until(t)})
}

// watch tells which group is the command's.
func (g *watchdog) setGroup(group int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.group = group
	g.send(watchdogMessage{Group: &group})
}

func (g *watchdog) clearGroup() { g.setGroup(0) }

// dismiss ends the watchdog; it does nothing any more.
func (g *watchdog) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dismissed = true
	g.send(watchdogMessage{Done: true})
	g.pipe.Close()
}

// runWatchdog is the watchdog's life: it ends with its work, or when it is
// dismissed.
func runWatchdog(in io.Reader) {
	words := make(chan watchdogMessage)
	go func() {
		defer close(words)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			var w watchdogMessage
			if json.Unmarshal(lines.Bytes(), &w) == nil {
				words <- w
			}
		}
	}()
	var o watchdogConfig
	var until time.Time
	group := 0
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case w, open := <-words:
			switch {
			case !open:
				endGroup(group, o.Tag, killTime)
				o.release()
				return
			case w.Done:
				return
			case w.Config != nil:
				o = *w.Config
			}
			if w.Group != nil {
				group = *w.Group
			}
			if !w.Deadline.IsZero() {
				until = deadlineFrom(w.Deadline, w.Left)
			}
		case now := <-ticker.C:
			if !until.IsZero() && isPast(until, now) {
				endGroup(group, o.Tag, o.Grace)
				o.release()
				return
			}
		}
	}
}

// endGroup asks a group, and who bears the command's mark, to end, and kills
// them after grace. 0: there is none.
func endGroup(group int, mark string, grace time.Duration) {
	if group == 0 {
		return
	}
	signal := func(s syscall.Signal, pids []int) {
		syscall.Kill(-group, s)
		for _, pid := range pids {
			syscall.Kill(pid, s)
		}
	}
	others := taggedProcesses(mark)
	others = slices.DeleteFunc(others, func(pid int) bool {
		of, err := syscall.Getpgid(pid)
		return err == nil && of == group // it has the signal of its group
	})
	signal(syscall.SIGTERM, others)
	signal(syscall.SIGCONT, others)
	gone := 0 // who is just becoming another program has no variables: one look is not enough
	for end := time.Now().Add(grace); gone < 2 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if gone++; syscall.Kill(-group, 0) == nil || len(taggedProcesses(mark)) > 0 {
			gone = 0
		}
	}
	for range 50 { // what is killed may leave children of its own
		if gone >= 2 {
			return
		}
		others = taggedProcesses(mark)
		if gone++; len(others) > 0 {
			gone = 0
		}
		signal(syscall.SIGKILL, others)
		time.Sleep(10 * time.Millisecond)
	}
}

// release gives the slot back, when the server can be reached within a
// minute. Otherwise its lease ends by itself.
func (o watchdogConfig) release() {
	c, err := newClient(clientConfig{KeyConfig: o.Keys, CAFile: o.CAFile, Host: serverURL(o.Base)})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), firstAnswer)
	defer cancel()
	c.end(ctx, o.Environment, o.ID)
}
