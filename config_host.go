package main

// The addresses of the servers in HOST.

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
)

// serverURLs are the base URLs of one or several servers, each without a slash at its end,
// in the order in which the client tries them. There are no duplicates.
type serverURLs []string

// Decode reads one address, or several with commas between them, each as readServerURL
// does. Its errors have a hint.
func (s *serverURLs) Decode(text string) error {
	entries := strings.Split(text, ",")
	*s = nil
	for _, entry := range entries {
		base, err := readServerURL(strings.TrimSpace(entry))
		switch {
		case err != nil && len(entries) > 1:
			return copyHint(err, fmt.Errorf("no list of servers: %q is %w", entry, err))
		case err != nil:
			return err
		case !slices.Contains(*s, base):
			*s = append(*s, base)
		}
	}
	return nil
}

// compilerTarget matches the names of compilers' targets. HOST is also a variable of
// build tools: conda sets it to x86_64-conda-linux-gnu.
var compilerTarget = regexp.MustCompile(
	`^(x86_64|amd64|aarch64|arm64|i[3-6]86|ppc64le|powerpc64le|s390x|riscv64)-\w+-\w+`)

// readServerURL returns the base URL of a server. The text is a host, a host with a port,
// or a URL with scheme http or https and nothing behind host and port but a slash. Without
// a scheme it is http, and then the port is 8000 unless there is one. An IPv6 address may
// stand without brackets if it has no port. A name that matches compilerTarget is an
// error. Errors continue "TEXT is", and have a hint.
func readServerURL(text string) (string, error) {
	scheme, rest, hasScheme := strings.Cut(text, "://")
	scheme = strings.ToLower(scheme)
	if !hasScheme {
		scheme, rest = "http", text
	}
	if a, err := netip.ParseAddr(rest); err == nil && a.Is6() && a.Zone() == "" {
		rest = "[" + rest + "]"
	}
	const form = "HOST=localhost:8000, or HOST=https://call-me.example"
	const noPort = "no server: the port is not a number from 1 to 65535"
	if scheme != "http" && scheme != "https" {
		return "", withHint(fmt.Errorf("no server: the scheme is %q", scheme), form)
	}
	u, err := url.Parse(scheme + "://" + rest)
	switch {
	case err != nil && strings.Contains(err.Error(), "invalid port") && !strings.Contains(rest, " "):
		return "", withHint(errors.New(noPort), form)
	case err != nil, u.User != nil, strings.HasSuffix(u.Host, ":"), !isHostname(u.Hostname()),
		compilerTarget.MatchString(text):
		return "", withHint(errors.New("no server: it is not host:port"), form)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return "", withHint(errors.New(noPort), form)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		behind := strings.TrimPrefix(u.String(), scheme+"://"+u.Host)
		hint := "HOST=" + strings.TrimSuffix(text, behind)
		err := errors.New("no server: it has a path; HOST must be host:port or https://host")
		return "", withHint(err, hint)
	}
	if !hasScheme && u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "8000")
	}
	return scheme + "://" + u.Host, nil
}

// isHostname reports whether a name is an IP address, or a host name of labels of letters,
// digits, hyphens and underscores: 1 to 63 bytes each, no hyphen at either end, at most
// 253 bytes in all. A dot may follow the last label.
func isHostname(name string) bool {
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
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
