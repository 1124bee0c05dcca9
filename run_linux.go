package main

// The processes that a command leaves running, on Linux. /proc lists them. Descendants of
// call-me that lose their parent become children of call-me.

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of waitid; see run_unix.go.
const (
	waitStopped   = unix.WSTOPPED
	waitContinued = unix.WCONTINUED
	waitNoReap    = unix.WNOWAIT
)

// adoptOrphans makes call-me the parent of its descendants that lose their parent. It
// starts a goroutine that reaps those that end, until call-me ends.
func (p *process) adoptOrphans() {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			for p.reapOrphan() {
			}
		}
	}()
}

// reapOrphan reaps one child that has ended, and reports whether it did. It does not reap
// the command or the watchdog, which other code reaps. It returns false if one of these
// is the first child that waitid finds.
func (p *process) reapOrphan() bool {
	const all = 0      // P_ALL
	var info [128]byte // siginfo_t; si_pid is aligned as a pointer
	_, _, err := syscall.Syscall6(syscall.SYS_WAITID, all, 0,
		uintptr(unsafe.Pointer(&info)), waitExited|waitNoHang|waitNoReap, 0, 0)
	pid := int(*(*int32)(unsafe.Pointer(&info[8+unsafe.Sizeof(uintptr(0))])))
	if err != 0 || pid == 0 || pid == p.pid() || pid == watchdogPID() {
		return false
	}
	_, waitErr := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return waitErr == nil
}

// A processInfo describes a living process, as in /proc/PID/stat.
type processInfo struct {
	pid, parent, group int
	name               string
}

// leftoverProcesses returns the living processes of the command's group and the descendants of
// call-me that have left the group, in the order of their process ids. It omits the
// command itself, watchdogs, and descendants that call-me had before the command.
func (p *process) leftoverProcesses() []processInfo {
	all := processTable()
	var found []processInfo
	for _, info := range all {
		ours := info.group == p.pid() || p.isDescendant(all, info)
		if info.pid != p.pid() && ours && !isWatchdog(info.pid) {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b processInfo) int { return a.pid - b.pid })
	return found
}

// processTable returns all living processes, by process id.
func processTable() map[int]processInfo {
	all := map[int]processInfo{}
	for _, pid := range allPIDs() {
		if info, alive := readProcess(pid); alive {
			all[pid] = info
		}
	}
	return all
}

// allPIDs returns the process ids in /proc, also those of processes that have ended and
// are not reaped.
func allPIDs() (pids []int) {
	folders, _ := os.ReadDir("/proc")
	for _, folder := range folders {
		if pid, err := strconv.Atoi(folder.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isDescendant reports whether a process is a descendant of call-me. It does not count
// the watchdog, the processes in p.prior, and the descendants of both. all is the process
// table.
func (p *process) isDescendant(all map[int]processInfo, info processInfo) bool {
	for range len(all) {
		if info.pid == watchdogPID() || p.earlierDescendants[info.pid] {
			return false
		}
		if info.parent == os.Getpid() {
			return true
		}
		parent, found := all[info.parent]
		if !found {
			return false
		}
		info = parent
	}
	return false
}

// isWatchdog reports whether a process is the watchdog of this or another call-me. A
// watchdog ends by itself when it has released its slot.
func isWatchdog(pid int) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(line) == "call-me\x00"+watchdogCommand+"\x00"
}

// descendants returns the process ids of call-me's descendants, without the watchdog.
// Call-me has descendants before the command if a shell has started them and then
// executed call-me in its place.
func descendants() map[int]bool {
	all, pids := processTable(), map[int]bool{}
	for _, info := range all {
		if new(process).isDescendant(all, info) {
			pids[info.pid] = true
		}
	}
	return pids
}

// taggedProcesses returns the process ids of the living processes that have the tag in
// runTagsVariable, without watchdogs. It also finds processes that have left the group
// and lost their parent. It returns nil for an empty tag.
func taggedProcesses(tag string) (pids []int) {
	if tag == "" {
		return nil
	}
	for _, pid := range allPIDs() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for variable := range bytes.SplitSeq(text, []byte{0}) {
			tags, found := bytes.CutPrefix(variable, []byte(runTagsVariable+"="))
			if found && bytes.Contains(tags, []byte(tag)) && !isWatchdog(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// markGroupAsked records that the processes of the group have got SIGTERM, so that
// signalLeftovers does not send it to them again.
func (p *process) markGroupAsked() {
	p.gotSIGTERM = map[int]bool{}
	for _, info := range p.leftoverProcesses() {
		p.gotSIGTERM[info.pid] = info.group == p.pid()
	}
}

// readProcess reads /proc/PID/stat, which is "PID (NAME) STATE PARENT GROUP ...". NAME may
// contain any characters. The second result is false if the process has ended, also if it
// is not reaped yet.
func readProcess(pid int) (processInfo, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if err != nil || open < 0 || end < open {
		return processInfo{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 3 || fields[0] == "Z" || fields[0] == "X" {
		return processInfo{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	group, _ := strconv.Atoi(fields[2])
	return processInfo{pid, parent, group, string(stat[open+1 : end])}, true
}

// leftoverNames returns the names of the remaining processes for people, such as
// "sleep (123)".
func (p *process) leftoverNames() []string {
	var names []string
	for _, info := range p.leftoverProcesses() {
		names = append(names, fmt.Sprintf("%s (%d)", info.name, info.pid))
	}
	return names
}

// signalLeftovers sends s to the remaining processes. It sends SIGKILL each time, and
// another signal only to a process that has not got one before.
func (p *process) signalLeftovers(s syscall.Signal) {
	for _, info := range p.leftoverProcesses() {
		if s == syscall.SIGKILL || !p.gotSIGTERM[info.pid] {
			syscall.Kill(info.pid, s)
		}
		if p.gotSIGTERM == nil {
			p.gotSIGTERM = map[int]bool{}
		}
		p.gotSIGTERM[info.pid] = true
	}
}
