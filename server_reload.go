package main

// The files that are read again while the server serves: keys, issuers of tokens, certificate
// and environments. SIGHUP reads all of them at once. Where nobody can send it, as in
// Kubernetes, a change is noticed: the content is compared, and not the times of the file,
// because a mounted Secret is changed by replacing a symbolic link to its folder.

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// lookTime is the time between two looks at the files. A change is used at the second look
// that shows it, so that a file which is just being written is not read.
const lookTime = 2 * time.Second

// maxWatchedFile is the size of the largest file that is watched, in bytes.
const maxWatchedFile = 1 << 20

// watchedFiles are files that are read together. It is not safe for concurrent use.
type watchedFiles struct {
	paths []string
	used  [sha256.Size]byte // the sum of the content that was read
	seen  [sha256.Size]byte // the sum at the last look
}

// watchFiles returns watched files whose content of now counts as read. Empty paths are left
// out.
func watchFiles(paths ...string) watchedFiles {
	var f watchedFiles
	for _, path := range paths {
		if path != "" {
			f.paths = append(f.paths, path)
		}
	}
	f.markRead()
	return f
}

// sum returns the sum of what the files have, or of why they cannot be read.
func (f *watchedFiles) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range f.paths {
		text, err := readTextFile(path, maxWatchedFile, "settings")
		fmt.Fprintf(h, "%q %v\n", text, err)
	}
	h.Sum(sum[:0])
	return sum
}

// markRead makes the content of now the one that was read.
func (f *watchedFiles) markRead() {
	f.used = f.sum()
	f.seen = f.used
}

// haveChanged reports whether the files must be read: they have another content than the one
// that was read, and had it at the last look too. It reports each content once.
func (f *watchedFiles) haveChanged() bool {
	now := f.sum()
	isSettled := now == f.seen
	f.seen = now
	if !isSettled || now == f.used {
		return false
	}
	f.used = now
	return true
}

// A fileWatch is the files of a configuration, by what is in them.
type fileWatch struct {
	keys, tokens, certificate, environments watchedFiles
}

// newFileWatch returns the files of a configuration. What they have now counts as read.
func newFileWatch(c serverConfig) *fileWatch {
	return &fileWatch{
		keys:         watchFiles(c.APIKeyFile),
		tokens:       watchFiles(c.OIDCFile),
		certificate:  watchFiles(c.TLSCertificate, c.TLSPrivateKey),
		environments: watchFiles(c.EnvironmentsFile),
	}
}

// reload starts a goroutine that reads the files again, all of them at SIGHUP and those that
// have changed every lookTime, until stop is called. If one cannot be read, the error is
// logged, and the previous one stays in use. A nil pair is plain HTTP. stop is called once.
func (s *server) reload(c serverConfig, pair *certificate, w *fileWatch) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	looks := time.NewTicker(lookTime)
	go func() {
		for {
			select {
			case _, isOpen := <-hangup:
				if !isOpen {
					return
				}
				s.readAgain(c, pair, w, func(f *watchedFiles) bool { f.markRead(); return true })
			case <-looks.C:
				s.readAgain(c, pair, w, (*watchedFiles).haveChanged)
			}
		}
	}()
	return func() {
		looks.Stop()
		signal.Stop(hangup)
		close(hangup)
	}
}

// readAgain reads those files again that look reports, and uses what they have.
func (s *server) readAgain(c serverConfig, pair *certificate, w *fileWatch, look func(*watchedFiles) bool) {
	anyDue := false
	isDue := func(f *watchedFiles) bool {
		due := look(f)
		anyDue = anyDue || due
		return due
	}
	if isDue(&w.keys) {
		if keys, err := c.acceptedKeys(); err != nil {
			s.log.Error("the keys stay as they were", "error", err)
		} else {
			s.useKeys(keys)
			s.log.Info("keys were read again", "keys", len(keys))
		}
	}
	if isDue(&w.tokens) {
		if err := s.useTokens(c); err != nil {
			s.log.Error("the issuers of tokens stay as they were", "error", err)
		}
	}
	if isDue(&w.certificate) {
		if err := pair.read(c); err != nil {
			s.log.Error("the certificate stays as it was", "error", err)
		} else if pair != nil {
			s.log.Info("the certificate was read again")
		}
	}
	if isDue(&w.environments) {
		s.useEnvironments(c)
	}
	if anyDue && s.onReload != nil {
		s.onReload(c)
	}
}
