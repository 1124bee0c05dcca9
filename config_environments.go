package main

// The environments that the operator declares: in CALL_ME_ENVIRONMENTS, or in a file with
// one declaration a line, which the server reads again when it changes.

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// declaredEnvironments are the environments that the operator has declared: the names in
// the order of the declaration, and the slots of each. If it is empty, every name is an
// environment with one slot of the same name.
type declaredEnvironments struct {
	names []string
	slots map[string][]string
	facts map[string]environmentFacts // of those that have any
}

// maxSlots is the largest number of slots of one environment.
const maxSlots = 1000

// Decode reads a list such as uat:blue+green,perf:2,staging: an environment with the names
// of its slots, with their number, or with one slot of its own name.
func (e *declaredEnvironments) Decode(text string) error {
	read := declaredEnvironments{slots: map[string][]string{}}
	if strings.Contains(text, ";") {
		return errors.New("no list of environments: it has a semicolon; commas stand between environments")
	}
	for entry := range strings.SplitSeq(text, ",") {
		if err := read.add(entry); err != nil {
			return fmt.Errorf("no list of environments: %w", err)
		}
	}
	if _, err := read.checkSlots(); err != nil {
		return fmt.Errorf("no list of environments: %w", err)
	}
	*e = read
	return nil
}

// add adds one declaration, such as uat:blue+green. The error names what is wrong with it.
func (e *declaredEnvironments) add(entry string) error {
	name, list, listed := strings.Cut(entry, ":")
	name, list = strings.TrimSpace(name), strings.TrimSpace(list)
	if name == "" {
		return errors.New("a name is missing, at a comma or a colon")
	}
	if err := checkEnvironment(name); err != nil {
		return fmt.Errorf("%q is no name", name)
	}
	if e.slots[name] != nil {
		return fmt.Errorf("%q is there twice", name)
	}
	slots := []string{name}
	if listed {
		var err error
		slots, err = slotNames(name, list)
		if err != nil {
			return err
		}
	}
	e.names = append(e.names, name)
	e.slots[name] = slots
	return nil
}

// checkSlots returns an error if a slot has the name of another environment: it is likely
// that a comma was meant to stand between slots. in is the environment that has the slot.
func (e declaredEnvironments) checkSlots() (in string, err error) {
	for _, name := range e.names {
		for _, slot := range e.slots[name] {
			if slot != name && e.slots[slot] != nil {
				return name, fmt.Errorf("%q is an environment and a slot of %q", slot, name)
			}
		}
	}
	return "", nil
}

// maxEnvironmentsFile is the size of the largest file of environments, in bytes.
const maxEnvironmentsFile = 256 << 10

// environments returns the declared environments: those of the file if one is set, which it
// reads, otherwise those of CALL_ME_ENVIRONMENTS. A file that cannot be read, has a line
// that is no declaration, or has none is a usage error; it names the line.
func (c *serverConfig) environments() (declaredEnvironments, error) {
	if c.EnvironmentsFile == "" {
		return c.Environments, nil
	}
	read := declaredEnvironments{}
	text, err := readTextFile(c.EnvironmentsFile, maxEnvironmentsFile, "environments")
	if err == nil {
		read, err = parseEnvironments(text)
		if err != nil {
			err = fmt.Errorf("%q, %w", c.EnvironmentsFile, err)
		}
	}
	if err == nil && len(read.names) == 0 {
		err = fmt.Errorf("%q has no environment", c.EnvironmentsFile)
	}
	if err != nil {
		return declaredEnvironments{}, usagef("reading %s_ENVIRONMENTS_FILE: %v", variablePrefix, err)
	}
	return read, nil
}

// parseEnvironments returns the declarations of a text, one a line, with their facts. Empty
// lines and comments
// are skipped. The error begins with the number of the line.
func parseEnvironments(text string) (declaredEnvironments, error) {
	read := declaredEnvironments{slots: map[string][]string{}, facts: map[string]environmentFacts{}}
	numbers := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		entry := strings.TrimSpace(withoutComment(line))
		if entry == "" {
			continue
		}
		entry, facts, err := cutFacts(entry)
		if err == nil {
			err = checkLine(entry)
		}
		if err == nil {
			err = read.add(entry)
		}
		if err != nil {
			return declaredEnvironments{}, fmt.Errorf("line %d: %w", i+1, err)
		}
		name := read.names[len(read.names)-1]
		numbers[name] = i + 1
		if facts != (environmentFacts{}) {
			read.facts[name] = facts
		}
	}
	if in, err := read.checkSlots(); err != nil {
		return declaredEnvironments{}, fmt.Errorf("line %d: %w", numbers[in], err)
	}
	return read, nil
}

