//go:build linux || darwin

package main

// The watchdog: a process in a session of its own that outlives call-me run. It reads
// each new deadline from a pipe. It ends the command's process group and releases the
// slot in two cases: the pipe ends without a Done message, because call-me was killed,
// or the deadline passes, because call-me was stopped. On Linux it also ends processes
// of the command that have left the group.

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchdogCommand is the name of the hidden command that the watchdog process runs.
const watchdogCommand = "watchdog"

// killTime is the time between SIGTERM and SIGKILL if call-me was killed.
const killTime = 500 * time.Millisecond

// watchdogStderr is the number of call-me's stderr in the watchdog process.
const watchdogStderr = 3

// A watchdogConfig is the first message to a watchdog process. URLs, Keys and CAFile are
// those of the client.
type watchdogConfig struct {
	URLs        serverURLs
	Keys        KeyConfig
	Token       string // in place of a key; the watchdog gets no other one by itself
	CAFile      string
	Environment string
	Others      []string      // further environments of the request
	ID          string        // of the request that owns the leases
	Grace       time.Duration // between SIGTERM and SIGKILL at the deadline
	Tag         string        // of the command; empty if only its group is to be ended
	Earlier     []int         // process ids of call-me's descendants from before the command
	Slot        string        // the slots, for messages
	TTL         time.Duration // of the leases
}

// A watchdogMessage is a line of JSON from call-me to the watchdog process. Fields that
// are absent do not change.
type watchdogMessage struct {
	Config    *watchdogConfig `json:",omitempty"`
	Token     string          `json:",omitempty"` // a new one
	Deadline  time.Duration   `json:",omitempty"` // of the command, by bootClock
	Group     *int            `json:",omitempty"` // the process group to end; zero if none
	Remaining []processInfo   `json:",omitempty"` // what call-me cannot end, once there is no group
	Done      bool            `json:",omitempty"` // the watchdog is not needed any more
}

// watchdogConfig returns the configuration of the watchdog for this run.
func (h *heldRun) watchdogConfig(grace time.Duration) watchdogConfig {
	c := watchdogConfig{URLs: h.client.urls(), Keys: h.client.keys, CAFile: h.client.caFile,
		Environment: h.options.environment, Others: h.options.names()[1:], ID: h.grant.id, Grace: grace,
		Earlier: slices.Collect(maps.Keys(descendants())), Slot: h.grant.label(), TTL: h.options.ttl}
	if !h.leaveRunning {
		c.Tag = h.tag
	}
	c.Token = h.client.lastToken()
	return c
}

// A watchdog is call-me's view of the watchdog process. If the process ends before
// dismiss is called, the watchdog starts another one and sends it the same state.
type watchdog struct {
	mu        sync.Mutex
	config    watchdogConfig
	cmd       *exec.Cmd
	pipe      io.WriteCloser
	deadline  time.Duration // of the command, by bootClock
	group     int           // the process group of the command; zero if none
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
	cmd.Env = watchdogEnvironment()
	cmd.ExtraFiles = []*os.File{os.Stderr} // watchdogStderr
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
		w.send(watchdogMessage{Deadline: w.deadline, Group: &w.group})
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

// setDeadline sends the deadline of the command, by clockNow, to the process.
func (w *watchdog) setDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = bootClock() + t.Sub(clockNow())
	w.send(watchdogMessage{Deadline: w.deadline})
}

