package main

// Flags and help: which flags stand for a setting of config.go, how a session is made
// from flags and variables, and how arguments are brought into the order that the
// command-line library reads. Completion is in cli_completion.go.

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

// configFlags returns the flags that stand for settings of the client, in the order of
// the names. A name "ttl=2h" adds "(default: 2h)" to the flag's help; it does not set a
// default. A name that is no flag of clientConfig is left out.
func configFlags(names ...string) []cli.Flag {
	var flags []cli.Flag
	all := listSettings(&clientConfig{})
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

// boolFlag returns a flag without a value, which is off by default.
func boolFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, Aliases: aliases, DisableDefaultText: true}
}

// slotFlag selects one of several leases of a holder.
var slotFlag = &cli.StringSliceFlag{
	Name: "slot", Usage: "which slot, if you hold several; NAME=SLOT with several ENV"}

// wantedSlotFlag is the slot that a request waits for.
var wantedSlotFlag = &cli.StringSliceFlag{
	Name: "slot", Usage: "wait for this slot, not for any of the environment; NAME=SLOT with several ENV"}

// variables returns a table of the settings that have no flag, for the help of a
// command: the variable, what it is for, and its default, one setting a line. Config is
// a pointer to a configuration.
func variables(config any) string {
	var b strings.Builder
	for _, s := range listSettings(config) {
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

// helpTemplate is the help of a command, as a text/template that the command-line
// library fills. UsageText has the table of the command's variables.
const helpTemplate = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{if ne .Name "run"}} [flags]{{end}}{{if .Description}}

{{.Description}}{{end}}

FLAGS:
{{range .VisibleFlags}}   {{.}}
{{end}}{{if .UsageText}}
VARIABLES:
{{.UsageText}}{{end}}`

// newSession returns a session for the environments that the arguments of c name, and the
// slots of --slot. With needsName a missing environment is an error. A flag has precedence over its variable.
// Within run, CALL_ME_FENCE is the fence of CALL_ME_ENVIRONMENT and is ignored for
// another environment. The holder is the CI job or user@host unless one is configured.
// Its errors are usage errors, and those of reading the keys and the certificates.
func newSession(c *cli.Context, t *terminal, needsName bool) (*session, error) {
	names, _ := environmentWords(c)
	s := &session{report: t.say}
	if len(names) > 0 {
		s.name = names[0]
	}
	switch {
	case needsName && s.name == "":
		return nil, withHint(usagef("%s needs the name of an environment", c.Command.Name),
			"call-me "+c.Command.Name+" uat")
	case len(names) > 1 && !takesSeveral(c.Command):
		return nil, withHint(usagef("%s takes one environment, but got %q too", c.Command.Name, names[1]),
			"for all: call-me "+c.Command.Name)
	case len(names) == 1 && s.name == "":
		names = nil
	}
	for _, name := range names {
		if err := checkEnvironment(name); err != nil {
			return nil, nameProblem(c.Command.Name, name, err)
		}
	}
	var err error
	s.needs, err = slotNeeds(names, c.StringSlice("slot"))
	if err != nil {
		return nil, err
	}
	for _, warning := range variableWarnings() {
		t.say("call-me: warning: %s", printable(warning))
	}
	if err := readConfig(&s.config); err != nil {
		return nil, err
	}
	s.limitFence()
	if len(names) > 1 && c.IsSet("fence") {
		return nil, withHint(usagef("a fence is that of one lease"), "make a call for each environment")
	}
	for _, field := range listSettings(&s.config) {
		if field.flag != "" && c.IsSet(field.flag) {
			if err := field.set(c.String(field.flag)); err != nil {
				return nil, err
			}
		}
	}
	s.client, err = newClient(s.config)
	s.holder, s.jobURL = whoAmI(os.Getenv)
	if s.config.Holder != "" {
		s.holder = s.config.Holder
	}
	if err := checkHolder(s.holder); err != nil {
		problem := "this holder cannot be used: " + withoutKind(err)
		if len(s.holder) > maxHolder {
			problem += fmt.Sprintf("; it has %d", len(s.holder))
		}
		return nil, withHint(usagef("%s", problem),
			"--holder or CALL_ME_HOLDER; the name of the job and its number are enough")
	}
	return s, err
}

// nameProblem returns the usage error for a name that checkEnvironment rejects with err. If
// white space around the name is the mistake, the hint has the command without it.
func nameProblem(command, name string, err error) error {
	reason := strings.Replace(withoutKind(err), "environment", "it", 1)
	reason = strings.TrimPrefix(reason, fmt.Sprintf("it cannot be %q: ", name))
	problem := usagef("%q is no name of an environment: %s", shorten(name, maxEnvironment), reason)
	if trimmed := strings.TrimSpace(name); trimmed != name && checkEnvironment(trimmed) == nil {
		return withHint(problem, "call-me "+command+" "+quote(trimmed))
	}
	return problem
}

// withoutKind returns the text of an error of limits.go without the text of errParameter,
// which is for the API.
func withoutKind(err error) string {
	return strings.TrimPrefix(err.Error(), errParameter.Error()+": ")
}

// helpFlags are the spellings of the help flag that the command-line library knows.
var helpFlags = []string{"--help", "-help", "-h", "--h"}

// versionFlags are the spellings of the version flag.
var versionFlags = []string{"--version", "-version", "-v", "--v"}

// flagsFirst returns the arguments with the flags of the command before its other
// arguments: the command-line library stops reading flags at the first argument. The
// flags are followed by "--". Words after a "--" in args keep their place. For run they are
// the command that it starts, and so are the second argument and what follows it, if
// beginsCommand says so: a "--" then stands before them. The call "help COMMAND" and a help
// flag anywhere before these words become
// "COMMAND --help". An unknown flag is a usage error with a proposal. A flag without its
// value is a usage error too: the library would take the next flag for the value.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	last := len(args) - 1
	if last > 0 && args[last] == completionFlag {
		return completionArgs(args), nil
	}
	if last > 0 && args[1] == "help" {
		args = slices.Concat(args[:1], args[2:min(3, last+1)], []string{"--help"})
	}
	if last > 0 && looksLikeFlag(args[1]) && args[1] != "--" && !isAppFlag(args[1]) {
		return nil, unknownAppFlag(app, args[1])
	}
	at := slices.IndexFunc(args[1:], func(arg string) bool { return !strings.HasPrefix(arg, "-") }) + 1
	if at == 0 {
		return args, nil
	}
	command := app.Command(args[at])
	if command == nil {
		return args, nil
	}
	flags, rest, err := splitFlags(command, args[at+1:])
	if err != nil {
		return nil, err
	}
	_, argv := cutWords(rest)
	if command.Name == "run" && !slices.Contains(args[:len(args)-len(argv)], "--") {
		app.Metadata[passedOnFlag] = ownFlag(command, argv)
		if len(argv) > 2 && argv[1] == "--" && isProgram(argv[2]) {
			app.Metadata[notEnvironment] = argv[0]
		}
	}
	if slices.Equal(flags, []string{"--help"}) {
		return slices.Concat(args[:at+1], flags), nil
	}
	return slices.Concat(args[:at+1], flags, []string{"--"}, rest), nil
}

// isAppFlag reports whether a word is a flag of call-me itself.
func isAppFlag(word string) bool {
	return slices.Contains(helpFlags, word) || slices.Contains(versionFlags, word) || word == completionFlag
}

// unknownAppFlag returns the usage error for a flag before the command that is no flag of
// call-me itself. The hint says where the flag belongs if it is one of a command.
func unknownAppFlag(app *cli.App, word string) error {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, command := range app.VisibleCommands() {
		for _, flag := range command.Flags {
			if command.HasName("serve") || !slices.Contains(flag.Names(), name) {
				continue
			}
			return withHint(usagef("--%s stands after the command", name),
				fmt.Sprintf("call-me %s uat --%s ...", command.Name, name))
		}
	}
	proposal := ""
	if near := nearest(name, []string{"help", "version"}); near != "" {
		proposal = "; did you mean --" + near + "?"
	}
	return withHint(usagef("call-me has no flag %s%s", word, proposal), "call-me --help")
}

// passedOnFlag is the key of the app's metadata for a word after run's command that looks
// like a flag of run.
const passedOnFlag = "passed on"

// ownFlag returns the first word after the program in argv that names a flag of run; empty if
// there is none.
func ownFlag(run *cli.Command, argv []string) string {
	for _, word := range argv[min(1, len(argv)):] {
		name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
		isFlag := func(flag cli.Flag) bool { return slices.Contains(flag.Names(), name) }
		if strings.HasPrefix(word, "--") && slices.ContainsFunc(run.Flags, isFlag) {
			return word
		}
	}
	return ""
}

// completionArgs returns the arguments of a call that asks for completion. A "--" that
// is being typed becomes "-": the command-line library would take it for the end of the
// flags.
func completionArgs(args []string) []string {
	last := len(args) - 1
	if args[last-1] != "--" {
		return args
	}
	return slices.Concat(args[:last-1], []string{"-", completionFlag})
}

// splitFlags splits the words after the name of a command into its flags with their
// values and the other arguments, as flagsFirst describes it. With a help flag the
// flags are "--help" alone: the library's own help flag would take an argument for the
// name of a topic.
func splitFlags(command *cli.Command, words []string) (flags, rest []string, err error) {
	isRun := command.Name == "run"
	for len(words) > 0 && words[0] != "--" {
		word := words[0]
		isFlag := strings.HasPrefix(word, "-") && word != "-"
		if !isFlag && isRun && len(rest) == 1 && beginsCommand(command, words) {
			break
		}
		if !isFlag {
			rest = append(rest, word)
			words = words[1:]
			continue
		}
		if slices.Contains(helpFlags, word) {
			return []string{"--help"}, nil, nil
		}
		used, err := flagAndValue(command, words)
		if err != nil {
			return nil, nil, err
		}
		flags = append(flags, used...)
		words = words[len(used):]
	}
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
		if isRun && len(rest) == 0 {
			return nil, nil, withHint(usagef("run needs the name of an environment before the --"),
				"call-me run uat -- ./test.sh")
		}
	}
	if isRun && len(words) > 0 {
		rest = append(rest, "--")
	}
	return flags, append(rest, words...), nil
}

// lookUpFlag returns the flag of the command that a word such as "--ttl" or "--ttl=2h"
// names. An unknown flag is a usage error, with the most similar flag of the command if
// there is one.
func lookUpFlag(command *cli.Command, word string) (cli.Flag, error) {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	known := []string{"help", "version"}
	for _, flag := range command.Flags {
		if slices.Contains(flag.Names(), name) {
			return flag, nil
		}
		known = append(known, flag.Names()[0])
	}
	proposal := ""
	switch near := nearest(name, known); near {
	case "":
	case "version":
		proposal = "; did you mean call-me --version?"
	default:
		proposal = "; did you mean --" + near + "?"
	}
	hint := "call-me " + command.Name + " --help"
	if command.Name == "run" && name == "no-wait" {
		hint = "to give up unless a slot is free now: --timeout 1s"
	}
	return nil, withHint(usagef("%s has no flag %s%s", command.Name, word, proposal), hint)
}

// takesValue reports whether the flag needs a value.
func takesValue(flag cli.Flag) bool {
	_, isBool := flag.(*cli.BoolFlag)
	return !isBool
}

// flagAndValue returns the first of the words, a flag, and the second one too if it is
// the flag's value. The value is missing at the end of the words, before "--", and
// before a word that looks like a flag: a shell variable that is unset leaves no word in
// the place of the value. An empty value is missing too, except that of --reason. An
// unknown flag and a missing value are usage errors.
func flagAndValue(command *cli.Command, words []string) ([]string, error) {
	flag, err := lookUpFlag(command, words[0])
	if err != nil || !takesValue(flag) {
		return words[:1], err
	}
	if flag == supersedeFlag {
		return optionalValue(command, flag, words[0])
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
			return nil, withHint(usagef("--%s needs a value", name),
				"what follows it looks like a flag; if it is the value: --"+name+"="+quote(value))
		}
	}
	if value == "" && flag.Names()[0] != "reason" {
		return nil, missingValue(command, flag)
	}
	return used, nil
}

// missingValue returns the usage error for a flag without its value.
func missingValue(command *cli.Command, flag cli.Flag) error {
	return withHint(usagef("--%s needs a value", flag.Names()[0]),
		"a variable that is unset or empty gives none; what the flag takes: call-me "+command.Name+" --help")
}

// looksLikeFlag reports whether a word begins with two dashes, or with a dash and a
// letter. "-5m" and "-1" are values.
func looksLikeFlag(word string) bool {
	rest, found := strings.CutPrefix(word, "-")
	first, _ := utf8.DecodeRuneInString(rest)
	return found && (first == '-' || unicode.IsLetter(first))
}
