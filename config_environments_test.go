package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDeclarationsOfEnvironments(t *testing.T) {
	for _, text := range []string{",", "uat,", "uat:", "uat:0", "uat:1001", "uat:a+a", "uat:+", "a:b:c", "uat, uat", "\n", strings.Repeat("x", 129),
		"uat; perf", "uat:blue;green", "uat:blue+perf,perf", "perf,uat:blue+perf"} {
		var e declaredEnvironments
		if err := e.Decode(text); err == nil {
			t.Errorf("%q is read as %v", text, e)
		}
	}
}

func TestSpacesInADeclarationAreFine(t *testing.T) {
	for text, want := range map[string]string{
		"uat: blue + green , perf":  "uat:blue+green,perf",
		" uat : 2 ,team/perf":       "uat:uat-1+uat-2,team/perf",
		"uat:blue+green,perf:uat-1": "uat:blue+green,perf:uat-1",
	} {
		var e declaredEnvironments
		if err := e.Decode(text); err != nil || e.String() != want {
			t.Errorf("%q is read as %q, %v; want %q", text, e, err, want)
		}
	}
}

// readEnvironments returns the declaration of a file with the text, as String does.
func readEnvironments(t *testing.T, text string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "environments")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := (&serverConfig{EnvironmentsFile: path}).environments()
	return read.String(), err
}

func TestAFileOfEnvironmentsHasOneALine(t *testing.T) {
	for text, want := range map[string]string{
		"uat:blue+green\nperf:2\nstaging":                "uat:blue+green,perf:perf-1+perf-2,staging",
		"\ufeffuat\r\n\r\n  perf  \r\n":                  "uat,perf",
		"# the shop's\nuat: blue + green\t# two\n\t#x\n": "uat:blue+green",
		"uat#1:a#b+c\n":                                  "uat#1:a#b+c",
		"load test: 1\n":                                 "load test:load test-1",
	} {
		if got, err := readEnvironments(t, text); err != nil || got != want {
			t.Errorf("%q is read as %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestALineThatIsNoEnvironmentIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"uat\n\nuat\n":                 `line 3: "uat" is there twice`,
		"# uat\nperf:0":                `line 2: "perf" has 0 slots (1 to 1000)`,
		"uat:blue+perf\n\nperf\n":      `line 1: "perf" is an environment and a slot of "uat"`,
		"uat,perf":                     `line 1: "uat,perf" is more than one environment`,
		"uat; perf":                    `line 1: "uat; perf" is more than one environment`,
		"uat\nperf onwer=#team":        `line 2: "onwer=#team" is unknown: after the slots stand url=, owner= and note=`,
		"uat url=uat.example":          `line 1: "uat.example" is no http or https link`,
		"uat note=\"a b":               `line 1: the quote of note has no end`,
		"uat note=\"a\"b":              `line 1: after the quote of note a space is missing`,
		"uat note=a b":                 `line 1: "b" is no fact such as owner=#team`,
		"uat note=a note=b":            `line 1: note is there twice`,
		"uat note=":                    `line 1: note has no value`,
		"uat owner=##vso[x]":           `line 1: owner: `,
		"uat:a+a":                      `line 1: the slot "a" of "uat" is there twice`,
		":2":                           `line 1: a name is missing, at a comma or a colon`,
		"":                             "has no environment",
		" \n# uat\n":                   "has no environment",
		"u\x00a\x00t\x00":              "not text in UTF-8",
		strings.Repeat("x\n", 1<<17+1): "it is not a file of environments",
	} {
		got, err := readEnvironments(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, errUsage) ||
			!strings.HasPrefix(err.Error(), "reading CALL_ME_ENVIRONMENTS_FILE: ") {
			t.Errorf("%.40q is read as %.40q, %v; want %q", text, got, err, want)
		}
	}
	folder := t.TempDir()
	if _, err := (&serverConfig{EnvironmentsFile: folder}).environments(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestTheFileOfEnvironmentsCountsWhereBothAreSet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "environments")
	if err := os.WriteFile(path, []byte("uat\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setVariables(t, map[string]string{"API_KEY": "key", "CALL_ME_ENVIRONMENTS": "perf", "CALL_ME_ENVIRONMENTS_FILE": path})
	var c serverConfig
	if err := readConfig(&c); err != nil {
		t.Fatal(err)
	}
	if got, err := c.environments(); err != nil || got.String() != "uat" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTheFactsOfAnEnvironmentStandAfterItsSlots(t *testing.T) {
	read, err := parseEnvironments("uat: blue + green  url=https://uat.example/x?a=b\towner=#team-shop note=\"data of # last week\" # the shop's\n" +
		"perf\nload test note=x\n")
	want := map[string]environmentFacts{
		"uat":       {"https://uat.example/x?a=b", "#team-shop", "data of # last week"},
		"load test": {note: "x"},
	}
	if err != nil || !maps.Equal(read.facts, want) || read.String() != "uat:blue+green,perf,load test" {
		t.Errorf("%v, %+v, %v", read, read.facts, err)
	}
}
