package main

// What the log of a CI job has beyond the lines for people: the link to the page of the
// environment at the beginning of a wait, and a paragraph in the job's summary at its end.

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// pageLink returns the URL of the page of the environment that the request waits for, of
// several the first one that it lacks.
func (w *waitDisplay) pageLink() string {
	name := w.options.environment
	if len(w.lastReply.WaitsFor) > 0 {
		name = cmp.Or(string(w.lastReply.WaitsFor[0].Environment), name)
	}
	return w.options.server + "/?environment=" + url.QueryEscape(name)
}

// printPageLink prints the link to the page on a line of its own in the log of a CI job, as a
// notice where the CI system has those. It prints nothing elsewhere.
func (w *waitDisplay) printPageLink() {
	if w.columns > 0 || w.options.server == "" || !isJob(w.getenv) {
		return
	}
	if !hasNotices(w.getenv) {
		w.say("%s", w.pageLink())
		return
	}
	w.notice("waiting for %s: %s", w.options.label(), w.pageLink())
}

// notice prints a notice in the log of a job of GitHub Actions.
func (t *terminal) notice(format string, args ...any) {
	text := noticeText(printable(fmt.Sprintf(format, args...)))
	if o, isOutput := t.err.(*output); isOutput {
		o.writeCommand(noticeBegin, text)
	}
}

// summarize adds to the job's summary for what the request waited, how long, and the result. It
// does nothing if the request has not waited. The callers hold mu, or call it after done.
func (w *waitDisplay) summarize(waited time.Duration, result string) {
	if w.lastReply == nil {
		return
	}
	var names []string
	for _, name := range w.options.names() {
		names = append(names, inCode(name))
	}
	addToSummary(w.getenv, fmt.Sprintf("call-me waited %s for %s and %s; [who has it now](<%s>)",
		durationText(waited), andText(names), result, w.pageLink()))
}

// summarizeGranted is summarize with the slots that were granted.
func (w *waitDisplay) summarizeGranted(granted grantedJSON, waited time.Duration) {
	var slots []string
	for _, l := range granted.all() {
		slots = append(slots, inCode(string(l.Slot)))
	}
	w.summarize(waited, "got "+strings.Join(slots, ", "))
}

// failed reports that the request ended without a slot, by a signal if isInterrupted is true. The
// caller prints the error itself.
func (w *waitDisplay) failed(err error, isInterrupted bool) {
	result := "got no slot"
	switch {
	case isInterrupted:
		w.interrupted()
		result = "was cancelled"
	case errors.Is(err, errSuperseded):
		result = "left the queue to a newer run"
	case errors.Is(err, errNoSlot):
		result = "got no slot in time"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.summarize(w.now().Sub(w.started), result)
}
