package main

// The types of the configuration's fields. Each has a method Decode, which envconfig and
// setting.set call with the text of a variable or a flag. The error of Decode continues
// the sentence "VALUE is ...".

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A logForm is the form of the server's log.
type logForm string

const (
	logText logForm = "text"
	logJSON logForm = "json"
)

// Decode reads text or json.
func (f *logForm) Decode(text string) error {
	*f = logForm(text)
	if *f != logText && *f != logJSON {
		return errors.New("neither text nor json")
	}
	return nil
}

// proxies are the addresses whose X-Forwarded-For header the server believes.
type proxies []netip.Prefix

// Decode reads addresses and networks, such as 10.0.0.1,192.168.0.0/16. An IPv4 address
// in the form of IPv6 is read as the IPv4 address.
func (p *proxies) Decode(text string) error {
	*p = nil
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if a, errAddress := netip.ParseAddr(entry); errAddress == nil {
			prefix, err = a.Unmap().Prefix(a.Unmap().BitLen())
		}
		if err != nil {
			return errors.New("no list of addresses such as 10.0.0.1,192.168.0.0/16")
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// has reports whether one of the prefixes contains the address.
func (p proxies) has(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// A portNumber is a TCP port. Zero stands for any port that is free.
type portNumber uint16

// Decode reads a number from 0 to 65535.
func (p *portNumber) Decode(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("no port (0 to 65535)")
	}
	*p = portNumber(n)
	return nil
}

// A leaseTTL is the ttl of a lease, from minTTL to maxTTL. Zero is a lease without end.
type leaseTTL time.Duration

// Decode reads a duration as parseTTL does.
func (t *leaseTTL) Decode(text string) error {
	d, err := parseTTL(text)
	if err != nil {
		return fmt.Errorf("no duration such as 90s or 2h, from %v to %v, or 0", minTTL, maxTTL)
	}
	*t = leaseTTL(d)
	return nil
}

// An optionalTTL is a ttl, or nil if none was set. It is a struct because envconfig would
// call Decode on a nil *leaseTTL.
type optionalTTL struct{ chosen *time.Duration }

// Decode reads a leaseTTL.
func (t *optionalTTL) Decode(text string) error {
	var read leaseTTL
	err := read.Decode(text)
	t.chosen = (*time.Duration)(&read)
	return err
}

// A nonNegativeDuration is a duration that is zero or more.
type nonNegativeDuration time.Duration

// Decode reads a duration of Go, such as 90s or 30m.
func (p *nonNegativeDuration) Decode(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("no duration such as 90s or 30m")
	}
	*p = nonNegativeDuration(d)
	return nil
}

// A fenceNumber is the fence of a lease, or zero if none was set.
type fenceNumber uint64

// Decode reads a number that is greater than zero.
func (n *fenceNumber) Decode(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("no number that a grant told")
	}
	*n = fenceNumber(v)
	return nil
}

// A serverURL is the base URL of a server, without a slash at its end.
type serverURL string

// compilerTarget matches the names of compilers' targets. HOST is also a variable of
// build tools: conda sets it to x86_64-conda-linux-gnu.
var compilerTarget = regexp.MustCompile(
	`^(x86_64|amd64|aarch64|arm64|i[3-6]86|ppc64le|powerpc64le|s390x|riscv64)-\w+-\w+`)

// Decode reads a host, a host with a port, or a URL with scheme http or https. Without a
// scheme it is http, and then the port is 8000 unless there is one. A URL may have a path
// but no user, query or fragment. A name that matches compilerTarget is an error.
func (s *serverURL) Decode(text string) error {
	withScheme := text
	if !strings.Contains(text, "://") {
		withScheme = "http://" + text
	}
	u, err := url.Parse(withScheme)
	if err != nil || !isBaseURL(u) || compilerTarget.MatchString(text) {
		return errors.New("no host (localhost:8000 or https://call-me.example)")
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return errors.New("no host with a port (1 to 65535)")
	}
	if withScheme != text && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8000")
	}
	*s = serverURL(strings.TrimRight(u.String(), "/"))
	return nil
}

// isBaseURL reports whether a URL is one of http or https that has a host and no user,
// query or fragment.
func isBaseURL(u *url.URL) bool {
	isHTTP := u.Scheme == "http" || u.Scheme == "https"
	return isHTTP && u.User == nil && u.RawQuery == "" && u.Fragment == "" && isHostname(u.Hostname())
}

// isHostname reports whether a name is an IP address, or a host name of labels of letters,
// digits, hyphens and underscores: 1 to 63 bytes each, no hyphen at either end, at most
// 253 bytes in all. A dot may follow the last label.
func isHostname(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !isHostnameRune(r) }) {
			return false
		}
	}
	return true
}

// isHostnameRune reports whether a label of a host name may have the character.
func isHostnameRune(r rune) bool {
	isLetter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	isDigit := r >= '0' && r <= '9'
	return isLetter || isDigit || r == '-' || r == '_'
}

// declaredEnvironments are the environments that the operator has declared: the names in
// the order of the declaration, and the slots of each. If it is empty, every name is an
// environment with one slot of the same name.
type declaredEnvironments struct {
	names []string
	slots map[string][]string
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
		name, list, listed := strings.Cut(entry, ":")
		name, list = strings.TrimSpace(name), strings.TrimSpace(list)
		if err := checkEnvironment(name); err != nil {
			return fmt.Errorf("no list of environments: %q is no name", name)
		}
		if read.slots[name] != nil {
			return fmt.Errorf("no list of environments: %q is there twice", name)
		}
		slots := []string{name}
		if listed {
			var err error
			slots, err = slotNames(name, list)
			if err != nil {
				return err
			}
		}
		read.names = append(read.names, name)
		read.slots[name] = slots
	}
	if err := read.checkSlots(); err != nil {
		return err
	}
	*e = read
	return nil
}

// checkSlots returns an error if a slot has the name of another environment: it is likely
// that a comma was meant to stand between slots.
func (e declaredEnvironments) checkSlots() error {
	for _, name := range e.names {
		for _, slot := range e.slots[name] {
			if slot != name && e.slots[slot] != nil {
				return fmt.Errorf("no list of environments: %q is an environment and a slot of %q", slot, name)
			}
		}
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

// slotNames returns the names of an environment's slots. The list is a number from 1 to
// maxSlots, for which the names are perf-1, perf-2 and so on, or names with "+" between
// them. Names of slots are checked as those of environments, have no colon, and are
// distinct within the environment.
func slotNames(environment, list string) ([]string, error) {
	if n, err := strconv.Atoi(list); err == nil {
		if n < 1 || n > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q has %d slots (1 to %d)",
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
		if checkEnvironment(slot) != nil || isTwice || strings.Contains(slot, ":") || len(slots) > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q of %q is no slot, or is there twice",
				slot, environment)
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
