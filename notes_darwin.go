package main

// The processes around this one, from the kernel's table.

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxParents is how many processes around this one are looked at.
const maxParents = 64

// parentShells returns the processes around this one, the nearest first. The list ends at
// a process that cannot be read.
func parentShells() []shell {
	var parents []shell
	for pid := os.Getppid(); pid > 0 && len(parents) < maxParents; {
		process, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
		if err != nil {
			break
		}
		started := process.Proc.P_starttime
		parents = append(parents, shell{pid, fmt.Sprintf("%d.%06d", started.Sec, started.Usec)})
		pid = int(process.Eproc.Ppid)
	}
	return parents
}

// startsEverything reports whether the process is the one that starts all services: a
// descendant of it may be any script of the user.
func startsEverything(s shell) bool { return s.pid == 1 }
