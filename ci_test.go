package main

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

type documentedJob struct {
	name, variables string
	holder, link    string
	siblings        string // the variable that differs in another job of the same run
}

// documentedJobs are jobs of all CI systems, with the variables that the vendors document, and the
// holder and link that call-me makes of them. ci.go names the vendors' pages.
var documentedJobs = []documentedJob{
	{"GitHub Actions", `CI=true GITHUB_ACTIONS=true GITHUB_REPOSITORY=octocat/Hello-World GITHUB_RUN_ID=1658821493 GITHUB_RUN_NUMBER=3 GITHUB_JOB=greeting_job
		GITHUB_SERVER_URL=https://github.com GITHUB_WORKFLOW=My+test RUNNER_NAME=Hosted+Agent+5`,
		"github:octocat/Hello-World/run/1658821493/greeting_job/Hosted-Agent-5",
		"https://github.com/octocat/Hello-World/actions/runs/1658821493", "RUNNER_NAME=Hosted+Agent+6"},
	{"a runner of GitHub's, which has another name when the job is run again", `CI=true GITHUB_ACTIONS=true GITHUB_REPOSITORY=octocat/Hello-World
		GITHUB_RUN_ID=1658821493 GITHUB_JOB=build GITHUB_SERVER_URL=https://github.com RUNNER_NAME=GitHub+Actions+12 RUNNER_ENVIRONMENT=github-hosted`,
		"github:octocat/Hello-World/run/1658821493/build", "https://github.com/octocat/Hello-World/actions/runs/1658821493", "GITHUB_JOB=other"},
	{"Gitea Actions imitates GitHub", `CI=true GITEA_ACTIONS=true GITHUB_ACTIONS=true GITHUB_REPOSITORY=acme/shop GITHUB_RUN_ID=77 GITHUB_RUN_NUMBER=7 GITHUB_JOB=deploy
		GITHUB_SERVER_URL=https://gitea.example.com RUNNER_NAME=runner-1`,
		"gitea:acme/shop/run/7/deploy/runner-1", "https://gitea.example.com/acme/shop/actions/runs/7", "GITHUB_JOB=test"},
	{"GitLab CI", `CI=true GITLAB_CI=true CI_PROJECT_PATH=gitlab-org/gitlab CI_JOB_ID=50 CI_JOB_NAME=spec:other CI_JOB_URL=https://gitlab.com/gitlab-org/gitlab/-/jobs/50 CI_PIPELINE_ID=1000`,
		"gitlab:gitlab-org/gitlab/job/50/spec:other", "https://gitlab.com/gitlab-org/gitlab/-/jobs/50", "CI_JOB_ID=51"},
	{"gitlab-ci-local says GITLAB_CI=false", `GITLAB_CI=false CI_PROJECT_PATH=gcl/shop CI_JOB_ID=1000 CI_JOB_NAME=deploy`,
		"gitlab:gcl/shop/job/1000/deploy", "", "CI_JOB_ID=1001"},
	{"Jenkins", `JENKINS_URL=https://jenkins.example.com/ JOB_NAME=shop/main BUILD_NUMBER=153 BUILD_TAG=jenkins-shop-main-153 BUILD_URL=https://jenkins.example.com/job/shop/job/main/153/`,
		"jenkins:shop/main/153", "https://jenkins.example.com/job/shop/job/main/153/", "BUILD_NUMBER=154"},
	{"CircleCI", `CI=true CIRCLECI=true CIRCLE_PROJECT_USERNAME=foo CIRCLE_PROJECT_REPONAME=bar CIRCLE_BUILD_NUM=123 CIRCLE_JOB=build CIRCLE_NODE_INDEX=0 CIRCLE_BUILD_URL=https://circleci.com/gh/foo/bar/123`,
		"circleci:foo/bar/123/build/0", "https://circleci.com/gh/foo/bar/123", "CIRCLE_NODE_INDEX=1"},
	{"Buildkite", `CI=true BUILDKITE=true BUILDKITE_ORGANIZATION_SLUG=acme-inc BUILDKITE_PIPELINE_SLUG=my-project BUILDKITE_BUILD_NUMBER=1514
		BUILDKITE_JOB_ID=e44f9784-e20e-4b93-a21d-f41fd5869db9 BUILDKITE_BUILD_URL=https://buildkite.com/acme-inc/my-project/builds/1514`,
		"buildkite:acme-inc/my-project/1514/e44f9784-e20e-4b93-a21d-f41fd5869db9",
		"https://buildkite.com/acme-inc/my-project/builds/1514#e44f9784-e20e-4b93-a21d-f41fd5869db9", "BUILDKITE_JOB_ID=other"},
	{"Azure Pipelines", `TF_BUILD=True SYSTEM_COLLECTIONURI=https://dev.azure.com/fabrikamfiber/ SYSTEM_TEAMPROJECT=My+Project BUILD_BUILDID=12 SYSTEM_JOBID=be2ab8ec SYSTEM_JOBDISPLAYNAME=Deploy+it`,
		"azure:My-Project/12/Deploy-it/be2ab8ec", "https://dev.azure.com/fabrikamfiber/My%20Project/_build/results?buildId=12&view=logs&j=be2ab8ec", "SYSTEM_JOBID=other"},
	{"Travis CI", `CI=true TRAVIS=true TRAVIS_REPO_SLUG=owner/repo TRAVIS_JOB_NUMBER=4.1 TRAVIS_JOB_ID=99 TRAVIS_JOB_WEB_URL=https://travis-ci.com/owner/repo/jobs/99`,
		"travis:owner/repo/4.1", "https://travis-ci.com/owner/repo/jobs/99", "TRAVIS_JOB_NUMBER=4.2"},
	{"Woodpecker", `CI=woodpecker CI_REPO=john-doe/my-repo CI_PIPELINE_NUMBER=8 CI_WORKFLOW_NAME=release CI_WORKFLOW_NUMBER=2 CI_PIPELINE_URL=https://ci.example.com/repos/7/pipeline/8 DRONE=true DRONE_REPO=x`,
		"woodpecker:john-doe/my-repo/8/release/2", "https://ci.example.com/repos/7/pipeline/8", "CI_WORKFLOW_NUMBER=3"},
	{"Drone", `CI=true DRONE=true DRONE_REPO=octocat/hello-world DRONE_BUILD_NUMBER=42 DRONE_STAGE_NAME=build DRONE_STAGE_NUMBER=1 DRONE_BUILD_LINK=https://drone.company.com/octocat/hello-world/42`,
		"drone:octocat/hello-world/42/build/1", "https://drone.company.com/octocat/hello-world/42", "DRONE_STAGE_NUMBER=2"},
	{"TeamCity", `TEAMCITY_VERSION=2025.11 TEAMCITY_PROJECT_NAME=Shop TEAMCITY_BUILDCONF_NAME=Deploy+UAT BUILD_NUMBER=17 BUILD_URL=https://tc.example.com/build/1234`,
		"teamcity:Shop/Deploy-UAT/17", "https://tc.example.com/build/1234", "BUILD_NUMBER=18"},
	{"Bitbucket", `CI=true BITBUCKET_BUILD_NUMBER=5 BITBUCKET_REPO_FULL_NAME=acme/shop BITBUCKET_STEP_UUID={a2b3}`,
		"bitbucket:acme/shop/5/{a2b3}", "https://bitbucket.org/acme/shop/pipelines/results/5", "BITBUCKET_STEP_UUID={c4}"},
	{"CodeBuild", `CODEBUILD_BUILD_ID=codebuild-demo-project:b1e6661e CODEBUILD_BUILD_URL=https://console.example.com/codebuild/b1e6661e`,
		"codebuild:codebuild-demo-project:b1e6661e", "https://console.example.com/codebuild/b1e6661e", "CODEBUILD_BUILD_ID=p:other"},
	{"Semaphore", `CI=true SEMAPHORE=true SEMAPHORE_PROJECT_NAME=shop SEMAPHORE_JOB_NAME=Deploy SEMAPHORE_JOB_ID=a26d SEMAPHORE_ORGANIZATION_URL=https://acme.semaphoreci.com`,
		"semaphore:shop/Deploy/a26d", "https://acme.semaphoreci.com/jobs/a26d", "SEMAPHORE_JOB_ID=b"},
	{"AppVeyor", `CI=True APPVEYOR=True APPVEYOR_URL=https://ci.appveyor.com APPVEYOR_ACCOUNT_NAME=acme APPVEYOR_PROJECT_SLUG=shop APPVEYOR_BUILD_NUMBER=7 APPVEYOR_BUILD_ID=16428432 APPVEYOR_JOB_ID=v8xad`,
		"appveyor:acme/shop/7/v8xad", "https://ci.appveyor.com/project/acme/shop/builds/16428432/job/v8xad", "APPVEYOR_JOB_ID=w"},
	{"AppVeyor on Ubuntu", `APPVEYOR=true APPVEYOR_JOB_ID=v8xad`, "appveyor:v8xad", "", "APPVEYOR_JOB_ID=w"},
	{"Prow", `CI=true PROW_JOB_ID=1ce07fa2-0831-11e8-b07e-0a58ac101036 JOB_NAME=ci-shop BUILD_ID=100 JOB_SPEC={}`,
		"prow:ci-shop/1ce07fa2-0831-11e8-b07e-0a58ac101036", "", "PROW_JOB_ID=other"},
}

