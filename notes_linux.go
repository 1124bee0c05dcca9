package main

// The processes around this one, from /proc.

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// maxParents is how many processes around this one are looked at.
const maxParents = 64

// parentShells returns the processes around this one, the nearest first. The list ends at
// a process that cannot be read.
func parentShells() []shell {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var parents []shell
	for pid := os.Getppid(); pid > 0 && len(parents) < maxParents; {
		_, next, ticks, err := readParent(pid)
		if err != nil {
			break
		}
		parents = append(parents, shell{pid, ticks + "@" + strings.TrimSpace(string(boot))})
		pid = next
	}
	return parents
}

// startsEverything reports whether the process is the one that starts all services: a
// descendant of it may be any script of the user.
func startsEverything(s shell) bool {
	name, _, _, err := readParent(s.pid)
	return err != nil || name == "systemd" || name == "init"
}

// readParent returns the name of a process, its parent, and when it was started, in ticks
// since the system was booted.
func readParent(pid int) (name string, parent int, ticks string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, "", err
	}
	_, rest, _ := strings.Cut(string(text), "(")
	end := strings.LastIndex(rest, ")") // the name may have brackets
	if end < 0 {
		return "", 0, "", fmt.Errorf("process %d has no name", pid)
	}
	fields := strings.Fields(rest[end+1:]) // from the third on: state, parent, ...
	if len(fields) < 20 {
		return "", 0, "", fmt.Errorf("process %d has %d fields", pid, len(fields))
	}
	parent, err = strconv.Atoi(fields[1])
	return rest[:end], parent, fields[19], err
}
