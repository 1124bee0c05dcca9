package tests

// The notes of request, by which release knows what to release. Each case is a script that
// a real shell runs, as the step of a CI job or as a script outside of one.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// githubJob are the variables of a job on GitHub Actions, but for its folder.
var githubJob = []string{"GITHUB_ACTIONS=true", "CI=true", "GITHUB_REPOSITORY=acme/shop", "GITHUB_RUN_ID=7", "GITHUB_JOB=deploy"}

// A workplace is where the steps of a job run: a machine with its folders. Each step is a
// shell of its own.
type workplace struct {
	d      *daemon
	folder string // of the work
	env    []string
}

func newWorkplace(d *daemon, env ...string) *workplace {
	folder := d.t.TempDir()
	temporary := filepath.Join(folder, "temp")
	os.Mkdir(temporary, 0o755)
	w := &workplace{d: d, folder: folder}
	w.env = append(w.env, "HOME="+folder, "XDG_CACHE_HOME="+filepath.Join(folder, "cache"), "TMPDIR="+temporary)
	w.env = append(w.env, env...)
	return w
}

// onGithub returns a workplace with a job of GitHub Actions.
func onGithub(d *daemon, env ...string) *workplace {
	w := newWorkplace(d, githubJob...)
	w.env = append(append(w.env, "RUNNER_TEMP="+filepath.Join(w.folder, "temp")), env...)
	return w
}

// sh runs a script in a shell of its own and returns what it prints. Each word "[N]" in
// want stands for the exit code of the command before it: the script has to print them.
func (w *workplace) sh(script string) string {
	w.d.t.Helper()
	cmd := exec.Command("sh", "-c", "r() { call-me \"$@\" 2>&1; echo \"[$?]\"; }\n"+script+"\n:")
	cmd.Dir = w.folder
	for _, entry := range w.d.env { // the variables of the CI system that runs this test are not the job's
		if name, _, _ := strings.Cut(entry, "="); name == "PATH" || name == "HOST" || name == "API_KEY" {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	cmd.Env = append(cmd.Env, w.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.d.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// has fails the test unless the script prints all the texts.
func (w *workplace) has(script string, texts ...string) {
	w.d.t.Helper()
	out := w.sh(script)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.d.t.Errorf("%s: %q is missing in:\n%s", script, text, out)
		}
	}
}

// isHeld fails the test unless uat is held, or is free.
func (d *daemon) isHeld(want bool) {
	d.t.Helper()
	if status, _ := d.call("GET", "/maybe?environment=uat"); (status == 403) != want {
		d.t.Errorf("uat is held: %v, want %v", status == 403, want)
	}
}

const (
	got        = "acquired slot for environment: uat"
	freed      = "slot has been freed for environment: uat"
	thatIsYou  = "that is you"
	gotNone    = "freed nothing on uat: the last request here got no slot"
	heldByNone = "you held nothing on uat"
	namesake   = "held by another process of yours"
)

func TestReleaseKnowsWhatItsJobRequested(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the steps are shell scripts")
	}
	t.Run("the same step", func(t *testing.T) {
		t.Parallel()
		for _, make := range []func(*daemon, ...string) *workplace{onGithub, newWorkplace} {
			d := newDaemon(t)
			w := make(d)
			w.has("r request uat; r release uat", got, freed, "[0]")
			d.isHeld(false)
			w.has("r request uat; r request uat", thatIsYou, "[75]", "call-me request uat --again")
			w.has("r request uat --again; r release uat", got, freed)
			d.isHeld(false)
			w.has("r release uat", freed, "[0]")
			w.has("r release uat", heldByNone, "[0]")
		}
	})
	t.Run("a later step", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		w := onGithub(d)
		w.has("r request uat", got)
		w.has("r request uat", thatIsYou, "[75]")
		w.has("r release uat", gotNone, "[0]")
		d.isHeld(true)
		w.has("r release uat", freed, "[0]")
		d.isHeld(false)
	})
	t.Run("a parallel branch in the same workspace", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		w := newWorkplace(d, "JENKINS_URL=http://ci.example/", "JOB_NAME=shop", "BUILD_NUMBER=3")
		w.env = append(w.env, "WORKSPACE_TMP="+w.folder)
		w.has("r request uat", got)
		w.has("r request uat; r release uat", thatIsYou, "[75]", gotNone, "[0]")
		d.isHeld(true)
		w.has("export STAGE_NAME=tests; r request uat --timeout 1s; r release uat", namesake, "[75]", gotNone, "[0]")
		d.isHeld(true)
		w.has("export STAGE_NAME=killed; call-me request uat >waiting 2>&1 & until grep -q 'in the queue' waiting; do sleep 0.1; done; kill -9 $!; "+
			"r release uat", "has not got its slot", "[0]")
		d.isHeld(true)
		eventually(t, "the killed request is out of the queue", func() bool { return strings.Contains(d.want(200, "GET", "/environments"), `"queue":[]`) })
		w.has("r release uat; r release uat", freed, heldByNone)
		d.isHeld(false)
	})
	t.Run("another job with the same CALL_ME_HOLDER", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		w := onGithub(d, "CALL_ME_HOLDER=run-7")
		w.has("r request uat", got)
		w.env = append(w.env, "GITHUB_JOB=tests")
		w.has("r request uat --timeout 1s", namesake, "[75]")
		other := onGithub(d, "CALL_ME_HOLDER=run-7", "GITHUB_JOB=clean-up")
		other.has("r release uat", freed, "[0]")
		d.isHeld(false)
	})
	t.Run("a re-run of the job", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		onGithub(d).has("r request uat", got)
		again := onGithub(d)
		again.has("r request uat --timeout 1s; r release uat", namesake, "[75]", gotNone)
		d.isHeld(true)
		again.has("r request uat --again", got, "[0]")
		again.has("r release uat", freed, "[0]")
		d.isHeld(false)
	})
	t.Run("a container without HOME or with a read-only root", func(t *testing.T) {
		t.Parallel()
		for _, env := range [][]string{
			{"HOME=", "XDG_CACHE_HOME="},
			{"HOME=/proc/none", "XDG_CACHE_HOME=", "TMPDIR=/proc/none", "RUNNER_TEMP=/proc/none"},
		} {
			d := newDaemon(t)
			w := onGithub(d, env...)
			w.has("r request uat", got, "[0]")
			w.has("r release uat", freed, "[0]")
			d.isHeld(false)
		}
		d := newDaemon(t)
		w := onGithub(d, "HOME=/proc/none", "XDG_CACHE_HOME=", "TMPDIR=/proc/none", "RUNNER_TEMP=/proc/none")
		if out := w.sh("r request uat"); strings.Count(out, "no notes of this request") != 1 {
			t.Errorf("not one line says that there are no notes:\n%s", out)
		}
	})
	t.Run("two servers", func(t *testing.T) {
		t.Parallel()
		d, second := newDaemon(t), newDaemon(t)
		w := onGithub(d)
		w.has("r request uat", got)
		w.has(fmt.Sprintf("export HOST=%s; r release uat; r request uat", second.host), heldByNone, got)
		d.isHeld(true)
		second.isHeld(true)
		w.has("r release uat", freed)
		d.isHeld(false)
		second.isHeld(true)
	})
	t.Run("the notes deleted", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		w := onGithub(d)
		w.has("r request uat", got)
		os.RemoveAll(filepath.Join(w.folder, "temp", "call-me"))
		w.has("r request uat --timeout 1s", namesake, "[75]")
		os.RemoveAll(filepath.Join(w.folder, "temp", "call-me"))
		w.has("r release uat", freed, "[0]")
		d.isHeld(false)
	})
}

