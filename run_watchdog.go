//go:build linux || darwin

package main

// The watchdog: a process in a session of its own that outlives call-me run. It reads
// each new deadline from a pipe. It ends the command's process group and releases the
// slot in two cases: the pipe ends without a Done message, because call-me was killed,
// or the deadline passes, because call-me was stopped. On Linux it also ends processes
// of the command that have left the group.

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

// watchdogCommand is the name of the hidden command that the watchdog process runs.
const watchdogCommand = "watchdog"

// killTime is the time between SIGTERM and SIGKILL if call-me was killed.
const killTime = 500 * time.Millisecond

// A watchdogConfig is the first message to a watchdog process. Base, Keys and CAFile are
// those of the client.
type watchdogConfig struct {
	Base        string
	Keys        KeyConfig
	CAFile      string
	Environment string
	ID          string        // of the request that owns the lease
	Grace       time.Duration // between SIGTERM and SIGKILL at the deadline
	Tag         string        // of the command; empty if only its group is to be ended
}

// A watchdogMessage is a line of JSON from call-me to the watchdog process. Fields that
// are absent do not change.
type watchdogMessage struct {
	Config   *watchdogConfig `json:",omitempty"`
	Deadline time.Time       `json:",omitzero"`  // of the command, by the wall clock
	Left     time.Duration   `json:",omitempty"` // until the deadline, by the monotonic clock
	Group    *int            `json:",omitempty"` // the process group to end; zero if none
	Done     bool            `json:",omitempty"` // the watchdog is not needed any more
}

// watchdogConfig returns the configuration of the watchdog for this run.
func (h *heldRun) watchdogConfig(grace time.Duration) watchdogConfig {
	c := watchdogConfig{Base: h.client.base, Keys: h.client.keys, CAFile: h.client.caFile,
		Environment: h.options.environment, ID: h.grant.id, Grace: grace}
	if !h.leaveRunning {
		c.Tag = h.tag
	}
	return c
}

// A watchdog is call-me's view of the watchdog process. If the process ends before
// dismiss is called, the watchdog starts another one and sends it the same state.
type watchdog struct {
	mu        sync.Mutex
	config    watchdogConfig
	cmd       *exec.Cmd
	pipe      io.WriteCloser
	deadline  time.Time // the deadline
	group     int       // the process group of the command; zero if none
	dismissed bool
}

// currentWatchdog has the process id of the watchdog that was started last. There is
// never more than one.
var currentWatchdog struct {
	mu  sync.Mutex
	pid int
}

// watchdogPID returns the process id of the watchdog, or zero if none was started.
func watchdogPID() int {
	currentWatchdog.mu.Lock()
	defer currentWatchdog.mu.Unlock()
	return currentWatchdog.pid
}

// startWatchdog starts a watchdog process. Its error is the system's.
func startWatchdog(c watchdogConfig) (*watchdog, error) {
	w := &watchdog{config: c}
	return w, w.start()
}

// start starts the process and sends it the configuration. The caller must hold mu, or
// be the only one that uses w.
func (w *watchdog) start() error {
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
	w.cmd, w.pipe = cmd, pipe
	w.send(watchdogMessage{Config: &w.config})
	go w.restart(cmd)
	return nil
}

// restart waits until the process has ended. It then starts another one, unless dismiss
// was called before.
func (w *watchdog) restart(cmd *exec.Cmd) {
	cmd.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dismissed {
		return
	}
	time.Sleep(50 * time.Millisecond) // limits the rate, if each process ends at once
	if w.start() == nil {
		w.send(watchdogMessage{Deadline: w.deadline.Round(0), Left: time.Until(w.deadline), Group: &w.group})
	}
}

// send writes one message to the pipe. Errors are ignored: if the process has ended,
// restart sends the state to the next one.
func (w *watchdog) send(m watchdogMessage) {
	line, err := json.Marshal(m)
	if err == nil {
		w.pipe.Write(append(line, '\n'))
	}
}

// setDeadline sends the deadline of the command to the process.
func (w *watchdog) setDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	w.send(watchdogMessage{Deadline: t.Round(0), Left: time.Until(t)})
}

// setGroup sends the process group of the command to the process.
func (w *watchdog) setGroup(group int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.group = group
	w.send(watchdogMessage{Group: &group})
}

// clearGroup notifies the process that there is no process group to end any more.
func (w *watchdog) clearGroup() { w.setGroup(0) }

// dismiss ends the process. Messages that are sent later are dropped.
func (w *watchdog) dismiss() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dismissed = true
	w.send(watchdogMessage{Done: true})
	w.pipe.Close()
}

// runWatchdog is the main function of the watchdog process. It reads messages from in. It
// returns after a Done message, or after it has ended the group and released the slot. It
// ignores lines that are not valid JSON.
func runWatchdog(in io.Reader) {
	messages := make(chan watchdogMessage)
	go func() {
		defer close(messages)
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			var m watchdogMessage
			if json.Unmarshal(lines.Bytes(), &m) == nil {
				messages <- m
			}
		}
	}()
	var config watchdogConfig
	var until time.Time
	group := 0
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case m, open := <-messages:
			switch {
			case !open:
				endGroup(group, config.Tag, killTime)
				config.release()
				return
			case m.Done:
				return
			case m.Config != nil:
				config = *m.Config
			}
			if m.Group != nil {
				group = *m.Group
			}
			if !m.Deadline.IsZero() {
				until = deadlineFrom(m.Deadline, m.Left)
			}
		case now := <-ticker.C:
			if !until.IsZero() && isPast(until, now) {
				endGroup(group, config.Tag, config.Grace)
				config.release()
				return
			}
		}
	}
}

// endGroup sends SIGTERM to a process group and to the processes with the tag outside of
// it, and SIGKILL after grace to those that have not ended. It does nothing if group is
// zero. It returns when none is left, or about half a second after the first SIGKILL.
//
// A process that is just executing another program shows no environment variables for a
// moment. So endGroup takes the processes as ended only after it has found none twice.
func endGroup(group int, tag string, grace time.Duration) {
	if group == 0 {
		return
	}
	signal := func(s syscall.Signal, pids []int) {
		syscall.Kill(-group, s)
		for _, pid := range pids {
			syscall.Kill(pid, s)
		}
	}
	others := taggedProcesses(tag)
	others = slices.DeleteFunc(others, func(pid int) bool {
		itsGroup, err := syscall.Getpgid(pid)
		return err == nil && itsGroup == group // it gets the signal with its group
	})
	signal(syscall.SIGTERM, others)
	signal(syscall.SIGCONT, others)
	end := time.Now().Add(grace)
	absent := 0 // how often in a row no process was found
	for absent < 2 && time.Now().Before(end) {
		if syscall.Kill(-group, 0) == nil || len(taggedProcesses(tag)) > 0 {
			absent = 0
		} else {
			absent++
		}
		time.Sleep(20 * time.Millisecond)
	}
	for range 50 { // a killed process may leave children, which are found only now
		if absent >= 2 {
			return
		}
		others = taggedProcesses(tag)
		if len(others) > 0 {
			absent = 0
		} else {
			absent++
		}
		signal(syscall.SIGKILL, others)
		time.Sleep(10 * time.Millisecond)
	}
}

// release ends the request that owns the lease, if the server can be reached within
// maxFirstResponse. Otherwise the lease ends after its ttl.
func (c watchdogConfig) release() {
	slotClient, err := newClient(clientConfig{KeyConfig: c.Keys, CAFile: c.CAFile, Host: serverURL(c.Base)})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxFirstResponse)
	defer cancel()
	slotClient.endRequest(ctx, c.Environment, c.ID)
}
