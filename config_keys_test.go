package main

// Tests of the file of keys: its lines, its errors, and which key a client sends.

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sumLine returns the text that stands in a file for a key.
func sumLine(key string) string {
	sum := keySumOf(key)
	return sumPrefix + hex.EncodeToString(sum[:])
}

func TestALineOfTheKeyFile(t *testing.T) {
	for line, want := range map[string]struct {
		name string
		rights
	}{
		"secret":                                  {"", rights{role: roleAdmin, maxPriority: 100}},
		"secret # name=a":                         {"", rights{role: roleAdmin, maxPriority: 100}},
		"sec#ret name=a":                          {"a", rights{role: roleJob}},
		"secret name=a role=view":                 {"a", rights{role: roleView}},
		"secret\trole=admin\tname=a":              {"a", rights{role: roleAdmin, maxPriority: 100}},
		"secret name=a role=admin max-priority=5": {"a", rights{role: roleAdmin, maxPriority: 5}},
		"  secret   name=shop-ci  role=job  environments=uat,perf-* max-ttl=4h max-hold=1d max-places=3 max-priority=2 # the shop": {"shop-ci",
			rights{roleJob, []string{"uat", "perf-*"}, 4 * time.Hour, 24 * time.Hour, 3, 2}},
		"secret name=a environments=*": {"a", rights{role: roleJob, environments: []string{"*"}}},
	} {
		for _, sum := range []bool{false, true} {
			text := line
			if sum {
				word := strings.Fields(line)[0]
				text = strings.Replace(line, word, sumLine(word), 1)
			}
			lines, err := parseKeys("# comment\n\n" + text + "\n")
			if err != nil || len(lines) != 1 {
				t.Errorf("%s: %v, %v", text, lines, err)
				continue
			}
			l := lines[0]
			word := strings.Fields(line)[0]
			if l.sum != keySumOf(word) || l.name != want.name || !l.rights.equal(want.rights) || l.number != 3 || (l.key == word) == sum || l.isShort == sum {
				t.Errorf("%s: %+v, want %+v", text, l, want)
			}
		}
	}
}

// The error of a bad line has its number and what is wrong, and nothing of the line.
func TestABadLineOfTheKeyFile(t *testing.T) {
	const secret = "hunter2-hunter2-hunter2"
	for text, want := range map[string]string{
		secret + "\n" + secret:                                           "line 2: it has the key of line 1 again",
		secret + "\n\n" + sumLine(secret):                                "line 3: it has the key of line 1 again",
		"sha256:" + secret:                                               "line 1: after sha256: stand 64 hexadecimal digits",
		sumLine(secret)[:70]:                                             "line 1: after sha256: stand 64 hexadecimal digits",
		"name=" + secret:                                                 "line 1: the key is missing before name=",
		"role=view name=" + secret:                                       "line 1: the key is missing before role=",
		secret + " role=job":                                             "line 1: a key with a role, environments or limits needs a name",
		secret + " name=" + secret + "!":                                 "line 1: the name is not 1 to 100 letters, digits and . _ : / @ + -",
		secret + " name=":                                                "line 1: name has no value",
		secret + " name=a name=b":                                        "line 1: name is there twice",
		secret + " name=a role=root":                                     "line 1: the role is none of view, job and admin",
		secret + " name=a max-tll=4h":                                    "line 1: after the key is a word that is none of name=, role=, environments=, max-ttl=, max-hold=, max-places=, max-priority=",
		secret + " and more":                                             "line 1: after the key is a word that is none of name=, role=, environments=, max-ttl=, max-hold=, max-places=, max-priority=",
		secret + " name=a max-ttl=4":                                     "line 1: max-ttl is not a duration such as 90s or 4h, from 1s to 30d",
		secret + " name=a max-ttl=0":                                     "line 1: max-ttl is not a duration such as 90s or 4h, from 1s to 30d",
		secret + " name=a max-hold=31d":                                  "line 1: max-hold is not a duration such as 90s or 4h, from 1s to 30d",
		secret + " name=a max-places=0":                                  "line 1: max-places is no whole number from 1 on",
		secret + " name=a max-places=many":                               "line 1: max-places is no whole number from 1 on",
		secret + " name=a max-priority=-1":                               "line 1: max-priority is no whole number from 0 to 100",
		secret + " name=a environments=u*t":                              `line 1: environments has a "*" that is not at the end of a name`,
		secret + " name=a environments=uat,,x":                           "line 1: environments has an empty name",
		secret + " name=a environments=::error::":                        "line 1: environments has a name that no environment can have",
		secret + "\x01":                                                  "line 1: it has a control character",
		"# one\n" + secret + " name=a\nother name=a role=view":           "line 3: it has the name of line 2 with another role, other environments or other limits",
		secret + " name=a environments=uat\nother name=a":                "line 2: it has the name of line 1 with another role, other environments or other limits",
		secret + " name=a max-ttl=1h\nother name=a role=job max-ttl=59m": "line 2: it has the name of line 1 with another role, other environments or other limits",
	} {
		lines, err := parseKeys(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v, want %s", text, lines, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the key is shown: %v", err)
		}
	}
}

// One name may stand on several lines, with equal rights however they are written.
func TestANameOfSeveralKeys(t *testing.T) {
	lines, err := parseKeys("one name=a max-ttl=1h\ntwo role=job max-ttl=60m name=a\nthree name=b role=view\n")
	if err != nil || len(lines) != 3 || lines[1].number != 2 {
		t.Errorf("%v, %v", lines, err)
	}
}

func TestAClientSendsTheFirstKeyOfItsFile(t *testing.T) {
	for text, want := range map[string]string{
		"one\ntwo\n":                               "one",
		"# mine\none name=a role=view\n":           "one",
		sumLine("one") + " name=a\ntwo name=b\n":   "two",
		sumLine("one") + " name=a\n# two name=b\n": "",
	} {
		file := filepath.Join(t.TempDir(), "keys")
		os.WriteFile(file, []byte(text), 0o600)
		key, err := KeyConfig{APIKeyFile: file}.sentKey()
		if key != want || (err == nil) != (want != "") || err != nil && !strings.Contains(err.Error(), "has only the sums of keys") {
			t.Errorf("%q: %q, %v, want %q", text, key, err, want)
		}
	}
}

func TestWhichEnvironmentsAKeySees(t *testing.T) {
	all := []string{"", "uat", "uat2", "perf-1", "perf-", "perf", "prod"}
	for patterns, want := range map[string][]string{
		"uat":        {"", "uat"},
		"perf-*":     {"", "perf-1", "perf-"},
		"uat,perf-1": {"", "uat", "perf-1"},
		"uat*":       {"", "uat", "uat2"},
		"*":          all,
	} {
		r := rights{role: roleView, environments: strings.Split(patterns, ",")}
		got := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !r.sees(name) })
		if !slices.Equal(got, want) {
			t.Errorf("%s sees %q, want %q", patterns, got, want)
		}
	}
	if (rights{}).sees("uat") || (rights{}).sees("") || !rightsOf(roleView).sees("uat") {
		t.Error("no rights see something, or all rights do not")
	}
}

// The fields of a line are read again as what they were written of.
func TestTheFieldsOfRights(t *testing.T) {
	for _, text := range []string{"role=view", "role=job environments=uat,perf-* max-ttl=4h max-hold=24h max-places=3 max-priority=2", "role=admin", "role=admin max-priority=3"} {
		lines, err := parseKeys("secret name=a " + text)
		if err != nil || strings.Join(lines[0].fields(), " ") != text {
			t.Errorf("%s: %v, %v", text, lines, err)
		}
	}
}