// Outside of CI systems the notes of a script count for the script alone: other scripts of
// the same user take turns with it.
func TestNotesOfAScriptAreItsOwn(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("no notes are made outside of CI systems")
	}
	d := newDaemon(t)
	w := newWorkplace(d)
	w.has("r request uat; sh -c 'call-me request uat; echo \"[$?]\"' 2>&1", got, thatIsYou, "[75]")
	w.has("r request uat --timeout 1s", namesake, "[75]")
	w.has("r release uat", freed) // of a script without notes: by the holder
	d.isHeld(false)
	w.has("slot=$(call-me request -q uat); r request uat; r release uat; r release uat", thatIsYou, gotNone, freed)
	d.isHeld(false)
	w.has("call-me request uat >/dev/null; sh -c 'sleep 1; call-me release uat' & wait; r release uat", heldByNone)
}

// What run holds is known within it without notes.
func TestARunKnowsItself(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the steps are shell scripts")
	}
	d := newDaemon(t)
	w := newWorkplace(d)
	w.has("r run uat -- call-me run uat -- echo twice", "within a call-me run that has the slot", "[75]")
	w.has("r run uat -- call-me run uat --holder other -- echo twice", "within a call-me run that has the slot", "[75]")
	w.has("r run uat -- call-me request uat", "within a call-me run that has the slot", "[75]")
	d.isHeld(false)
}

// A folder or a file that another user could have made is not used, and a pipe does not
// block.
func TestNotesFollowNoLink(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the folder of notes is the user's")
	}
	d := newDaemon(t)
	w := onGithub(d, "XDG_CACHE_HOME=/proc/none")
	notes := filepath.Join(w.folder, "temp", "call-me")
	victim := filepath.Join(w.folder, "victim")
	w.sh("r request uat; mv temp/call-me elsewhere; ln -s ../elsewhere temp/call-me; chmod 700 elsewhere")
	before, _ := os.ReadDir(filepath.Join(w.folder, "elsewhere"))
	if len(before) != 1 {
		t.Fatalf("%d files of notes, want 1", len(before))
	}
	name := before[0].Name()
	text, _ := os.ReadFile(filepath.Join(w.folder, "elsewhere", name))
	w.has("r request uat --timeout 1s", namesake)
	if after, _ := os.ReadFile(filepath.Join(w.folder, "elsewhere", name)); string(after) != string(text) {
		t.Error("a note was written through a link to a folder")
	}
	for _, obstacle := range []string{"ln -s " + victim, "mkfifo", "mkdir"} {
		w.sh("rm -rf temp/*; mkdir -m 700 temp/call-me; " + obstacle + " temp/call-me/" + name)
		w.has("r request uat --timeout 1s", namesake, "[75]")
		if _, err := os.Stat(victim); err == nil {
			t.Errorf("%s: a note was written through it", obstacle)
		}
	}
	w.sh("rm -rf temp/*; mkdir -m 777 temp/call-me; chmod 777 temp/call-me")
	w.has("r release uat", freed, "[0]")
	w.has("r request uat", got)
	if files, _ := os.ReadDir(notes); len(files) != 0 {
		t.Error("a note was written into a folder that others can write to")
	}
	w.sh("rm -rf temp/*")
	w.has("r release uat; r request uat", freed, got)
	info, err := os.Stat(notes)
	file, errFile := os.Stat(filepath.Join(notes, name))
	if err != nil || errFile != nil || info.Mode().Perm() != 0o700 || file.Mode().Perm() != 0o600 {
		t.Errorf("%v %v: %v %v", err, errFile, info, file)
	}
}