// setToken sends a new token to the process.
func (w *watchdog) setToken(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.config.Token = token
	w.send(watchdogMessage{Token: token})
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

// takeOver leaves the slot to the process, because the leftovers of a command cannot be
// ended. The process releases the slot when they have ended, if the lease has not ended
// before. call-me must exit then.
func (w *watchdog) takeOver(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dismissed, w.group = true, 0
	remaining := p.leftovers()
	if command, alive := readProcess(p.pid()); alive {
		remaining = append(remaining, command)
	}
	w.send(watchdogMessage{Group: &w.group, Remaining: remaining})
}

// closeInherited closes the files that the process has from whoever started call-me, but
// not its own streams. The command may have them, and somebody may wait for their end.
func closeInherited() {
	files, _ := os.ReadDir("/dev/fd")
	for _, file := range files {
		number, err := strconv.Atoi(file.Name())
		if err != nil || number <= watchdogStderr {
			continue
		}
		// What this program has opened itself is closed by an exec.
		flags, err := unix.FcntlInt(uintptr(number), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			syscall.Close(number)
		}
	}
}

// watchdogVariables are the variables that the watchdog process gets. It gets no others,
// because CI systems find by variables what they kill after a job: GitHub by
// RUNNER_TRACKING_ID, Azure Pipelines by VSTS_PROCESS_LOOKUP_ID, Jenkins by
// JENKINS_NODE_COOKIE, JENKINS_SERVER_COOKIE, HUDSON_COOKIE, HUDSON_SERVER_COOKIE,
// BUILD_ID and JOB_NAME.
var watchdogVariables = []string{"GODEBUG", "GORACE", "HOME", "LANG", "LC_ALL", "LOCALDOMAIN", "PATH",
	"RES_OPTIONS", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}

// watchdogEnvironment returns the environment of the watchdog process.
func watchdogEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return !slices.Contains(watchdogVariables, name)
	})
}

// runWatchdog is the main function of the watchdog process. It reads messages from in. It
// returns after a Done message, or after it has ended the command and released the slot.
// It ignores lines that are not valid JSON.
func runWatchdog(in io.Reader) {
	closeInherited()
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
	var until time.Duration
	var trace commandTrace
	parent, ticks := os.Getppid(), 0
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	timer := time.NewTimer(time.Hour)
	for {
		select {
		case m, open := <-messages:
			switch {
			case !open:
				config.watchCommand(trace, killTime)
				return
			case m.Done:
				return
			case len(m.Remaining) > 0:
				syscall.Close(watchdogStderr) // whoever reads it waits for its end
				config.awaitEnd(m.Remaining)
				config.release()
				return
			case m.Config != nil:
				config = *m.Config
				trace.tag = config.Tag
			}
			if m.Group != nil {
				trace.group = *m.Group
			}
			config.Token = cmp.Or(m.Token, config.Token)
			if m.Deadline != 0 {
				until = m.Deadline
				timer.Reset(until - bootClock())
			}
		case <-timer.C: // as the ticker, but without delay
		case <-ticker.C:
			ticks++
			if ticks%10 == 0 && trace.group != 0 {
				trace.look(parent, config.Earlier)
			}
		}
		if until != 0 && bootClock() >= until {
			config.watchCommand(trace, config.Grace)
			return
		}
	}
}

// watchCommand ends the command of a call-me that does not do it any more. If all of its
// processes have ended, it releases the slot. Those that it may not signal are printed
// on stderr; it waits until they have ended, but at most until the lease has, and
// releases the slot then. The lease is not renewed meanwhile.
func (c watchdogConfig) watchCommand(t commandTrace, grace time.Duration) {
	remaining := t.end(grace)
	if len(remaining) > 0 {
		go func() { // stderr may be a pipe that nobody reads
			stderr := os.NewFile(watchdogStderr, "stderr")
			sayCannotEnd(newTerminalOn(io.Discard, stderr), processNames(remaining), c.Slot, c.TTL)
			stderr.Close() // whoever reads it waits for its end
		}()
	}
	c.awaitEnd(remaining)
	time.Sleep(settleTime)
	c.release()
}

// awaitEnd waits until the processes have ended, but at most for the ttl of the lease.
func (c watchdogConfig) awaitEnd(processes []processInfo) {
	end := time.Now().Add(c.TTL)
	for slices.ContainsFunc(processes, processInfo.isAlive) && time.Now().Before(end) {
		time.Sleep(100 * time.Millisecond)
	}
}

// release ends the request that owns the leases, if the server can be reached within
// maxFirstResponse. Otherwise the lease ends after its ttl.
func (c watchdogConfig) release() {
	slotClient, err := newClient(clientConfig{KeyConfig: c.Keys, TokenConfig: TokenConfig{IDToken: c.Token},
		CAFile: c.CAFile, Host: c.URLs})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxFirstResponse)
	defer cancel()
	slotClient.endRequest(ctx, c.Environment, c.ID, c.Others...)
}
