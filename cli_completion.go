package main

// Completion of commands, flags and environments, and the scripts that connect
// it to a shell.

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

const completionFlag = "--generate-bash-completion" // the library's

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
