//go:build linux || darwin

package main

// Commands as process groups.

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on to the command, ending those
// that ask it to end.
var (
	ending    = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
	forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
)

// A process is the command, the leader of its own process group.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended; it is not reaped yet
	tty   *os.File      // of which the group is the foreground group; nil: none
	moods chan mood     // that it was stopped, or goes on
}

// startProcess starts a command with our stdin, stdout and stderr. Where we
// are the foreground of a terminal, the command becomes it: Ctrl-C and reads
// are its own.
func startProcess(path string, argv, env []string) (*process, error) {
	p := &process{ended: make(chan struct{}), moods: make(chan mood, 8)}
	p.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		if group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err == nil && group == syscall.Getpgrp() {
			p.tty = tty
			p.cmd.SysProcAttr.Foreground, p.cmd.SysProcAttr.Ctty = true, int(tty.Fd())
			signal.Ignore(syscall.SIGTTOU) // else we would be stopped when we take the terminal back
		} else {
			tty.Close()
		}
	}
	if err := p.cmd.Start(); err != nil {
		p.foreground(syscall.Getpgrp())
		return nil, err
	}
	p.adoptOrphans()
	go p.watch()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends to the whole group. A stopped one is woken, so that it can
// hear that it is to end.
func (p *process) signal(s syscall.Signal) {
	syscall.Kill(-p.pid(), s)
	for _, e := range append(ending, syscall.SIGKILL) {
		if s == e {
			syscall.Kill(-p.pid(), syscall.SIGCONT)
		}
	}
}

// foreground makes a group the foreground group of the terminal.
func (p *process) foreground(group int) {
	if p.tty != nil {
		unix.IoctlSetPointerInt(int(p.tty.Fd()), unix.TIOCSPGRP, group)
	}
}

// What waitid tells of a child, siginfo's si_code, the same on Linux and
// Darwin.
const (
	childStopped   = 5
	childContinued = 6
)

// Options of waitid; syscall has not all of them.
const (
	waitExited    = 0x4
	waitNoHang    = 0x1
	waitByProcess = 1 // P_PID
)

// watch waits until the command has ended, without reaping it: until then
// its number cannot become another process's. While it is stopped, the
// terminal is ours, so that Ctrl-C reaches somebody.
func (p *process) watch() {
	defer close(p.ended)
	for {
		switch code, err := p.waitid(waitExited | waitStopped | waitContinued | waitNoReap); {
		case err == syscall.EINTR:
		case err != 0:
			return
		case code == childStopped:
			p.waitid(waitStopped | waitNoHang)
			p.foreground(syscall.Getpgrp())
			p.tell(stopped)
		case code == childContinued:
			p.waitid(waitContinued | waitNoHang)
			p.foreground(p.pid())
			p.tell(continued)
		default:
			return
		}
	}
}

// tell never waits: who is not listened to any more need not be heard.
func (p *process) tell(m mood) {
	select {
	case p.moods <- m:
	default:
	}
}

func (p *process) waitid(options uintptr) (code int32, err syscall.Errno) {
	var info [128]byte // siginfo_t: signal, errno, code
	_, _, err = syscall.Syscall6(syscall.SYS_WAITID, waitByProcess, uintptr(p.pid()), uintptr(unsafe.Pointer(&info)), options, 0, 0)
	return *(*int32)(unsafe.Pointer(&info[8])), err
}

// reap takes the ended command's state, and the terminal back.
func (p *process) reap() *os.ProcessState {
	p.foreground(syscall.Getpgrp())
	p.cmd.Wait()
	return p.cmd.ProcessState
}

// deathSignal returns the signal that ended a process, if one has.
func deathSignal(state *os.ProcessState) (syscall.Signal, bool) {
	status, ok := state.Sys().(syscall.WaitStatus)
	return status.Signal(), ok && status.Signaled()
}

// endLeftovers asks what is left to end, and kills it when it has not after
// patience.
func (p *process) endLeftovers(patience time.Duration) {
	p.signalLeftovers(syscall.SIGTERM)
	for end := time.Now().Add(patience); time.Now().Before(end) && len(p.leftovers()) > 0; {
		time.Sleep(20 * time.Millisecond)
	}
	for range 50 { // what is killed may leave children of its own
		if len(p.leftovers()) == 0 {
			return
		}
		p.signalLeftovers(syscall.SIGKILL)
		time.Sleep(10 * time.Millisecond)
	}
}
