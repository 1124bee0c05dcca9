//go:build !linux && !darwin && !windows

package main

// The process of a command on other systems, such as FreeBSD: only the command itself is
// ended, not the processes that it started, and there is no watchdog.

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// forwardedSignals are the signals that run handles, and endSignals those of them that
// ask the command to end.
var (
	endSignals       = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	forwardedSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}
)

// A process is the command.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}   // closed when the command has ended
	states chan childState // nil, because this system does not report stops
}

// startProcess starts the command path with the arguments argv, the environment env, and
// the standard streams of call-me. It calls known with the process id afterwards.
func startProcess(path string, argv, env []string, known func(int)) (*process, error) {
	p := &process{ended: make(chan struct{})}
	p.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	known(p.pid())
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	return p, nil
}

// pid returns the process id of the command.
func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends s to the command, and kills the command if the system cannot send s. It
// ignores SIGINT, because the terminal sends Ctrl-C to the command itself.
func (p *process) signal(s syscall.Signal) {
	if s == syscall.SIGINT {
		return
	}
	if p.cmd.Process.Signal(s) != nil {
		p.cmd.Process.Kill()
	}
}

// leftoverNames returns nil, because this system does not show them.
func (p *process) leftoverNames() []string { return nil }

// foreignNames returns nil, because this system does not show them.
func (p *process) foreignNames() []string { return nil }

// isForeign returns false, because call-me may end what it has started.
func (p *process) isForeign() bool { return false }

// endLeftovers does nothing; see leftovers.
func (p *process) endLeftovers(time.Duration, bool, func() bool) {}

// markGroupAsked does nothing; see leftovers.
func (p *process) markGroupAsked() {}

// reap returns the state of the command, which must have ended.
func (p *process) reap() *os.ProcessState { return p.cmd.ProcessState }

// deathSignal returns false, because no signal ends a process here.
func deathSignal(*os.ProcessState) (syscall.Signal, bool) { return 0, false }

// The names of the hidden commands, which do nothing here.
const (
	watchdogCommand = "watchdog"
	gateCommand     = "gate"
)

// gate returns exitOwnFailure. startProcess does not use it here.
func gate([]string) int { return exitOwnFailure }

// A watchdogConfig is empty, because there is no watchdog here.
type watchdogConfig struct{}

// watchdogConfig returns an empty configuration.
func (h *heldRun) watchdogConfig(time.Duration) watchdogConfig { return watchdogConfig{} }

// A watchdog does nothing here.
type watchdog struct{}

// startWatchdog starts no process. Its error is always nil.
func startWatchdog(watchdogConfig) (*watchdog, error) { return &watchdog{}, nil }

// The methods of a watchdog do nothing.
func (*watchdog) setDeadline(time.Time) {}

func (*watchdog) setToken(string) {}

func (*watchdog) setGroup(int) {}

func (*watchdog) clearGroup() {}

func (*watchdog) dismiss() {}

func (*watchdog) takeOver(*process) {}

// runWatchdog returns at once.
func runWatchdog(io.Reader) {}
