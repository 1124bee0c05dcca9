package main

// The default holder of a request: the job of a CI system, with its link, or else
// user@host; and the folder of the job. Only the ci files read environment variables of other
// programs.

import (
	"cmp"
	"os"
	"os/user"
	"regexp"
	"strings"
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
	series   ciSeries
	doc      string // URL of the vendor's page about its variables
}

// ciSystems is the table of CI systems. The first that fits is used, so a system that
// imitates another one comes before it. Tekton sets no variables; a job of Tekton has to
// set CALL_ME_HOLDER.
var ciSystems = []ciSystem{
	{"gitea", "GITEA_ACTIONS", "true",
		"${GITHUB_REPOSITORY}/run/${GITHUB_RUN_NUMBER}/${GITHUB_JOB}/${RUNNER_NAME}",
		"${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_NUMBER}",
		ciSeries{"${GITHUB_REPOSITORY}", "${GITHUB_WORKFLOW}/${GITHUB_JOB}", "${GITHUB_REF}"},
		"https://docs.gitea.com/usage/actions/actions-variables"},
	// All jobs of a matrix have the same GITHUB_JOB, but different runners. The runners of
	// GitHub itself have another name in each job, also when a job is run again: findCI
	// leaves the name out.
	{"github", "GITHUB_ACTIONS", "true",
		"${GITHUB_REPOSITORY}/run/${GITHUB_RUN_ID}/${GITHUB_JOB}/${RUNNER_NAME}",
		"${GITHUB_SERVER_URL}/${GITHUB_REPOSITORY}/actions/runs/${GITHUB_RUN_ID}",
		ciSeries{"${GITHUB_REPOSITORY}", "${GITHUB_WORKFLOW}/${GITHUB_JOB}", "${GITHUB_REF}"},
		"https://docs.github.com/en/actions/reference/workflows-and-actions/variables"},
	{"gitlab", "GITLAB_CI", "", // gitlab-ci-local sets it to false
		"${CI_PROJECT_PATH}/job/${CI_JOB_ID}/${CI_JOB_NAME}",
		"${CI_JOB_URL}",
		ciSeries{"${CI_PROJECT_PATH}", "${CI_JOB_NAME}", "${CI_COMMIT_REF_NAME}"},
		"https://docs.gitlab.com/ci/variables/predefined_variables/"},
	{"jenkins", "JENKINS_URL", "",
		"${JOB_NAME}/${BUILD_NUMBER}",
		"${BUILD_URL}",
		ciSeries{"${JOB_NAME}", "${STAGE_NAME}", "${BRANCH_NAME}/${GIT_BRANCH}"},
		"https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables"},
	{"buildkite", "BUILDKITE", "true",
		"${BUILDKITE_ORGANIZATION_SLUG}/${BUILDKITE_PIPELINE_SLUG}/" +
			"${BUILDKITE_BUILD_NUMBER}/${BUILDKITE_JOB_ID}",
		"${BUILDKITE_BUILD_URL}#${BUILDKITE_JOB_ID}",
		ciSeries{"${BUILDKITE_ORGANIZATION_SLUG}/${BUILDKITE_PIPELINE_SLUG}",
			"${BUILDKITE_STEP_KEY}/${BUILDKITE_LABEL}/${BUILDKITE_PARALLEL_JOB}",
			"${BUILDKITE_BRANCH}"},
		"https://buildkite.com/docs/pipelines/configure/environment-variables"},
	{"circleci", "CIRCLECI", "true",
		"${CIRCLE_PROJECT_USERNAME}/${CIRCLE_PROJECT_REPONAME}/${CIRCLE_BUILD_NUM}/" +
			"${CIRCLE_JOB}/${CIRCLE_NODE_INDEX}",
		"${CIRCLE_BUILD_URL}",
		ciSeries{"${CIRCLE_PROJECT_USERNAME}/${CIRCLE_PROJECT_REPONAME}",
			"${CIRCLE_JOB}/${CIRCLE_NODE_INDEX}",
			"${CIRCLE_BRANCH}${CIRCLE_TAG}"},
		"https://circleci.com/docs/reference/variables/"},
	{"azure", "TF_BUILD", "True",
		"${SYSTEM_TEAMPROJECT}/${BUILD_BUILDID}/${SYSTEM_JOBDISPLAYNAME}/${SYSTEM_JOBID}",
		"${SYSTEM_COLLECTIONURI}${SYSTEM_TEAMPROJECT}/_build/results" +
			"?buildId=${BUILD_BUILDID}&view=logs&j=${SYSTEM_JOBID}",
		ciSeries{"${SYSTEM_TEAMPROJECT}/${BUILD_REPOSITORY_NAME}",
			"${BUILD_DEFINITIONNAME}/${SYSTEM_STAGENAME}/" +
				"${SYSTEM_JOBDISPLAYNAME}/${SYSTEM_JOBPOSITIONINPHASE}",
			"${BUILD_SOURCEBRANCH}"},
		"https://learn.microsoft.com/en-us/azure/devops/pipelines/build/variables"},
	{"travis", "TRAVIS", "true",
		"${TRAVIS_REPO_SLUG}/${TRAVIS_JOB_NUMBER}",
		"${TRAVIS_JOB_WEB_URL}",
		ciSeries{"${TRAVIS_REPO_SLUG}",
			"${TRAVIS_BUILD_STAGE_NAME}/${TRAVIS_JOB_NAME}",
			"${TRAVIS_BRANCH}/${TRAVIS_PULL_REQUEST}"},
		"https://docs.travis-ci.com/user/environment-variables/"},
	{"woodpecker", "CI", "woodpecker",
		"${CI_REPO}/${CI_PIPELINE_NUMBER}/${CI_WORKFLOW_NAME}/${CI_WORKFLOW_NUMBER}",
		"${CI_PIPELINE_URL}",
		ciSeries{"${CI_REPO}", "${CI_WORKFLOW_NAME}/${CI_WORKFLOW_NUMBER}", "${CI_COMMIT_REF}"},
		"https://woodpecker-ci.org/docs/usage/environment"},
	{"drone", "DRONE", "true",
		"${DRONE_REPO}/${DRONE_BUILD_NUMBER}/${DRONE_STAGE_NAME}/${DRONE_STAGE_NUMBER}",
		"${DRONE_BUILD_LINK}",
		ciSeries{"${DRONE_REPO}", "${DRONE_STAGE_NAME}/${DRONE_STAGE_NUMBER}", "${DRONE_COMMIT_REF}"},
		"https://docs.drone.io/pipeline/environment/reference/"},
	{"teamcity", "TEAMCITY_VERSION", "",
		"${TEAMCITY_PROJECT_NAME}/${TEAMCITY_BUILDCONF_NAME}/${BUILD_NUMBER}",
		"${BUILD_URL}",
		ciSeries{"${TEAMCITY_PROJECT_NAME}", "${TEAMCITY_BUILDCONF_NAME}", ""},
		"https://www.jetbrains.com/help/teamcity/predefined-build-parameters.html"},
	{"bitbucket", "BITBUCKET_BUILD_NUMBER", "",
		"${BITBUCKET_REPO_FULL_NAME}/${BITBUCKET_BUILD_NUMBER}/${BITBUCKET_STEP_UUID}",
		"https://bitbucket.org/${BITBUCKET_REPO_FULL_NAME}/pipelines/results/${BITBUCKET_BUILD_NUMBER}",
		ciSeries{"${BITBUCKET_REPO_FULL_NAME}",
			"${BITBUCKET_PARALLEL_STEP}",
			"${BITBUCKET_BRANCH}${BITBUCKET_TAG}/${BITBUCKET_PR_ID}"},
		"https://support.atlassian.com/bitbucket-cloud/docs/variables-and-secrets/"},
	{"codebuild", "CODEBUILD_BUILD_ID", "",
		"${CODEBUILD_BUILD_ID}",
		"${CODEBUILD_BUILD_URL}",
		ciSeries{"${CODEBUILD_SOURCE_REPO_URL}",
			"${CODEBUILD_BATCH_BUILD_IDENTIFIER}",
			"${CODEBUILD_WEBHOOK_HEAD_REF}"},
		"https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html"},
	{"semaphore", "SEMAPHORE", "true",
		"${SEMAPHORE_PROJECT_NAME}/${SEMAPHORE_JOB_NAME}/${SEMAPHORE_JOB_ID}",
		"${SEMAPHORE_ORGANIZATION_URL}/jobs/${SEMAPHORE_JOB_ID}",
		ciSeries{"${SEMAPHORE_GIT_REPO_SLUG}",
			"${SEMAPHORE_PROJECT_NAME}/${SEMAPHORE_JOB_NAME}",
			"${SEMAPHORE_GIT_REF}"},
		"https://docs.semaphoreci.com/reference/env-vars"},
	{"appveyor", "APPVEYOR", "True",
		"${APPVEYOR_ACCOUNT_NAME}/${APPVEYOR_PROJECT_SLUG}/${APPVEYOR_BUILD_NUMBER}/${APPVEYOR_JOB_ID}",
		"${APPVEYOR_URL}/project/${APPVEYOR_ACCOUNT_NAME}/${APPVEYOR_PROJECT_SLUG}/" +
			"builds/${APPVEYOR_BUILD_ID}/job/${APPVEYOR_JOB_ID}",
		ciSeries{"${APPVEYOR_REPO_NAME}",
			"${APPVEYOR_PROJECT_SLUG}/${APPVEYOR_JOB_NAME}",
			"${APPVEYOR_REPO_BRANCH}/${APPVEYOR_PULL_REQUEST_NUMBER}"},
		"https://www.appveyor.com/docs/environment-variables/"},
	{"prow", "PROW_JOB_ID", "",
		"${JOB_NAME}/${PROW_JOB_ID}",
		"",
		ciSeries{"${REPO_OWNER}/${REPO_NAME}", "${JOB_NAME}", "${PULL_BASE_REF}/${PULL_NUMBER}"},
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
	if ci, job := findCI(getenv); job != "" {
		return shortenHolder(job, maxHolder), linkOf(ci, getenv)
	}
	return shortenHolder(userAtHost(getenv), maxHolder), ""
}

// findCI returns the CI system that runs this process, and the name of its job: that of
// the system, a colon and the job. The name is empty if no system of ciSystems does.
func findCI(getenv func(string) string) (ci ciSystem, job string) {
	for _, ci := range ciSystems {
		v := getenv(ci.variable)
		if v == "" || ci.value != "" && !strings.EqualFold(v, ci.value) {
			continue
		}
		job := os.Expand(ci.job, func(name string) string {
			if name == "RUNNER_NAME" && getenv("RUNNER_ENVIRONMENT") == "github-hosted" {
				return ""
			}
			return strings.ReplaceAll(getenv(name), " ", "-")
		})
		job = strings.Trim(manySlashes.ReplaceAllString(job, "/"), "/")
		if job != "" {
			return ci, ci.name + ":" + job
		}
	}
	return ciSystem{}, ""
}

// jobFolders are the variables with a folder that only the job uses, of GitHub, Azure
// Pipelines and Jenkins. The first that is set counts. Outside of a job none does.
var jobFolders = []string{"RUNNER_TEMP", "AGENT_TEMPDIRECTORY", "WORKSPACE_TMP"}

// jobOf returns the job of the CI system that runs this process, its part that has its own
// steps, and the folder that only the job uses. The job is empty outside of the systems of
// ciSystems, and the others where the system has none. The part is Jenkins' stage:
// stages may run at the same time in one folder.
func jobOf(getenv func(string) string) (job, part, folder string) {
	_, job = findCI(getenv)
	if job == "" {
		return "", "", ""
	}
	for _, name := range jobFolders {
		folder = cmp.Or(folder, getenv(name))
	}
	return job, getenv("STAGE_NAME"), folder
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
