package main

// The commands that change no lock: status and history for users, and backup, check
// and health for the operator of the server. The commands that change a lock are in
// cli.go.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
)

func statusCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show who holds which environment, since when, and who is in the queue",
		ArgsUsage: "[ENV]",
		Description: `
   call-me status
   call-me status uat --json
   call-me status --watch

   Exits with 1 for an ENV that was never used. With --watch and --json it prints a line of JSON
   at the beginning and after each change.`,
		Flags: []cli.Flag{
			boolFlag("json", "print it as JSON, as GET /environments has it"),
			boolFlag("watch", "show it again and again, until interrupted", "w"),
		},
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, false)
			if err != nil {
				return err
			}
			get := func() (environmentsJSON, error) { return s.client.environments(c.Context, s.name) }
			all, err := get()
			if err == nil && s.name != "" && isIdle(all) {
				err = s.client.checkKnown(c.Context, s.name)
			}
			switch {
			case err != nil:
				return err
			case c.Bool("watch"):
				return t.watch(c.Context, c.Bool("json"), get, s.client.follow)
			case c.Bool("json"):
				return t.environmentsJSON(all)
			}
			t.table(t.out, all, width(t.out), t.coloured(t.out))
			return nil
		},
	}
}

// isIdle reports whether no environment in the list has a lease, a waiter or a pause of its own.
func isIdle(all environmentsJSON) bool {
	return !slices.ContainsFunc(all.Environments, func(e environmentJSON) bool {
		isHeld := func(s slotJSON) bool { return s.Lease != nil }
		isOwn := func(p pauseJSON) bool { return !p.All }
		return len(e.Queue) > 0 || slices.ContainsFunc(e.Slots, isHeld) ||
			slices.ContainsFunc(e.Pauses, isOwn)
	})
}

func historyCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show what has happened, newest first",
		ArgsUsage: "[ENV]",
		Description: `
   call-me history
   call-me history uat --since 7d
   call-me history uat --json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Value: "24h", Usage: "how far to look back"},
			boolFlag("json", "print it as JSON, as GET /history has it"),
		},
		Action: func(c *cli.Context) error {
			s, err := newSession(c, t, false)
			if err != nil {
				return err
			}
			if _, err := parseDuration(c.String("since")); err != nil {
				return withHint(usagef("--since: %q is %v", c.String("since"), err),
					"it is how far to look back from now: --since 24h, or --since 7d")
			}
			all, err := s.client.history(c.Context, s.name, c.String("since"))
			isOf := func(e eventJSON) bool { return string(e.Environment) == s.name } // others are of all
			if err == nil && s.name != "" && !slices.ContainsFunc(all.Events, isOf) {
				err = s.client.checkKnown(c.Context, s.name)
			}
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return t.json(all)
			}
			t.historyTable(t.out, all, width(t.out), t.coloured(t.out))
			return nil
		},
	}
}

func backupCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Usage:     "write a consistent copy of the server's file",
		ArgsUsage: "FILE",
		Description: `
   The server goes on serving. FILE is replaced once the copy is complete and has been checked.
   To restore: stop the server, put the copy in the place of its file, start it.

   call-me backup /backups/call-me.db`,
		UsageText: variables(&clientConfig{}),
		Action: func(c *cli.Context) error {
			file := c.Args().First()
			if file == "" || c.Args().Len() > 1 {
				return withHint(usagef("backup takes the name of one file"), "call-me backup call-me-copy.db")
			}
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				proposal := quote(filepath.Join(file, "call-me.db"))
				return withHint(usagef("%q is a folder", file), "call-me backup "+proposal)
			}
			folder := filepath.Dir(file)
			if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
				return withHint(fmt.Errorf("cannot write %q: the folder %q does not exist", file, folder),
					"mkdir -p "+quote(folder))
			}
			return downloadBackup(c.Context, t, file)
		},
	}
}

// downloadBackup downloads a copy of the server's file to path, checks it, and prints
// the numbers of its records. Its errors are those of client.backup and usage errors.
func downloadBackup(ctx context.Context, t *terminal, path string) error {
	var config clientConfig
	if err := readConfig(&config); err != nil {
		return err
	}
	client, err := newClient(config)
	if err != nil {
		return err
	}
	var copied recordCount
	publish := func(temporary string) (err error) {
		copied, err = publishCopy(temporary, path)
		return err
	}
	report := func(err error, until time.Time) { t.say("%s", retryText(err, until)) }
	if err := client.backup(ctx, path, publish, report); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s: %d leases, %d waiting, %d events\n",
		path, copied.leases, copied.waiters, copied.events)
	return nil
}

// publishCopy checks the downloaded copy at temporary and renames it to path. A file
// at path is replaced. It returns the numbers of records in the copy. The error is
// errDamaged if the copy is not sound, or one of the file system.
func publishCopy(temporary, path string) (recordCount, error) {
	copied, err := checkFile(temporary)
	if err != nil {
		return copied, fmt.Errorf("checking the copy: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return copied, err
	}
	return copied, syncFolder(path)
}

func checkCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "read a file of the server's, and say whether it is sound",
		ArgsUsage: "FILE",
		Description: `
   Reads all of FILE, as a server does when it starts, and changes nothing. No server may use FILE.
   Exits with 1 if the file is damaged.

   call-me check /backups/call-me.db`,
		Action: func(c *cli.Context) error {
			file := c.Args().First()
			if file == "" || c.Args().Len() > 1 {
				return withHint(usagef("check takes the name of one file"), "call-me check call-me-copy.db")
			}
			n, err := checkFile(file)
			if err != nil {
				return checkError(err, file)
			}
			fmt.Fprintf(t.out, "%s: sound, %d leases, %d waiting, %d events\n",
				file, n.leases, n.waiters, n.events)
			return nil
		},
	}
}

func healthCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask the server on this machine whether it works; for a container's health check",
		Description: `
   With the server's own variables: where it speaks TLS, CALL_ME_TLS_CERTIFICATE too.

   PORT=8001 call-me health`,
		UsageText: variables(&healthConfig{}),
		Action: func(c *cli.Context) error {
			var config healthConfig
			if err := readConfig(&config); err != nil {
				return err
			}
			if err := health(c.Context, config); err != nil {
				return err
			}
			fmt.Fprintln(t.out, "ok")
			return nil
		},
	}
}

// checkError wraps an error of checkFile with the path of the file, and adds a hint
// where the cause is known.
func checkError(err error, path string) error {
	err = fmt.Errorf("checking %q: %w", path, err)
	switch {
	case errors.Is(err, errInUse):
		return withHint(err, "stop the server, or check a copy: call-me backup call-me-copy.db")
	case errors.Is(err, notDatabase{}):
		return withHint(err,
			"a file of call-me is what CALL_ME_DB of its server names, or what call-me backup has written")
	case errors.Is(err, errDamaged):
		return withHint(err,
			"the file was left as it is; restore a copy, or move it away to begin without leases")
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "call-me must be able to read the file")
	}
	return err
}
