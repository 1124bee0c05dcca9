package main

import (
	"strings"
	"testing"
)

// documentedSeries are further variables of documentedJobs, the key that call-me makes of them, and
// variables that make another series of it: of another job or leg, and of another branch.
var documentedSeries = map[string]struct{ variables, key, otherJob, otherBranch string }{
	"GitHub Actions": {"GITHUB_REF=refs/heads/main", "github:octocat/Hello-World/My-test/greeting_job/refs/heads/main", "GITHUB_JOB=other", "GITHUB_REF=refs/pull/7/merge"},
	"Gitea Actions imitates GitHub": {"GITHUB_REF=refs/heads/main GITHUB_WORKFLOW=ci.yml", "gitea:acme/shop/ci.yml/deploy/refs/heads/main",
		"GITHUB_WORKFLOW=other.yml", "GITHUB_REF=refs/heads/fix"},
	"GitLab CI": {"CI_COMMIT_REF_NAME=main", "gitlab:gitlab-org/gitlab/spec:other/main", "CI_JOB_NAME=spec:+[a,+b]", "CI_COMMIT_REF_NAME=fix"},
	"Jenkins":   {"BRANCH_NAME=main STAGE_NAME=UAT", "jenkins:shop/main/UAT/main/", "STAGE_NAME=perf", "JOB_NAME=shop/fix BRANCH_NAME=fix"},
	"CircleCI":  {"CIRCLE_BRANCH=main", "circleci:foo/bar/build/0/main", "CIRCLE_NODE_INDEX=1", "CIRCLE_BRANCH= CIRCLE_TAG=v1"},
	"Buildkite": {"BUILDKITE_LABEL=uat BUILDKITE_STEP_KEY=tests BUILDKITE_PARALLEL_JOB=0 BUILDKITE_BRANCH=main", "buildkite:acme-inc/my-project/tests/uat/0/main",
		"BUILDKITE_PARALLEL_JOB=1", "BUILDKITE_BRANCH=fix"},
	"Azure Pipelines": {"BUILD_REPOSITORY_NAME=shop BUILD_DEFINITIONNAME=nightly SYSTEM_STAGENAME=uat SYSTEM_JOBPOSITIONINPHASE=1 BUILD_SOURCEBRANCH=refs/heads/main",
		"azure:My-Project/shop/nightly/uat/Deploy-it/1/refs/heads/main", "SYSTEM_JOBPOSITIONINPHASE=2", "BUILD_SOURCEBRANCH=refs/pull/1/merge"},
	"Travis CI": {"TRAVIS_BRANCH=main TRAVIS_PULL_REQUEST=false TRAVIS_JOB_NAME=uat", "travis:owner/repo//uat/main/false", "TRAVIS_JOB_NAME=perf", "TRAVIS_PULL_REQUEST=7"},
	"Woodpecker": {"CI_COMMIT_REF=refs/heads/main", "woodpecker:john-doe/my-repo/release/2/refs/heads/main",
		"CI_WORKFLOW_NUMBER=3", "CI_COMMIT_REF=refs/pull/3/head"},
	"Drone":     {"DRONE_COMMIT_REF=refs/heads/main", "drone:octocat/hello-world/build/1/refs/heads/main", "DRONE_STAGE_NUMBER=2", "DRONE_COMMIT_REF=refs/pull/3/head"},
	"Bitbucket": {"BITBUCKET_BRANCH=main BITBUCKET_PARALLEL_STEP=0", "bitbucket:acme/shop/0/main/", "BITBUCKET_PARALLEL_STEP=1", "BITBUCKET_BRANCH=fix"},
	"CodeBuild": {"CODEBUILD_SOURCE_REPO_URL=https://github.com/acme/shop CODEBUILD_BATCH_BUILD_IDENTIFIER=uat CODEBUILD_WEBHOOK_HEAD_REF=refs/heads/main",
		"codebuild:https://github.com/acme/shop/uat/refs/heads/main", "CODEBUILD_BATCH_BUILD_IDENTIFIER=perf", "CODEBUILD_WEBHOOK_HEAD_REF=refs/heads/fix"},
	"Semaphore": {"SEMAPHORE_GIT_REPO_SLUG=acme/shop SEMAPHORE_GIT_REF=refs/heads/main", "semaphore:acme/shop/shop/Deploy/refs/heads/main",
		"SEMAPHORE_JOB_NAME=Test", "SEMAPHORE_GIT_REF=refs/pull/1/merge"},
	"AppVeyor": {"APPVEYOR_REPO_NAME=acme/shop APPVEYOR_JOB_NAME=uat APPVEYOR_REPO_BRANCH=main", "appveyor:acme/shop/shop/uat/main/",
		"APPVEYOR_JOB_NAME=perf", "APPVEYOR_PULL_REQUEST_NUMBER=7"},
	"Prow": {"REPO_OWNER=acme REPO_NAME=shop PULL_BASE_REF=main PULL_NUMBER=5", "prow:acme/shop/ci-shop/main/5", "JOB_NAME=other", "PULL_NUMBER=6"},
}

func TestTheSeriesIsRepositoryJobAndBranch(t *testing.T) {
	seen := map[string]bool{"teamcity": true} // it tells no branch
	for _, job := range documentedJobs {
		s, found := documentedSeries[job.name]
		system, repository, key := findSeries(environmentOf(job.variables + " " + s.variables))
		if !found {
			if key != "" {
				t.Errorf("%s has the key %q without a branch", job.name, key)
			}
			continue
		}
		seen[system] = true
		if key != s.key || !strings.HasPrefix(key, repository+"/") || !strings.HasPrefix(repository, system+":") {
			t.Errorf("%s: the key is %q of %q, want %q", job.name, key, repository, s.key)
		}
		_, _, again := findSeries(environmentOf(job.variables + " " + s.variables + " " + job.siblings))
		_, _, otherJob := findSeries(environmentOf(job.variables + " " + s.variables + " " + s.otherJob))
		_, _, otherBranch := findSeries(environmentOf(job.variables + " " + s.variables + " " + s.otherBranch))
		if otherJob == key || otherBranch == key || otherJob == "" || otherBranch == "" {
			t.Errorf("%s: another job has the key %q, another branch %q", job.name, otherJob, otherBranch)
		}
		isRunOnly := strings.HasSuffix(strings.SplitN(job.siblings, "=", 2)[0], "ID") || strings.HasPrefix(job.siblings, "BUILD_NUMBER")
		if isRunOnly && again != key {
			t.Errorf("%s: another run has the key %q", job.name, again)
		}
	}
	for _, ci := range ciSystems {
		if !seen[ci.name] {
			t.Errorf("%s has no test", ci.name)
		}
	}
	if system, _, _ := findSeries(environmentOf("CI=true")); system != "" {
		t.Errorf("%q runs on no system", system)
	}
}
