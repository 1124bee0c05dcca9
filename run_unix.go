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
	"slices"
	"strconv"
	"sync/atomic"
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
	tty                *os.File        // the terminal of call-me; nil if none
	stoppedByUser      atomic.Bool     // by Ctrl-Z or SIGSTOP
	states             chan childState // receives each stop and continuation
	groupAsked         bool            // the group has got SIGTERM
	gotSIGTERM         map[int]bool    // process ids of the leftovers that have got SIGTERM
	earlierDescendants map[int]bool    // process ids before the start; see descendants
}

// startProcess starts the command path with the arguments argv, the environment env, and
// the files that call-me has from its caller, under their numbers. If call-me is in the
// foreground of a terminal, or comes to it later, the command's group becomes the
// foreground group, so that it gets Ctrl-C and may read. startProcess calls known with the
// process id before the command begins to run (see gate). Its error is the system's; the
// command did not run then.
func startProcess(path string, argv, env []string, known func(pid int)) (*process, error) {
	p := &process{ended: make(chan struct{}), states: make(chan childState, 8)}
	p.earlierDescendants = descendants()
	self, err := ownBinary()
	if err != nil {
		return nil, err
	}
	p.cmd = &exec.Cmd{Path: self, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	g, err := newGate()
	if err != nil {
		return nil, err
	}
	defer g.close()
	p.cmd.Args = slices.Concat([]string{"call-me", gateCommand}, g.numbers(), []string{path}, argv)
	p.tty, _ = os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if p.hasTerminal(syscall.Getpgrp()) {
		p.cmd.SysProcAttr.Foreground, p.cmd.SysProcAttr.Ctty = true, int(p.tty.Fd())
	}
	err = p.cmd.Start()
	g.closeTheirs()
	signal.Ignore(syscall.SIGTTOU) // it would stop call-me later; the command has not inherited this
	if err != nil {
		p.takeTerminal()
		return nil, err
	}
	known(p.pid())
	g.open.Write([]byte{1})
	text, _ := io.ReadAll(g.failed) // until the command runs, which closes the pipe
	if len(text) > 0 {
		p.reap()
		number, _ := strconv.Atoi(string(text))
		return nil, syscall.Errno(number)
	}
	p.adoptOrphans()
	go p.watch()
	if p.tty != nil {
		go p.followForeground()
	}
	return p, nil
}

// gateCommand is the name of the hidden command through which a command is started.
const gateCommand = "gate"

// gate is the main function of a process that becomes the command. args are the numbers
// of two files, the path and the arguments. gate reads one byte from the first file and
// then executes the path. The watchdog knows the process before it executes the command.
// If call-me is killed before, the pipe ends and gate returns exitOwnFailure. If the
// command cannot be executed, gate writes the number of the error to the second file, in
// decimal, and returns exitNotRunnable.
func gate(args []string) int {
	opened, _ := strconv.Atoi(args[0])
	failed, _ := strconv.Atoi(args[1])
	var b [1]byte
	n, _ := syscall.Read(opened, b[:])
	if n != 1 {
		return exitOwnFailure
	}
	syscall.CloseOnExec(opened)
	syscall.CloseOnExec(failed)
	if os.Getenv("LISTEN_PID") == fmt.Sprint(os.Getppid()) { // sockets of systemd are for the command
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		os.Unsetenv("LISTEN_PIDFDID")
	}
	err := syscall.Exec(args[2], args[3:], os.Environ()) // #nosec G204 G702 -- it is the purpose
	var number syscall.Errno
	errors.As(err, &number)
	syscall.Write(failed, []byte(strconv.Itoa(int(number))))
	return exitNotRunnable
}

// A gatePipes has the two pipes between call-me and gate. Their ends in the process of
// gate have the same numbers as here: so the files that call-me has from its caller keep
// theirs, and the command inherits them.
type gatePipes struct {
	open, failed               *os.File // written to let the command begin; read for the number of an error
	theirOpened, theirFailedTo *os.File
}

// newGate makes the pipes. Its error is the system's.
func newGate() (*gatePipes, error) {
	var g gatePipes
	var err error
	g.theirOpened, g.open, err = os.Pipe()
	if err != nil {
		return nil, err
	}
	g.failed, g.theirFailedTo, err = os.Pipe()
	if err != nil {
		g.theirOpened.Close()
		g.open.Close()
		return nil, err
	}
	for _, file := range []*os.File{g.theirOpened, g.theirFailedTo} {
		unix.FcntlInt(file.Fd(), unix.F_SETFD, 0) // inherited
	}
	return &g, nil
}

// numbers returns the first arguments of gate.
func (g *gatePipes) numbers() []string {
	return []string{fmt.Sprint(g.theirOpened.Fd()), fmt.Sprint(g.theirFailedTo.Fd())}
}

// closeTheirs closes the ends of gate, which has them now.
func (g *gatePipes) closeTheirs() {
	g.theirOpened.Close()
	g.theirFailedTo.Close()
}

// close closes the ends of call-me.
func (g *gatePipes) close() {
	g.open.Close()
	g.failed.Close()
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

// hasTerminal reports whether a group is the foreground group of call-me's terminal.
func (p *process) hasTerminal(group int) bool {
	if p.tty == nil {
		return false
	}
	now, err := unix.IoctlGetInt(int(p.tty.Fd()), unix.TIOCGPGRP)
	return err == nil && now == group
}

// giveTerminal makes the command's group the foreground group of the terminal, if call-me
// is in the foreground.
func (p *process) giveTerminal() {
	if p.hasTerminal(syscall.Getpgrp()) {
		unix.IoctlSetPointerInt(int(p.tty.Fd()), unix.TIOCSPGRP, p.pid())
	}
}

// takeTerminal makes call-me's group the foreground group of the terminal, if the
// command's group is, or one that the command has made and that has ended. It leaves the
// terminal alone if the shell has it, because call-me is in the background.
func (p *process) takeTerminal() {
	if p.tty == nil || p.cmd.Process == nil {
		return
	}
	group, err := unix.IoctlGetInt(int(p.tty.Fd()), unix.TIOCGPGRP)
	if err == nil && (group == p.pid() || syscall.Kill(-group, 0) == syscall.ESRCH) {
		unix.IoctlSetPointerInt(int(p.tty.Fd()), unix.TIOCSPGRP, syscall.Getpgrp())
	}
}

// followForeground gives the terminal to the command when the shell's fg has made
// call-me's group the foreground group, and continues the command if it was stopped
// because it needed the terminal. It does nothing while the command is stopped by Ctrl-Z
// or SIGSTOP. It returns when the command has ended.
func (p *process) followForeground() {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-ticker.C:
		}
		if p.stoppedByUser.Load() || !p.hasTerminal(syscall.Getpgrp()) {
			continue
		}
		p.giveTerminal()
		syscall.Kill(-p.pid(), syscall.SIGCONT)
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
		code, signal, err := p.waitid(waitExited | waitStopped | waitContinued | waitNoReap)
		switch {
		case err == syscall.EINTR:
		case err != 0:
			return
		case code == siStopped:
			p.waitid(waitStopped | waitNoHang)
			if signal == syscall.SIGTTIN || signal == syscall.SIGTTOU {
				p.report(stateNeedsTerminal) // followForeground continues it
				break
			}
			p.stoppedByUser.Store(true)
			p.takeTerminal()
			p.report(stateStopped)
		case code == siContinued:
			p.waitid(waitContinued | waitNoHang)
			p.stoppedByUser.Store(false)
			p.giveTerminal()
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

// waitid calls the system's waitid for the command. code is si_code. status is si_status:
// the signal that has stopped the command.
func (p *process) waitid(options uintptr) (code int32, status syscall.Signal, err syscall.Errno) {
	var info [128]byte // siginfo_t: signal, errno, code
	_, _, err = syscall.Syscall6(syscall.SYS_WAITID, waitByProcess, uintptr(p.pid()),
		uintptr(unsafe.Pointer(&info)), options, 0, 0)
	number := *(*int32)(unsafe.Pointer(&info[siStatus]))
	return *(*int32)(unsafe.Pointer(&info[8])), syscall.Signal(number), err
}

// reap takes the terminal back and reaps the command, which must have ended. It returns
// the state of the command.
func (p *process) reap() *os.ProcessState {
	p.takeTerminal()
	p.cmd.Wait()
	return p.cmd.ProcessState
}

// deathSignal returns the signal that ended a process. The second result is false if the
// process exited.
func deathSignal(state *os.ProcessState) (syscall.Signal, bool) {
	status, ok := state.Sys().(syscall.WaitStatus)
	return status.Signal(), ok && status.Signaled()
}
