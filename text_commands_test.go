package main

// The readers of logs: functions that report what a CI system takes for a command. Each is
// written anew after the source of the CI system, and is a little stricter than that. The tests
// of text.go and of all commands use them.

import (
	"regexp"
	"strings"
	"unicode"
)

// An agent is a program that reads the lines of a job's log, such as a CI system.
type agent struct {
	name string
	// reads reports whether the agent takes the line for a command.
	reads func(line string) bool
	// payloads are texts that the agent takes for a command at the start of a line.
	payloads []string
}

// withoutIgnorable returns the text as .NET's comparison by culture may read it: without the
// characters that Unicode calls ignorable, and without marks.
func withoutIgnorable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == 0 || unicode.In(r, unicode.Cf, unicode.Cc, unicode.M, unicode.Lm, unicode.Other_Default_Ignorable_Code_Point) && r != '\t' {
			return -1
		}
		return r
	}, text)
}

var (
	colours         = regexp.MustCompile("\x1b\\[[;\\d]*[mK]")
	buildkiteHeader = regexp.MustCompile(`^\s*(---|\+\+\+|~~~|\^\^\^)`)
	gitlabSection   = regexp.MustCompile(`section_(start|end):`)
	travisFold      = regexp.MustCompile(`travis_(fold|time):`)
	teamcityMessage = regexp.MustCompile(`##teamcity\[`)
)

// agents are the agents whose commands must not be printed. The places in their sources are:
// Command.TryParse of azure-pipelines-agent, ActionCommand.TryParse and TryParseV2 of the GitHub
// runner, Gitlab::Regex, ServiceMessage of TeamCity, header_times_streamer.go of Buildkite's
// agent and its terminal's control strings, travis-web's log folding,
// hudson.console.ConsoleNote.
var agents = []agent{
	{"azure", func(line string) bool { return strings.Contains(withoutIgnorable(line), "##vso[") }, []string{
		"##vso[task.prependpath]/tmp/evil", "x ##vso[task.setvariable variable=a;]b", "###vso[task.complete result=Succeeded;]",
		"##\u00advso[task.prependpath]/tmp", "#\ufe0f#vso[task.prependpath]/tmp", "##v\u200dso[task.prependpath]/tmp", "\x00##vso\x00[task.debug]x",
		"##\u0591vso[task.debug]x", "#\u0640#vso[task.debug]x", "##vso\u1cd0[task.debug]x"}},
	{"github", func(line string) bool {
		line = withoutIgnorable(line)
		return strings.Contains(line, "##[") || strings.HasPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "::")
	}, []string{"::set-env name=A::b", " \t\u00a0::add-mask::x", "a\n::error::x", "a\r::error::x", "a\u2028::error::x", "x##[add-path]/tmp", ":\u200b:stop-commands::x", "##[group]x", "\u2060::debug::x", ":\u0591:debug::x", "\u0591::debug::x", "#\u0591#\u0610[group]x"}},
	{"gitlab", gitlabSection.MatchString, []string{"section_start:1560896352:x\r\x1b[0K", "xsection_end:1:y[collapsed=true]\r\x1b[0K"}},
	{"teamcity", teamcityMessage.MatchString, []string{"##teamcity[buildStatus status='SUCCESS']", "a ##teamcity[publishArtifacts '/etc']", "##teamcity[x]"}},
	{"buildkite", func(line string) bool {
		return buildkiteHeader.MatchString(colours.ReplaceAllString(line, "")) || hasControlString(line)
	}, []string{"--- fold", "+++ open", "~~~ muted", "^^^ +++", "\x1b[1m--- x", "\x1b]1338;url='javascript:x';alt='y'\a", "\x1b_bk;t=1\a", "\u009d1338;url=x\u009c"}},
	{"travis", travisFold.MatchString, []string{"travis_fold:start:x\r\x1b[0K", "x travis_time:end:00ab:start=1"}},
	{"jenkins", func(line string) bool { return strings.Contains(line, "\x1b[8mha:") }, []string{"\x1b[8mha:////AAAA\x1b[0m"}},
	{"terminal", func(line string) bool {
		return strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' || unicode.Is(unicode.Cf, r) })
	}, []string{"\u009b31mred", "\x1b[2J", "\u202egnp.exe", "a\bb"}},
}

// lineEnds matches what any agent takes for the end of a line.
var lineEnds = regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")

// commandIn returns the name of the first agent that reads a command in the output, also in lower
// case, and the line of the command. Both are empty if no agent reads one.
func commandIn(output string) (name, line string) {
	for _, line := range lineEnds.Split(output, -1) {
		for _, a := range agents {
			if a.reads(line) || a.reads(strings.ToLower(line)) {
				return a.name, line
			}
		}
	}
	return "", ""
}