// environmentOf returns a function that looks up the variables of NAME=VALUE pairs. A + in a
// value stands for a space.
func environmentOf(pairs string) func(string) string {
	set := map[string]string{}
	for _, pair := range strings.Fields(pairs) {
		name, value, _ := strings.Cut(pair, "=")
		set[name] = strings.ReplaceAll(value, "+", " ")
	}
	return func(name string) string { return set[name] }
}

func TestTheHolderIsTheJob(t *testing.T) {
	seen := map[string]bool{}
	for _, job := range documentedJobs {
		holder, link := whoAmI(environmentOf(job.variables))
		if holder != job.holder || link != job.link {
			t.Errorf("%s:\n%s %s, want\n%s %s", job.name, holder, link, job.holder, job.link)
		}
		if other, _ := whoAmI(environmentOf(job.variables + " " + job.siblings)); other == holder {
			t.Errorf("%s: two jobs are both %s", job.name, holder)
		}
		system, _, _ := strings.Cut(holder, ":")
		seen[system] = true
	}
	for _, ci := range ciSystems {
		if !seen[ci.name] {
			t.Errorf("%s has no test", ci.name)
		}
		if !strings.HasPrefix(ci.doc, "https://") {
			t.Errorf("%s names no documentation", ci.name)
		}
	}
}

