package main

// What a CI system offers in the log of a job beyond lines of text: a notice, and the summary
// of the job.

import (
	"os"
	"strings"
)

// isJob reports whether a CI system runs this process, one that inCI or findCI recognises.
func isJob(getenv func(string) string) bool {
	_, job := findCI(getenv)
	return job != "" || inCI(getenv)
}

// hasNotices reports whether the log of the job is that of GitHub Actions, which shows a line
// that begins with noticeBegin as a notice of the run.
func hasNotices(getenv func(string) string) bool {
	system, job := findCI(getenv)
	return job != "" && system.name == "github" && inCI(getenv)
}

// noticeBegin is the beginning of a notice, before its text in the form of noticeText.
const noticeBegin = "::notice title=call-me::"

// noticeText returns a text as the data of a command of GitHub Actions.
func noticeText(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

// addToSummary adds a paragraph of Markdown to the summary of the job, where the CI system has
// one: GitHub Actions. Nobody is told of an error, which costs only the paragraph.
func addToSummary(getenv func(string) string, paragraph string) {
	path := getenv("GITHUB_STEP_SUMMARY")
	if path == "" || !hasNotices(getenv) {
		return
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() { // such as a pipe that nobody reads
		return
	}
	// #nosec G302 G703 -- the file is the job's
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	defer file.Close()
	_, _ = file.WriteString(paragraph + "\n\n")
}

// inCode returns a text as code in Markdown: nothing in it is formatted or a link.
func inCode(text string) string {
	return "`" + strings.ReplaceAll(printable(text), "`", "'") + "`"
}
