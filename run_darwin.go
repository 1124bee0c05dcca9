package main

// What a command leaves behind, on macOS: its group.

import "syscall"

const (
	waitStopped   = 0x8
	waitContinued = 0x10
	waitNoReap    = 0x20
)

// adoptOrphans: macOS has nothing like it.
func (p *process) adoptOrphans() {}

// leftovers says whether the group has living members. A group with none but
// the ended command cannot be signalled.
func (p *process) leftovers() []string {
	if syscall.Kill(-p.pid(), 0) != nil {
		return nil
	}
	return []string{"processes of its group"}
}

// groupWasAsked notes that the group has had the signal.
func (p *process) markGroupAsked() { p.asked = map[int]bool{p.pid(): true} }

// bearing: macOS does not show the variables of other processes.
func taggedProcesses(string) []int { return nil }

// ourTree: see adoptOrphans.
func descendants() map[int]bool { return nil }

// signalLeftovers asks the group once to end; SIGKILL goes out every time.
func (p *process) signalLeftovers(s syscall.Signal) {
	if s == syscall.SIGKILL || !p.asked[p.pid()] {
		syscall.Kill(-p.pid(), s)
	}
	p.asked = map[int]bool{p.pid(): true}
}
