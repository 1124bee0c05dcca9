package main

// The leases of a run: what its command finds of them in its environment, and how they are
// named when one of several is lost.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// commandEnvironment returns the environment of the command: call-me's own, and what run adds.
// With several leases it has none of the variables of a single one. It has none of those of a
// run around this one.
func (h *heldRun) commandEnvironment() []string {
	single := []string{"CALL_ME_ENVIRONMENT", "CALL_ME_SLOT", "CALL_ME_FENCE", "CALL_ME_URL"}
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(single, name)
	})
	if all := h.grant.all(); len(all) == 1 {
		env = append(env, "CALL_ME_ENVIRONMENT="+h.options.environment,
			"CALL_ME_SLOT="+string(h.grant.Slot), fmt.Sprint("CALL_ME_FENCE=", h.grant.Fence))
		if url := h.grant.EnvironmentURL; url != "" {
			env = append(env, "CALL_ME_URL="+string(url))
		}
	}
	var held []heldLease
	for _, l := range h.grant.all() {
		held = append(held, heldLease{l.Environment, l.Slot, l.Fence, l.EnvironmentURL})
	}
	text, _ := json.Marshal(held) // it has no error
	return append(env, leasesVariable+"="+string(text), "CALL_ME_HOLDER="+h.options.holder,
		runTagsVariable+"="+os.Getenv(runTagsVariable)+h.tag)
}

// runTag returns the tag of a run with a random text: "(FENCE-RANDOM)" for each of its leases.
func runTag(leases []leaseJSON, random string) string {
	var tag strings.Builder
	for _, l := range leases {
		fmt.Fprintf(&tag, "(%d-%s)", l.Fence, random)
	}
	return tag.String()
}

// lostLabel returns the slots that h.lost says are lost: the one that the server names, or all.
func (h *heldRun) lostLabel() string {
	lost, _ := h.splitLost()
	return lost
}

// splitLost returns the slots that h.lost says are lost, and those that are still held: of its
// environment those that the server shows with our fences.
func (h *heldRun) splitLost() (lost, held string) {
	var reply *apiError
	if !errors.As(h.lost, &reply) || !errors.Is(h.lost, errNotHeld) {
		return h.grant.label(), ""
	}
	var mine, others []string
	for _, l := range h.grant.all() {
		if l.Environment == reply.Environment && !reply.hasFence(l.Fence) {
			mine = append(mine, slotLabel(l.Environment, l.Slot))
		} else {
			others = append(others, slotLabel(l.Environment, l.Slot))
		}
	}
	if len(others) == 0 || len(mine) == 0 {
		return h.grant.label(), ""
	}
	return andText(mine), andText(others)
}
