package main

// The notes of request: what this job or script has asked for, and how it ended. With
// them release knows whether the newest request got a slot, and request whether the
// holder of its own name is itself. Without them both go by the holder's name.
//
// A note is a line of a small file that only the user can read. Nothing here makes a
// command fail: a file that cannot be used is reported in one line.
//
// Not here: how the file is found and opened (notes_file.go), and which processes a
// shell is an ancestor of (notes_linux.go, notes_darwin.go, notes_none.go).

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A noteState is how far a request has come.
type noteState string

const (
	noteAsked   noteState = "asked"   // it was sent; nothing is known of its end
	noteRefused noteState = "refused" // it ended without a slot
	noteGranted noteState = "granted" // it got the slot
	noteClosed  noteState = "closed"  // a release has used the note up
)

// maxNoteAge is how long a note is read. No ttl is longer.
const maxNoteAge = maxTTL

// A shell is a process by its number and its start, which is a word that differs for two
// processes that have had the same number. The zero shell is no process.
type shell struct {
	pid   int
	start string
}

// A note is what is known of one request.
type note struct {
	state noteState
	id    string // of the request; empty if the lease was found by its holder
	fence uint64 // of the lease; zero unless it was granted
	at    time.Time
	shell shell // the process that started request
}

// line returns the note as parseNote reads it.
func (n note) line() string {
	id, start := n.id, n.shell.start
	if id == "" {
		id = "-"
	}
	if start == "" {
		start = "-"
	}
	return fmt.Sprintln(n.state, id, n.fence, n.at.Unix(), n.shell.pid, start)
}

// parseNote returns the note of a line, and whether the line is one.
func parseNote(line string) (n note, isNote bool) {
	words := strings.Fields(line)
	if len(words) != 6 {
		return n, false
	}
	n.state, n.id, n.shell.start = noteState(words[0]), words[1], words[5]
	fence, errFence := strconv.ParseUint(words[2], 10, 64)
	seconds, errTime := strconv.ParseInt(words[3], 10, 64)
	pid, errPID := strconv.Atoi(words[4])
	n.fence, n.at, n.shell.pid = fence, time.Unix(seconds, 0), pid
	if n.id == "-" {
		n.id = ""
	}
	states := []noteState{noteAsked, noteRefused, noteGranted, noteClosed}
	isNote = errFence == nil && errTime == nil && errPID == nil && slices.Contains(states, n.state) &&
		(n.id != "" && checkID(n.id) == nil || n.id == "" && n.fence != 0)
	return n, isNote
}

// isOf reports whether two notes are of the same request, or of the same lease where one
// has no id.
func (n note) isOf(other note) bool {
	if n.id == "" || other.id == "" {
		return n.fence != 0 && n.fence == other.fence
	}
	return n.id == other.id
}

// openNotes returns the newest note of each request in the text of a file, the newest
// last, without those that are closed or older than maxNoteAge. Lines that are no notes
// are ignored.
func openNotes(text string, now time.Time) []note {
	var open []note
	for line := range strings.Lines(text) {
		n, isNote := parseNote(line)
		if !isNote || now.Sub(n.at) > maxNoteAge {
			continue
		}
		if i := slices.IndexFunc(open, n.isOf); i >= 0 {
			if n.id == "" { // found by its holder again: the id is still known
				n.id = open[i].id
			}
			open = slices.Delete(open, i, i+1)
		}
		if n.state != noteClosed {
			open = append(open, n)
		}
	}
	return open
}

// A notebook has the notes of the requests of one job or script for one environment. Its
// methods do nothing without a file, and none of them fails.
type notebook struct {
	file    noteFile
	inJob   bool              // in the job of a CI system every process is the job's
	parent  shell             // of this process; the zero shell if it is not known
	parents []shell           // of this process, the nearest first
	report  func(text string) // prints a line for people
	now     func() time.Time  // the wall clock
	warned  bool              // report was called
}

// newNotebook returns the notebook of this process. The key is what distinguishes jobs,
// servers, environments and holders; folders is where a file of it may be, see noteFile.
// inJob is true for the job of a CI system. Elsewhere a note counts only for the
// processes that descend from the shell that started request: other scripts of the same
// user must not read it.
func newNotebook(key []string, folders []string, inJob bool, report func(text string)) *notebook {
	b := &notebook{file: newNoteFile(key, folders), inJob: inJob, report: report, now: time.Now}
	if !inJob {
		b.parents = parentShells()
		if len(b.parents) > 0 && !startsEverything(b.parents[0]) {
			b.parent = b.parents[0]
		}
	}
	return b
}

// asked notes that a request is about to be sent.
func (b *notebook) asked(id string) { b.write(note{state: noteAsked, id: id}) }

// refused notes that a request has ended without a slot.
func (b *notebook) refused(id string) { b.write(note{state: noteRefused, id: id}) }

// dropped removes the note of a request that the server has not accepted: release then
// fails as the request did.
func (b *notebook) dropped(id string) { b.close(note{id: id}) }

// granted notes that a request got the lease with the fence. Without an id the lease was
// found by its holder.
func (b *notebook) granted(id string, fence uint64) {
	b.write(note{state: noteGranted, id: id, fence: fence})
}

// close notes that a release has used a note up. It deletes the file if that was the last
// one.
func (b *notebook) close(n note) {
	n.state = noteClosed
	b.write(n)
	text, err := b.file.read()
	if err == nil && len(openNotes(text, b.now())) == 0 {
		b.file.remove()
	}
}

// closeFence closes the note of the lease with the fence, if there is one.
func (b *notebook) closeFence(fence uint64) {
	for _, n := range b.open() {
		if n.state == noteGranted && n.fence == fence {
			b.close(n)
		}
	}
}

// newest returns the newest open note that counts for this process, and whether there is
// one.
func (b *notebook) newest() (n note, found bool) {
	open := b.open()
	if len(open) == 0 {
		return n, false
	}
	return open[len(open)-1], true
}

// has reports whether this job or script got the lease with the fence, by its notes.
func (b *notebook) has(fence uint64) bool {
	isOfFence := func(n note) bool { return n.state == noteGranted && n.fence == fence }
	return slices.ContainsFunc(b.open(), isOfFence)
}

// open returns the open notes that count for this process, the newest last.
func (b *notebook) open() []note {
	text, err := b.file.read()
	if err != nil {
		b.warn(err)
		return nil
	}
	counts := func(n note) bool { return b.inJob || slices.Contains(b.parents, n.shell) }
	return slices.DeleteFunc(openNotes(text, b.now()), func(n note) bool { return !counts(n) })
}

// write appends a note to the file. Where no process could read the note, because the
// parent of this one is not known, it writes none.
func (b *notebook) write(n note) {
	if !b.inJob && b.parent == (shell{}) {
		return
	}
	n.at = b.now()
	if n.state != noteClosed {
		n.shell = b.parent
	}
	if err := b.file.add(n.line(), b.compact); err != nil {
		b.warn(err)
	}
}

// compact returns the lines of the newest open notes of a text.
func (b *notebook) compact(text string) string {
	open := openNotes(text, b.now())
	var lines strings.Builder
	for _, n := range open[max(0, len(open)-maxNotes):] {
		lines.WriteString(n.line())
	}
	return lines.String()
}

// warn reports once that the notes cannot be used.
func (b *notebook) warn(err error) {
	if !b.warned {
		b.warned = true
		b.report(fmt.Sprintf("no notes of this request: %v; release goes by the holder", err))
	}
}
