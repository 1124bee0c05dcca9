package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// A commandFlag is a flag of a command.
type commandFlag struct {
	command    *cli.Command
	name       string
	takesValue bool
}

// flagsOf returns the flags of all commands, including hidden ones.
func flagsOf(app *cli.App) []commandFlag {
	var all []commandFlag
	for _, command := range app.Commands {
		for _, flag := range command.Flags {
			_, isBool := flag.(*cli.BoolFlag) // every other kind takes a value
			takesValue := !isBool && flag != supersedeFlag
			all = append(all, commandFlag{command, flag.Names()[0], takesValue})
		}
	}
	return all
}

func TestEveryFlagThatTakesAValueNeedsOne(t *testing.T) {
	app := newApp(newTerminal())
	found := 0
	for _, f := range flagsOf(app) {
		if !f.takesValue {
			continue
		}
		found++
		flag := "--" + f.name
		refused := []struct {
			words string // a pattern of wordsOf
			hint  string
		}{
			{"ENV FLAG", "unset"},
			{"FLAG", "unset"},
			{"ENV FLAG --", "unset"},
			{"ENV FLAG -- ./test.sh", "unset"},
			{"FLAG -- ENV", "unset"},
			{"ENV FLAG --quiet", flag + "=--quiet"},
			{"FLAG --quiet ENV", flag + "=--quiet"},
			{"FLAG --force ENV", flag + "=--force"},
			{"ENV FLAG FLAG", flag + "=-"},
			{"ENV FLAG FLAG x", flag + "=-"},
			{"ENV FLAG -q", flag + "=-q"},
			{"ENV FLAG -h", flag + "=-h"},
			{"ENV FLAG --help", flag + "=--help"},
			{"ENV FLAG -é", flag + "="},
			{"ENV FLAG ---", flag + "=---"},
			{"ENV FLAG=a FLAG", "unset"},
			{"ENV FLAG NOTHING", "unset"},
			{"FLAG NOTHING ENV", "unset"},
			{"ENV FLAG=", "unset"},
			{"FLAG= ENV", "unset"},
		}
		for _, spelling := range []string{flag, flag[1:]} {
			for _, c := range refused {
				words := wordsOf(f.command.Name+" "+c.words, spelling)
				_, err := flagsFirst(app, words)
				isEmpty := strings.Contains(c.words, "NOTHING") || c.words == "ENV FLAG=" || c.words == "FLAG= ENV"
				if f.name == "reason" && isEmpty {
					if err != nil {
						t.Errorf("%q: %v; an empty reason is no reason", words, err)
					}
					continue
				}
				var h hinted
				switch {
				case err == nil || err.Error() != flag+" needs a value" || exitCode(err) != exitUsage:
					t.Errorf("%q: %v, want a usage error: %s needs a value", words, err, flag)
				case !errors.As(err, &h) || !strings.Contains(h.hint, c.hint):
					t.Errorf("%q: the hint is %q, want %q in it", words, h.hint, c.hint)
				}
			}
			for _, value := range []string{"x", "-5m", "-1", "-.5h", "-", "-=", " "} {
				args, err := flagsFirst(app, wordsOf(f.command.Name+" ENV", "", spelling, value))
				want := []string{"call-me", f.command.Name, spelling, value, "--", "uat"}
				if err != nil || !slices.Equal(args, want) {
					t.Errorf("%s %s %q is read as %q, %v", f.command.Name, spelling, value, args, err)
				}
			}
			for _, value := range []string{"x", "-x", "--", "--quiet", "a=b"} {
				args, err := flagsFirst(app, wordsOf(f.command.Name+" ENV", "", spelling+"="+value))
				want := []string{"call-me", f.command.Name, spelling + "=" + value, "--", "uat"}
				if err != nil || !slices.Equal(args, want) {
					t.Errorf("%s %s=%s is read as %q, %v", f.command.Name, spelling, value, args, err)
				}
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d flags were found", found)
	}
}

// wordsOf returns the words of a command line: those of the pattern, then more. In a pattern,
// FLAG at the beginning of a word stands for the flag, ENV for uat, and NOTHING for an empty word.
func wordsOf(pattern, flag string, more ...string) []string {
	words := []string{"call-me"}
	for word := range strings.FieldsSeq(pattern) {
		switch {
		case word == "NOTHING":
			word = ""
		case word == "ENV":
			word = "uat"
		case strings.HasPrefix(word, "FLAG"):
			word = flag + strings.TrimPrefix(word, "FLAG")
		}
		words = append(words, word)
	}
	return append(words, more...)
}

// Words after the command of run are arguments of that command, even if they are flags of
// call-me.
func TestTheFlagsOfTheCommandOfRunAreNotRead(t *testing.T) {
	app := newApp(newTerminal())
	for _, line := range []string{
		"run uat -- ./test.sh --holder",
		"run uat ./test.sh --holder",
		"run --ttl 5m uat -- ./test.sh --reason --quiet",
	} {
		if _, err := flagsFirst(app, strings.Fields("call-me "+line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// The words before the first "--" of run are environments, unless they begin a command as it
// was always typed.
func TestTheEnvironmentsOfRun(t *testing.T) {
	app := newApp(newTerminal())
	for line, want := range map[string]string{
		"run uat":                                  "uat",
		"run uat -- sh -c x":                       "uat -- sh -c x",
		"run uat sh -c x":                          "uat -- sh -c x",
		"run uat sh -c x -- y":                     "uat -- sh -c x -- y",
		"run uat ./no-such-program -- y":           "uat -- ./no-such-program -- y",
		"run uat no-such-environment -- sh -c x":   "uat no-such-environment -- sh -c x",
		"run uat perf -- sh":                       "uat perf -- sh",
		"run uat perf --ttl 5m web-1 -- sh":        "--ttl 5m -- uat perf web-1 -- sh",
		"run uat perf stat -- sh":                  "uat -- perf stat -- sh",
		"run uat test -- sh":                       "uat test -- sh",
		"run uat sh -- sh":                         "uat -- sh -- sh",
		"run uat sh -- x":                          "uat -- sh -- x",
		"run uat sh a,b -- sh":                     "uat -- sh a,b -- sh",
		"run uat web-1 test sh -- sh -- x":         "uat web-1 test sh -- sh -- x",
		"run sh uat -- sh -- x":                    "sh uat -- sh -- x",
		"run --ttl 5m uat web-1 --grace 1s -- ls":  "--ttl 5m --grace 1s -- uat web-1 -- ls",
		"run uat --ttl 5m web-1 -- ls --ttl":       "--ttl 5m -- uat web-1 -- ls --ttl",
		"run uat no-such-program --ttl":            "uat -- no-such-program --ttl",
		"run uat web-1 --slot web-1=blue -- ls -l": "--slot web-1=blue -- uat web-1 -- ls -l",
		"request uat perf":                         "uat perf",
		"request uat --ttl 5m perf":                "--ttl 5m -- uat perf",
		"release -- uat perf":                      "uat perf",
	} {
		args, err := flagsFirst(app, strings.Fields("call-me "+line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := strings.TrimPrefix(strings.Join(args[2:], " "), "-- ")
		if got != want {
			t.Errorf("%s is read as %q, want %q", line, got, want)
		}
	}
}

func TestTheSlotsOfSeveralEnvironments(t *testing.T) {
	for _, c := range []struct{ names, slots, want string }{
		{"uat", "", "uat="},
		{"uat", "blue", "uat=blue"},
		{"web", "web=blue", "web=blue"},
		{"web", "uat=blue", "web=uat=blue"},
		{"web", "web=web=blue", "web=web=blue"},
		{"uat web", "web=blue", "uat= web=blue"},
		{"web uat web", "web=green uat=a web=blue", "web=green uat=a web=blue"},
		{"web uat", "blue", ""},
		{"web uat", "perf=blue", ""},
		{"web uat", "web=", ""},
		{"web uat", "web=blue web=green", ""},
		{"web", "blue green", ""},
	} {
		needs, err := slotNeeds(strings.Fields(c.names), strings.Fields(c.slots))
		var words []string
		for _, n := range needs {
			words = append(words, n.environment+"="+n.slot)
		}
		got := strings.Join(words, " ")
		if got != c.want || (err == nil) != (c.want != "") || err != nil && exitCode(err) != exitUsage {
			t.Errorf("%s --slot %s: %q, %v, want %q", c.names, c.slots, got, err, c.want)
		}
	}
}
