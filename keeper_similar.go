package main

// Names of environments that are easily mistaken for one another: UAT and uat, stagng and
// staging. While no environments are declared, each name is an environment of its own, and
// two pipelines that mean the same one do not exclude each other.

import (
	"strings"
	"unicode"
)

// maxCompared is the largest number of names that are compared with a new one. A server
// with more names has names that programs make; comparing all of them would slow down each
// request.
const maxCompared = 200

// similar returns the oldest environment that is older than the named one and has a similar
// name, see similarNames; empty if there is none, or if there are more than maxCompared
// names. The caller that asked for the named one may have meant it. isSeen reports whether the
// caller may know of an environment; no other is returned.
func (k *keeper) similar(name string, isSeen func(string) bool) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	published := k.published.Load()
	if len(k.history.environments)+published.count > maxCompared {
		return ""
	}
	oldest, since := "", k.firstSeen(published, name)
	consider := func(other string, first uint64) { // first is the number of an event or a lease
		if first < since && similarNames(name, other) && isSeen(other) {
			oldest, since = other, first
		}
	}
	for other, use := range k.history.environments {
		consider(other, use.first)
	}
	for v := range published.all() {
		if len(v.leases) > 0 {
			consider(v.name, v.leases[0].fence)
		}
	}
	return oldest
}

// firstSeen returns the number of the earliest event or lease of an environment; zero if
// there is none. The caller holds mu.
func (k *keeper) firstSeen(published *publishedState, name string) uint64 {
	first := uint64(0)
	if use := k.history.environments[name]; use != nil {
		first = use.first
	}
	if v := published.find(name); v != nil && len(v.leases) > 0 && (first == 0 || v.leases[0].fence < first) {
		first = v.leases[0].fence
	}
	return first
}

// similarNames reports whether two names differ only in case, or by one character that is
// added, left out, replaced or swapped with its neighbour. Names that differ only in their
// numbers, such as perf-1 and perf-2, are not similar. Short names that differ not only in
// case, such as qa and qb, are not similar either. Equal names are not similar.
func similarNames(a, b string) bool {
	return a != b && (strings.EqualFold(a, b) || isOneEdit(a, b)) && !differInNumbers(a, b)
}

// isOneEdit reports whether adding, removing, replacing or swapping one character turns b
// into a. Equal names count as one edit. It returns false if both names have fewer than
// three characters.
func isOneEdit(a, b string) bool {
	x, y := []rune(a), []rune(b)
	if max(len(x), len(y)) < 3 || len(x)-len(y) > 1 || len(y)-len(x) > 1 {
		return false
	}
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	isSwap := len(x) == 2 && len(y) == 2 && x[0] == y[1] && x[1] == y[0]
	return isSwap || len(x) <= 1 && len(y) <= 1
}

// differInNumbers reports whether both names have digits and are equal without them.
func differInNumbers(a, b string) bool {
	return isNumbered(a) && isNumbered(b) && withoutDigits(a) == withoutDigits(b)
}

func isNumbered(name string) bool { return strings.ContainsFunc(name, unicode.IsDigit) }

func withoutDigits(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, name)
}
