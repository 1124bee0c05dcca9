package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// The memory limit of a control group is read where the system shows it: version 2 and 1, in a
// container with and without a namespace of its own, below a unit, and with the limits of the groups
// around it.
func TestTheMemoryLimitIsThatOfTheControlGroup(t *testing.T) {
	const (
		v2     = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		v1     = "34 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n35 30 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
		docker = "34 30 0:31 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
		none   = "9223372036854771712"
	)
	for name, c := range map[string]struct {
		groups, mounts string
		files          map[string]string
		want           int64
	}{
		"none":                     {"", "", nil, 0},
		"version 2, no limit":      {"0::/\n", v2, map[string]string{"memory.max": "max"}, 0},
		"version 2, a container":   {"0::/\n", v2, map[string]string{"memory.max": "536870912\n"}, 536870912},
		"version 2, a unit":        {"0::/system.slice/call-me.service\n", v2, map[string]string{"system.slice/call-me.service/memory.max": "268435456\n"}, 268435456},
		"version 2, around it":     {"0::/a/b\n", v2, map[string]string{"a/b/memory.max": "max", "a/memory.max": "1000000\n", "memory.max": "2000000"}, 1000000},
		"version 2, outside of it": {"0::/../other\n", v2, map[string]string{"memory.max": "1000000"}, 1000000},
		"version 1":                {"5:cpu:/x\n4:memory:/a\n", v1, map[string]string{"memory/a/memory.limit_in_bytes": "1000000", "memory/memory.limit_in_bytes": none, "cpu/x/memory.limit_in_bytes": "7"}, 1000000},
		"version 1, no limit":      {"4:memory:/a\n", v1, map[string]string{"memory/a/memory.limit_in_bytes": none}, 0},
		"version 1, a container":   {"4:memory:/docker/abc\n", docker, map[string]string{"memory/memory.limit_in_bytes": "1000000"}, 1000000},
		"both":                     {"4:memory:/a\n0::/\n", v1 + strings.ReplaceAll(v2, "cgroup rw", "cgroup/unified rw"), map[string]string{"memory/a/memory.limit_in_bytes": "1000000"}, 1000000},
		"nonsense":                 {"x\n0::/\n:memory:\n", v2 + "x\n - \n1 2 3 / - cgroup2 a b\n", map[string]string{"memory.max": "-5"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			files := map[string]string{"proc/self/cgroup": c.groups, "proc/self/mountinfo": c.mounts}
			for path, text := range c.files {
				files["sys/fs/cgroup/"+path] = text
			}
			for path, text := range files {
				path = filepath.Join(root, path)
				os.MkdirAll(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := cgroupMemory(root); got != c.want {
				t.Errorf("it is %d, want %d", got, c.want)
			}
		})
	}
}

// GOMEMLIMIT wins over the control group. The history takes at most a third of the memory.
func TestTheMemoryLimitBoundsTheHistory(t *testing.T) {
	before := debug.SetMemoryLimit(300e6)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOGC", "100")
	t.Setenv("GOMEMLIMIT", "300000000") // the runtime has read it long ago
	if got := limitMemory(); got != 300e6 || debug.SetMemoryLimit(-1) != 300e6 {
		t.Errorf("with GOMEMLIMIT the limit is %d", got)
	}
	c := serverConfig{History: 64e6}
	for memory, want := range map[int]keeperLimits{0: {history: 64e6}, 300e6: {history: 64e6, memory: 225e6}, 90e6: {history: 30e6, memory: 67.5e6}} {
		got := newKeeperLimits(c, memory)
		if got.history != want.history || got.memory != want.memory || got.waiters < 1 {
			t.Errorf("with %d bytes of memory the limits are %+v, want %+v", memory, got, want)
		}
	}
	debug.SetMemoryLimit(math.MaxInt64)
	t.Setenv("GOMEMLIMIT", "off")
	if got := limitMemory(); got != 0 {
		t.Errorf("without a limit it is %d", got)
	}
}

// A small server may have 16 MB of garbage, a large one 30 % of what it uses.
func TestALargeServerCollectsGarbageSooner(t *testing.T) {
	for used, want := range map[uint64]int{0: 400, 4 << 20: 400, 16 << 20: 100, 17 << 20: 90, 32 << 20: 50, 60 << 20: 30, 1e12: 30} {
		if got := garbagePercent(used); got != want {
			t.Errorf("beside %d bytes there may be %d percent, want %d", used, got, want)
		}
	}
}
