package main

// The command key: it makes a key with a name, for the server's file of keys and for a client.

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// rightUsage is the help of the flags of key, by the fields of the file of keys.
var rightUsage = map[string]string{
	"role":         "view: look; job: request, renew and release its own; admin: everything (default: job)",
	"environments": "it sees only these: names with commas between them, with a * at the end of a beginning",
	"max-ttl":      "the longest ttl of its leases",
	"max-hold":     "the longest time for which it has a slot, whatever is renewed",
	"max-places":   "the most slots that all clients with this name have and wait for at once",
	"max-priority": "the highest priority of its requests (default: 0; of an admin: 100)",
}

func keyCommand(t *terminal) *cli.Command {
	var flags []cli.Flag
	for _, field := range rightFields {
		flags = append(flags, &cli.StringFlag{Name: field, Usage: rightUsage[field]})
	}
	return &cli.Command{
		Name:      "key",
		Usage:     "make a key with a name: the line for the server's file, and the key for the client",
		ArgsUsage: "NAME",
		Description: `
   Calls no server. The line has only the sum of the key, which is printed once and stored nowhere. Several
   lines may have one name, with the same role and limits: to exchange a key, add a line, and remove the old
   one when no client sends it any more. The server reads its file again when it changes.

   call-me key shop-ci --environments uat,perf-* --max-ttl 4h
   call-me key grafana --role view`,
		Flags: flags,
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return withHint(usagef("key takes the name of the key"), "call-me key shop-ci --role job")
			}
			words := []string{"name=" + c.Args().First()}
			for _, field := range rightFields {
				if c.IsSet(field) {
					words = append(words, field+"="+c.String(field))
				}
			}
			return printKey(t, rand.Text(), words)
		},
	}
}

// printKey prints a key with the fields of its line, as parseKey has read them: the line for
// the server's file, and what the client needs. The error is a usage error for a field that is
// wrong.
func printKey(t *terminal, key string, words []string) error {
	made, err := parseKey(key, words)
	if err == nil && len(words) != len(strings.Fields(strings.Join(words, " "))) {
		err = fmt.Errorf("a value has white space")
	}
	if err != nil {
		return withHint(usagef("%v", err), "call-me key --help")
	}
	line := sumPrefix + hex.EncodeToString(made.sum[:]) + " name=" + made.name + " " +
		strings.Join(made.fields(), " ")
	_, err = fmt.Fprintf(t.out, "# for the server: a line of the file that its API_KEY_FILE names\n%s\n"+
		"# for the client: a secret, which nobody can print again\nAPI_KEY=%s\n", line, key)
	return err
}
