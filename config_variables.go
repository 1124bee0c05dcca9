package main

// The variables that begin with CALL_ME_ but are not call-me's: those with a typing error,
// and those that Kubernetes sets for a Service with such a name.

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// serviceLink matches the variables that Kubernetes sets in each container for a Service
// whose name begins with call-me, but for NAME_PORT, which serviceAddress matches by its
// value (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
var (
	serviceLink    = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)`)
	serviceAddress = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// runVariables are the variables that run sets for its command, besides those that a
// configuration has too.
var runVariables = []string{"CALL_ME_ENVIRONMENT", "CALL_ME_SLOT", "CALL_ME_URL", leasesVariable,
	runTagsVariable}

// dropServiceLinks unsets CALL_ME_PORT if Kubernetes has set it to the address of a
// Service, and returns whether it has.
func dropServiceLinks() bool {
	const name = variablePrefix + "_PORT"
	if !serviceAddress.MatchString(os.Getenv(name)) {
		return false
	}
	os.Unsetenv(name)
	return true
}

// isSet reports whether a variable that others read is set, such as those of Go's garbage
// collector (https://pkg.go.dev/runtime).
func isSet(name string) bool { return os.Getenv(name) != "" }

// variableWarnings returns a line for each variable that is not read though it looks as
// if it was, in the order of their names. It unsets what dropServiceLinks does.
func variableWarnings() []string {
	known := map[string]bool{}
	for _, config := range []any{&serverConfig{}, &clientConfig{}} {
		for _, s := range listSettings(config) {
			known[s.variable] = true
		}
	}
	for _, name := range runVariables {
		known[name] = true
	}
	names := slices.Sorted(maps.Keys(known))
	var warnings []string
	if dropServiceLinks() {
		warnings = append(warnings, "CALL_ME_PORT is not read: Kubernetes has set it for a Service named call-me; "+
			"enableServiceLinks: false in the pod's spec prevents that")
	}
	entries := os.Environ()
	slices.Sort(entries)
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		isLink := serviceLink.MatchString(name) || serviceAddress.MatchString(value)
		if strings.HasPrefix(name, variablePrefix+"_") && !known[name] && value != "" && !isLink {
			warnings = append(warnings, fmt.Sprintf("the variable %s is unknown%s", name, didYouMean(name, names)))
		}
	}
	return warnings
}

// runTagsVariable is the environment variable with the tags of all runs around a
// process, one after the other. A child process inherits it.
const runTagsVariable = "CALL_ME_RUNS"

// leasesVariable is the environment variable in which a run hands its leases on to its
// command, as a JSON array.
const leasesVariable = "CALL_ME_LEASES"
