package main

// Pauses in the models. A model has a list of them: which slots they name, who made them, and
// when they end.

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// A modelPause pauses one slot of uat, all of uat, or all environments.
type modelPause struct {
	scope  string // "all", "uat" or a slot
	by     string
	reason string
	since  time.Time
	until  time.Time // zero: until it is resumed
	length time.Duration
}

// isPaused reports whether a pause covers a slot.
func (m *rulebook) isPaused(slot string) bool {
	return slices.ContainsFunc(m.pauses, func(p modelPause) bool {
		return p.scope == "all" || p.scope == "uat" || p.scope == slot
	})
}

// A modelCommand pauses or resumes.
type modelCommand struct {
	scope, by, reason string
	length            time.Duration
	resume, force     bool
}

// call returns the environment and the call for a command.
func (c modelCommand) call() (environment string, q pauseRequest) {
	q = pauseRequest{resume: c.resume, length: c.length, reason: c.reason, force: c.force, by: c.by, origin: origin{from: "10.0.0.1:1"}}
	switch c.scope {
	case "all":
		return everywhere, q
	case "uat":
		return "uat", q
	}
	q.slot = c.scope
	return "uat", q
}

// pause applies a command. It returns the pause that begins, changes or ends; with errPaused
// that of another.
func (m *rulebook) pause(c modelCommand) (modelAnswer, []modelPause) {
	i := slices.IndexFunc(m.pauses, func(p modelPause) bool { return p.scope == c.scope })
	switch {
	case i < 0 && c.scope != "all" && m.slots == nil:
		return modelAnswer{err: errUndeclared}, nil
	case i < 0 && c.scope != "all" && c.scope != "uat" && !slices.Contains(m.slots, c.scope):
		return modelAnswer{err: errSlots}, nil
	case c.resume && i < 0:
		return modelAnswer{}, nil
	case c.resume:
		p := m.pauses[i]
		m.endPause(i, c.by, "10.0.0.1:1")
		return modelAnswer{}, []modelPause{p}
	case i >= 0 && m.pauses[i].by != c.by && !c.force:
		return modelAnswer{err: errPaused}, []modelPause{m.pauses[i]}
	}
	p := modelPause{scope: c.scope, by: c.by, reason: c.reason, since: m.now, length: c.length}
	if c.length > 0 {
		p.until = m.now.Add(c.length)
	}
	if i < 0 {
		m.pauses = append(m.pauses, p)
	} else {
		if m.pauses[i].by == c.by {
			p.since = m.pauses[i].since
		}
		m.pauses[i] = p
	}
	m.logPause("paused", p, 0, c.by, "10.0.0.1:1")
	return modelAnswer{}, []modelPause{p}
}

func (m *rulebook) endPause(i int, by, from string) {
	p := m.pauses[i]
	m.pauses = slices.Delete(m.pauses, i, i+1)
	m.logPause("resumed", p, m.now.Sub(p.since), by, from)
}

func (m *rulebook) logPause(how string, p modelPause, held time.Duration, by, from string) {
	name, slot := " uat", p.scope
	if p.scope == "all" {
		name = " "
	}
	if p.scope == "all" || p.scope == "uat" {
		slot = ""
	}
	m.log = append(m.log, fmt.Sprintf("%v%s %s slot %q reason %q held %v by %q from %q", m.now, name, how, slot, p.reason, held, by, from))
}

// endPauses ends the pauses that are over: those of all environments first, as there are two
// environments that time looks at.
func (m *rulebook) endPauses(ofAll bool) {
	order := slices.Clone(m.pauses)
	slices.SortFunc(order, func(a, b modelPause) int { return bySlot(a.asPause(), b.asPause()) })
	for _, p := range order {
		if (p.scope == "all") == ofAll && !p.until.IsZero() && !m.now.Before(p.until) {
			m.endPause(slices.Index(m.pauses, p), "", "")
		}
	}
}

// asPause returns the slot of a pause, as the rules order them.
func (p modelPause) asPause() *pause {
	_, q := modelCommand{scope: p.scope}.call()
	return &pause{slot: q.slot}
}

// pausesText returns pauses of the model as text, in the order of the text; pausesOf those of
// the rules.
func (m *rulebook) pausesText(pauses []modelPause) string {
	var all []string
	for _, p := range pauses {
		all = append(all, fmt.Sprintf("%s paused by %q: %q, since %v until %v\n", p.scope, p.by, p.reason, m.ago(p.since), m.ago(p.until)))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

func (m *rulebook) pausesOf(pauses []*pause) string {
	var all []string
	for _, p := range pauses {
		scope := "all"
		if p.environment == "uat" {
			scope = "uat"
		}
		if p.slot != "" {
			scope = p.slot
		}
		all = append(all, fmt.Sprintf("%s paused by %q: %q, since %v until %v\n", scope, p.by, p.reason, m.ago(p.since), m.ago(p.until)))
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// someCommand draws a command.
func someCommand(t *rapid.T) modelCommand {
	c := modelCommand{
		scope:  rapid.SampledFrom([]string{"all", "uat", "uat", "blue", "green"}).Draw(t, "scope"),
		by:     someHolder.Draw(t, "by"),
		reason: rapid.SampledFrom([]string{"", "upgrade"}).Draw(t, "why"),
		length: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, 2 * time.Hour}).Draw(t, "for"),
		resume: rapid.IntRange(0, 3).Draw(t, "resume") > 0,
	}
	c.force = rapid.IntRange(0, 3).Draw(t, "force") == 0
	return c
}

func (d *duel) pauseStep(t *rapid.T) {
	c := someCommand(t)
	if c.resume && len(d.m.pauses) == 0 && rapid.IntRange(0, 3).Draw(t, "in vain") > 0 {
		c.resume = false
	}
	name, q := c.call()
	var o result
	rule := func(r *batch) {
		o = d.find(name).pause(r, q)
		for i := 0; i < len(r.touched); i++ {
			r.touched[i].serveQueue(r)
		}
	}
	d.try(t, rule)
	d.step(rule)
	want, found := d.m.pause(c)
	var pauses []*pause
	if o.pause != nil {
		pauses = append(pauses, o.pause)
	}
	if got, want := d.m.pausesOf(pauses), d.m.pausesText(found); got != want {
		t.Fatalf("the answer has the pause %v, the model's %v", got, want)
	}
	d.m.offer()
	d.same(t, o, want)
}
