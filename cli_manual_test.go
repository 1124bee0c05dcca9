package main

// The manual page. A release writes it: go test -run TestTheManualPage . -man call-me.1

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var manualPage = flag.String("man", "", "write the manual page to this file")

// The manual page has every command and flag.
func TestTheManualPage(t *testing.T) {
	app := newApp(newTerminal())
	page, err := app.ToManWithSection(1)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\-`, "-", `\`, "").Replace(page)
	for _, command := range app.Commands {
		if command.Hidden {
			continue
		}
		if !strings.Contains(plain, "\n.SH "+command.Name) {
			t.Errorf("there is no %s", command.Name)
		}
		for _, f := range command.Flags {
			if !strings.Contains(plain, "--"+f.Names()[0]) {
				t.Errorf("there is no --%s", f.Names()[0])
			}
		}
	}
	if *manualPage != "" {
		if err := os.WriteFile(*manualPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
