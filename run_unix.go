//go:build linux || darwin

package main

// The process of a command on Linux and macOS: the leader of a process group of its own.
// This file starts the command, sends signals to it and waits for it.
//
// Not here: finding the processes that the command leaves running, which differs
// (run_linux.go, run_darwin.go).

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

// forwardedSignals are the signals that run passes on to the command. endSignals are
// those of them that ask it to end.
var (
	endSignals       = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
	forwardedSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2}
)

// A process is the command, the leader of its own process group.
type process struct {
	cmd                *exec.Cmd
	ended              chan struct{}   // closed when the command has ended; it is not reaped before reap
	tty                *os.File        // the terminal that the command has in its foreground; nil if none
	states             chan childState // receives each stop and continuation
	gotSIGTERM         map[int]bool    // process ids of the leftovers that have got SIGTERM
	earlierDescendants map[int]bool    // process ids before the start; see descendants
}

// startProcess starts the command path with the arguments argv, the environment env, and
// the standard streams of call-me. If call-me is in the foreground of a terminal, the
// command's group becomes the foreground group, so that it gets Ctrl-C and may read.
// startProcess calls known with the process id before the command begins to run (see
// gate). Its error is the system's; the command did not run then.
func startProcess(path string, argv, env []string, known func(pid int)) (*process, error) {
	p := &process{ended: make(chan struct{}), states: make(chan childState, 8)}
	p.earlierDescendants = descendants()
	self, err := ownBinary()
	if err != nil {
		return nil, err
	}
	p.cmd = &exec.Cmd{Path: self, Args: append([]string{"call-me", gateCommand, path}, argv...), Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	opened, failed, err := p.addGate()
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	defer failed.Close()
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
		if err == nil && group == syscall.Getpgrp() {
			p.tty = tty
			p.cmd.SysProcAttr.Foreground, p.cmd.SysProcAttr.Ctty = true, int(tty.Fd())
			signal.Ignore(syscall.SIGTTOU) // it would stop call-me when foreground takes the terminal back
		} else {
			tty.Close()
		}
	}
	err = p.cmd.Start()
	for _, file := range p.cmd.ExtraFiles {
		file.Close()
	}
	if err != nil {
		p.foreground(syscall.Getpgrp())
		return nil, err
	}
	known(p.pid())
	opened.Write([]byte{1})
	text, _ := io.ReadAll(failed) // until the command runs, which closes the pipe
	if len(text) > 0 {
		p.reap()
		number, _ := strconv.Atoi(string(text))
		return nil, syscall.Errno(number)
	}
	p.adoptOrphans()
	go p.watch()
	return p, nil
}

// gateCommand is the name of the hidden command through which a command is started.
const gateCommand = "gate"

// gate is the main function of a process that becomes the command. It reads one byte from
// file 3 and then executes path with argv. The watchdog knows the process before it
// executes the command. If call-me is killed before, the pipe ends and gate returns
// exitOwnFailure. If the command cannot be executed, gate writes the number of the error
// to file 4, in decimal, and returns exitNotRunnable.
func gate(path string, argv []string) int {
	var b [1]byte
	n, _ := os.NewFile(3, "gate").Read(b[:])
	if n == 0 {
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

// addGate adds the two pipes of gate to the files of the command, and returns the ends
// that call-me keeps: opened is written to let the command begin, and failed is read for
// the number of an error.
func (p *process) addGate() (opened, failed *os.File, err error) {
	gateOpened, opened, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	failed, gateFailed, err := os.Pipe()
	if err != nil {
		gateOpened.Close()
		opened.Close()
		return nil, nil, err
	}
	p.cmd.ExtraFiles = []*os.File{gateOpened, gateFailed}
	return opened, failed, nil
}

// ownBinary returns a path of the running program. With /proc the path is also valid if
// the file has been replaced meanwhile.
func ownBinary() (string, error) {
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// pid returns the process id of the command, which is also the number of its group.
func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends s to the whole group. After an end signal or SIGKILL it also sends
// SIGCONT, because a stopped process does not handle signals.
func (p *process) signal(s syscall.Signal) {
	syscall.Kill(-p.pid(), s)
	for _, e := range append(endSignals, syscall.SIGKILL) {
		if s == e {
			syscall.Kill(-p.pid(), syscall.SIGCONT)
		}
	}
}

// foreground makes the group the foreground group of the terminal, if startProcess gave
// the terminal to the command.
func (p *process) foreground(group int) {
	if p.tty != nil {
		unix.IoctlSetPointerInt(int(p.tty.Fd()), unix.TIOCSPGRP, group)
	}
}

// Values of si_code in the siginfo_t that waitid fills. They are the same on Linux and
// Darwin.
const (
	siStopped   = 5
	siContinued = 6
)

// Options of waitid that package syscall does not have on both systems, and P_PID.
const (
	waitExited    = 0x4
	waitNoHang    = 0x1
	waitByProcess = 1 // P_PID
)

// watch waits until the command has ended, and then closes p.ended. It does not reap the
// command, so that the system does not reuse its process id. While the command is
// stopped, call-me has the terminal, so that it gets Ctrl-C.
func (p *process) watch() {
	defer close(p.ended)
	for {
		code, err := p.waitid(waitExited | waitStopped | waitContinued | waitNoReap)
		switch {
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

// report sends a state to p.states. It never blocks: if the channel is full, the state is
// dropped.
func (p *process) report(s childState) {
	select {
	case p.states <- s:
	default:
	}
}

// waitid calls the system's waitid for the command. code is si_code.
func (p *process) waitid(options uintptr) (code int32, err syscall.Errno) {
	var info [128]byte // siginfo_t: signal, errno, code
	_, _, err = syscall.Syscall6(syscall.SYS_WAITID, waitByProcess, uintptr(p.pid()),
		uintptr(unsafe.Pointer(&info)), options, 0, 0)
	return *(*int32)(unsafe.Pointer(&info[8])), err
}

// reap takes the terminal back and reaps the command, which must have ended. It returns
// the state of the command.
func (p *process) reap() *os.ProcessState {
	p.foreground(syscall.Getpgrp())
	p.cmd.Wait()
	return p.cmd.ProcessState
}

// deathSignal returns the signal that ended a process. The second result is false if the
// process exited.
func deathSignal(state *os.ProcessState) (syscall.Signal, bool) {
	status, ok := state.Sys().(syscall.WaitStatus)
	return status.Signal(), ok && status.Signaled()
}

// endLeftovers sends SIGTERM to the leftovers. With newborn it also sends SIGTERM to
// processes that they start meanwhile. It sends SIGKILL to those that have not ended
// after grace, or as soon as over returns true. over is called about every 20 ms. It
// returns when none is left, or about half a second after the first SIGKILL.
func (p *process) endLeftovers(grace time.Duration, newborn bool, over func() bool) {
	p.signalLeftovers(syscall.SIGTERM)
	end := time.Now().Add(grace)
	for time.Now().Before(end) && len(p.leftoverNames()) > 0 && !over() {
		time.Sleep(20 * time.Millisecond)
		if newborn {
			p.signalLeftovers(syscall.SIGTERM)
		}
	}
	for range 50 { // a killed process may leave children, which are found only now
		if len(p.leftoverNames()) == 0 {
			return
		}
		p.signalLeftovers(syscall.SIGKILL)
		time.Sleep(10 * time.Millisecond)
	}
}
