package main

// The memory limit of the process: that of its control group on Linux (a container, a
// systemd unit) becomes the limit of Go's garbage collector, and bounds the history. The
// files are described in cgroups(7) and proc_pid_mountinfo(5), and in the kernel's
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.

import (
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How much garbage there may be before it is collected: freeGarbage, or leastGarbage if that is
// more. Most of what a large server uses is the history, which stays: Go's own default of 100 %
// would double it. In a small one collecting after each few megabytes would be a fifth of the work.
const (
	leastGarbage = 30       // in percent of what is used
	freeGarbage  = 16 << 20 // in bytes
)

// garbagePercent returns how much garbage there may be beside this many bytes that are used: a
// multiple of ten, so that it seldom changes. Below 4 MB the runtime takes 4 MB for what is used.
func garbagePercent(used uint64) int {
	percent := int(100 * freeGarbage / max(used, 4<<20))
	return max(leastGarbage, percent/10*10)
}

// limitMemory sets the limit of Go's garbage collector to nine tenths of the control
// group's, unless GOMEMLIMIT is set, and leastGarbage, unless GOGC is set: a start may load
// much. It returns the limit that is in force in bytes; zero if there is none.
func limitMemory() int {
	if !isSet("GOGC") {
		debug.SetGCPercent(leastGarbage)
	}
	limit := int64(0)
	if runtime.GOOS == "linux" {
		limit = cgroupMemory("/")
	}
	if limit > 0 && !isSet("GOMEMLIMIT") {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
	limit = debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return 0
	}
	return int(min(limit, math.MaxInt))
}

// adjustGarbage keeps the collector at garbagePercent of what is used, which it looks at now and
// once a second until stop is called. It does nothing if GOGC is set.
func adjustGarbage() (stop func()) {
	if isSet("GOGC") {
		return func() {}
	}
	used := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	inForce := leastGarbage // since limitMemory
	adjust := func() {
		runtimemetrics.Read(used)
		if wanted := garbagePercent(used[0].Value.Uint64()); wanted != inForce {
			debug.SetGCPercent(wanted)
			inForce = wanted
		}
	}
	adjust()
	each, ended := time.NewTicker(time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-each.C:
				adjust()
			case <-ended:
				return
			}
		}
	}()
	return func() {
		each.Stop()
		close(ended)
	}
}

// newKeeperLimits returns the limits of the keeper for a memory limit in bytes; zero if there
// is none. The history takes what is configured, but at most a third of the memory. What
// a start loads takes at most three quarters of it, so that the rest remains for calls.
func newKeeperLimits(c serverConfig, memory int) keeperLimits {
	history := int(min(c.History, math.MaxInt))
	l := keeperLimits{waiters: maxWaiters(), history: history, memory: memory / 4 * 3,
		longestHold: time.Duration(c.MaxHold)}
	if memory > 0 {
		l.history = min(l.history, memory/3)
	}
	return l
}

// logHistory logs a warning if the history is smaller than configured, and one if events
// were left out at the start.
func logHistory(log *slog.Logger, c serverConfig, k *keeper, memory int) {
	if k.limits.history < int(min(c.History, math.MaxInt)) {
		log.Warn("the history is limited to a third of the memory", "memory", byteSize(memory).String(),
			"history", byteSize(k.limits.history).String(), "configured", c.History.String())
	}
	if k.leftAtStart > 0 {
		log.Warn("the history does not fit; its oldest events are deleted", "events", k.leftAtStart,
			"limit", byteSize(k.limits.history).String(), "hint", "CALL_ME_HISTORY is the limit")
	}
}

// cgroupMemory returns the memory limit of the control group of this process in bytes: the
// lowest one of the group and of those around it, as far as they are mounted. It is zero
// if there is none, or if the system has no control groups. root is the folder in which
// proc and the mount points are; it is / except in tests.
func cgroupMemory(root string) int64 {
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	mounts, _ := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	lowest := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(parts) < 3 {
			continue
		}
		kind, name := "cgroup2", "memory.max"
		if parts[1] != "" {
			kind, name = "cgroup", "memory.limit_in_bytes"
			if !slices.Contains(strings.Split(parts[1], ","), "memory") {
				continue
			}
		}
		for mount := range strings.Lines(string(mounts)) {
			point, group, found := cgroupFolder(mount, kind, parts[2])
			for found {
				text, _ := os.ReadFile(filepath.Join(root, point, group, name))
				limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err == nil && limit > 0 {
					lowest = min(lowest, limit)
				}
				found = group != "/"
				group = path.Dir(group)
			}
		}
	}
	if lowest > math.MaxInt64/2 { // version 1 says "none" with a number of that size
		return 0
	}
	return lowest
}

// cgroupFolder returns the mount point of a line of mountinfo, and below it the path of a
// control group, which begins with a slash. If the mount shows only groups inside of that
// one, as in many containers, the path is a slash. found is false if the line is another
// kind of mount.
func cgroupFolder(line, kind, within string) (point, group string, found bool) {
	before, after, _ := strings.Cut(line, " - ")
	mount, source := strings.Fields(before), strings.Fields(after) // source: type, source, options
	if len(mount) < 5 || len(source) < 3 || source[0] != kind {
		return "", "", false
	}
	if kind == "cgroup" && !slices.Contains(strings.Split(source[2], ","), "memory") {
		return "", "", false
	}
	group, isBelow := strings.CutPrefix(within, strings.TrimSuffix(mount[3], "/"))
	if !isBelow || !strings.HasPrefix(group, "/") || strings.Contains(group, "..") {
		group = "/"
	}
	return mount[4], path.Clean(group), true
}
