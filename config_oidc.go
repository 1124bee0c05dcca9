package main

// Whom the server trusts to say who a job is (OpenID Connect): the file of CALL_ME_OIDC_FILE.
// It is a JSON array of entries:
//
//	[{"issuer": "https://token.actions.githubusercontent.com", "audience": "call-me",
//	  "match": {"repository_owner": "acme"}, "name": "github:{repository}",
//	  "holder": "github:{repository}/run/{run_id}", "role": "job", "environments": ["uat"]}]
//
// server_oidc.go verifies the tokens of jobs.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// An oidcEntry says which tokens the server accepts, and what their callers may do.
type oidcEntry struct {
	number   int // in the file, from 1 on
	issuer   string
	audience string
	match    map[string][]string // the values that each of these claims may have; at least one claim
	name     claimTemplate
	holder   claimTemplate
	rights
}

// label is the entry in the metrics.
func (e oidcEntry) label() string { return fmt.Sprintf("(oidc %d)", e.number) }

// An oidcEntryJSON is an entry as the file has it. Fields that the file of keys has too have the
// same names and meanings.
type oidcEntryJSON struct {
	Issuer       string               `json:"issuer"`
	Audience     string               `json:"audience"`
	Match        map[string]oneOrMore `json:"match"`
	Name         string               `json:"name"`
	Holder       string               `json:"holder"`
	Role         string               `json:"role"`
	Environments []string             `json:"environments"`
	MaxTTL       string               `json:"max-ttl"`
	MaxHold      string               `json:"max-hold"`
	MaxPlaces    json.Number          `json:"max-places"`
	MaxPriority  json.Number          `json:"max-priority"`
}

// oneOrMore is a text or an array of texts in JSON.
type oneOrMore []string

// UnmarshalJSON reads a text or an array of texts.
func (o *oneOrMore) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	var more []string
	if err := json.Unmarshal(data, &more); err != nil {
		return errors.New("a claim must be a text or an array of texts")
	}
	*o = more
	return nil
}

// A claimTemplate is a text with names of claims in braces.
type claimTemplate string

// placeholder matches the name of a claim in a claimTemplate.
var placeholder = regexp.MustCompile(`\{([^{}]+)\}`)

// expand returns the template with the values of the claims. The error names a claim that the
// token does not have as a text.
func (t claimTemplate) expand(claim func(name string) (value string, found bool)) (string, error) {
	var missing error
	text := placeholder.ReplaceAllStringFunc(string(t), func(match string) string {
		name := match[1 : len(match)-1]
		value, found := claim(name)
		if !found || value == "" {
			missing = fmt.Errorf("the token has no claim %s", name)
		}
		return value
	})
	return text, missing
}

// check returns an error if the braces of the template do not match.
func (t claimTemplate) check() error {
	rest := placeholder.ReplaceAllString(string(t), "")
	if strings.ContainsAny(rest, "{}") {
		return errors.New("has a brace without its counterpart")
	}
	return nil
}

// maxOIDCFile is the size of the largest file of entries, in bytes.
const maxOIDCFile = 256 << 10

// oidcEntries returns the entries of CALL_ME_OIDC_FILE; none without one. A file that cannot be
// read or has an entry that is wrong is a usage error.
func (c *serverConfig) oidcEntries() ([]oidcEntry, error) {
	if c.OIDCFile == "" {
		return nil, nil
	}
	text, err := readTextFile(c.OIDCFile, maxOIDCFile, "JSON")
	if err != nil {
		return nil, usagef("reading %s_OIDC_FILE: %v", variablePrefix, err)
	}
	entries, err := parseOIDC([]byte(text))
	if err != nil {
		return nil, usagef("reading %s_OIDC_FILE: %q, %v", variablePrefix, c.OIDCFile, err)
	}
	return entries, nil
}

// parseOIDC returns the entries of a file. The error begins with the number of the entry, if it
// is about one.
func parseOIDC(text []byte) ([]oidcEntry, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("it is no JSON array of entries: %v", err)
	}
	if len(raw) == 0 {
		return nil, errors.New("it has no entry")
	}
	var entries []oidcEntry
	for i, text := range raw {
		e, err := parseOIDCEntry(text)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		e.number = i + 1
		entries = append(entries, e)
	}
	return entries, nil
}

// parseOIDCEntry returns an entry. One without a holder has its name as the holder, one without
// a role is that of jobs. An entry must match at least one claim: the issuer of a CI system signs
// the tokens of all its customers.
func parseOIDCEntry(text []byte) (e oidcEntry, err error) {
	var j oidcEntryJSON
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil && err != io.EOF {
		return e, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	e = oidcEntry{issuer: j.Issuer, audience: j.Audience, match: map[string][]string{},
		name: claimTemplate(j.Name), holder: claimTemplate(j.Holder), rights: rightsOf(roleJob)}
	if j.Holder == "" {
		e.holder = e.name
	}
	switch {
	case !isIssuer(j.Issuer):
		return e, errors.New("the issuer is no URL such as https://token.actions.githubusercontent.com")
	case j.Audience == "":
		return e, errors.New("it has no audience")
	case len(j.Match) == 0:
		return e, errors.New(`it matches no claim, so that it would let in every customer of the issuer; ` +
			`such as "match": {"repository_owner": "acme"}`)
	case j.Name == "":
		return e, errors.New("it has no name")
	}
	for claim, values := range j.Match {
		if len(values) == 0 || slices.Contains(values, "") {
			return e, fmt.Errorf("match has an empty value for %q", claim)
		}
		e.match[claim] = values
	}
	if err := e.name.check(); err != nil {
		return e, fmt.Errorf("the name %w", err)
	}
	if err := e.holder.check(); err != nil {
		return e, fmt.Errorf("the holder %w", err)
	}
	return e, e.setRights(j)
}

// isIssuer reports whether a text can be the URL of an issuer: https, or http on this machine. The
// keys of an issuer would not be its own if somebody else answered in its place.
func isIssuer(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	isLocal := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Scheme == "https" || u.Scheme == "http" && isLocal
}

// setRights sets the role and the limits of an entry.
func (e *oidcEntry) setRights(j oidcEntryJSON) error {
	if j.Role != "" {
		r, err := parseRole(j.Role)
		if err != nil {
			return err
		}
		e.rights = rightsOf(r)
	}
	for _, field := range []struct{ name, value string }{
		{"environments", strings.Join(j.Environments, ",")}, {"max-ttl", j.MaxTTL}, {"max-hold", j.MaxHold},
		{"max-places", j.MaxPlaces.String()}, {"max-priority", j.MaxPriority.String()},
	} {
		if field.value == "" {
			continue
		}
		if err := e.rights.set(field.name, field.value); err != nil {
			return err
		}
	}
	if j.Environments != nil && len(j.Environments) == 0 {
		return errors.New("environments is empty, so that it would see none")
	}
	return nil
}
