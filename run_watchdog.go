//go:build linux || darwin

package main

// The guardian: a small process of its own session that outlives call-me. It
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

// guardianCommand is the hidden command that a guardian runs.
const guardianCommand = "guardian"

// killTime is how long the group may take to end when call-me was killed.
const killTime = 500 * time.Millisecond

// An order is what a guardian begins with.
type order struct {
	Base        string
	Keys        KeyConfig
	CAFile      string
	Environment string
	ID          string
	Grace       time.Duration // between SIGTERM and SIGKILL at the deadline
	Mark        string        // of the command; empty: what has left its group is left alone
}

// A word is what call-me says to its guardian.
type word struct {
	Order    *order        `json:",omitempty"`
	Deadline time.Time     `json:",omitzero"`  // by the wall clock
	Left     time.Duration `json:",omitempty"` // until then, by the monotonic clock
	Group    *int          `json:",omitempty"` // to end; 0: none any more
	Done     bool          `json:",omitempty"` // the slot is released
}

func (h *holder) guardianOrder(grace time.Duration) order {
	o := order{Base: h.client.base, Keys: h.client.keys, CAFile: h.client.caFile, Environment: h.asking.environment, ID: h.grant.id, Grace: grace}
	if !h.leaveRunning {
		o.Mark = h.mark
	}
	return o
}

// A guardian is the process, as call-me sees it. When it dies, another takes
// its place, and is told all that the first one knew.
type guardian struct {
	mu        sync.Mutex
	order     order
	cmd       *exec.Cmd
	pipe      io.WriteCloser
	until     time.Time
	group     int
	dismissed bool
}

// theGuardian is the one that runs; there is never more than one.
var theGuardian struct {
	mu  sync.Mutex
	pid int
}

func guardianPID() int {
	theGuardian.mu.Lock()
	defer theGuardian.mu.Unlock()
	return theGuardian.pid
}

func startGuardian(o order) (*guardian, error) {
	g := &guardian{order: o}
	return g, g.start()
}

func (g *guardian) start() error {
	self, err := ownBinary()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, guardianCommand) // #nosec G204 -- it is this very program
	cmd.Args[0] = "call-me"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	theGuardian.mu.Lock()
	theGuardian.pid = cmd.Process.Pid
	theGuardian.mu.Unlock()
	g.cmd, g.pipe = cmd, pipe
	g.say(word{Order: &g.order})
	go g.replace(cmd)
	return nil
}

// replace starts another guardian when this one ends too early.
func (g *guardian) replace(cmd *exec.Cmd) {
	cmd.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dismissed {
		return
	}
	time.Sleep(50 * time.Millisecond) // not in a tight circle, if it cannot live
	if g.start() == nil {
		g.say(word{Deadline: g.until.Round(0), Left: time.Until(g.until), Group: &g.group})
	}
}

// say writes one word. When the guardian is dead it is lost; the next one is
// told again.
func (g *guardian) say(w word) {
	line, err := json.Marshal(w)
	if err == nil {
		g.pipe.Write(append(line, '\n'))
	}
}

// deadline tells until when the command may run.
func (g *guardian) deadline(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = t
	g.say(word{Deadline: t.Round(0), Left: time.Until(t)})
}

// watch tells which group is the command's.
func (g *guardian) watch(group int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.group = group
	g.say(word{Group: &group})
}

func (g *guardian) stopWatching() { g.watch(0) }

// dismiss ends the guardian; it does nothing any more.
func (g *guardian) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dismissed = true
	g.say(word{Done: true})
	g.pipe.Close()
}

// standGuard is the guardian's life: it ends with its work, or when it is
// dismissed.
func standGuard(in io.Reader) {
	words := make(chan word)
	go func() {
		defer close(words)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			var w word
			if json.Unmarshal(lines.Bytes(), &w) == nil {
				words <- w
			}
		}
	}()
	var o order
	var until time.Time
	group := 0
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case w, open := <-words:
			switch {
			case !open:
				endGroup(group, o.Mark, killTime)
				o.release()
				return
			case w.Done:
				return
			case w.Order != nil:
				o = *w.Order
			}
			if w.Group != nil {
				group = *w.Group
			}
			if !w.Deadline.IsZero() {
				until = earlier(w.Deadline, w.Left)
			}
		case now := <-ticker.C:
			if !until.IsZero() && passed(until, now) {
				endGroup(group, o.Mark, o.Grace)
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
	others := bearing(mark)
	others = slices.DeleteFunc(others, func(pid int) bool {
		of, err := syscall.Getpgid(pid)
		return err == nil && of == group // it has the signal of its group
	})
	signal(syscall.SIGTERM, others)
	signal(syscall.SIGCONT, others)
	gone := 0 // who is just becoming another program has no variables: one look is not enough
	for end := time.Now().Add(grace); gone < 2 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if gone++; syscall.Kill(-group, 0) == nil || len(bearing(mark)) > 0 {
			gone = 0
		}
	}
	for range 50 { // what is killed may leave children of its own
		if gone >= 2 {
			return
		}
		others = bearing(mark)
		if gone++; len(others) > 0 {
			gone = 0
		}
		signal(syscall.SIGKILL, others)
		time.Sleep(10 * time.Millisecond)
	}
}

// release gives the slot back, when the server can be reached within a
// minute. Otherwise its lease ends by itself.
func (o order) release() {
	c, err := newClient(clientConfig{KeyConfig: o.Keys, CAFile: o.CAFile, Host: host(o.Base)})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), firstAnswer)
	defer cancel()
	c.end(ctx, o.Environment, o.ID)
}
