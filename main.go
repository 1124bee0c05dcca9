// Call-me lets many pipelines share a few test environments: one binary that
// is the server and the client.
package main

// The commands: what they are called, what they do, and the exit code.
// cli_flags.go reads their flags; nothing else imports the command-line library.

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	t := newTerminal()
	log.SetFlags(0) // net/http's client logs there what a server sends unasked
	log.SetOutput(t.err)
	os.Exit(execute(os.Args, t))
}

// execute is the program: it returns the exit code.
func execute(args []string, t *terminal) int {
	if len(args) > 3 && args[1] == gateCommand {
		return gate(args[2], args[3:])
	}
	if last := len(args) - 1; last > 0 && args[last] == completionFlag && slices.Contains(args[:last-1], "--") {
		return 0 // after -- nothing is ours, and the library would run the command
	}
	ctx, stopped := signalContext(commandSignals(args)...)
	app := newApp(t)
	args, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	var silent exitError
	switch s := stopped(); {
	case err == nil || errors.As(err, &silent):
	case s != 0:
		return 128 + int(s)
	default:
		t.fail(err)
	}
	return exitCode(err)
}

// ends are the signals that end a command in order: the place in the queue is
// given up. For the server SIGHUP means something else, and SIGQUIT shows what
// it does; after nohup SIGHUP means nothing.
func commandSignals(args []string) []os.Signal {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if len(args) > 1 && args[1] == "serve" {
		return signals
	}
	for _, s := range endSignals[len(signals):] {
		if s != syscall.SIGHUP || !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	return signals
}

// signalContext returns a context that the first of these signals ends, and
// a function that tells which one it was, 0 for none. The second one kills.
func signalContext(ends ...os.Signal) (context.Context, func() syscall.Signal) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, ends...)
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
