package main

// Flags, help and completion: what the command-line library leaves to do.

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
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

// A session is what every client command begins with: its configuration, the
// environment it is about, and a client.
type session struct {
	*terminal
	config clientConfig
	name   string
	holder string
	link   string
	client *client
}

// newSession puts flags over variables over defaults.
func newSession(c *cli.Context, t *terminal, needsName bool) (*session, error) {
	s := &session{terminal: t, name: c.Args().First()}
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

// defaultTTL is how long the lease of request lasts, unless it is renewed.
const defaultTTL = 2 * time.Hour

func (s *session) asking() asking {
	a := asking{environment: s.name, holder: s.holder, url: s.link, reason: tidyReason(s.config.Reason), ttl: defaultTTL,
		timeout: time.Duration(s.config.Timeout)}
	if s.config.TTL.chosen != nil {
		a.ttl = *s.config.TTL.chosen
	}
	return a
}

// renew renews a lease, with a ttl unless that is nil. What runs under run does
// not change the ttl of a run around it, which renews in time for its own.
func (s *session) renew(ctx context.Context, which holding, ttl *time.Duration, tell func(error)) (leaseJSON, error) {
	if os.Getenv(marksVariable) == "" || ttl == nil {
		return s.client.renewHeld(ctx, which, ttl, tell)
	}
	lease, err := s.client.renewHeld(ctx, which, nil, tell)
	if err != nil {
		return lease, err
	}
	if isOfARun(lease.Fence) {
		s.say("call-me: run renews %s, with its own ttl", lease.Slot)
		return lease, nil
	}
	which.fence = lease.Fence
	return s.client.renewHeld(ctx, which, ttl, tell)
}

// holding is the lease that the caller means.
func (s *session) holding(c *cli.Context) holding {
	return holding{environment: s.name, holder: s.holder, fence: uint64(s.config.Fence), slot: c.String("slot")}
}

func (s *session) troubled(err error) { s.say("%s; trying again", printable(err.Error())) }

func usageProblem(c *cli.Context, err error, _ bool) error {
	return hint(usagef("%v", err), "call-me "+c.Command.Name+" --help")
}

func commandNames(app *cli.App) []string {
	var names []string
	for _, command := range app.VisibleCommands() {
		names = append(names, command.Name)
	}
	return names
}

var helpFlags = []string{"--help", "-help", "-h", "--h"}

const completionFlag = "--generate-bash-completion" // the library's

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

// release is the tag of a build that knows none by itself, as an image's;
// the linker sets it.
var release string

// version tells what was built, from what, and with which Go.
func version() string {
	info, found := debug.ReadBuildInfo()
	if !found {
		return "unknown"
	}
	text, details := cmp.Or(release, info.Main.Version), []string{}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			details = append(details, "commit "+s.Value[:min(12, len(s.Value))])
		case s.Key == "vcs.time":
			details = append(details, s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			details = append(details, "modified")
		}
	}
	return fmt.Sprintf("%s (%s)", text, strings.Join(append(details, info.GoVersion), ", "))
}

// complete lists what may stand next: nothing after a flag that takes a value,
// flags after a dash, else environments that the server knows. It never fails,
// and is quick.
func complete(c *cli.Context) {
	last := ""
	if len(os.Args) > 2 {
		last = os.Args[len(os.Args)-2]
	}
	if strings.HasPrefix(last, "-") {
		if flag, err := lookUpFlag(c.Command, last); err == nil && takesValue(flag) {
			return
		}
		for _, flag := range c.Command.Flags {
			fmt.Fprintln(c.App.Writer, "--"+flag.Names()[0])
		}
		return
	}
	var config clientConfig
	if !strings.HasPrefix(c.Command.ArgsUsage, "ENV") && !strings.HasPrefix(c.Command.ArgsUsage, "[ENV]") || c.Args().Present() || readConfig(&config) != nil {
		return
	}
	client, err := newClient(config)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, time.Second)
	defer cancel()
	all, _ := client.environments(ctx, "")
	for _, e := range all.Environments {
		fmt.Fprintln(c.App.Writer, e.Environment)
	}
}

// completions are the scripts of the shells. Each asks call-me itself for the
// words that may stand next.
var completions = map[string]string{
	"bash": `_call_me() {
  local IFS=$'\n' words=("${COMP_WORDS[@]:1:COMP_CWORD-1}") cur="${COMP_WORDS[COMP_CWORD]}"
  [[ $cur == -* ]] && words+=("$cur")
  COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o default -F _call_me call-me
`,
	"zsh": `#compdef call-me
_call_me() {
  local -a words_so_far options
  words_so_far=("${(@)words[2,CURRENT-1]}")
  [[ ${words[CURRENT]} == -* ]] && words_so_far+=("${words[CURRENT]}")
  options=("${(@f)$("${words[1]}" "${words_so_far[@]}" --generate-bash-completion 2>/dev/null)}")
  compadd -a options
}
compdef _call_me call-me
`,
	"fish": `function __call_me_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  string match -q -- '-*' $current; and set -a words $current
  $words --generate-bash-completion 2>/dev/null
end
complete -c call-me -f -a '(__call_me_complete)'
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName call-me -ScriptBlock {
  param($current, $ast, $position)
  $words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
  if ($current -ne '' -and -not $current.StartsWith('-')) { $words = @($words | Select-Object -SkipLast 1) }
  & "$($ast.CommandElements[0])" @words --generate-bash-completion 2>$null |
    Where-Object { $_ -like "$current*" } |
    ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
}
`,
}

func completionCommand(t *terminal) *cli.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell: " + strings.Join(shells, ", "),
		ArgsUsage: "SHELL",
		Description: `   source <(call-me completion bash)
   source <(call-me completion zsh)
   call-me completion fish >~/.config/fish/completions/call-me.fish
   call-me completion powershell | Out-String | Invoke-Expression`,
		Action: func(c *cli.Context) error {
			script, found := completions[c.Args().First()]
			if !found || c.Args().Len() > 1 {
				return usagef("completion takes one of %s", strings.Join(shells, ", "))
			}
			fmt.Fprint(t.out, script)
			return nil
		},
	}
}
