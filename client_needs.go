package main

// Requests for several slots on the client's side: what they ask for, the answer that has
// all their leases, and how both are named in texts and commands.

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// A slotNeed is one of the slots that a request for several asks for.
type slotNeed struct {
	environment string
	slot        string // that it must be; empty: any
}

// names returns the environments of the request, each of them once, in the order in which
// they are asked for.
func (o acquireOptions) names() []string {
	names := []string{o.environment}
	for _, n := range o.needs {
		if !slices.Contains(names, n.environment) {
			names = append(names, n.environment)
		}
	}
	return names
}

// label returns the environments of the request for a sentence, such as "uat and perf".
func (o acquireOptions) label() string { return andText(o.names()) }

// words returns the environments of the request for a command, as a shell has to read them.
// One of which several slots are asked for is there as often.
func (o acquireOptions) words() string {
	if o.needs == nil {
		return quote(o.environment)
	}
	var words []string
	for _, n := range o.needs {
		words = append(words, quote(n.environment))
	}
	return strings.Join(words, " ")
}

// setNeeds adds to the parameters of a request what it asks for: the environments and the
// slots, n-th to n-th.
func (o acquireOptions) setNeeds(v url.Values) {
	if o.needs == nil {
		v.Set("environment", o.environment)
		if o.slot != "" {
			v.Set("slot", o.slot)
		}
		return
	}
	for _, n := range o.needs {
		v.Add("environment", n.environment)
		v.Add("slot", n.slot)
	}
}

// A grantedJSON is the answer to a POST that was granted and to a PUT: a lease, or the
// leases of a request for several slots.
type grantedJSON struct {
	leaseJSON
	Leases []leaseJSON `json:"leases"` // nil for a request for one slot
}

// all returns the leases, at least one.
func (g grantedJSON) all() []leaseJSON {
	if len(g.Leases) == 0 {
		return []leaseJSON{g.leaseJSON}
	}
	return g.Leases
}

// isFor reports whether the JSON has a lease of call-me on this environment.
func (g *grantedJSON) isFor(environment string) bool {
	return slices.ContainsFunc(g.all(), func(l leaseJSON) bool { return l.isFor(environment) })
}

// arrange puts the leases into the order in which the request asks for their slots, and makes
// the first of several the embedded one too.
func (g *grantedJSON) arrange(needs []slotNeed) {
	if len(g.Leases) == 0 {
		return
	}
	left, arranged := slices.Clone(g.Leases), []leaseJSON{}
	for _, n := range needs {
		i := slices.IndexFunc(left, func(l leaseJSON) bool {
			return string(l.Environment) == n.environment && (n.slot == "" || string(l.Slot) == n.slot)
		})
		if i >= 0 {
			arranged = append(arranged, left[i])
			left = slices.Delete(left, i, i+1)
		}
	}
	g.Leases = append(arranged, left...)
	g.leaseJSON = g.Leases[0]
}

// label returns the slots of the leases for a sentence. A slot of several has the name of its
// environment before it, unless that is the same: "uat and web blue".
func (g grantedJSON) label() string {
	all := g.all()
	if len(all) == 1 {
		return all[0].Slot.String()
	}
	var names []string
	for _, l := range all {
		names = append(names, slotLabel(l.Environment, l.Slot))
	}
	return andText(names)
}

// only returns the answer with the leases of the environments alone.
func (g grantedJSON) only(names []string) grantedJSON {
	isOther := func(l leaseJSON) bool { return !slices.Contains(names, string(l.Environment)) }
	return grantedJSON{Leases: slices.DeleteFunc(slices.Clone(g.all()), isOther)}
}

// A heldLease is one of the leases that a run hands on to its command, see leasesVariable.
type heldLease struct {
	Environment untrusted `json:"environment"`
	Slot        untrusted `json:"slot"`
	Fence       uint64    `json:"fence"`
	URL         untrusted `json:"url,omitempty"` // of the environment, if it is declared
}

// isWithinRun reports, by getenv, whether a run is around this process.
func isWithinRun(getenv func(string) string) bool { return getenv(runTagsVariable) != "" }

// leasesOfRun returns the leases of the run around this process, by getenv; nil without one,
// or if the variable is not what a run has set.
func leasesOfRun(getenv func(string) string) []heldLease {
	var held []heldLease
	if !isWithinRun(getenv) || json.Unmarshal([]byte(getenv(leasesVariable)), &held) != nil {
		return nil
	}
	return held
}

// fenceOfRun returns the fence of the only lease on the environment that the run around this
// process has; zero if it has none or several.
func fenceOfRun(getenv func(string) string, environment string) uint64 {
	fence, count := uint64(0), 0
	for _, l := range leasesOfRun(getenv) {
		if string(l.Environment) == environment {
			fence, count = l.Fence, count+1
		}
	}
	if count != 1 {
		return 0
	}
	return fence
}
