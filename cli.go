package main

// The command-line application, its version, and the commands that change a lock or
// run the server: serve, request, release, run and renew. The other commands are in
// cli_view.go, flags and help are in cli_flags.go, completion is in cli_completion.go.
// Only the cli files import the command-line library.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
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
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {}, // the library's own calls os.Exit
		OnUsageError:         usageProblem,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usagef("there is no command %q%s", name, didYouMean(name, commandNames(c.App)))
			}
			cli.ShowAppHelp(c)
			return exitError(exitUsage)
		},
		Commands: []*cli.Command{
			serveCommand(t), requestCommand(t), releaseCommand(t), renewCommand(t), runCommand(t),
			statusCommand(t), historyCommand(t), backupCommand(t), checkCommand(t), healthCommand(t),
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
   Serves until SIGINT or SIGTERM. SIGHUP reads the key file and the certificate again.

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
			for _, warning := range warnings {
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
		ArgsUsage: "ENV",
		Description: `
   Prints "acquired slot for environment: ENV" once the slot is yours. Interrupted, it leaves the queue.

   call-me request uat
   call-me request uat --timeout 30m --reason "release 1.4"
   slot=$(call-me request --quiet perf)`,
		Flags: append(configFlags("timeout", "ttl=2h", "reason", "holder"),
			boolFlag("no-wait", "take a slot only if one is free now, else exit with 75"),
			boolFlag("again", "go on with the slot that this holder has already, with its full ttl"),
			boolFlag("json", "print the lease as JSON"),
			boolFlag("quiet", "print only the slot's name", "q"),
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			options := s.acquireOptions()
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
			return acquireSlot(c.Context, t, s, options, form, c.Bool("again"))
		},
	}
}

// acquireSlot waits for a slot and prints its lease in the given form. With again it
// renews the lease that the holder has on the environment, with the whole ttl of the
// options, and waits for a slot only if the holder has none. It returns the errors of
// session.renew and of client.acquire, the latter with a hint, and an error if stdout
// did not accept the result: the slot is held all the same.
func acquireSlot(
	ctx context.Context, t *terminal, s *session, options acquireOptions, form resultForm, again bool,
) error {
	w := t.newWaitDisplay(options, form)
	defer w.done()
	if again {
		held := leaseSelector{environment: options.environment, holder: options.holder}
		lease, err := s.renew(ctx, held, &options.ttl, w.retrying)
		if err == nil {
			w.acquired(lease, time.Since(w.started))
			return wrapOutputError(w.outputErr)
		}
		if !errors.Is(err, errNotHeld) {
			return err
		}
	}
	_, err := s.client.acquire(ctx, options, w)
	if err != nil && ctx.Err() != nil {
		w.interrupted()
	}
	if err == nil {
		return wrapOutputError(w.outputErr)
	}
	return hintNoSlot(err, options)
}

// wrapOutputError returns the error of stdout, after which the slot is still the caller's;
// nil if there is none.
func wrapOutputError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the slot is yours, but stdout takes no word: %w", err)
}

func releaseCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give a slot back",
		ArgsUsage: "ENV",
		Description: `
   Ends the lease of this holder, and of nobody else. To do it twice is harmless.

   call-me release uat
   CALL_ME_HOLDER=nightly-42 call-me release uat
   call-me release uat --force`,
		Flags: append(configFlags("holder", "fence"),
			slotFlag,
			boolFlag("force", "end the lease whoever has it; the history says who did"),
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			which := s.leaseSelector(c.String("slot"))
			if err := s.client.release(c.Context, which, c.Bool("force"), s.reportRetry); err != nil {
				return hintNotHeld(err, which)
			}
			t.released(which.environment)
			return nil
		},
	}
}

func runCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "hold a slot for exactly as long as a command runs",
		ArgsUsage: "ENV -- COMMAND [ARGUMENT...]",
		Description: `
   Waits in the queue, runs the command, renews the lease while it lives, and gives the slot back
   whatever happens. Exits as the command did; 75: no slot in time; 76: the slot was lost;
   125, 126, 127: the command was not run; 128+n: ended by signal n.

   call-me run uat -- ./acceptance-tests.sh --suite checkout
   call-me run uat --timeout 30m --ttl 5m -- make deploy test`,
		Flags: append(configFlags("timeout", "ttl=2m", "reason", "holder"),
			&cli.StringFlag{
				Name:  "grace",
				Usage: "between the signal that ends the command and SIGKILL (default: 5s)",
			},
			boolFlag("leave-running", "do not end what the command leaves running in the background"),
		),
		Action: func(c *cli.Context) error {
			argv := c.Args().Tail()
			if len(argv) == 0 {
				return withHint(usagef("run needs a command"), "call-me run uat -- ./test.sh")
			}
			r, err := newRunner(c, t, argv)
			if err != nil {
				return ownFailure(err)
			}
			return ownFailure(r.run(c.Context))
		},
	}
}

// newRunner returns a runner for argv with the session and the flags of c. Without
// a ttl in flags and variables the lease lasts runTTL. Its errors are usage errors and
// those of newSession.
func newRunner(c *cli.Context, t *terminal, argv []string) (*runner, error) {
	s, err := newSession(c, t, true)
	if err != nil {
		return nil, err
	}
	r := &runner{
		session:      s,
		terminal:     t,
		options:      s.acquireOptions(),
		grace:        defaultGrace,
		leaveRunning: c.Bool("leave-running"),
		argv:         argv,
	}
	if s.config.TTL.chosen == nil {
		r.options.ttl = runTTL
	}
	if text := c.String("grace"); text != "" {
		if err := (*nonNegativeDuration)(&r.grace).Decode(text); err != nil {
			return nil, usagef("--grace: %q is %v", text, err)
		}
	}
	if r.options.ttl < minRunTTL {
		return nil, usagef(
			"run needs a ttl of %s at least: the lease ends with the command, whatever the ttl",
			durationText(minRunTTL))
	}
	return r, nil
}

// hiddenWatchdog returns the hidden command that run starts beside the user's command.
// It reads its messages from stdin until its work is done. It ignores the signals that
// end other commands.
func hiddenWatchdog() *cli.Command {
	return &cli.Command{Name: watchdogCommand, Hidden: true, Action: func(*cli.Context) error {
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
		runWatchdog(os.Stdin)
		return nil
	}}
}

func renewCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "keep a slot for longer",
		ArgsUsage: "ENV",
		Description: `
   The lease begins its time anew, with the ttl that it has or another one.

   call-me renew uat
   call-me renew uat --ttl 4h`,
		Flags: append(configFlags("ttl", "holder", "fence"),
			slotFlag,
			boolFlag("json", "print the lease as JSON"),
		),
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, true)
			if err != nil {
				return err
			}
			which := s.leaseSelector(c.String("slot"))
			lease, err := s.renew(c.Context, which, s.config.TTL.chosen, s.reportRetry)
			switch {
			case err != nil:
				return hintNotHeld(err, which)
			case c.Bool("json"):
				return t.json(lease)
			}
			fmt.Fprintln(t.out, leaseSentence(lease))
			return nil
		},
	}
}

// release is the tag of the release. The linker sets it in builds whose build info has
// no version, as those of images. It is empty in other builds.
var release string

// version returns the release, the commit with its time, and the version of Go, as
// "v1.0.0 (commit 0123456789ab, 2025-01-01T00:00:00Z, go1.26.0)". It is "unknown" if
// the binary has no build info.
func version() string {
	info, found := debug.ReadBuildInfo()
	if !found {
		return "unknown"
	}
	var details []string
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
	details = append(details, info.GoVersion)
	return fmt.Sprintf("%s (%s)", cmp.Or(release, info.Main.Version), strings.Join(details, ", "))
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