// withoutComment returns a line without its comment, which begins with a "#" at the start
// of the line or after white space, and not within the quotes of a fact.
func withoutComment(line string) string {
	before, isQuoted := ' ', false
	for i, r := range line {
		switch {
		case r == '"' && (isQuoted || before == '='):
			isQuoted = !isQuoted
		case r == '#' && unicode.IsSpace(before) && !isQuoted:
			return line[:i]
		}
		before = r
	}
	return line
}

// checkLine returns an error if a line of a file has more than one declaration.
func checkLine(entry string) error {
	if strings.ContainsAny(entry, ",;") {
		return fmt.Errorf("%q is more than one environment: each has a line of its own", entry)
	}
	return nil
}

// String returns the declaration as Decode reads it; empty if nothing is declared.
func (e declaredEnvironments) String() string {
	var entries []string
	for _, name := range e.names {
		slots := e.slots[name]
		if len(slots) == 1 && slots[0] == name {
			entries = append(entries, name)
		} else {
			entries = append(entries, name+":"+strings.Join(slots, "+"))
		}
	}
	return strings.Join(entries, ",")
}

// oddCharacters are characters that a name may have, and that are likely part of another
// notation for lists.
const oddCharacters = " \t=|&'\"[]{}()"

// warnings returns a line for each declaration that is allowed, but was probably meant
// otherwise: a name with odd characters, and an environment with one named slot before an
// environment without slots, as in uat:blue,green.
func (e declaredEnvironments) warnings() []string {
	var lines []string
	for i, name := range e.names {
		for _, text := range append([]string{name}, e.slots[name]...) {
			if at := strings.IndexAny(text, oddCharacters); at >= 0 {
				lines = append(lines, fmt.Sprintf("the name %q has %q in it; "+
					"between environments stand commas, as in uat:blue+green,perf", text, text[at:at+1]))
				break
			}
		}
		if i+1 == len(e.names) {
			break
		}
		slots, next := e.slots[name], e.names[i+1]
		isPlain := len(e.slots[next]) == 1 && e.slots[next][0] == next
		if len(slots) == 1 && slots[0] != name && slots[0] != name+"-1" && isPlain {
			lines = append(lines, fmt.Sprintf("%q has one slot, %q, and %q is an environment; "+
				"for two slots: %s:%s+%s", name, slots[0], next, name, slots[0], next))
		}
	}
	return lines
}

// slotNames returns the names of an environment's slots. The list is a number from 1 to
// maxSlots, for which the names are perf-1, perf-2 and so on, or names with "+" between
// them. Names of slots are checked as those of environments, have no colon, and are
// distinct within the environment.
func slotNames(environment, list string) ([]string, error) {
	if n, err := strconv.Atoi(list); err == nil {
		if n < 1 || n > maxSlots {
			return nil, fmt.Errorf("%q has %d slots (1 to %d)",
				environment, n, maxSlots)
		}
		slots := make([]string, n)
		for i := range slots {
			slots[i] = fmt.Sprintf("%s-%d", environment, i+1)
		}
		return slots, nil
	}
	slots := strings.Split(list, "+")
	for i := range slots {
		slots[i] = strings.TrimSpace(slots[i])
		slot := slots[i]
		isTwice := slices.Contains(slots[:i], slot)
		switch {
		case isTwice:
			return nil, fmt.Errorf("the slot %q of %q is there twice", slot, environment)
		case slot == "":
			return nil, fmt.Errorf("a slot of %q has no name; write for example %[1]s:blue+green",
				environment)
		case checkEnvironment(slot) != nil || strings.Contains(slot, ":"):
			return nil, fmt.Errorf("%q of %q is no name of a slot", slot, environment)
		case len(slots) > maxSlots:
			return nil, fmt.Errorf("%q has %d slots (1 to %d)", environment, len(slots), maxSlots)
		}
	}
	return slots, nil
}

// slotsOf returns the slots of an environment; nil if others are declared and it is not.
func (e declaredEnvironments) slotsOf(name string) []string {
	if len(e.names) == 0 {
		return []string{name}
	}
	return e.slots[name]
}
