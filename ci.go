package main

// The default holder of a request: the job of a CI system, with its link, or else
// user@host. Only this file reads environment variables of other programs.

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A ciSystem describes how a job of one CI system gets a holder that no other job has. The
// holder names the job and not the run, so that the clean-up step of another job of the
// same run does not release this job's slot.
type ciSystem struct {
	name     string
	variable string // the variable that only this system sets
	value    string // the value that detect must have, ignoring case; empty if any
	job      string // text with ${VARIABLE}s; those that are not set are omitted
	link     string // text with ${VARIABLE}s; there is no link if one is not set
	doc      string // URL of the vendor's page about its variables
}

// ciSystems is the table of CI systems. The first that fits is used, so a system that
// imitates another one comes before it. Tekton sets no variables; a job of Tekton has to
// set CALL_ME_HOLDER.
var ciSystems = []ciSystem{
	{"gitea", "GITEA_ACTIONS", "true",
		"${GITHUB_REPOSITORY}/run/${GITHUB_RUN_NUMBER}/${GITHUB_JOB}/${RUNNER_NAME}",
		"${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_NUMBER}",
		"https://docs.gitea.com/usage/actions/actions-variables"},
	// All jobs of a matrix have the same GITHUB_JOB, but different runners.
	{"github", "GITHUB_ACTIONS", "true",
		"${GITHUB_REPOSITORY}/run/${GITHUB_RUN_ID}/${GITHUB_JOB}/${RUNNER_NAME}",
		"${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_ID}",
		"https://docs.github.com/en/actions/reference/workflows-and-actions/variables"},
	{"gitlab", "GITLAB_CI", "", // gitlab-ci-local sets it to false
		"${CI_PROJECT_PATH}/job/${CI_JOB_ID}/${CI_JOB_NAME}",
		"${CI_JOB_URL}",
		"https://docs.gitlab.com/ci/variables/predefined_variables/"},
	{"jenkins", "JENKINS_URL", "",
		"${JOB_NAME}/${BUILD_NUMBER}",
		"${BUILD_URL}",
		"https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables"},
	{"buildkite", "BUILDKITE", "true",
		"${BUILDKITE_ORGANIZATION_SLUG}/${BUILDKITE_PIPELINE_SLUG}/" +
			"${BUILDKITE_BUILD_NUMBER}/${BUILDKITE_JOB_ID}",
		"${BUILDKITE_BUILD_URL}#${BUILDKITE_JOB_ID}",
		"https://buildkite.com/docs/pipelines/configure/environment-variables"},
	{"circleci", "CIRCLECI", "true",
		"${CIRCLE_PROJECT_USERNAME}/${CIRCLE_PROJECT_REPONAME}/${CIRCLE_BUILD_NUM}/" +
			"${CIRCLE_JOB}/${CIRCLE_NODE_INDEX}",
		"${CIRCLE_BUILD_URL}",
		"https://circleci.com/docs/reference/variables/"},
	{"azure", "TF_BUILD", "True",
		"${SYSTEM_TEAMPROJECT}/${BUILD_BUILDID}/${SYSTEM_JOBDISPLAYNAME}/${SYSTEM_JOBID}",
		"${SYSTEM_COLLECTIONURI}${SYSTEM_TEAMPROJECT}/_build/results" +
			"?buildId=${BUILD_BUILDID}&view=logs&j=${SYSTEM_JOBID}",
		"https://learn.microsoft.com/en-us/azure/devops/pipelines/build/variables"},
	{"travis", "TRAVIS", "true",
		"${TRAVIS_REPO_SLUG}/${TRAVIS_JOB_NUMBER}",
		"${TRAVIS_JOB_WEB_URL}",
		"https://docs.travis-ci.com/user/environment-variables/"},
	{"woodpecker", "CI", "woodpecker",
		"${CI_REPO}/${CI_PIPELINE_NUMBER}/${CI_WORKFLOW_NAME}/${CI_WORKFLOW_NUMBER}",
		"${CI_PIPELINE_URL}",
		"https://woodpecker-ci.org/docs/usage/environment"},
	{"drone", "DRONE", "true",
		"${DRONE_REPO}/${DRONE_BUILD_NUMBER}/${DRONE_STAGE_NAME}/${DRONE_STAGE_NUMBER}",
		"${DRONE_BUILD_LINK}",
		"https://docs.drone.io/pipeline/environment/reference/"},
	{"teamcity", "TEAMCITY_VERSION", "",
		"${TEAMCITY_PROJECT_NAME}/${TEAMCITY_BUILDCONF_NAME}/${BUILD_NUMBER}",
		"${BUILD_URL}",
		"https://www.jetbrains.com/help/teamcity/predefined-build-parameters.html"},
	{"bitbucket", "BITBUCKET_BUILD_NUMBER", "",
		"${BITBUCKET_REPO_FULL_NAME}/${BITBUCKET_BUILD_NUMBER}/${BITBUCKET_STEP_UUID}",
		"https://bitbucket.org/${BITBUCKET_REPO_FULL_NAME}/pipelines/results/${BITBUCKET_BUILD_NUMBER}",
		"https://support.atlassian.com/bitbucket-cloud/docs/variables-and-secrets/"},
	{"codebuild", "CODEBUILD_BUILD_ID", "",
		"${CODEBUILD_BUILD_ID}",
		"${CODEBUILD_BUILD_URL}",
		"https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html"},
	{"semaphore", "SEMAPHORE", "true",
		"${SEMAPHORE_PROJECT_NAME}/${SEMAPHORE_JOB_NAME}/${SEMAPHORE_JOB_ID}",
		"${SEMAPHORE_ORGANIZATION_URL}/jobs/${SEMAPHORE_JOB_ID}",
		"https://docs.semaphoreci.com/reference/env-vars"},
	{"appveyor", "APPVEYOR", "True",
		"${APPVEYOR_ACCOUNT_NAME}/${APPVEYOR_PROJECT_SLUG}/${APPVEYOR_BUILD_NUMBER}/${APPVEYOR_JOB_ID}",
		"${APPVEYOR_URL}/project/${APPVEYOR_ACCOUNT_NAME}/${APPVEYOR_PROJECT_SLUG}/" +
			"builds/${APPVEYOR_BUILD_ID}/job/${APPVEYOR_JOB_ID}",
		"https://www.appveyor.com/docs/environment-variables/"},
	{"prow", "PROW_JOB_ID", "",
		"${JOB_NAME}/${PROW_JOB_ID}",
		"",
		"https://docs.prow.k8s.io/docs/jobs/"},
}

