//go:build linux || darwin

package main

// The processes of a command on Linux and macOS: their names, whether they live, and how
// they are ended.
//
// Not here: how they are found, which differs (run_linux.go, run_darwin.go).

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// killingTime is for how long SIGKILL is sent again to what has not ended.
const killingTime = 500 * time.Millisecond

// A processInfo describes a living process. PID and Started together are unique: the
// system gives the process id of an ended process to another one.
type processInfo struct {
	PID     int
	Started uint64 // in a unit of the system's
	parent  int
	group   int
	name    string
}

// String returns the process for people, such as "sleep (123)", and whether call-me may
// not signal it.
func (i processInfo) String() string {
	if i.isForeign() {
		return fmt.Sprintf("%s (%d), which runs as another user", i.name, i.PID)
	}
	return fmt.Sprintf("%s (%d)", i.name, i.PID)
}

// isForeign reports whether call-me may not signal the process, because it runs as
// another user, as after sudo.
func (i processInfo) isForeign() bool { return syscall.Kill(i.PID, 0) == syscall.EPERM }

// isForeign reports whether call-me may not signal the command; see processInfo.isForeign.
func (p *process) isForeign() bool { return processInfo{PID: p.pid()}.isForeign() }

// isAlive reports whether the process has not ended.
func (i processInfo) isAlive() bool {
	now, alive := readProcess(i.PID)
	return alive && now.Started == i.Started
}

// processNames returns the processes for people.
func processNames(processes []processInfo) (names []string) {
	for _, info := range processes {
		names = append(names, info.String())
	}
	return names
}

// leftoverNames returns the leftovers for people; see leftovers.
func (p *process) leftoverNames() []string { return processNames(p.leftovers()) }

// foreignNames returns, for people, the command and its leftovers that call-me may not
// signal.
func (p *process) foreignNames() []string {
	all := p.leftovers()
	if command, alive := readProcess(p.pid()); alive {
		all = append(all, command)
	}
	return processNames(slices.DeleteFunc(all, func(i processInfo) bool { return !i.isForeign() }))
}

// markGroupAsked records that the group has got SIGTERM, so that signalLeftovers does not
// send it again to a process of the group, nor to one that it has started since to clean
// up.
func (p *process) markGroupAsked() { p.groupAsked = true }

// signalLeftovers sends s to the leftovers. It sends SIGKILL each time, and another
// signal only to a process that has not got one before.
func (p *process) signalLeftovers(s syscall.Signal) {
	if p.gotSIGTERM == nil {
		p.gotSIGTERM = map[int]bool{}
	}
	for _, info := range p.leftovers() {
		asked := p.gotSIGTERM[info.PID] || p.groupAsked && info.group == p.pid()
		if s == syscall.SIGKILL || !asked {
			syscall.Kill(info.PID, s)
		}
		p.gotSIGTERM[info.PID] = true
	}
}

// endLeftovers sends SIGTERM to the leftovers. With newborn it also sends SIGTERM to
// processes that they start meanwhile. It sends SIGKILL to those that have not ended
// after grace, or as soon as over returns true. over is called about every 20 ms. It
// returns when none is left, or about half a second after the first SIGKILL: those of
// another user remain then.
func (p *process) endLeftovers(grace time.Duration, newborn bool, over func() bool) {
	p.signalLeftovers(syscall.SIGTERM)
	end := time.Now().Add(grace)
	for time.Now().Before(end) && len(p.leftovers()) > 0 && !over() {
		time.Sleep(20 * time.Millisecond)
		if newborn {
			p.signalLeftovers(syscall.SIGTERM)
		}
	}
	killing := time.Now()
	for tries := 0; tries < 5 || time.Since(killing) < killingTime; tries++ {
		if len(p.leftovers()) == 0 {
			return
		}
		p.signalLeftovers(syscall.SIGKILL) // again: a killed process may leave children
		time.Sleep(10 * time.Millisecond)
	}
}

// A commandTrace is what the watchdog knows of a command whose call-me does not end it.
type commandTrace struct {
	group int            // the process group; zero if none
	tag   string         // in runTagsVariable; empty if only the group counts
	seen  map[int]uint64 // the processes that look has seen last: process id and Started
}

// signal sends s to the group and to the processes outside of it.
func (t commandTrace) signal(s syscall.Signal) {
	syscall.Kill(-t.group, s) // first: finding the others takes time
	for _, info := range t.processes() {
		if info.group != t.group {
			syscall.Kill(info.PID, s)
		}
	}
}

// end sends SIGTERM to the processes of the command, and SIGKILL after grace to those
// that have not ended. It does nothing without a group. It returns when none is left, or
// about half a second after the first SIGKILL, with those that remain: they run as
// another user, or wait for a device.
//
// A process that is just executing another program shows no environment variables for a
// moment. So end takes the processes as ended only after it has found none twice.
func (t commandTrace) end(grace time.Duration) []processInfo {
	if t.group == 0 {
		return nil
	}
	t.signal(syscall.SIGTERM)
	t.signal(syscall.SIGCONT)
	end := time.Now().Add(grace)
	absent := 0 // how often in a row no process was found
	for absent < 2 && time.Now().Before(end) {
		if len(t.processes()) > 0 {
			absent = 0
		} else {
			absent++
		}
		time.Sleep(min(20*time.Millisecond, time.Until(end)))
	}
	killing := time.Now()
	for tries := 0; tries < 5 || time.Since(killing) < killingTime; tries++ {
		if absent >= 2 {
			return nil
		}
		t.signal(syscall.SIGKILL) // again: a killed process may leave children
		time.Sleep(10 * time.Millisecond)
		if len(t.processes()) > 0 {
			absent = 0
		} else {
			absent++
		}
	}
	return t.processes()
}
