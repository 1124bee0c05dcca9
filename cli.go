package main

// The command-line application, its version, and the commands that change a lock or
// run the server: serve, request and run. release and renew are in cli_release.go, the other
// commands are in cli_view.go, flags and help in cli_flags.go, completion in
// cli_completion.go.
// Only the cli files import the command-line library.

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

// newApp returns the application with all its commands. They print on t. An error of
// a command is returned by Run and never ends the process.
func newApp(t *terminal) *cli.App {
	app := &cli.App{
		Name:                 "call-me",
		Usage:                "take turns on shared test environments",
		Version:              version(),
		Writer:               t.out,
		ErrWriter:            t.err,
		HideHelpCommand:      true,
		Metadata:             map[string]any{}, // see passedOnFlag
		EnableBashCompletion: true,

		DisableSliceFlagSeparator: true,                         // a comma is a part of a slot's name
		ExitErrHandler:            func(*cli.Context, error) {}, // the library's own calls os.Exit
		OnUsageError:              usageProblem,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return unknownCommand(name, commandNames(c.App))
			}
			cli.ShowAppHelp(c)
			return exitError(exitUsage)
		},
		Commands: []*cli.Command{
			serveCommand(t), requestCommand(t), releaseCommand(t), renewCommand(t), runCommand(t),
			pauseCommand(t), resumeCommand(t),
			statusCommand(t), historyCommand(t), backupCommand(t), checkCommand(t),
			moveCommand(t), healthCommand(t),
			doctorCommand(t), keyCommand(t),
			completionCommand(t), hiddenWatchdog(),
		},
	}
	clientVariables := variables(&clientConfig{})
	for _, command := range app.Commands {
		command.OnUsageError = usageProblem
		command.HideHelpCommand = true
		command.CustomHelpTemplate = helpTemplate
		command.BashComplete = completeWord
		command.Description = strings.TrimPrefix(command.Description, "\n")
		if strings.Contains(command.ArgsUsage, "ENV") {
			command.UsageText = clientVariables
		}
	}
	return app
}

func serveCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the server",
		Description: `
   Serves until SIGINT or SIGTERM. The certificate, and the files of keys, environments
   and issuers, are read again when they change, and at once on SIGHUP.

   API_KEY=crj call-me serve
   API_KEY_FILE=/etc/call-me/keys CALL_ME_ENVIRONMENTS=uat:blue+green,perf:2 call-me serve`,
		UsageText: variables(&serverConfig{}),
		Flags: []cli.Flag{&cli.StringFlag{
			Name:        "profile",
			Usage:       "answer go tool pprof on this port of 127.0.0.1",
			DefaultText: "not at all",
		}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("serve takes no argument, but got %q", c.Args().First())
			}
			var profilePort portNumber
			if text := c.String("profile"); text != "" {
				if err := profilePort.Decode(text); err != nil {
					return usagef("--profile: %q is %v", text, err)
				}
			}
			var config serverConfig
			warnings := variableWarnings()
			if err := readConfig(&config); err != nil {
				return err
			}
			log, flush := newLog(t.err, config.Log)
			defer flush()
			declared, err := config.environments()
			if err != nil {
				return err
			}
			for _, warning := range append(warnings, declared.warnings()...) {
				log.Warn(warning)
			}
			stop, err := serveProfiles(int(profilePort), log)
			if err != nil {
				return err
			}
			defer stop()
			return serve(c.Context, config, log)
		},
	}
}

func requestCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "request",
		Usage:     "wait in the queue for a slot, and take it",
		ArgsUsage: "ENV...",
		Description: `
   Prints "acquired slot for environment: ENV" once the slot is yours. Ctrl-C leaves the queue.
   Of several environments you get all at once or none, a slot of each.

   call-me request uat
   call-me request uat --timeout 30m --reason "release 1.4"
   call-me request uat web --slot web=blue
   call-me request uat --take --reason "it hangs"
   call-me request uat --supersede
   slot=$(call-me request --quiet perf)`,
		Flags: append(configFlags("timeout", "ttl=2h", "max-hold", "reason", "holder", "priority"),
			wantedSlotFlag,
			supersedeFlag,
			boolFlag("no-wait", "take a slot only if one is free now, else exit with 75"),
			boolFlag("again", "reuse the slot that this holder has already, and restart its ttl"),
			takeFlag,
			boolFlag("json", "print the lease as JSON"),
			boolFlag("quiet", "print only the slot's name", "q"),
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			if err := checkTake(c, s); err != nil {
				return err
			}
			options := s.acquireOptions()
			if options.newest, err = newestOf(c, s); err != nil {
				return err
			}
			form := plainForm
			switch {
			case c.Bool("quiet") && c.Bool("json"):
				return usagef("--quiet and --json exclude each other")
			case c.Bool("no-wait") && s.config.Timeout != 0:
				return usagef("--no-wait and --timeout exclude each other")
			case c.Bool("quiet"):
				form = quietForm
			case c.Bool("json"):
				form = jsonForm
			}
			options.noWait = c.Bool("no-wait")
			options.notes = notebooksOf(s, t)
			if c.Bool("take") {
				return takeSlot(c.Context, t, s, options, form)
			}
			return acquireSlot(c.Context, t, s, options, form, c.Bool("again"))
		},
	}
}

