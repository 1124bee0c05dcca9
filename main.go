// Call-me lets many pipelines share a few test environments: one binary that
// is the server and the client.
package main

// The commands: their flags, what they print, and the exit code. Nothing else
// imports the command-line library.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

func main() { os.Exit(run(os.Args, newTerminal())) }

// run is the program: it returns the exit code.
func run(args []string, t *terminal) int {
	ctx, stopped := signalContext()
	app := newApp(t)
	args, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if s := stopped(); s != 0 && err != nil && ctx.Err() != nil {
		return 128 + int(s)
	}
	var silent exitError
	if err != nil && !errors.As(err, &silent) {
		t.fail(err)
	}
	return exitCode(err)
}

// signalContext returns a context that the first SIGINT or SIGTERM ends, and
// a function that tells which one it was, 0 for none. The second one kills.
func signalContext() (context.Context, func() syscall.Signal) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals)
		cancel(signalError{s.(syscall.Signal)})
	}()
	return ctx, func() syscall.Signal {
		var s signalError
		errors.As(context.Cause(ctx), &s)
		return s.Signal
	}
}

type signalError struct{ syscall.Signal }

func (s signalError) Error() string { return "stopped by " + s.Signal.String() }

func newApp(t *terminal) *cli.App {
	app := &cli.App{
		Name:            "call-me",
		Usage:           "take turns on shared test environments",
		Writer:          t.out,
		ErrWriter:       t.err,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // the library would exit from the depths
		OnUsageError:    usageProblem,
		Action: func(c *cli.Context) error {
			if name := c.Args().First(); name != "" {
				return usagef("there is no command %q%s", name, didYouMean(name, commandNames(c.App)))
			}
			cli.ShowAppHelp(c)
			return exitError(exitUsage)
		},
		Commands: []*cli.Command{serveCommand(), requestCommand(t), releaseCommand(t), statusCommand(t)},
	}
	for _, command := range app.Commands {
		command.OnUsageError = usageProblem
		command.HideHelpCommand = true
	}
	return app
}

func usageProblem(c *cli.Context, err error, _ bool) error {
	return hint(usagef("%v", err), "call-me "+c.Command.Name+" --help")
}

func commandNames(app *cli.App) []string {
	var names []string
	for _, command := range app.Commands {
		names = append(names, command.Name)
	}
	return names
}

// flagsFirst moves the flags of a command before its arguments: the library
// stops reading flags at the first argument. Nothing after -- is touched.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	i := slices.IndexFunc(args[1:], func(arg string) bool { return !strings.HasPrefix(arg, "-") }) + 1
	if i == 0 {
		return args, nil
	}
	command := app.Command(args[i])
	if command == nil {
		return args, nil
	}
	var flags, rest []string
	for words := args[i+1:]; len(words) > 0; words = words[1:] {
		switch word := words[0]; {
		case word == "--":
			return slices.Concat(args[:i+1], flags, []string{"--"}, rest, words[1:]), nil
		case !strings.HasPrefix(word, "-") || word == "-":
			rest = append(rest, word)
		case takesValue(command, word) && len(words) > 1:
			flags = append(flags, word, words[1])
			words = words[1:]
		default:
			flags = append(flags, word)
		}
	}
	return slices.Concat(args[:i+1], flags, []string{"--"}, rest), nil
}

// takesValue reports whether a flag's value is the next word.
func takesValue(command *cli.Command, word string) bool {
	name := strings.TrimLeft(word, "-")
	for _, flag := range command.Flags {
		_, isBool := flag.(*cli.BoolFlag)
		if slices.Contains(flag.Names(), name) {
			return !isBool
		}
	}
	return false
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the server",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("serve takes no argument, but got %q", c.Args().First())
			}
			var config serverConfig
			if err := readConfig(&config); err != nil {
				return err
			}
			return serve(c.Context, config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}

// clientFlags are the ones that more than one command has.
var (
	holderFlag = &cli.StringFlag{Name: "holder", Usage: "who takes the slot (default: the CI job, or user@host) [$CALL_ME_HOLDER]"}
	jsonFlag   = &cli.BoolFlag{Name: "json", Usage: "print JSON"}
)

// clientCommand reads the configuration, the environment's name and whoever
// calls, and hands them on.
func clientCommand(c *cli.Context, needsName bool) (clientConfig, string, error) {
	var config clientConfig
	name := c.Args().First()
	switch {
	case needsName && name == "":
		return config, "", hint(usagef("%s needs the name of an environment", c.Command.Name), "call-me "+c.Command.Name+" uat")
	case c.Args().Len() > 1:
		return config, "", usagef("%s takes one environment, but got %q too", c.Command.Name, c.Args().Get(1))
	}
	if name != "" {
		if err := checkEnvironment(name); err != nil {
			return config, "", usagef("%v", err)
		}
	}
	if err := readConfig(&config); err != nil {
		return config, "", err
	}
	if c.IsSet("holder") {
		config.Holder = c.String("holder")
	}
	return config, name, nil
}

func requestCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "request",
		Usage:     "wait in line for a slot, and take it",
		ArgsUsage: "ENV",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Usage: "give up after this time, exit 75 (default: wait for as long as it takes) [$CALL_ME_TIMEOUT]"},
			&cli.BoolFlag{Name: "no-wait", Usage: "take a slot only if one is free now, else exit 75"},
			&cli.DurationFlag{Name: "ttl", Usage: "the lease ends after this time unless renewed; 0: when released (default: 2h) [$CALL_ME_TTL]"},
			&cli.StringFlag{Name: "reason", Usage: "why, shown to everyone who looks [$CALL_ME_REASON]"},
			holderFlag,
		},
		Action: func(c *cli.Context) error {
			config, name, err := clientCommand(c, true)
			if err != nil {
				return err
			}
			asked, err := newAsking(c, config, name)
			if err != nil {
				return err
			}
			client, err := newClient(config)
			if err != nil {
				return err
			}
			_, _, err = client.acquire(c.Context, asked, t.waiter(asked))
			return err
		},
	}
}

// newAsking puts flags over variables over defaults.
func newAsking(c *cli.Context, config clientConfig, name string) (asking, error) {
	holder, link := whoAmI(os.Getenv)
	a := asking{environment: name, holder: holder, url: link, reason: config.Reason, ttl: 2 * time.Hour,
		timeout: time.Duration(config.Timeout), noWait: c.Bool("no-wait")}
	if config.Holder != "" {
		a.holder = config.Holder
	}
	if config.TTL != nil {
		a.ttl = time.Duration(*config.TTL)
	}
	if c.IsSet("ttl") {
		a.ttl = c.Duration("ttl")
	}
	if c.IsSet("timeout") {
		a.timeout = c.Duration("timeout")
	}
	if c.IsSet("reason") {
		a.reason = c.String("reason")
	}
	switch {
	case a.ttl != 0 && (a.ttl < minTTL || a.ttl > maxTTL):
		return a, usagef("--ttl must be from %v to %v, or 0", minTTL, maxTTL)
	case a.timeout < 0:
		return a, usagef("--timeout must not be negative")
	case a.noWait && c.IsSet("timeout"):
		return a, usagef("--no-wait and --timeout exclude each other")
	}
	return a, nil
}

func releaseCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give a slot back",
		ArgsUsage: "ENV",
		Flags: []cli.Flag{
			holderFlag,
			&cli.Uint64Flag{Name: "fence", Usage: "exactly the lease with this fence [$CALL_ME_FENCE]"},
			&cli.StringFlag{Name: "slot", Usage: "the lease on this slot, where the holder has several"},
			&cli.BoolFlag{Name: "force", Usage: "end the lease whoever holds it"},
		},
		Action: func(c *cli.Context) error {
			config, name, err := clientCommand(c, true)
			if err != nil {
				return err
			}
			holder, _ := whoAmI(os.Getenv)
			e := ending{environment: name, holder: holder, fence: uint64(config.Fence), slot: c.String("slot"), force: c.Bool("force")}
			if config.Holder != "" {
				e.holder = config.Holder
			}
			if c.IsSet("fence") {
				e.fence = c.Uint64("fence")
			}
			client, err := newClient(config)
			if err != nil {
				return err
			}
			if err := client.release(c.Context, e, func(err error) { t.say("%s; trying again", printable(err.Error())) }); err != nil {
				return explainRelease(err, e)
			}
			t.released(name)
			return nil
		},
	}
}

// explainRelease says what helps when a slot is not the caller's to release.
func explainRelease(err error, e ending) error {
	var refused *apiError
	if !errors.As(err, &refused) || !errors.Is(err, errNotHeld) {
		return err
	}
	err = fmt.Errorf("%w (you are %s)", err, e.holder)
	if len(refused.HeldBy) == 0 {
		return err
	}
	force := "call-me release " + quote(e.environment) + " --force"
	if first := refused.HeldBy[0]; first.Holder != "" {
		return hint(err, fmt.Sprintf("to release it from this job, set CALL_ME_HOLDER=%s here and in the job that requests it; to end it whoever holds it: %s",
			quote(first.Holder), force))
	}
	return hint(err, "it was taken without a name; to end it: "+force)
}

func statusCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show who holds what, since when, and who is in line",
		ArgsUsage: "[ENV]",
		Flags:     []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			config, name, err := clientCommand(c, false)
			if err != nil {
				return err
			}
			client, err := newClient(config)
			if err != nil {
				return err
			}
			all, err := client.environments(c.Context, name)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				encoder := json.NewEncoder(t.out)
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				return encoder.Encode(all)
			}
			t.table(all)
			return nil
		},
	}
}
