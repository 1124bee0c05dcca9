package main

// The series of runs to which a job belongs: of the same repository, job and branch. Only the
// newest of a series needs a slot, where newest wins.

import (
	"os"
	"strings"
)

// A ciSeries says of what the jobs of one series are. Each field is text with ${VARIABLE}s;
// those that are not set are empty.
type ciSeries struct {
	repository string
	job        string // with its workflow, and its leg of a matrix where the system tells
	branch     string // or the tag, or the pull request; empty if the system tells none
}

// findSeries returns the CI system that runs this process, its repository after a colon, and
// the key of the job's series: both, the job and the branch. The system is empty outside of
// the systems of ciSystems, the repository and the key where the system does not tell them.
func findSeries(getenv func(string) string) (system, repository, key string) {
	ci, job := findCI(getenv)
	if job == "" {
		return "", "", ""
	}
	fill := func(text string) string {
		return os.Expand(text, func(name string) string { return strings.ReplaceAll(getenv(name), " ", "-") })
	}
	repository, branch := fill(ci.series.repository), fill(ci.series.branch)
	if strings.Trim(repository, "/") == "" {
		return ci.name, "", ""
	}
	repository = ci.name + ":" + repository
	if strings.Trim(branch, "/") != "" {
		key = repository + "/" + fill(ci.series.job) + "/" + branch
	}
	return ci.name, repository, key
}
