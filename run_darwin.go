package main

// The processes that a command leaves running, on macOS. Only its process group is known,
// not what has left the group.

import "syscall"

// Options of waitid; see run_unix.go.
const (
	waitStopped   = 0x8
	waitContinued = 0x10
	waitNoReap    = 0x20
)

// adoptOrphans does nothing, because macOS cannot make call-me the parent of orphans.
func (p *process) adoptOrphans() {}

// leftoverNames returns one text for people if the group has living processes, and nil
// otherwise. A group that has only the ended command cannot be signalled.
func (p *process) leftoverNames() []string {
	if syscall.Kill(-p.pid(), 0) != nil {
		return nil
	}
	return []string{"processes of its group"}
}

// markGroupAsked records that the group has got SIGTERM, so that signalLeftovers does not
// send it again.
func (p *process) markGroupAsked() { p.gotSIGTERM = map[int]bool{p.pid(): true} }

// taggedProcesses returns nil, because macOS does not show the environment of other
// processes.
func taggedProcesses(string) []int { return nil }

// descendants returns nil, because only the group counts as left running.
func descendants() map[int]bool { return nil }

// signalLeftovers sends s to the group. It sends SIGKILL each time, and another signal
// only if the group has not got one before.
func (p *process) signalLeftovers(s syscall.Signal) {
	if s == syscall.SIGKILL || !p.gotSIGTERM[p.pid()] {
		syscall.Kill(-p.pid(), s)
	}
	p.gotSIGTERM = map[int]bool{p.pid(): true}
}
