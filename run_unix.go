//go:build linux || darwin

package main

// Commands as process groups.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on to the command, ending those
// that ask it to end.
var (
	endSignals       = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
	forwardedSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
)

// A process is the command, the leader of its own process group.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}   // closed when it has ended; it is not reaped yet
	tty    *os.File        // of which the group is the foreground group; nil: none
	states chan childState // that it was stopped, or goes on
	asked  map[int]bool    // leftovers that were asked to end
	prior  map[int]bool    // what was of our tree before: of the shell that became us by exec
}

// startProcess starts a command with our stdin, stdout and stderr. Where we
// are the foreground of a terminal, the command becomes it: Ctrl-C and reads
// are its own. It does not begin to run before known has returned, which is
// given its number: see gate.
func startProcess(path string, argv, env []string, known func(pid int)) (*process, error) {
	p := &process{ended: make(chan struct{}), states: make(chan childState, 8), prior: descendants()}
	self, err := ownBinary()
	if err != nil {
		return nil, err
	}
	p.cmd = &exec.Cmd{Path: self, Args: append([]string{"call-me", gateCommand, path}, argv...), Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	opened, failed, err := p.addGate()
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	defer failed.Close()
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		if group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err == nil && group == syscall.Getpgrp() {
			p.tty = tty
			p.cmd.SysProcAttr.Foreground, p.cmd.SysProcAttr.Ctty = true, int(tty.Fd())
			signal.Ignore(syscall.SIGTTOU) // else we would be stopped when we take the terminal back
		} else {
			tty.Close()
		}
	}
	err = p.cmd.Start()
	for _, theirs := range p.cmd.ExtraFiles {
		theirs.Close()
	}
	if err != nil {
		p.foreground(syscall.Getpgrp())
		return nil, err
	}
	known(p.pid())
	opened.Write([]byte{1})
	if text, _ := io.ReadAll(failed); len(text) > 0 {
		p.reap()
		number, _ := strconv.Atoi(string(text))
		return nil, syscall.Errno(number)
	}
	p.adoptOrphans()
	go p.watch()
	return p, nil
}

// gateCommand is the hidden command through which a command is started.
const gateCommand = "gate"

// A gate is what the process of the command is until it may begin: it waits
// for one byte and then becomes the command. So the watchdog knows of the
// command before it runs, and when we are killed before, it never does. What
// prevents it from becoming the command goes through the second pipe, as the
// number of the error.
func gate(path string, argv []string) int {
	var b [1]byte
	if n, _ := os.NewFile(3, "gate").Read(b[:]); n == 0 {
		return exitOwnFailure
	}
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	err := syscall.Exec(path, argv, os.Environ()) // #nosec G204 G702 -- running the command is the purpose
	var number syscall.Errno
	errors.As(err, &number)
	fmt.Fprint(os.NewFile(4, "failed"), int(number))
	return exitNotRunnable
}

// addGate gives the process the two pipes of its gate, and returns our ends.
func (p *process) addGate() (opened, failed *os.File, err error) {
	theirOpened, opened, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	failed, theirFailed, err := os.Pipe()
	if err != nil {
		theirOpened.Close()
		opened.Close()
		return nil, nil, err
	}
	p.cmd.ExtraFiles = []*os.File{theirOpened, theirFailed}
	return opened, failed, nil
}

// ownBinary is the path of the running program, also when the file has been
// replaced meanwhile.
func ownBinary() (string, error) {
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends to the whole group. A stopped one is woken, so that it can
// hear that it is to end.
func (p *process) signal(s syscall.Signal) {
	syscall.Kill(-p.pid(), s)
	for _, e := range append(endSignals, syscall.SIGKILL) {
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
	siStopped   = 5
	siContinued = 6
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
		case code == siStopped:
			p.waitid(waitStopped | waitNoHang)
			p.foreground(syscall.Getpgrp())
			p.report(stateStopped)
		case code == siContinued:
			p.waitid(waitContinued | waitNoHang)
			p.foreground(p.pid())
			p.report(stateContinued)
		default:
			return
		}
	}
}

// tell never waits: who is not listened to any more need not be heard.
func (p *process) report(m childState) {
	select {
	case p.states <- m:
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

// endLeftovers asks what is left to end, with newborn also what is born
// meanwhile, and kills it when it has not after patience, or when that is over
// before.
func (p *process) endLeftovers(patience time.Duration, newborn bool, over func() bool) {
	p.signalLeftovers(syscall.SIGTERM)
	for end := time.Now().Add(patience); time.Now().Before(end) && len(p.leftovers()) > 0 && !over(); {
		time.Sleep(20 * time.Millisecond)
		if newborn {
			p.signalLeftovers(syscall.SIGTERM)
		}
	}
	for range 50 { // what is killed may leave children of its own
		if len(p.leftovers()) == 0 {
			return
		}
		p.signalLeftovers(syscall.SIGKILL)
		time.Sleep(10 * time.Millisecond)
	}
}
