package main

// The command move.

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func moveCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name:      "move",
		Usage:     "move the state of a server from its file to etcd",
		ArgsUsage: "FILE etcd://HOST:PORT,.../PREFIX",
		Description: `
   Copies leases, the queue and the history of FILE to keys with the prefix, of which there must be
   none. No server may use FILE, nor begin with it afterwards. The other way is call-me backup.

   call-me move /var/lib/call-me/call-me.db etcd://a:2379,b:2379,c:2379/call-me`,
		Action: func(c *cli.Context) error {
			var config serverConfig
			if c.Args().Len() != 2 {
				return withHint(usagef("move takes a file and an address of etcd"),
					"call-me move call-me.db etcd://a:2379,b:2379,c:2379/call-me")
			}
			if err := readMoveConfig(&config, c.Args().Get(1)); err != nil {
				return err
			}
			n, err := moveToEtcd(c.Context, c.Args().First(), config)
			if err != nil {
				return err
			}
			fmt.Fprintf(t.out, "moved %d records from %s to %s\n", n, c.Args().First(), config.Store)
			return nil
		},
	}
}