func TestElsewhereTheHolderIsThePersonAtTheMachine(t *testing.T) {
	host, _ := os.Hostname()
	holder, link := whoAmI(environmentOf("CI=true"))
	user, at, found := strings.Cut(holder, "@")
	if !found || user == "" || at != host || link != "" {
		t.Errorf("%q, %q", holder, link)
	}
}

func TestALogIsKnownByTheVariableThatCISystemsSet(t *testing.T) {
	for variables, want := range map[string]bool{"CI=true": true, "CI=woodpecker": true, "CI=1": true, "CI=false": false, "CI=": false, "": false} {
		if inCI(environmentOf(variables)) != want {
			t.Errorf("%q: %v", variables, !want)
		}
	}
}

func TestALongHolderIsCutButStaysItself(t *testing.T) {
	long := func(job string) string {
		holder, _ := whoAmI(environmentOf("GITHUB_ACTIONS=true GITHUB_REPOSITORY=acme/" + strings.Repeat("ä", 200) + " GITHUB_JOB=" + job))
		return holder
	}
	a, b := long("a"), long("b")
	if len(a) > maxHolder || !utf8.ValidString(a) || a == b {
		t.Errorf("%d bytes, %q and %q", len(a), a, b)
	}
	if _, link := whoAmI(environmentOf("GITLAB_CI=true CI_JOB_ID=1 CI_JOB_URL=javascript:alert(1)")); link != "" {
		t.Errorf("the link is %q", link)
	}
}
