package main

// What goes over the wire about pauses.

import "time"

// pauseJSON is a pause. By is empty if the caller gave no name, and Until is nil if it lasts
// until it is resumed.
type pauseJSON struct {
	All           bool       `json:"all,omitempty"`         // it is of all environments
	Environment   untrusted  `json:"environment,omitempty"` // empty if it is of all
	Slot          untrusted  `json:"slot,omitempty"`        // empty if it is of the whole environment
	By            untrusted  `json:"by,omitempty"`
	Key           untrusted  `json:"key,omitempty"` // the name of the key of who paused
	Reason        untrusted  `json:"reason,omitempty"`
	Since         time.Time  `json:"since"`
	Until         *time.Time `json:"until,omitempty"`
	PausedSeconds float64    `json:"paused_seconds"`
}

// covers reports whether the pause covers a slot of an environment.
func (p pauseJSON) covers(environment, slot untrusted) bool {
	return p.All || p.Environment == environment && (p.Slot == "" || p.Slot == slot)
}

// pausedJSON is the answer to PUT /pause.
type pausedJSON struct {
	Pause pauseJSON `json:"pause"`
	Held  int       `json:"held"` // how many of the slots that it covers have a lease
}

// isFor reports whether the JSON is a pause of the environment, of all if the name is empty.
func (p *pausedJSON) isFor(environment string) bool {
	return string(p.Pause.Environment) == environment && !p.Pause.Since.IsZero()
}

// resumedJSON is the answer to DELETE /pause.
type resumedJSON struct {
	Resumed *pauseJSON `json:"resumed"` // nil if there was no such pause
	// StillPaused are the other pauses that cover what was named, or a part of it.
	StillPaused []pauseJSON `json:"still_paused"`
}

// isFor reports whether the JSON is the end of a pause.
func (r *resumedJSON) isFor(string) bool { return r.StillPaused != nil }
