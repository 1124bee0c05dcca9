package main

// What a command leaves behind, on Linux: /proc knows, and orphans of our
// tree become our children.

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

const (
	waitStopped   = unix.WSTOPPED
	waitContinued = unix.WCONTINUED
	waitNoReap    = unix.WNOWAIT
)

// adoptOrphans makes processes of our tree that lose their parent our
// children, and buries those that end, as long as we live.
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

// bury reaps one ended child, and reports whether there was one that nobody
// else reaps.
func (p *process) reapOrphan() bool {
	const all = 0 // P_ALL
	var info [128]byte
	_, _, err := syscall.Syscall6(syscall.SYS_WAITID, all, 0, uintptr(unsafe.Pointer(&info)), waitExited|waitNoHang|waitNoReap, 0, 0)
	pid := int(*(*int32)(unsafe.Pointer(&info[8+unsafe.Sizeof(uintptr(0))]))) // si_pid is aligned as a pointer
	if err != 0 || pid == 0 || pid == p.pid() || pid == watchdogPID() {
		return false
	}
	_, waitErr := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return waitErr == nil
}

// A relative is a living process, as /proc/PID/stat has it.
type processInfo struct {
	pid, parent, group int
	name               string
}

// remaining lists the living processes of the command's group, and those
// that left the group but not our tree; never ourselves or a watchdog, nor
// what was there before the command.
func (p *process) remaining() []processInfo {
	all := processTable()
	var found []processInfo
	for _, r := range all {
		if r.pid != p.pid() && (r.group == p.pid() || p.isDescendant(all, r)) && !isWatchdog(r.pid) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b processInfo) int { return a.pid - b.pid })
	return found
}

// relatives are all living processes, by their numbers.
func processTable() map[int]processInfo {
	all := map[int]processInfo{}
	for _, pid := range allPIDs() {
		if r, alive := readProcess(pid); alive {
			all[pid] = r
		}
	}
	return all
}

func allPIDs() (pids []int) {
	folders, _ := os.ReadDir("/proc")
	for _, folder := range folders {
		if pid, err := strconv.Atoi(folder.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descends reports whether a process is of our tree, the watchdog's aside.
func (p *process) isDescendant(all map[int]processInfo, r processInfo) bool {
	for range len(all) {
		if r.pid == watchdogPID() || p.prior[r.pid] {
			return false
		}
		if r.parent == os.Getpid() {
			return true
		}
		parent, found := all[r.parent]
		if !found {
			return false
		}
		r = parent
	}
	return false
}

// isWatchdog reports whether a process is one, also another call-me's: it ends
// by itself, when it has given its slot back.
func isWatchdog(pid int) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(line) == "call-me\x00"+watchdogCommand+"\x00"
}

// ourTree is what descends from us now, but for the watchdog.
func descendants() map[int]bool {
	all, tree := processTable(), map[int]bool{}
	for _, r := range all {
		if new(process).isDescendant(all, r) {
			tree[r.pid] = true
		}
	}
	return tree
}

// bearing lists the living processes that have a command's mark among their
// variables, but no watchdog: also what has left the group and lost its parent.
func taggedProcesses(mark string) (pids []int) {
	if mark == "" {
		return nil
	}
	for _, pid := range allPIDs() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for variable := range bytes.SplitSeq(text, []byte{0}) {
			marks, found := bytes.CutPrefix(variable, []byte(runTagsVariable+"="))
			if found && bytes.Contains(marks, []byte(mark)) && !isWatchdog(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// groupWasAsked notes that the group has had the signal.
func (p *process) markGroupAsked() {
	p.asked = map[int]bool{}
	for _, r := range p.remaining() {
		p.asked[r.pid] = r.group == p.pid()
	}
}

// readRelative reads "PID (NAME) STATE PARENT GROUP ..."; NAME may have
// anything in it.
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

// leftovers names what is still running: "sleep (123)".
func (p *process) leftovers() []string {
	var names []string
	for _, r := range p.remaining() {
		names = append(names, fmt.Sprintf("%s (%d)", r.name, r.pid))
	}
	return names
}

// signalLeftovers asks each process once to end; SIGKILL goes to all.
func (p *process) signalLeftovers(s syscall.Signal) {
	for _, r := range p.remaining() {
		if s == syscall.SIGKILL || !p.asked[r.pid] {
			syscall.Kill(r.pid, s)
		}
		if p.asked == nil {
			p.asked = map[int]bool{}
		}
		p.asked[r.pid] = true
	}
}
