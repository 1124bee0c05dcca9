package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A change is used at the second look that shows it, once; what is only half written, gone or
// as it was is not.
func TestAChangeOfAFileIsSeenOnceItIsComplete(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\ntwo\n")
	f := watchFiles(file, "")
	look := func(what string, want bool) {
		t.Helper()
		if got := f.haveChanged(); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	look("as it was", false)
	write("one\n")
	look("half written", false)
	write("one\nthree\n")
	look("just written", false)
	look("complete", true)
	look("read already", false)
	write("one\n")
	look("half written", false)
	write("one\nthree\n")
	look("written again, the same", false)
	look("written again, the same", false)
	os.Remove(file)
	look("gone for a moment", false)
	look("gone", true)
	look("still gone", false)
	write("one\nthree\n")
	look("just back", false)
	look("back", true)
	write("four\n")
	f.markRead()
	look("read on SIGHUP", false)
	look("read on SIGHUP", false)
}

// A wrong file keeps the keys that there are, and is reported once.
func TestAWrongFileThatIsWatchedIsReportedOnce(t *testing.T) {
	s := newSite(t, "uat")
	var log bytes.Buffer
	s.server.log = slog.New(slog.NewTextHandler(&log, nil))
	file := filepath.Join(t.TempDir(), "keys")
	c := serverConfig{KeyConfig: KeyConfig{APIKeyFile: file}}
	change := func(text string) {
		t.Helper()
		w := newFileWatch(c)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		for range 10 {
			s.server.readAgain(c, nil, w, (*watchedFiles).haveChanged)
		}
	}
	change("a-good-key-of-the-test\n")
	if got := log.String(); strings.Count(got, "keys were read again") != 1 || strings.Count(got, "\n") != 1 {
		t.Errorf("a new file: %s", got)
	}
	change("another-key-of-the-test role=queen\n")
	if got := log.String(); strings.Count(got, "the keys stay as they were") != 1 || strings.Count(got, "\n") != 1 {
		t.Errorf("a wrong file: %s", got)
	}
	s.as("a-good-key-of-the-test", "GET /environments").want(t, 200, "")
}
