//go:build linux && amd64

package tests

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// A wine runs the binary for Windows, and a program that does what a command does there
// (testdata/windows), with a C: of its own.
type wine struct {
	folder  string // has both programs
	env     []string
	program string // the path of the program, as Windows has it
}

// newWine builds both programs and makes the C:. At the end of the test it ends everything
// that runs in it.
func newWine(t *testing.T) *wine {
	t.Helper()
	if _, err := exec.LookPath("wine"); err != nil {
		missing(t, "wine (Debian: apt-get install --no-install-recommends wine wine64)")
	}
	w := &wine{folder: t.TempDir()}
	prefix := filepath.Join(w.folder, "prefix")
	w.env = []string{"WINEPREFIX=" + prefix, "WINEDEBUG=-all", "DISPLAY=",
		"WINEDLLOVERRIDES=mscoree,mshtml,winemenubuilder.exe=d"} // what starts a browser and menus
	t.Cleanup(func() {
		w.tool(t, "wineserver", "-k")
		w.tool(t, "wineserver", "-w")
	})
	made := make(chan error, 1)
	go func() { made <- w.tool(t, "wineboot", "--init") }()
	for name, source := range map[string]string{"call-me.exe": ".", "program.exe": "./tests/testdata/windows"} {
		build := exec.Command("go", "build", "-o", filepath.Join(w.folder, name), source)
		build.Env = append(os.Environ(), "GOOS=windows", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building for Windows: %v\n%s", err, out)
		}
	}
	w.program = w.path(filepath.Join(w.folder, "program.exe"))
	if err := <-made; err != nil {
		t.Fatalf("wineboot: %v", err)
	}
	w.tool(t, "wineserver", "-w")
	random := filepath.Join(prefix, "drive_c/windows/system32/bcryptprimitives.dll")
	if _, err := os.Stat(random); err != nil { // as in Debian 12's wine 8.0
		if err := os.WriteFile(random, forwardingDLL("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// tool runs a program of wine itself.
func (w *wine) tool(t *testing.T, argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), w.env...)
	return cmd.Run()
}

// path returns how Windows names the file at an absolute path.
func (w *wine) path(path string) string { return `Z:` + strings.ReplaceAll(path, "/", `\`) }

// command returns a command that runs one of the programs of w with the variables of d.
func (w *wine) command(t *testing.T, d *daemon, name string, args ...string) *exec.Cmd {
	cmd := mortal(t)
	path, err := exec.LookPath("wine")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args = path, append([]string{"wine", filepath.Join(w.folder, name)}, args...)
	cmd.Env = slices.Concat(d.env, w.env, []string{"CALL_ME_HOLDER=runner"})
	return cmd
}

// run starts call-me run with the flags and a command of the program.
func (w *wine) run(t *testing.T, d *daemon, flags string, program ...string) *trial {
	t.Helper()
	args := slices.Concat([]string{"run", "uat"}, strings.Fields(flags), []string{"--", w.program}, program)
	return d.try(t, w.command(t, d, "call-me.exe", args...))
}

// forwardingDLL returns a library for Windows on amd64 with one function, which is that of
// another library. Without bcryptprimitives.dll no program in Go starts.
func forwardingDLL(name, function, to string) []byte {
	const at, size = 0x1000, 0x200 // of the only section, in memory; its size in the file
	const tables, texts = at + 40, at + 40 + 12
	var section, file bytes.Buffer
	put := func(b *bytes.Buffer, values ...any) {
		for _, v := range values {
			binary.Write(b, binary.LittleEndian, v)
		}
	}
	functionAt := uint32(texts + len(name) + 1)
	toAt := functionAt + uint32(len(function)) + 1
	put(&section, []uint32{0, 0, 0, texts, 1, 1, 1, tables, tables + 4, tables + 8}) // IMAGE_EXPORT_DIRECTORY
	put(&section, toAt, functionAt, uint32(0), []byte(name+"\x00"+function+"\x00"+to+"\x00"))
	length := uint32(section.Len())
	file.WriteString("MZ")
	put(&file, make([]byte, 58), uint32(64), []byte("PE\x00\x00"))
	put(&file, []uint16{0x8664, 1}, make([]uint32, 3), []uint16{240, 0x2022})        // IMAGE_FILE_HEADER
	put(&file, []uint16{0x20b, 0}, []uint32{0, size, 0, 0, at}, uint64(0x180000000)) // IMAGE_OPTIONAL_HEADER64
	put(&file, []uint32{at, size}, []uint16{6, 0, 0, 0, 6, 0}, []uint32{0, 2 * at, size, 0}, []uint16{3, 0x140})
	put(&file, []uint64{1 << 20, 1 << 12, 1 << 20, 1 << 12}, []uint32{0, 16, at, length}, make([]uint32, 30))
	put(&file, []byte(".rdata\x00\x00"), []uint32{length, at, size, size, 0, 0, 0, 0x40000040}) // IMAGE_SECTION_HEADER
	put(&file, make([]byte, size-file.Len()), section.Bytes(), make([]byte, size-section.Len()))
	return file.Bytes()
}

// grows reports whether a file grows within half a second.
func grows(path string) bool {
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	before := size()
	for range 50 {
		time.Sleep(10 * time.Millisecond)
		if size() > before {
			return true
		}
	}
	return false
}

// family starts call-me run with a command whose grandchild, in a process group of its own,
// appends to a file. It returns when it does.
func (w *wine) family(t *testing.T, d *daemon, flags string) (r *trial, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "ticks")
	r = w.run(t, d, flags, "parent", "parent", "tick", w.path(file))
	eventually(t, "the grandchild runs", func() bool { return grows(file) })
	return r, file
}

func TestWindows(t *testing.T) {
	t.Parallel()
	w := newWine(t)
	for name, test := range map[string]func(*testing.T, *daemon){
		"the exit code is the command's":             w.testExitCodes,
		"the command is untouched":                   w.testUntouched,
		"it ends with call-me":                       w.testTerminated,
		"Ctrl-C ends it after the grace":             w.testInterrupted,
		"Ctrl-C leaves the queue":                    w.testInterruptedWhileWaiting,
		"what it leaves is ended before the release": w.testLeftovers,
		"what it leaves stays with --leave-running":  w.testLeaveRunning,
		"a lost lease ends it":                       w.testLost,
		"the server":                                 w.testServer,
		"the task starts the server again":           w.testTask,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newDaemon(t))
		})
	}
}

func (w *wine) testExitCodes(t *testing.T, d *daemon) {
	for _, code := range []int{0, 1, 7, 255} {
		w.run(t, d, "", "exit", strconv.Itoa(code)).wantCode(code, time.Minute).said("call-me: released uat")
	}
	noProgram := filepath.Join(w.folder, "text.exe")
	if err := os.WriteFile(noProgram, []byte("no program\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.try(t, w.command(t, d, "call-me.exe", "run", "uat", "--", w.path(noProgram))).wantCode(126, time.Minute)
	d.try(t, w.command(t, d, "call-me.exe", "run", "uat", "--", "no-such-command")).wantCode(127, time.Minute)
	d.try(t, w.command(t, d, "call-me.exe", "run", "uat", "--", "cmd", "/c", "exit", "9")).wantCode(9, time.Minute)
}

func (w *wine) testUntouched(t *testing.T, d *daemon) {
	args := []string{"two words", "", `"quoted"`, `back\slash\`, `\"`, "ünïcode", "%PATH%", "a&b|c"}
	cmd := w.command(t, d, "call-me.exe", append([]string{"run", "uat", "--", w.program, "show"}, args...)...)
	cmd.Stdin = strings.NewReader("input\n")
	r := d.try(t, cmd).wantCode(0, time.Minute)
	var got []string
	if err := json.Unmarshal([]byte(r.out.String()), &got); err != nil {
		t.Fatalf("%v: %q", err, r.out)
	}
	want := append([]string{"uat", "uat", "runner", "input"}, args...)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func (w *wine) testTerminated(t *testing.T, d *daemon) {
	folder := t.TempDir()
	ticks, now := filepath.Join(folder, "ticks"), filepath.Join(folder, "now")
	callMe := w.path(filepath.Join(w.folder, "call-me.exe"))
	r := d.try(t, w.command(t, d, "program.exe", "terminate", w.path(now), callMe, "run", "uat", "--ttl", "10s", "--",
		w.program, "parent", "parent", "tick", w.path(ticks)))
	eventually(t, "the grandchild runs", func() bool { return grows(ticks) })
	if err := os.WriteFile(now, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.wantCode(0, time.Minute)
	if d.call("GET", "/maybe?environment=uat"); grows(ticks) {
		t.Error("the grandchild runs on")
	}
	r.freeWithin(12 * time.Second)
}

func (w *wine) testInterrupted(t *testing.T, d *daemon) {
	r, file := w.family(t, d, "--grace 3s")
	r.cmd.Process.Signal(os.Interrupt) // wine makes Ctrl-C of it
	time.Sleep(500 * time.Millisecond)
	if !grows(file) {
		t.Error("the command had no grace")
	}
	r.wantCode(130, time.Minute).said("call-me: released uat")
	if grows(file) {
		t.Error("the grandchild runs on")
	}
	r.freeWithin(0)
}

func (w *wine) testInterruptedWhileWaiting(t *testing.T, d *daemon) {
	d.want(201, "POST", "/maybe?environment=uat&holder=other")
	r := w.run(t, d, "", "exit", "0").said("held by other")
	r.cmd.Process.Signal(os.Interrupt)
	r.wantCode(130, time.Minute)
	if body := d.want(200, "GET", "/environments"); strings.Contains(body, "runner") {
		t.Errorf("it is in the queue: %s", body)
	}
}

func (w *wine) testLeftovers(t *testing.T, d *daemon) {
	file := filepath.Join(t.TempDir(), "ticks")
	r := w.run(t, d, "--grace 1s", "start", "tick", w.path(file))
	r.wantCode(0, time.Minute).said("left running: program.exe (").said("call-me: released uat")
	if grows(file) {
		t.Error("it runs on")
	}
}

func (w *wine) testLeaveRunning(t *testing.T, d *daemon) {
	file := filepath.Join(t.TempDir(), "ticks")
	r := w.run(t, d, "--leave-running", "start", "tick", w.path(file))
	r.wantCode(0, time.Minute)
	if !grows(file) {
		t.Error("it was ended")
	}
}

func (w *wine) testLost(t *testing.T, d *daemon) {
	r, file := w.family(t, d, "--ttl 3s")
	d.want(204, "DELETE", "/maybe?environment=uat&force=1&holder=the+boss")
	r.wantCode(76, time.Minute).said("ended by force by the boss")
	if grows(file) {
		t.Error("the grandchild runs on")
	}
}

// The server takes over a file of 2019, which it writes anew, and makes a new file. It leaves
// no other file beside it.
func (w *wine) testServer(t *testing.T, _ *daemon) {
	folder := t.TempDir()
	old := filepath.Join(folder, "old.db")
	db, err := bbolt.Open(old, 0o666, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error {
		b, _ := tx.CreateBucket([]byte("environments"))
		return b.Put([]byte("uat"), []byte("locked"))
	})
	db.Close()
	for _, file := range []string{old, old, filepath.Join(folder, "new.db")} {
		d := makeDaemon(t, "CALL_ME_DB="+w.path(file))
		d.cmd = w.command(t, d, "call-me.exe", "serve")
		d.cmd.Stderr, d.cmd.WaitDelay = d.log, time.Second
		if err := d.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := waitForServer(d.http, d.base); err != nil && waitForServer(d.http, d.base) != nil { // wine is slow
			t.Fatalf("%v\n%s", err, d.log)
		}
		uatIs := map[bool]int{true: 403, false: 200}[file == old]
		d.want(uatIs, "GET", "/maybe?environment=uat")
		d.want(201, "POST", "/maybe?environment=perf&holder=x&ttl=1h")
		d.want(204, "DELETE", "/maybe?environment=perf&holder=x")
		d.cmd.Process.Signal(os.Interrupt)
		// The first process in wine starts its services, which keep the pipe of the log.
		if err := d.cmd.Wait(); err != nil && err != exec.ErrWaitDelay {
			t.Errorf("after Ctrl-C: %v\n%s", err, d.log)
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "old.db" && e.Name() != "new.db" {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// deploy/call-me.cmd starts the server in its folder, with the keys and the file there, and again
// when it has ended.
func (w *wine) testTask(t *testing.T, _ *daemon) {
	folder := t.TempDir()
	for name, from := range map[string]string{"call-me.exe": filepath.Join(w.folder, "call-me.exe"), "call-me.cmd": "deploy/call-me.cmd"} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "keys"), []byte("the-key-of-the-task"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := makeDaemon(t)
	d.key = "the-key-of-the-task"
	d.cmd = w.command(t, d, "cmd", "/c", w.path(filepath.Join(folder, "call-me.cmd")))
	d.cmd.Args[1] = "cmd"
	d.cmd.WaitDelay = time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	servers := func() (pids []int) {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range all {
			line, _ := os.ReadFile(file)
			if said := strings.ReplaceAll(string(line), `\`, "/"); strings.Contains(said, folder+"/call-me.exe") && strings.Contains(said, "serve") {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				pids = append(pids, pid)
			}
		}
		return pids
	}
	answers := func() {
		t.Helper()
		if err := waitForServer(d.http, d.base); err != nil && waitForServer(d.http, d.base) != nil { // wine is slow
			log, _ := os.ReadFile(filepath.Join(folder, "call-me.log"))
			t.Fatalf("%v\n%s", err, log)
		}
	}
	answers()
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&ttl=1h")
	killed := servers()
	if len(killed) != 1 {
		t.Fatalf("%d servers", len(killed))
	}
	syscall.Kill(killed[0], syscall.SIGKILL)
	eventually(t, "the server is started again", func() bool { now := servers(); return len(now) == 1 && now[0] != killed[0] })
	answers()
	d.want(204, "DELETE", "/maybe?environment=uat&id=12345678")
	d.kill()
	for _, pid := range servers() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
