package main

// What a line of CALL_ME_ENVIRONMENTS_FILE says of an environment besides its slots:
//
//	uat:blue+green url=https://uat.example owner=#team-shop note="data of last week"

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// environmentFacts is what people are shown of an environment. Each is empty if the operator
// has not said it.
type environmentFacts struct {
	url   string // of the environment itself, http or https
	owner string // whom to ask, at most maxOwner bytes
	note  string // at most maxNote bytes
}

const (
	maxOwner = 256
	maxNote  = 1 << 10
)

// firstFact matches the start of the first fact of a line, after the declaration.
var firstFact = regexp.MustCompile(`\s\w+=`)

// cutFacts returns the declaration of a line, and the facts after it. The error names the fact
// that cannot be read.
func cutFacts(line string) (declaration string, facts environmentFacts, err error) {
	at := firstFact.FindStringIndex(line)
	if at == nil {
		return line, facts, nil
	}
	declaration, rest := line[:at[0]], strings.TrimSpace(line[at[0]:])
	seen := map[string]bool{}
	for rest != "" {
		name, value, after, err := cutFact(rest)
		switch {
		case err != nil:
			return "", facts, err
		case seen[name]:
			return "", facts, fmt.Errorf("%s is there twice", name)
		}
		if err := facts.set(name, value); err != nil {
			return "", facts, err
		}
		seen[name], rest = true, after
	}
	return declaration, facts, nil
}

// cutFact returns the first fact of a text and what follows it. A value with spaces stands in
// double quotes.
func cutFact(text string) (name, value, rest string, err error) {
	name, value, found := strings.Cut(text, "=")
	if !found || strings.ContainsAny(name, " \t\"") {
		return "", "", "", fmt.Errorf("%q is no fact such as owner=#team; "+
			"a value with spaces stands in quotes", text)
	}
	if quoted, isQuoted := strings.CutPrefix(value, `"`); isQuoted {
		value, rest, found = strings.Cut(quoted, `"`)
		if !found {
			return "", "", "", fmt.Errorf("the quote of %s has no end", name)
		}
		if rest != "" && rest == strings.TrimLeft(rest, " \t") {
			return "", "", "", fmt.Errorf("after the quote of %s a space is missing", name)
		}
		return name, value, strings.TrimSpace(rest), nil
	}
	if end := strings.IndexAny(value, " \t"); end >= 0 {
		value, rest = value[:end], strings.TrimSpace(value[end:])
	}
	return name, value, rest, nil
}

// set sets the fact of a name. The error says what is wrong with the name or the value.
func (f *environmentFacts) set(name, value string) error {
	field, limit := map[string]*string{"url": &f.url, "owner": &f.owner, "note": &f.note}[name], maxNote
	switch {
	case field == nil:
		return fmt.Errorf("%q is unknown: after the slots stand url=, owner= and note=", name+"="+value)
	case name == "url" && (value == "" || checkLink(value) != nil):
		return fmt.Errorf("%q is no http or https link of at most %d bytes", value, maxLink)
	case name == "url":
		limit = maxLink
	case name == "owner":
		limit = maxOwner
	}
	if len(value) > limit {
		return fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	if value == "" {
		return errors.New(name + " has no value")
	}
	if err := checkNoCommand(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*field = value
	return nil
}
