package main

// The process of a command on Windows: the leader of a process group of the console, in a
// job object that has everything that the command starts. The system ends the processes
// of the job when call-me ends, however it ends.
//
// The console tells call-me to end with Ctrl-C and Ctrl-Break, which Go reports as SIGINT,
// and when it is closed or the user logs off, which Go reports as SIGTERM. The command
// gets Ctrl-Break for all of them, because the system can send nothing else to a group.

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

// endSignals are the signals that ask the command to end, and forwardedSignals those that
// run passes on to it.
var (
	endSignals       = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	forwardedSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM}
)

// closeGrace is the longest grace of the command when the console is closed. The system
// ends call-me 5 s after that, and the slot must be released before.
const closeGrace = 3 * time.Second

// endedByBreak is the exit code that the system gives to a process that does not handle
// Ctrl-C or Ctrl-Break. The processes that call-me ends have it, too.
const endedByBreak = uint32(windows.STATUS_CONTROL_C_EXIT)

// A process is the command, the leader of its own process group, in a job of its own.
type process struct {
	process *os.Process
	handle  windows.Handle // of the process; while it is open, the system does not reuse the process id
	job     windows.Handle
	asked   bool             // the group has got Ctrl-Break
	ended   chan struct{}    // closed when the command has ended
	state   *os.ProcessState // set when ended is closed
	states  chan childState  // nil, because this system does not report stops
}

// startProcess starts the command path with the arguments argv, the environment env, the
// standard streams of call-me and the handles that call-me has inherited. It calls known
// with the process id afterwards. The command is in the job when it begins to run. The
// error is the system's; the command did not run then.
func startProcess(path string, argv, env []string, known func(int)) (*process, error) {
	p := &process{ended: make(chan struct{})}
	var err error
	p.job, err = newJob()
	if err != nil {
		return nil, err
	}
	info, err := createProcess(path, argv, env, p.job)
	if err != nil {
		windows.CloseHandle(p.job)
		return nil, err
	}
	windows.CloseHandle(info.Thread)
	p.handle = info.Process
	p.process, err = os.FindProcess(int(info.ProcessId))
	if err != nil {
		p.kill()
		return nil, err
	}
	known(p.pid())
	closed := make(chan os.Signal, 1)
	signal.Notify(closed, syscall.SIGTERM)
	go func() {
		<-closed
		time.AfterFunc(closeGrace, p.kill)
	}()
	go func() {
		defer close(p.ended)
		p.state, _ = p.process.Wait()
	}()
	return p, nil
}

// newJob returns a job whose processes the system ends when the last handle of the job is
// closed. Only call-me has one.
func newJob() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, err
	}
	if err := limitJob(job, windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE); err != nil {
		windows.CloseHandle(job)
		return 0, err
	}
	return job, nil
}

// limitJob sets the limits of a job, a set of JOB_OBJECT_LIMIT flags.
func limitJob(job windows.Handle, flags uint32) error {
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = flags
	_, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	return err
}

// attributeJobList is PROC_THREAD_ATTRIBUTE_JOB_LIST, the jobs that a new process is in
// from its beginning.
const attributeJobList = 0x2000d

// createProcess starts a process in the job and in a new process group. Package os cannot
// do that: it would have to put a suspended process into the job, which would stay
// suspended for ever if call-me were killed before.
func createProcess(path string, argv, env []string, job windows.Handle) (*windows.ProcessInformation, error) {
	program, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	line, err := windows.UTF16PtrFromString(windows.ComposeCommandLine(argv))
	if err != nil {
		return nil, err
	}
	attributes, err := windows.NewProcThreadAttributeList(1)
	if err != nil {
		return nil, err
	}
	defer attributes.Delete()
	if err := attributes.Update(attributeJobList, unsafe.Pointer(&job), unsafe.Sizeof(job)); err != nil {
		return nil, err
	}
	start := &windows.StartupInfoEx{ProcThreadAttributeList: attributes.List()}
	start.Cb = uint32(unsafe.Sizeof(*start))
	start.Flags = windows.STARTF_USESTDHANDLES
	start.StdInput, start.StdOutput = inheritable(os.Stdin), inheritable(os.Stdout)
	start.StdErr = inheritable(os.Stderr)
	const flags = windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_UNICODE_ENVIRONMENT |
		windows.EXTENDED_STARTUPINFO_PRESENT
	info := &windows.ProcessInformation{}
	err = windows.CreateProcess(program, line, nil, nil, true, flags,
		environmentBlock(env), nil, &start.StartupInfo, info)
	return info, err
}