// ciVariable matches a ${VARIABLE} in a link. manySlashes matches what a variable that is
// not set leaves in a job.
var (
	ciVariable  = regexp.MustCompile(`\$\{\w+\}`)
	manySlashes = regexp.MustCompile(`/{2,}`)
)

// whoAmI returns the holder for the variables that getenv returns: the name of the CI
// system, a colon and the job, or else user@host. The holder has maxHolder bytes at most.
// The link is the job's, or empty if it has none.
func whoAmI(getenv func(string) string) (holder, link string) {
	for _, ci := range ciSystems {
		v := getenv(ci.variable)
		if v == "" || ci.value != "" && !strings.EqualFold(v, ci.value) {
			continue
		}
		job := os.Expand(ci.job, func(name string) string {
			return strings.ReplaceAll(getenv(name), " ", "-")
		})
		job = strings.Trim(manySlashes.ReplaceAllString(job, "/"), "/")
		if job == "" {
			continue
		}
		return shortenHolder(ci.name+":"+job, maxHolder), linkOf(ci, getenv)
	}
	return shortenHolder(userAtHost(getenv), maxHolder), ""
}

// inCI reports whether a CI system runs this process: the variable CI is set, and not to
// false. The output is then a log, even if the job has a terminal, as with Buildkite's
// agent and act.
func inCI(getenv func(string) string) bool {
	ci := getenv("CI")
	return ci != "" && ci != "false"
}

// linkOf returns the link of a job. It returns an empty string if a variable is not set,
// or if the result is not a valid link.
func linkOf(ci ciSystem, getenv func(string) string) string {
	for _, v := range ciVariable.FindAllString(ci.link, -1) {
		if getenv(v[2:len(v)-1]) == "" {
			return ""
		}
	}
	link := os.Expand(ci.link, func(name string) string {
		return strings.ReplaceAll(getenv(name), " ", "%20")
	})
	if checkLink(link) != nil {
		return ""
	}
	return tidyLink(link)
}

// userAtHost returns the name of the user, an at sign and the name of the machine. A name
// that the system does not know is "somebody" or "localhost".
func userAtHost(getenv func(string) string) string {
	name := cmp.Or(getenv("USER"), getenv("USERNAME"))
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return cmp.Or(name, "somebody") + "@" + cmp.Or(host, "localhost")
}

// shortenHolder returns a holder that the server accepts, with at most the given number of
// bytes. It returns the name itself if that is one. Otherwise it replaces characters that
// are not printable, cuts the name if it is too long, and appends a tilde and 16 digits of
// its SHA-256 sum, so that distinct names stay distinct.
func shortenHolder(name string, most int) string {
	tidy := printable(strings.ToValidUTF8(name, "?"))
	if tidy == name && len(name) <= most {
		return name
	}
	end := fmt.Sprintf("~%x", sha256.Sum256([]byte(name)))[:17]
	name = tidy
	if len(name)+len(end) <= most {
		return name + end
	}
	most -= len(end)
	for !utf8.RuneStart(name[most]) {
		most--
	}
	return name[:most] + end
}
