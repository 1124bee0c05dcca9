package main

// The types of configuration fields, and how each is read from text.

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

// logForm is how a log looks.
type logForm string

const (
	logText logForm = "text"
	logJSON logForm = "json"
)

func (f *logForm) Decode(text string) error {
	if *f = logForm(text); *f != logText && *f != logJSON {
		return errors.New("neither text nor json")
	}
	return nil
}

// proxies are the addresses whose word on where a call comes from is taken.
type proxies []netip.Prefix

// Decode reads 10.0.0.1,192.168.0.0/16.
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

func (p proxies) has(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// port is a TCP port; 0: any that is free.
type portNumber uint16

func (p *portNumber) Decode(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("no port (0 to 65535)")
	}
	*p = portNumber(n)
	return nil
}

// ttl is 0 or a duration within the limits of a lease.
type leaseTTL time.Duration

func (t *leaseTTL) Decode(text string) error {
	d, err := parseTTL(text)
	if err != nil {
		return fmt.Errorf("no duration such as 90s or 2h, from %v to %v, or 0", minTTL, maxTTL)
	}
	*t = leaseTTL(d)
	return nil
}

// ownTTL is a ttl that may not have been chosen: nil. (envconfig would call
// Decode on a nil *ttl.)
type optionalTTL struct{ chosen *time.Duration }

func (t *optionalTTL) Decode(text string) error {
	var read leaseTTL
	err := read.Decode(text)
	t.chosen = (*time.Duration)(&read)
	return err
}

// span is a duration that is not negative.
type positiveDuration time.Duration

func (s *positiveDuration) Decode(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("no duration such as 90s or 30m")
	}
	*s = positiveDuration(d)
	return nil
}

// number is a fence.
type fenceNumber uint64

func (n *fenceNumber) Decode(text string) error {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v == 0 {
		return errors.New("no number that a grant told")
	}
	*n = fenceNumber(v)
	return nil
}

// host is the base URL of a server, without a slash at its end.
type serverURL string

// target matches the names of compilers' targets: HOST is also a variable of
// build tools, and conda, for one, sets it to x86_64-conda-linux-gnu.
var compilerTarget = regexp.MustCompile(`^(x86_64|amd64|aarch64|arm64|i[3-6]86|ppc64le|powerpc64le|s390x|riscv64)-\w+-\w+`)

// Decode takes host, host:port and URLs; the scheme defaults to http, and
// with it the port to 8000.
func (h *serverURL) Decode(text string) error {
	withScheme := text
	if !strings.Contains(text, "://") {
		withScheme = "http://" + text
	}
	u, err := url.Parse(withScheme)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !isHostname(u.Hostname()) || compilerTarget.MatchString(text) {
		return errors.New("no host (localhost:8000 or https://call-me.example)")
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return errors.New("no host with a port (1 to 65535)")
	}
	if withScheme != text && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8000")
	}
	*h = serverURL(strings.TrimRight(u.String(), "/"))
	return nil
}

func isHostname(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		ok := label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		if !ok || strings.ContainsFunc(label, func(r rune) bool {
			return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		}) {
			return false
		}
	}
	return true
}

// environments are the declared ones: names in the order of the declaration,
// and the slots of each. Empty: nothing is declared, and any name has one
// slot of the same name.
type declaredEnvironments struct {
	names []string
	slots map[string][]string
}

// maxSlots is how many slots one environment may declare.
const maxSlots = 1000

// Decode reads uat:blue+green,perf:2,staging.
func (e *declaredEnvironments) Decode(text string) error {
	read := declaredEnvironments{slots: map[string][]string{}}
	for entry := range strings.SplitSeq(text, ",") {
		name, list, listed := strings.Cut(strings.TrimSpace(entry), ":")
		if err := checkEnvironment(name); err != nil {
			return fmt.Errorf("no list of environments: %q is no name", name)
		}
		if read.slots[name] != nil {
			return fmt.Errorf("no list of environments: %q is there twice", name)
		}
		slots := []string{name}
		if listed {
			var err error
			if slots, err = slotNames(name, list); err != nil {
				return err
			}
		}
		read.names = append(read.names, name)
		read.slots[name] = slots
	}
	*e = read
	return nil
}

func slotNames(environment, list string) ([]string, error) {
	if n, err := strconv.Atoi(list); err == nil {
		if n < 1 || n > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q has %d slots (1 to %d)", environment, n, maxSlots)
		}
		slots := make([]string, n)
		for i := range slots {
			slots[i] = fmt.Sprintf("%s-%d", environment, i+1)
		}
		return slots, nil
	}
	slots := strings.Split(list, "+")
	for i, slot := range slots {
		if checkEnvironment(slot) != nil || slices.Contains(slots[:i], slot) || strings.Contains(slot, ":") || len(slots) > maxSlots {
			return nil, fmt.Errorf("no list of environments: %q of %q is no slot, or is there twice", slot, environment)
		}
	}
	return slots, nil
}

// of returns the slots of an environment; nil: it is not declared.
func (e declaredEnvironments) slotsOf(name string) []string {
	if len(e.names) == 0 {
		return []string{name}
	}
	return e.slots[name]
}
