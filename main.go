// Call-me is a lock server and its client for shared test environments: a pipeline
// waits in a queue for a slot of an environment, holds a lease on the slot while it
// tests, and gives the slot back.
//
// The package is flat. A file's wing is its name before the first underscore. The
// wings, in the order in which a newcomer should read them:
//
//   - api.go and errors.go: what goes over the wire, and the table of errors, HTTP
//     statuses and exit codes that server and client share.
//   - limits.go and text.go: sizes and checks of what is sent, and how text of others
//     is made harmless before it is printed.
//   - lock.go: the rules and the invariants, without I/O, clock and goroutine; lock_queue.go: the order.
//   - record.go: how leases, waiters and events are encoded for the store.
//   - keeper.go: the one goroutine that applies the rules and saves what they change.
//   - store.go: the file, a bbolt database.
//   - server.go: the HTTP API, the status page, the metrics and the log.
//   - client.go: the calls to the server, and how they are repeated.
//   - notes.go: what this job or script has requested, for its release.
//   - run.go: a command that runs while its lease is renewed.
//   - terminal.go: what is printed for people.
//   - cli.go: the commands, their flags and the completion of shells.
//   - config.go: the variables that configure server and client.
//   - ci.go: the holder's name: the CI job with its link, or the user and the host.
//
// The test in house_test.go holds the arrows between the wings: it fails when a wing
// names something of a wing to which it has no arrow.
package main

// The process: its arguments, its signals and its exit code. What the commands do
// is in cli.go.

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
	log.SetFlags(0) // net/http's client logs unsolicited responses of a server there
	log.SetOutput(t.err)
	os.Exit(execute(os.Args, t))
}

// execute runs the command that args name and returns the exit code. args[0] is the
// name of the program. An error is printed on t, except an exitError. A command that
// fails after signal n has arrived returns 128+n, and its error is not printed.
func execute(args []string, t *terminal) int {
	if len(args) > 5 && args[1] == gateCommand {
		return gate(args[2:])
	}
	if completesForeignCommand(args) {
		return 0
	}
	if survivesClosedPipe(args) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // not Ignore: run's command would inherit it
	}
	ctx, endedBy := signalContext(commandSignals(args)...)
	app := newApp(t)
	args, err := flagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	var silent exitError
	if err == nil || errors.As(err, &silent) {
		return exitCode(err)
	}
	if s := endedBy(); s != 0 {
		return 128 + int(s)
	}
	t.fail(err)
	return exitCode(err)
}

// completesForeignCommand reports whether a shell asks for the completion of a word
// after "--". Such a word belongs to the command that run starts: call-me has nothing
// to propose, and the command-line library would start the command.
func completesForeignCommand(args []string) bool {
	last := len(args) - 1
	return last > 0 && args[last] == completionFlag && slices.Contains(args[:last-1], "--")
}

// survivesClosedPipe reports whether a command goes on when a pipe at its stdout or
// stderr is closed: it does more than print. The others are ended by SIGPIPE, as is usual
// in a pipeline such as "call-me history | head".
func survivesClosedPipe(args []string) bool {
	return len(args) > 1 && slices.Contains([]string{"serve", "request", "release", "renew", "run"}, args[1])
}

// commandSignals returns the signals that end the context of the command in args. A
// command whose context has ended leaves the queue and returns. For serve these are
// SIGINT and SIGTERM: SIGHUP reloads its keys, and SIGQUIT keeps Go's meaning,
// which prints the stacks of the goroutines and exits. For other commands they are the endSignals of
// the system. SIGHUP is left out while it is ignored, as after nohup.
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

// signalContext returns a context that is cancelled by the first of the signals, and
// a function that returns this signal; zero if none has arrived. The second signal
// has its default effect again and kills the process.
func signalContext(signals ...os.Signal) (context.Context, func() syscall.Signal) {
	ctx, cancel := context.WithCancelCause(context.Background())
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, signals...)
	go func() {
		s := <-arrived
		signal.Stop(arrived)
		cancel(signalError{s.(syscall.Signal)})
	}()
	return ctx, func() syscall.Signal {
		var s signalError
		errors.As(context.Cause(ctx), &s)
		return s.Signal
	}
}

// A signalError is the cause of a context that a signal has cancelled.
type signalError struct{ syscall.Signal }

func (s signalError) Error() string { return "stopped by " + s.Signal.String() }
