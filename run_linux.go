package main

// The processes that a command leaves running, on Linux. /proc lists them. Descendants of
// call-me that lose their parent become children of call-me.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of waitid; see run_unix.go.
const (
	waitStopped   = unix.WSTOPPED
	waitContinued = unix.WCONTINUED
	waitNoReap    = unix.WNOWAIT
)

// argumentsTime is how long a process may be without arguments before it counts as one that has
// removed them.
const argumentsTime = 100 * time.Millisecond

// siStatus is where siginfo_t has si_status: after si_signo, si_errno, si_code, padding to
// the size of a pointer, si_pid and si_uid.
const siStatus = 8 + unsafe.Sizeof(uintptr(0)) + 8

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

// leftovers returns the living processes of the command's group and the descendants of
// call-me that have left the group, in the order of their process ids. It omits the
// command itself, watchdogs, and descendants that call-me had before the command.
func (p *process) leftovers() []processInfo {
	all := processTable()
	var found []processInfo
	for _, info := range all {
		ours := info.group == p.pid() || p.isDescendant(all, info)
		if info.PID != p.pid() && ours && isLeftover(info.PID) {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b processInfo) int { return a.PID - b.PID })
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
		if info.PID == watchdogPID() || p.earlierDescendants[info.PID] {
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

// isLeftover reports whether a process lives and is no watchdog of this or another call-me. A
// watchdog ends by itself when it has released its slot. For a moment it has no arguments to be
// known by: while it begins and while it ends. isLeftover waits until that is over, or for
// argumentsTime: a process may also have removed its arguments.
func isLeftover(pid int) bool {
	for end := time.Now().Add(argumentsTime); ; time.Sleep(time.Millisecond) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if len(line) > 0 {
			return string(line) != "call-me\x00"+watchdogCommand+"\x00"
		}
		if _, alive := readProcess(pid); !alive {
			return false
		}
		if time.Now().After(end) {
			return true
		}
	}
}

// descendants returns the process ids of call-me's descendants, without the watchdog.
// Call-me has descendants before the command if a shell has started them and then
// executed call-me in its place.
func descendants() map[int]bool {
	all, pids := processTable(), map[int]bool{}
	for _, info := range all {
		if new(process).isDescendant(all, info) {
			pids[info.PID] = true
		}
	}
	return pids
}

// processes returns the living processes of the command, without watchdogs: those of its
// group, and with a tag also those that have the tag in runTagsVariable, those that were
// seen before, and the descendants of all these.
func (t commandTrace) processes() (found []processInfo) {
	all, ours := processTable(), map[int]bool{}
	for pid, info := range all {
		ours[pid] = info.group == t.group && t.group != 0 ||
			t.tag != "" && (t.seen[pid] == info.Started || hasTag(pid, t.tag))
	}
	for grown := t.tag != ""; grown; {
		grown = false
		for pid, info := range all {
			if !ours[pid] && ours[info.parent] {
				ours[pid], grown = true, true
			}
		}
	}
	for pid, info := range all {
		if ours[pid] && isLeftover(pid) {
			found = append(found, info)
		}
	}
	return found
}

// hasTag reports whether a process has the tag in runTagsVariable. It is false if call-me
// may not read the variables of the process, as of another user.
func hasTag(pid int, tag string) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for variable := range bytes.SplitSeq(text, []byte{0}) {
		tags, found := bytes.CutPrefix(variable, []byte(runTagsVariable+"="))
		if found && bytes.Contains(tags, []byte(tag)) {
			return true
		}
	}
	return false
}

// look records the descendants of call-me, the parent of the watchdog that calls it, but
// not the watchdog and the processes in earlier. It reads only them, which is fast enough
// to be done all the time. It does nothing once call-me has ended: its descendants have
// other parents then.
func (t *commandTrace) look(parent int, earlier []int) {
	seen := map[int]uint64{}
	for pids := []int{parent}; len(pids) > 0; pids = pids[1:] {
		for _, pid := range childrenOf(pids[0]) {
			info, alive := readProcess(pid)
			if alive && seen[pid] == 0 && pid != os.Getpid() && !slices.Contains(earlier, pid) {
				seen[pid] = info.Started
				pids = append(pids, pid)
			}
		}
	}
	if os.Getppid() == parent {
		t.seen = seen
	}
}

// childrenOf returns the process ids of the children of a process, those of all its
// threads. It returns nil if the kernel does not show them.
func childrenOf(pid int) (children []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(text)) {
			child, _ := strconv.Atoi(word)
			children = append(children, child)
		}
	}
	return children
}

// readProcess reads /proc/PID/stat, which is "PID (NAME) STATE PARENT GROUP ...", with the
// time of the start as the 20th word after NAME. NAME may contain any characters. The
// second result is false if the process has ended, also if it is not reaped yet.
func readProcess(pid int) (processInfo, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if err != nil || open < 0 || end < open {
		return processInfo{}, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return processInfo{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	group, _ := strconv.Atoi(fields[2])
	started, _ := strconv.ParseUint(fields[19], 10, 64)
	return processInfo{pid, started, parent, group, string(stat[open+1 : end])}, true
}

// ownBinary returns a path of the running program, which is also valid if its file has
// been replaced meanwhile. It returns an error if /proc does not show this process.
func ownBinary() (string, error) {
	self, err := os.Readlink("/proc/self")
	switch {
	case err != nil:
		return "", withHint(errors.New("run needs /proc, which is not mounted"), "mount -t proc proc /proc")
	case self != strconv.Itoa(os.Getpid()):
		return "", withHint(errors.New("/proc shows the processes of another PID namespace"),
			"mount -t proc proc /proc")
	}
	return "/proc/self/exe", nil
}