// acquireSlot waits for a slot and prints its lease in the given form. With again it
// renews the lease that the holder has on the environment, with the whole ttl of the
// options, and waits for a slot only if the holder has none. It returns the errors of
// session.renew and of client.acquire, the latter with a hint, and an error if stdout
// did not accept the result. A slot that was acquired is given back then, because nobody
// knows of it; one that was held before is still held.
func acquireSlot(
	ctx context.Context, t *terminal, s *session, options acquireOptions, form resultForm, again bool,
) error {
	w := t.newWaitDisplay(options, form)
	defer w.done()
	if again {
		held, found, err := renewAgain(ctx, s, options, w.retrying)
		if found {
			options.notes.granted("", held.all())
			w.acquired(held, time.Since(w.started))
			if w.outputErr != nil {
				return fmt.Errorf("the slot is yours, but its name could not be written to stdout: %w",
					w.outputErr)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	g, err := s.client.acquire(ctx, options, w)
	if err != nil {
		w.failed(err, ctx.Err() != nil)
		return hintNoSlot(err, options)
	}
	if w.outputErr != nil {
		s.client.endOnce(options.environment, g.id, options.names()[1:]...)
		options.notes.refused(g.id)
		return fmt.Errorf("the slot was given back, because its name could not be written to stdout: %w",
			w.outputErr)
	}
	if g.Leases == nil && g.Slot != g.Environment { // there may be several
		all, _ := s.client.environments(ctx, options.environment) // without it there is less to say
		t.otherSlots(g.leaseJSON, options, all)
	}
	return nil
}

func runCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "hold a slot for exactly as long as a command runs",
		ArgsUsage: "[flags] ENV... [flags] -- COMMAND [ARGUMENT...]",
		Description: `
   Waits in the queue, runs the command, renews the lease while it runs, and gives the slot back
   at the end. Exits as the command did; 75: no slot in time; 76: the slot was lost; 77: superseded
   by a newer request; 125, 126, 127: the command was not run; 128+n: ended by signal n.
   Of several environments it holds all or none; CALL_ME_LEASES has them as JSON for the command.

   call-me run uat -- ./acceptance-tests.sh --suite checkout
   call-me run uat --timeout 30m --ttl 5m -- make deploy test
   call-me run uat perf -- ./deploy-both.sh
   call-me run uat --keep-on-failure 2h -- ./test.sh`,
		Flags: append(configFlags("timeout", "max-hold", "reason", "holder", "priority"),
			wantedSlotFlag,
			supersedeFlag,
			&cli.StringFlag{
				Name: "ttl",
				Usage: "the lease ends this long after its last renewal; " +
					"run renews it while the command runs; 3s or more (default: 2m) [$CALL_ME_TTL]",
			},
			&cli.StringFlag{
				Name:  "grace",
				Usage: "between the signal that ends the command and SIGKILL (default: 5s)",
			},
			boolFlag("leave-running", "do not end what the command leaves running in the background"),
			keepFlag,
		),
		Action: func(c *cli.Context) error {
			names, argv := environmentWords(c)
			if len(argv) == 0 {
				return withHint(usagef("run needs a command"), "call-me run uat -- ./test.sh")
			}
			r, err := newRunner(c, t, argv)
			if err != nil {
				return ownFailure(err)
			}
			if flag, _ := c.App.Metadata[passedOnFlag].(string); flag != "" {
				t.say("call-me: %s is passed on to %s; "+
					"flags of run stand before it, and \"--\" ends them", printable(flag), printable(argv[0]))
			}
			sayNotEnvironment(c, t, names[0])
			return ownFailure(r.run(c.Context))
		},
	}
}

// newRunner returns a runner for argv with the session and the flags of c. Without
// a ttl in flags and variables, and with zero in the variable, the lease lasts runTTL.
// Its errors are usage errors and
// those of newSession.
func newRunner(c *cli.Context, t *terminal, argv []string) (*runner, error) {
	s, err := newSession(c, t, true)
	if err != nil {
		return nil, err
	}
	keep, err := keepTime(c)
	if err != nil {
		return nil, err
	}
	r := &runner{
		session:      s,
		terminal:     t,
		options:      s.acquireOptions(),
		grace:        defaultGrace,
		leaveRunning: c.Bool("leave-running"),
		keep:         keep,
		argv:         argv,
	}
	if r.options.newest, err = newestOf(c, s); err != nil {
		return nil, err
	}
	r.options.forRun, r.options.notes = true, readOnlyNotes{notebooksOf(s, t)}
	r.options.leastTTL = minRunTTL
	isZeroVariable := !c.IsSet("ttl") && r.options.ttl == 0 // for request: until released
	if s.config.TTL.chosen == nil || isZeroVariable {
		r.options.ttl, r.options.anyTTL = runTTL, true
	}
	if text := c.String("grace"); text != "" {
		if err := (*nonNegativeDuration)(&r.grace).Decode(text); err != nil {
			return nil, usagef("--grace: %q is %v", text, err)
		}
	}
	if longest := r.options.maxHold; longest != 0 && longest < minRunTTL {
		return nil, usagef("--max-hold: %q is too short for run; write %s or more",
			durationText(longest), durationText(minRunTTL))
	}
	if r.options.ttl < minRunTTL {
		return nil, usagef("--ttl: %q is too short for run; write %s or more, or leave it out: "+
			"the lease is renewed for as long as the command runs",
			durationText(r.options.ttl), durationText(minRunTTL))
	}
	return r, nil
}

// hiddenWatchdog returns the hidden command that run starts beside the user's command.
// It reads its messages from stdin until its work is done. It ignores the signals that
// end other commands.
func hiddenWatchdog() *cli.Command {
	return &cli.Command{Name: watchdogCommand, Hidden: true, Action: func(*cli.Context) error {
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
		runWatchdog(os.Stdin)
		return nil
	}}
}

// otherCommands are words that people and other lock clients have for the commands of
// call-me, and what to type.
var otherCommands = map[string]string{
	"lock": "request", "acquire": "request", "take": "request", "get": "request", "wait": "request",
	"reserve": "request", "claim": "request", "unlock": "release", "free": "release", "drop": "release",
	"give": "release", "list": "status", "ls": "status", "show": "status", "ps": "status",
	"queue": "status", "log": "history", "logs": "history", "events": "history", "extend": "renew",
	"refresh": "renew", "touch": "renew", "exec": "run", "with": "run", "start": "serve",
	"server": "serve", "daemon": "serve", "dump": "backup", "copy": "backup", "verify": "check",
	"freeze": "pause", "maintenance": "pause", "disable": "pause", "suspend": "pause", "stop": "pause",
	"unpause": "resume", "unfreeze": "resume", "enable": "resume", "continue": "resume",
	"ping": "doctor", "whoami": "doctor", "version": "--version",
}

// unknownCommand returns the usage error for a word that is no command, with the command
// that was probably meant.
func unknownCommand(name string, known []string) error {
	proposal := didYouMean(name, known)
	if meant := otherCommands[strings.ToLower(name)]; meant != "" {
		proposal = fmt.Sprintf("; did you mean %q?", meant)
	}
	return withHint(usagef("there is no command %q%s", name, proposal), "call-me --help")
}

// commandNames returns the names of the commands that are not hidden.
func commandNames(app *cli.App) []string {
	var names []string
	for _, command := range app.VisibleCommands() {
		names = append(names, command.Name)
	}
	return names
}

// usageProblem makes an error of the command-line library a usage error, with the
// command's help as its hint.
func usageProblem(c *cli.Context, err error, _ bool) error {
	return withHint(usagef("%v", err), "call-me "+c.Command.Name+" --help")
}
