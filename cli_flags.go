package main

// Flags, help and completion: what the command-line library leaves to do.

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// configFlags makes the flags that stand for settings of the client; name=text
// adds what it is by default.
func configFlags(names ...string) []cli.Flag {
	var flags []cli.Flag
	all := settings(&clientConfig{})
	for _, name := range names {
		name, preset, hasPreset := strings.Cut(name, "=")
		for _, s := range all {
			if s.flag != name {
				continue
			}
			if hasPreset {
				s.usage += " (default: " + preset + ")"
			}
			flags = append(flags, &cli.StringFlag{Name: name, Usage: s.usage + " [$" + s.variable + "]"})
		}
	}
	return flags
}

// boolFlag makes a flag that is on or off.
func boolFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, Aliases: aliases, DisableDefaultText: true}
}

var slotFlag = &cli.StringFlag{Name: "slot", Usage: "the lease on this slot, where the holder has several"}

// variables lists what a command reads from its environment and has no flag
// for.
func variables(config any) string {
	var b strings.Builder
	for _, s := range settings(config) {
		if s.flag != "" {
			continue
		}
		preset := ""
		if s.preset != "" {
			preset = " (default: " + s.preset + ")"
		}
		fmt.Fprintf(&b, "   %-20s  %s%s\n", cmp.Or(s.short, s.variable), s.usage, preset)
	}
	return b.String()
}

// helpTemplate is that of one command. UsageText has its variables.
const helpTemplate = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}} [flags]{{if .Description}}

{{.Description}}{{end}}

FLAGS:
{{range .VisibleFlags}}   {{.}}
{{end}}{{if .UsageText}}
VARIABLES:
{{.UsageText}}{{end}}`

// newSession puts flags over variables over defaults.
func newSession(c *cli.Context, t *terminal, needsName bool) (*session, error) {
	s := &session{name: c.Args().First(), report: t.say}
	switch {
	case needsName && s.name == "":
		return nil, hint(usagef("%s needs the name of an environment", c.Command.Name), "call-me "+c.Command.Name+" uat")
	case c.Args().Len() > 1 && c.Command.Name != "run":
		return nil, usagef("%s takes one environment, but got %q too", c.Command.Name, c.Args().Get(1))
	}
	if s.name != "" {
		if err := checkEnvironment(s.name); err != nil {
			return nil, usagef("%q is no environment: %v", s.name, err)
		}
	}
	if err := readConfig(&s.config); err != nil {
		return nil, err
	}
	if of := os.Getenv("CALL_ME_ENVIRONMENT"); of != "" && of != s.name {
		s.config.Fence = 0 // within run it is that of another environment
	}
	for _, field := range settings(&s.config) {
		if field.flag != "" && c.IsSet(field.flag) {
			if err := field.set(c.String(field.flag)); err != nil {
				return nil, err
			}
		}
	}
	var err error
	s.client, err = newClient(s.config)
	s.holder, s.link = whoAmI(os.Getenv)
	if s.config.Holder != "" {
		s.holder = s.config.Holder
	}
	return s, err
}

var helpFlags = []string{"--help", "-help", "-h", "--h"}

// flagsFirst moves the flags of a command before its arguments: the library
// stops reading flags at the first argument. Nothing after -- is touched, nor,
// for run, anything from its second argument on: that is the command. An
// unknown flag is a usage error, with a proposal, and so is a flag without the
// value that it takes: the library would take the next flag for the value.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	last := len(args) - 1
	if last > 0 && args[last] == completionFlag {
		if args[last-1] == "--" { // is being typed; the library would take it for the end of the flags
			return slices.Concat(args[:last-1], []string{"-", completionFlag}), nil
		}
		return args, nil
	}
	if last > 0 && args[1] == "help" {
		args = slices.Concat(args[:1], args[2:min(3, last+1)], []string{"--help"})
	}
	at := slices.IndexFunc(args[1:], func(arg string) bool { return !strings.HasPrefix(arg, "-") }) + 1
	if at == 0 {
		return args, nil
	}
	command := app.Command(args[at])
	if command == nil {
		return args, nil
	}
	var flags, rest []string
	words := args[at+1:]
	for ; len(words) > 0 && words[0] != "--"; words = words[1:] {
		word := words[0]
		if !strings.HasPrefix(word, "-") || word == "-" {
			if command.Name == "run" && len(rest) == 1 {
				break
			}
			rest = append(rest, word)
			continue
		}
		if slices.Contains(helpFlags, word) {
			return append(args[:at+1:at+1], "--help"), nil // of the command; the library has topics, too
		}
		used, err := flagAndValue(command, words)
		if err != nil {
			return nil, err
		}
		flags = append(flags, used...)
		words = words[len(used)-1:]
	}
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
		if command.Name == "run" && len(rest) == 0 {
			return nil, hint(usagef("run needs the name of an environment before the --"), "call-me run uat -- ./test.sh")
		}
	}
	rest = append(rest, words...)
	return slices.Concat(args[:at+1], flags, []string{"--"}, rest), nil
}

// lookUpFlag finds the flag of a command that a word such as --ttl or
// --ttl=2h names.
func lookUpFlag(command *cli.Command, word string) (cli.Flag, error) {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	known := []string{"help"}
	for _, flag := range command.Flags {
		if slices.Contains(flag.Names(), name) {
			return flag, nil
		}
		known = append(known, flag.Names()[0])
	}
	proposal := ""
	if near := nearest(name, known); near != "" {
		proposal = "; did you mean --" + near + "?"
	}
	return nil, hint(usagef("%s has no flag %s%s", command.Name, word, proposal), "call-me "+command.Name+" --help")
}

func takesValue(flag cli.Flag) bool {
	_, isBool := flag.(*cli.BoolFlag)
	return !isBool
}

// flagAndValue returns the flag that words begin with, and the word after it
// where that is its value. The value is missing without a word, before -- and
// before what looks like a flag: a variable that is unset leaves no word where
// its value should be. An empty word is a value of --reason only.
func flagAndValue(command *cli.Command, words []string) ([]string, error) {
	flag, err := lookUpFlag(command, words[0])
	if err != nil || !takesValue(flag) {
		return words[:1], err
	}
	used := words[:1]
	_, value, isInWord := strings.Cut(words[0], "=")
	if !isInWord {
		if len(words) == 1 || words[1] == "--" {
			return nil, missingValue(command, flag)
		}
		value, used = words[1], words[:2]
		if looksLikeFlag(value) {
			name := flag.Names()[0]
			return nil, hint(usagef("--%s needs a value", name),
				"what follows it looks like a flag; if it is the value: --"+name+"="+quote(value))
		}
	}
	if value == "" && flag.Names()[0] != "reason" {
		return nil, missingValue(command, flag)
	}
	return used, nil
}

func missingValue(command *cli.Command, flag cli.Flag) error {
	return hint(usagef("--%s needs a value", flag.Names()[0]),
		"a variable that is unset or empty gives none; what the flag takes: call-me "+command.Name+" --help")
}

// looksLikeFlag reports whether a dash and a letter, or two dashes, begin a
// word. -5m and -1 are values.
func looksLikeFlag(word string) bool {
	rest, found := strings.CutPrefix(word, "-")
	first, _ := utf8.DecodeRuneInString(rest)
	return found && (first == '-' || unicode.IsLetter(first))
}
