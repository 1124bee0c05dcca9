package main

// The keys: those that the server accepts, with the names, roles and limits that the file of
// keys has, and the one that a client sends. No error has anything of a key, or of a line.

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An acceptedKey is a key that the server accepts, with who has it and what it allows. The key
// itself is not kept. Several may have one name, with equal rights: while a key is exchanged,
// the old one and the new one are accepted.
type acceptedKey struct {
	sum     [sha256.Size]byte
	name    string // empty for a key without a name, which may do everything
	isShort bool   // it has fewer than shortKey characters
	rights
}

// shortKey is the number of characters with fewer than which a key may be guessed.
const shortKey = 16

// plainKey returns a key without a name, which may do everything.
func plainKey(key string) acceptedKey {
	return acceptedKey{sum: sha256.Sum256([]byte(key)), isShort: utf8.RuneCountInString(key) < shortKey,
		rights: rightsOf(roleAdmin)}
}

// A keyLine is one line of a file of keys.
type keyLine struct {
	acceptedKey
	number int    // of the line, from 1 on
	key    string // itself; empty if the line has its sum
}

// sumPrefix is before the sum of a key, in hexadecimal digits, where a line has it in place of
// the key.
const sumPrefix = "sha256:"

// nameText matches the names of keys: they stand in logs and as labels of metrics.
var nameText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}$`)

// acceptedKeys returns the keys that the server accepts, at least one: those of the file if
// one is set, otherwise that of API_KEY, which has no name. A missing key, one that checkKey
// rejects, and a file that cannot be read or has a line that is wrong are usage errors.
func (c KeyConfig) acceptedKeys() ([]acceptedKey, error) {
	if c.APIKeyFile == "" {
		key, err := c.variableKey()
		return []acceptedKey{plainKey(key)}, err
	}
	lines, err := c.keyLines()
	var accepted []acceptedKey
	for _, l := range lines {
		accepted = append(accepted, l.acceptedKey)
	}
	return accepted, err
}

// sentKey returns the key that a client sends: that of API_KEY, or the first key of the file,
// of which a client reads no more. Its errors are those of acceptedKeys; a file that has only
// sums is one too.
func (c KeyConfig) sentKey() (string, error) {
	if c.APIKeyFile == "" {
		return c.variableKey()
	}
	lines, err := c.keyLines()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(lines, func(l keyLine) bool { return l.key != "" })
	if i < 0 {
		return "", usagef("reading %s: %q has only the sums of keys; a client sends the key itself",
			setName(variablePrefix+"_API_KEY_FILE"), c.APIKeyFile)
	}
	return lines[i].key, nil
}

// variableKey returns the key of API_KEY, without white space around it. A missing key, and one
// that checkKey rejects, is a usage error.
func (c KeyConfig) variableKey() (string, error) {
	key := strings.TrimSpace(c.APIKey)
	if key == "" {
		return "", withHint(usagef("API_KEY must be set"),
			"API_KEY=..., the key that the server and its clients share, or API_KEY_FILE=...")
	}
	return key, checkKey(setName(variablePrefix+"_API_KEY"), key)
}

// keyLines returns the lines of the file of keys that have a key, at least one. A file that
// cannot be read, and one that parseKeys rejects, is a usage error.
func (c KeyConfig) keyLines() ([]keyLine, error) {
	variable := setName(variablePrefix + "_API_KEY_FILE")
	text, err := readTextFile(c.APIKeyFile, maxKeyFile, "keys")
	if err != nil {
		return nil, usagef("reading %s: %v", variable, err)
	}
	lines, err := parseKeys(text)
	switch {
	case err != nil:
		return nil, usagef("reading %s: %q, %v", variable, c.APIKeyFile, err)
	case len(lines) == 0:
		return nil, usagef("reading %s: %q has no key", variable, c.APIKeyFile)
	}
	return lines, nil
}

// parseKeys returns the keys of a file: one a line, or its sum, and after it the fields name,
// role, environments and the limits. Empty lines and comments, which begin with a "#" at the
// start of a line or after white space, are skipped. The error begins with the number of the
// line.
func parseKeys(text string) ([]keyLine, error) {
	var lines []keyLine
	for i, raw := range strings.Split(text, "\n") {
		words := strings.Fields(withoutComment(strings.TrimRight(raw, "\r")))
		if len(words) == 0 {
			continue
		}
		l, err := parseKey(words[0], words[1:])
		l.number = i + 1
		if err == nil {
			err = l.checkAgainst(lines)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", l.number, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// parseKey returns the key of a line with its fields. Without fields it has no name and may do
// everything. With a name and without a role it is that of a job.
func parseKey(key string, words []string) (keyLine, error) {
	l := keyLine{acceptedKey: plainKey(key), key: key}
	if strings.ContainsFunc(key, unicode.IsControl) {
		return l, errors.New("it has a control character")
	}
	field, _, isField := strings.Cut(key, "=")
	if isField && slices.Contains(append([]string{"name"}, rightFields...), field) {
		return l, fmt.Errorf("the key is missing before %s=", field)
	}
	if digits, isSum := strings.CutPrefix(key, sumPrefix); isSum {
		sum, err := hex.DecodeString(digits)
		if err != nil || len(sum) != len(l.sum) {
			return l, fmt.Errorf("after %s stand %d hexadecimal digits", sumPrefix, 2*len(l.sum))
		}
		l.sum, l.key, l.isShort = [sha256.Size]byte(sum), "", false
	}
	if len(words) == 0 {
		return l, nil
	}
	fields, err := parseFields(words)
	if err != nil {
		return l, err
	}
	l.name = fields["name"]
	switch {
	case l.name == "":
		return l, errors.New("a key with a role, environments or limits needs a name")
	case !nameText.MatchString(l.name):
		return l, errors.New("the name is not 1 to 100 letters, digits and . _ : / @ + -")
	}
	l.rights = rightsOf(roleJob)
	if text, found := fields["role"]; found {
		r, err := parseRole(text)
		if err != nil {
			return l, err
		}
		l.rights = rightsOf(r)
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if err := l.rights.set(field, fields[field]); err != nil {
			return l, err
		}
	}
	return l, nil
}

// parseFields returns the values of the words of a line, such as name=shop-ci, by their names.
func parseFields(words []string) (map[string]string, error) {
	known := append([]string{"name"}, rightFields...)
	fields := map[string]string{}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		_, isTwice := fields[name]
		switch {
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("after the key is a word that is none of %s=", strings.Join(known, "=, "))
		case isTwice:
			return nil, fmt.Errorf("%s is there twice", name)
		case value == "":
			return nil, fmt.Errorf("%s has no value", name)
		}
		fields[name] = value
	}
	return fields, nil
}

// checkAgainst returns an error if an earlier line has the same key, or the same name with
// other rights.
func (l keyLine) checkAgainst(earlier []keyLine) error {
	for _, other := range earlier {
		switch {
		case l.sum == other.sum:
			return fmt.Errorf("it has the key of line %d again", other.number)
		case l.name != "" && l.name == other.name && !l.rights.equal(other.rights):
			return fmt.Errorf("it has the name of line %d with another role, other environments "+
				"or other limits", other.number)
		}
	}
	return nil
}
