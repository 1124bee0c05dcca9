package main

// Completion of flags and environments in a shell: what call-me proposes, and the
// scripts that connect it to bash, zsh, fish and PowerShell. The command-line library
// completes the names of the commands.

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// completionFlag is the last argument of a call that asks for completion. The name is
// the command-line library's.
const completionFlag = "--generate-bash-completion"

// completeWord prints the words that may stand next, one a line: nothing after a flag that
// takes a value, the flags of the command after a dash, and otherwise the names of the
// environments of the server, for a command that takes one and has none yet; for one that
// takes several, those that it does not have. Without a configuration, and when the server
// does not answer within a second, it prints nothing. It returns no error.
func completeWord(c *cli.Context) {
	last := "" // the word before completionFlag
	if len(os.Args) > 2 {
		last = os.Args[len(os.Args)-2]
	}
	if strings.HasPrefix(last, "-") {
		completeFlag(c, last)
		return
	}
	takesEnvironment := strings.Contains(c.Command.ArgsUsage, "ENV")
	if takesEnvironment && (takesSeveral(c.Command) || !c.Args().Present()) {
		completeEnvironment(c)
	}
}

// completeFlag prints the flags of the command, unless word is a flag that takes a
// value: the next word is that value.
func completeFlag(c *cli.Context, word string) {
	if flag, err := lookUpFlag(c.Command, word); err == nil && takesValue(flag) {
		return
	}
	for _, flag := range c.Command.Flags {
		fmt.Fprintln(c.App.Writer, "--"+flag.Names()[0])
	}
}

// completeEnvironment prints the environments that the server knows and that the command does
// not have yet. It gives up after a second.
func completeEnvironment(c *cli.Context) {
	var config clientConfig
	if readConfig(&config) != nil {
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
		if !slices.Contains(c.Args().Slice(), string(e.Environment)) {
			fmt.Fprintln(c.App.Writer, e.Environment)
		}
	}
}

// completions are the scripts by the names of their shells. A script calls call-me with
// the words before the cursor, with the word at the cursor too if it begins with a
// dash, and with completionFlag. It proposes the lines that call-me prints.
var completions = map[string]string{
	"bash": `_call_me() {
  local IFS=$'\n' words=("${COMP_WORDS[@]:1:COMP_CWORD-1}") cur="${COMP_WORDS[COMP_CWORD]}"
  [[ $cur == -* ]] && words+=("$cur")
  local proposals=$("${COMP_WORDS[0]}" "${words[@]}" --generate-bash-completion 2>/dev/null)
  COMPREPLY=($(compgen -W "$proposals" -- "$cur"))
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
		Description: `
   source <(call-me completion bash)
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
