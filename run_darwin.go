package main

// The processes that a command leaves running, on macOS. Only its process group is known,
// not what has left the group.

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Options of waitid; see run_unix.go.
const (
	waitStopped   = 0x8
	waitContinued = 0x10
	waitNoReap    = 0x20
)

// siStatus is where siginfo_t has si_status: after si_signo, si_errno, si_code, si_pid and
// si_uid.
const siStatus = 20

// adoptOrphans does nothing, because macOS cannot make call-me the parent of orphans.
func (p *process) adoptOrphans() {}

// leftovers returns the living processes of the command's group, without the command.
func (p *process) leftovers() []processInfo {
	return slices.DeleteFunc(groupProcesses(p.pid()), func(i processInfo) bool { return i.PID == p.pid() })
}

// processes returns the living processes of the command's group.
func (t commandTrace) processes() []processInfo {
	if t.group == 0 {
		return nil
	}
	return groupProcesses(t.group)
}

// look does nothing, because only the group counts.
func (t *commandTrace) look(int, []int) {}

// descendants returns nil, because only the group counts as left running.
func descendants() map[int]bool { return nil }

// groupProcesses returns the living processes of a process group.
func groupProcesses(group int) []processInfo { return readProcesses("kern.proc.pgrp", group) }

// readProcess returns a process. The second result is false if it has ended, also if it
// is not reaped yet.
func readProcess(pid int) (processInfo, bool) {
	found := readProcesses("kern.proc.pid", pid)
	return append(found, processInfo{})[0], len(found) > 0
}

// readProcesses returns the living processes that a name of sysctl selects.
func readProcesses(name string, number int) (found []processInfo) {
	const zombie = 5 // SZOMB
	all, _ := unix.SysctlKinfoProcSlice(name, number)
	for _, kernel := range all {
		if kernel.Proc.P_stat == zombie {
			continue
		}
		begin := kernel.Proc.P_starttime
		found = append(found, processInfo{
			PID:     int(kernel.Proc.P_pid),
			Started: uint64(begin.Sec)*uint64(time.Second/time.Microsecond) + uint64(begin.Usec),
			parent:  int(kernel.Eproc.Ppid),
			group:   int(kernel.Eproc.Pgid),
			name:    unix.ByteSliceToString(kernel.Proc.P_comm[:]),
		})
	}
	return found
}

// fileAtStart is the file of the program when it started.
var fileAtStart, _ = executableInfo()

// executableInfo returns the file at the path of the program.
func executableInfo() (os.FileInfo, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.Stat(path)
}

// ownBinary returns the path of the running program. It returns an error if another file
// has been put there meanwhile, which may be another version.
func ownBinary() (string, error) {
	now, err := executableInfo()
	if err != nil {
		return "", err
	}
	if fileAtStart == nil || !os.SameFile(fileAtStart, now) || !fileAtStart.ModTime().Equal(now.ModTime()) {
		return "", errors.New("call-me was replaced by another version while it ran")
	}
	return os.Executable()
}
