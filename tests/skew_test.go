//go:build unix

package tests

// Servers and clients of two releases, and a server that is upgraded and rolled back as
// docs/operations.md says. The other release is built from git.

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// firstOfVersion2 is the commit that stands for the last release until there is one: the first
// whose answers have the version of the API.
const firstOfVersion2 = "06e14ba21e234a6ced1f4b9d98df916d488f644a"

// buildLastRelease builds the release before this one, once, and returns its path, or why there
// is none.
var buildLastRelease = sync.OnceValues(func() (path, problem string) {
	commit := firstOfVersion2
	if tag, err := exec.Command("git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^").Output(); err == nil {
		commit = strings.TrimSpace(string(tag))
	}
	source, err := exec.Command("git", "archive", commit).Output()
	if err != nil {
		return "", "the history does not have " + commit + " here; git fetch --unshallow --tags brings it"
	}
	folder := filepath.Join(binDir, "last-release")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return "", err.Error()
	}
	unpack := exec.Command("tar", "-x")
	unpack.Dir, unpack.Stdin = folder, bytes.NewReader(source)
	if out, err := unpack.CombinedOutput(); err != nil {
		return "", string(out)
	}
	path = filepath.Join(binDir, "call-me-of-the-last-release")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, ".")
	build.Dir = folder
	if out, err := build.CombinedOutput(); err != nil {
		return "", string(out)
	}
	return path, ""
})

// lastRelease returns the path of the binary of the last release. A clone without the history
// skips the test.
func lastRelease(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, "git")
	}
	path, problem := buildLastRelease()
	if path == "" && strings.HasPrefix(problem, "the history") {
		t.Skip(problem)
	}
	if path == "" {
		t.Fatal(problem)
	}
	return path
}

// does runs a command of a client, which must succeed, and returns what it says.
func (d *daemon) does(program, holder string, args ...string) string {
	d.t.Helper()
	cmd, out := d.client(holder, args...)
	cmd.Path = program
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("%s of %s: %v\n%s", args[0], filepath.Base(program), err, out)
	}
	return out.String()
}

// begins starts a run that waits, and returns a function that waits for its end.
func (d *daemon) begins(t *testing.T, program, holder string) (ended func() string) {
	t.Helper()
	cmd, out := d.client(holder, "run", "uat", "--ttl", "1m", "--", "sh", "-c", `echo "has $CALL_ME_SLOT"`)
	cmd.Path = program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, holder+" is in the queue", func() bool { return strings.Contains(out.String(), "waiting for uat") })
	return func() string {
		if err := cmd.Wait(); err != nil {
			t.Errorf("run of %s: %v", holder, err)
		}
		return out.String()
	}
}

func TestClientsAndServersOfTwoReleasesWorkTogether(t *testing.T) {
	t.Parallel()
	last := lastRelease(t)
	for name, programs := range map[string]struct{ server, client string }{
		"a client of the last release": {binaryPath(), last},
		"a server of the last release": {last, binaryPath()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := makeDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue,perf")
			d.binary = programs.server
			d.start()
			says := func(want, holder string, args ...string) {
				t.Helper()
				if said := d.does(programs.client, holder, args...); !strings.Contains(said, want) {
					t.Errorf("%v: %s\nwant %q", args, said, want)
				}
			}
			says("acquired slot for environment: uat", "ann", "request", "uat", "--reason", "skew")
			says("blue is yours until", "ann", "renew", "uat", "--ttl", "1h")
			ended := d.begins(t, programs.client, "bob")
			says("skew", "ann", "status", "uat")
			says("bob", "ann", "status", "uat")
			says(`"holder": "bob"`, "ann", "status", "--json")
			says("slot has been freed", "ann", "release", "uat")
			if said := ended(); !strings.Contains(said, "has blue\n") {
				t.Errorf("the run: %s", said)
			}
			says("uat          blue  free", "ann", "status")
			says("released", "ann", "history", "uat")
			says("paused", "ann", "pause", "perf", "--reason", "skew")
			says("", "ann", "resume", "perf")
			cmd, out := d.client("ann", "request", "stage")
			cmd.Path = programs.client
			if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "no such environment") {
				t.Errorf("an environment that there is not: %v\n%s", err, out)
			}
		})
	}
}

// The server is upgraded first, while clients of the last release hold and wait; then it is
// rolled back, at once and with the backup.
func TestAServerIsUpgradedAndRolledBack(t *testing.T) {
	t.Parallel()
	last := lastRelease(t)
	d := makeDaemon(t)
	restart := func(program string) {
		t.Helper()
		d.cmd.Process.Signal(os.Interrupt)
		d.cmd.Wait()
		d.binary = program
		d.start()
	}
	d.binary = last
	d.start()
	d.does(last, "ann", "request", "uat", "--ttl", "1h")
	ended := d.begins(t, last, "bob")
	backup := filepath.Join(t.TempDir(), "before-upgrade.db")
	d.does(last, "ann", "backup", backup)

	restart(binaryPath())
	if said := d.does(binaryPath(), "ann", "status", "uat"); !strings.Contains(said, "ann") || !strings.Contains(said, "bob") {
		t.Errorf("after the upgrade: %s", said)
	}
	d.does(last, "ann", "release", "uat")
	if said := ended(); !strings.Contains(said, "has uat\n") {
		t.Errorf("who waited during the upgrade: %s", said)
	}
	d.does(binaryPath(), "carol", "request", "uat", "--ttl", "1h")

	restart(last)
	if said := d.does(last, "carol", "status", "uat"); !strings.Contains(said, "carol") {
		t.Errorf("after rolling back: %s", said)
	}
	d.does(last, "carol", "release", "uat")

	d.cmd.Process.Signal(os.Interrupt)
	d.cmd.Wait()
	text, err := os.ReadFile(backup)
	if err == nil {
		err = os.WriteFile(d.file(), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	if said := d.does(last, "ann", "status", "uat"); !strings.Contains(said, "ann") {
		t.Errorf("with the backup: %s", said)
	}
}
