package main

// The file of a notebook: which it is, and how it is read and written without following a
// link, blocking on a pipe, or trusting what another user has put there. Ids of requests
// are in it, which are as secret as the key.

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	maxNoteFile = 32 << 10 // the size in bytes from which a file is made shorter
	maxNotes    = 50       // that are left then
	maxCleaned  = 1000     // how many names of a folder are looked at for old files
)

// A noteFile is the file of one notebook. It is in the first of the folders that can be
// used. A folder is used if it is one, no link, and nobody but the user can enter it.
type noteFile struct {
	folders []string
	name    string
}

// newNoteFile returns the file whose name is a sum of the words of the key.
func newNoteFile(key, folders []string) noteFile {
	sum := sha256.Sum256([]byte(strings.Join(key, "\x00")))
	return noteFile{folders: folders, name: fmt.Sprintf("%x", sum)}
}

// noteFolders returns the folders in which notes may be: one in the folder of the job,
// unless that is empty; one in the user's folder of caches; and one of the user's in the
// folder of temporary files, for a machine on which the user has no home.
func noteFolders(ofJob string) []string {
	var folders []string
	if ofJob != "" {
		folders = append(folders, filepath.Join(ofJob, "call-me"))
	}
	if caches, err := os.UserCacheDir(); err == nil {
		folders = append(folders, filepath.Join(caches, "call-me"))
	}
	return append(folders, filepath.Join(os.TempDir(), fmt.Sprint("call-me-", os.Geteuid())))
}

// read returns the text of the file, at most twice maxNoteFile of it; empty if there is
// no file. Only the first folder in which the file can be opened is read.
func (f noteFile) read() (string, error) {
	failed := error(nil)
	for _, folder := range f.folders {
		if err := checkNoteFolder(folder); err != nil {
			continue
		}
		file, err := openNoteFile(filepath.Join(folder, f.name), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = err
			continue
		}
		text, err := io.ReadAll(io.LimitReader(file, 2*maxNoteFile))
		file.Close()
		return string(text), err
	}
	return "", failed
}

// add appends a line to the file with one write, so that lines of several processes do
// not mix. It makes the file if there is none, and then deletes old files beside it. A
// file that is too large is replaced by what compact returns for its text; a line that
// another process adds at that moment may be lost. The error is that of the last folder
// that was tried.
func (f noteFile) add(line string, compact func(text string) string) error {
	err := error(nil)
	for _, folder := range f.folders {
		err = makeNoteFolder(folder)
		if err != nil {
			continue
		}
		path := filepath.Join(folder, f.name)
		if info, errStat := os.Lstat(path); errStat == nil && info.Size() > maxNoteFile {
			f.shorten(path, compact)
		} else if errStat != nil {
			removeOldNotes(folder)
		}
		var file *os.File
		file, err = openNoteFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE)
		if err != nil {
			continue
		}
		_, err = io.WriteString(file, line)
		err = errors.Join(err, file.Close())
		if err == nil {
			return nil
		}
	}
	return err
}

// shorten replaces the file by what compact returns for its text. Errors are ignored: the
// file stays as it is, and what is read of it is limited.
func (f noteFile) shorten(path string, compact func(text string) string) {
	text, err := f.read()
	if err != nil {
		return
	}
	temporary := path + "." + rand.Text()
	file, err := openNoteFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return
	}
	_, err = io.WriteString(file, compact(text))
	if errors.Join(err, file.Close()) == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
	}
}

// remove deletes the file from all folders.
func (f noteFile) remove() {
	for _, folder := range f.folders {
		if checkNoteFolder(folder) == nil {
			os.Remove(filepath.Join(folder, f.name))
		}
	}
}

// removeOldNotes deletes the files of notebooks in the folder that were not changed for
// maxNoteAge, and a day.
func removeOldNotes(folder string) {
	open, err := os.Open(folder)
	if err != nil {
		return
	}
	defer open.Close()
	names, _ := open.Readdirnames(maxCleaned)
	for _, name := range names {
		path := filepath.Join(folder, name)
		info, err := os.Lstat(path)
		isOurs := err == nil && info.Mode().IsRegular() && len(name) >= 2*sha256.Size
		if isOurs && time.Since(info.ModTime()) > maxNoteAge+24*time.Hour {
			os.Remove(path)
		}
	}
}

// makeNoteFolder makes the folder, and the one that it is in, unless they exist, and
// returns the error of checkNoteFolder.
func makeNoteFolder(folder string) error {
	if err := os.Mkdir(folder, 0o700); errors.Is(err, fs.ErrNotExist) {
		os.Mkdir(filepath.Dir(folder), 0o700)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return checkNoteFolder(folder)
}

// checkNoteFolder returns an error unless the path is a folder, no link to one, that
// belongs to the user and that nobody else can enter.
func checkNoteFolder(folder string) error {
	info, err := os.Lstat(folder)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%q is no folder", folder)
	case !isPrivate(info):
		return fmt.Errorf("%q is not a folder of this user alone", folder)
	}
	return nil
}

// openNoteFile opens a file of this user, or makes it with the flag O_CREATE. It follows
// no link, and does not wait for the other end of a pipe.
func openNoteFile(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag|noteFlags, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || !isPrivate(info)) {
		err = fmt.Errorf("%q is not a file of this user alone", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