// inheritable returns the handle of a file, which new processes inherit from now on. Errors
// are ignored: a stream that is closed is closed for the command, too.
func inheritable(file *os.File) windows.Handle {
	handle := windows.Handle(file.Fd())
	windows.SetHandleInformation(handle, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT)
	return handle
}

// environmentBlock returns the variables of env in the form that CreateProcess takes. Of a
// variable that env has several times, the last value counts.
func environmentBlock(env []string) *uint16 {
	var block []uint16
	for _, variable := range (&exec.Cmd{Env: env}).Environ() {
		block = append(append(block, utf16.Encode([]rune(variable))...), 0)
	}
	block = append(block, 0, 0)
	return &block[0]
}

// pid returns the process id of the command, which is also the number of its group.
func (p *process) pid() int { return p.process.Pid }

// signal asks the command and its group to end with Ctrl-Break, or ends all processes of
// the job if s is SIGKILL. Without a console Ctrl-Break cannot be sent, and nothing else
// would reach all programs; the command is ended after its grace then.
func (p *process) signal(s syscall.Signal) {
	if s == syscall.SIGKILL {
		p.kill()
		return
	}
	p.asked = true
	windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.pid()))
}

// kill ends all processes of the job.
func (p *process) kill() { windows.TerminateJobObject(p.job, endedByBreak) }

// leftovers returns the process ids of the job without that of the command; of the first
// thousand processes, if there are more.
func (p *process) leftovers() []uint32 {
	var list struct {
		assigned, listed uint32
		pids             [1000]uintptr
	}
	windows.QueryInformationJobObject(p.job, windows.JobObjectBasicProcessIdList,
		uintptr(unsafe.Pointer(&list)), uint32(unsafe.Sizeof(list)), nil)
	var pids []uint32
	for _, pid := range list.pids[:list.listed] {
		if int(pid) != p.pid() {
			pids = append(pids, uint32(pid))
		}
	}
	return pids
}

// leftoverNames returns the names of the remaining processes for people, such as
// "sleep.exe (123)".
func (p *process) leftoverNames() []string {
	var names []string
	for _, pid := range p.leftovers() {
		names = append(names, fmt.Sprintf("%s (%d)", programName(pid), pid))
	}
	return names
}

// foreignNames returns nil, because call-me may end what the command has started.
func (p *process) foreignNames() []string { return nil }

// isForeign returns false, because call-me may end what it has started.
func (p *process) isForeign() bool { return false }

// programName returns the name of the file that a process runs, or "a process" if the
// system does not tell.
func programName(pid uint32) string {
	const unknown = "a process"
	handle, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return unknown
	}
	defer windows.CloseHandle(handle)
	var path [1024]uint16
	size := uint32(len(path))
	if windows.QueryFullProcessImageName(handle, 0, &path[0], &size) != nil {
		return unknown
	}
	return filepath.Base(windows.UTF16ToString(path[:size]))
}

// endLeftovers sends Ctrl-Break to the group, unless it has got it before. It ends the
// processes of the job that have not ended after grace, or as soon as over returns true.
// over is called about every 20 ms. It returns when none is left, or about half a second
// after the grace.
func (p *process) endLeftovers(grace time.Duration, _ bool, over func() bool) {
	if !p.asked {
		p.signal(syscall.SIGTERM)
	}
	end := time.Now().Add(grace)
	for time.Now().Before(end) && len(p.leftovers()) > 0 && !over() {
		time.Sleep(20 * time.Millisecond)
	}
	for range 50 {
		if len(p.leftovers()) == 0 {
			return
		}
		p.kill()
		time.Sleep(10 * time.Millisecond)
	}
}

// markGroupAsked does nothing, because signal has recorded it.
func (p *process) markGroupAsked() {}

// reap returns the state of the command, which must have ended. Processes that still run
// go on when call-me ends.
func (p *process) reap() *os.ProcessState {
	<-p.ended
	limitJob(p.job, 0)
	windows.CloseHandle(p.handle)
	return p.state
}

// deathSignal returns SIGINT and true if Ctrl-C, Ctrl-Break or call-me ended a process.
func deathSignal(state *os.ProcessState) (syscall.Signal, bool) {
	return syscall.SIGINT, uint32(state.ExitCode()) == endedByBreak
}

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

// A watchdog does nothing here: the system ends the command when call-me is killed.
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
