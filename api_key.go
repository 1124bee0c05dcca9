package main

// What goes over the wire about the caller's own key.

import (
	"strconv"
	"strings"
)

// keyJSON is what the key of the caller may do, the answer to GET /key. A limit that there is
// not is zero. Environments is nil if the key sees all of them.
type keyJSON struct {
	Name           untrusted   `json:"name,omitempty"`
	Role           untrusted   `json:"role"` // view, job or admin
	Environments   []untrusted `json:"environments,omitempty"`
	MaxTTLSeconds  float64     `json:"max_ttl_seconds,omitempty"`
	MaxHoldSeconds float64     `json:"max_hold_seconds,omitempty"`
	MaxPlaces      int         `json:"max_places,omitempty"`
	MaxPriority    int         `json:"max_priority"`
}

// text returns the name, the role and the limits for people, in one line.
func (k keyJSON) text() string {
	if k.Name == "" {
		return "it has no name, and may do everything"
	}
	parts := []string{"its name is " + k.Name.String(), "its role " + k.Role.String()}
	if k.Environments != nil {
		var names []string
		for _, name := range k.Environments {
			names = append(names, name.String())
		}
		parts = append(parts, "environments "+strings.Join(names, " "))
	}
	if k.MaxTTLSeconds > 0 {
		parts = append(parts, "max-ttl "+secondsText(k.MaxTTLSeconds))
	}
	if k.MaxHoldSeconds > 0 {
		parts = append(parts, "max-hold "+secondsText(k.MaxHoldSeconds))
	}
	if k.MaxPlaces > 0 {
		parts = append(parts, "max-places "+strconv.Itoa(k.MaxPlaces))
	}
	if k.Role == "job" || k.MaxPriority != 0 {
		parts = append(parts, "max-priority "+strconv.Itoa(k.MaxPriority))
	}
	return strings.Join(parts, ", ")
}
