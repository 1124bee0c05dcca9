//go:build !linux && !darwin

package main

// Commands on systems without process groups of the Unix kind: the command
// itself is ended, not what it has started, and there is no watchdog. The
// README says what does not hold here.

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

var (
	endSignals       = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	forwardedSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}
)

type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	states chan childState // of which this system tells none
}

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

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal ends the command where the system has no softer way. Ctrl-C reaches
// it by itself, through the console.
func (p *process) signal(s syscall.Signal) {
	if s == syscall.SIGINT {
		return
	}
	if p.cmd.Process.Signal(s) != nil {
		p.cmd.Process.Kill()
	}
}

func (p *process) leftovers() []string { return nil }

func (p *process) endLeftovers(time.Duration, bool, func() bool) {}

func (p *process) markGroupAsked() {}

func (p *process) reap() *os.ProcessState { return p.cmd.ProcessState }

func deathSignal(*os.ProcessState) (syscall.Signal, bool) { return 0, false }

const (
	watchdogCommand = "watchdog"
	gateCommand     = "gate"
)

func gate(string, []string) int { return exitOwnFailure }

type watchdogConfig struct{}

func (h *heldRun) watchdogConfig(time.Duration) watchdogConfig { return watchdogConfig{} }

type watchdog struct{}

func startWatchdog(watchdogConfig) (*watchdog, error) { return &watchdog{}, nil }

func (*watchdog) setDeadline(time.Time) {}

func (*watchdog) setGroup(int) {}

func (*watchdog) clearGroup() {}

func (*watchdog) dismiss() {}

func runWatchdog(io.Reader) {}
