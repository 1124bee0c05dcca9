package main

// The API of pauses, /pause, and what other answers say of them. The rules are in
// lock_pause.go.

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// pause answers PUT /pause: it pauses an environment, one of its slots, or all environments,
// or changes such a pause, and returns it. The pause of another caller is errPaused, unless
// the call has force.
func (s *server) pause(w http.ResponseWriter, r *http.Request) error {
	rep, _, err := s.askPause(w, r, false)
	if err != nil {
		return err
	}
	held := s.keeper.published.Load().heldUnder(rep.pause)
	return writeJSON(w, http.StatusOK, pausedJSON{pauseToJSON(rep.pause, time.Now()), held})
}

// resume answers DELETE /pause: it ends exactly the pause that the call names, whoever has
// made it, and returns it with those that still cover what was named.
func (s *server) resume(w http.ResponseWriter, r *http.Request) error {
	rep, c, err := s.askPause(w, r, true)
	if err != nil {
		return err
	}
	now := time.Now()
	still := s.keeper.published.Load().stillPaused(c.environment, c.pause.slot)
	answer := resumedJSON{StillPaused: pausesToJSON(still, now)}
	if rep.pause != nil {
		ended := pauseToJSON(rep.pause, now)
		answer.Resumed = &ended
	}
	return writeJSON(w, http.StatusOK, answer)
}

// askPause reads a call of /pause and returns the keeper's reply to it.
func (s *server) askPause(w http.ResponseWriter, r *http.Request, resume bool) (reply, *call, error) {
	q, err := readQuery(w, r)
	if err != nil {
		return reply{}, nil, err
	}
	name, req, err := q.pause(basicUser(r))
	if err != nil {
		return reply{}, nil, err
	}
	who := callerOf(r)
	errAll := error(nil)
	if name == everywhere {
		errAll = who.mayAll(actionPauseAll)
	}
	if err := cmp.Or(errAll, s.checkSeen(who, []string{name})); err != nil {
		return reply{}, nil, err
	}
	req.resume, req.origin = resume, who.origin()
	c := &call{kind: callPause, environment: name, pause: req}
	rep := s.keeper.ask(c)
	if rep.err != nil {
		return rep, c, s.replyError(who, c, rep)
	}
	return rep, c, nil
}

// pause returns the environment that a call of /pause names, or everywhere, and what it asks
// for. A missing or empty holder gets the default. Its error is errParameter.
func (q query) pause(defaultHolder string) (environment string, req pauseRequest, err error) {
	all, errAll := q.flag("all")
	force, errForce := q.flag("force")
	length, _, errFor := q.ttl("for")
	req = pauseRequest{slot: q.get("slot"), length: length, reason: tidyReason(q.get("reason")), force: force,
		by: cmp.Or(q.get("holder"), defaultHolder)}
	if err := cmp.Or(errAll, errForce, errFor, checkHolder(req.by)); err != nil {
		return "", req, err
	}
	_, hasEnvironment := q.find("environment")
	_, hasSlot := q.find("slot")
	switch {
	case all && (hasEnvironment || hasSlot):
		return "", req, fmt.Errorf("%w: all excludes environment and slot", errParameter)
	case all:
		return everywhere, req, nil
	case !hasEnvironment:
		return "", req, fmt.Errorf("%w: environment or all=1 is required", errParameter)
	case hasSlot && req.slot == "":
		return "", req, fmt.Errorf("%w: slot is empty, and would mean any", errParameter)
	}
	names, err := q.environments()
	if err != nil {
		return "", req, err
	}
	return names[0], req, checkText("slot", req.slot, maxEnvironment+maxEnvironment)
}

// pauseToJSON returns a pause. Like that of a lease, its until is computed from now.
func pauseToJSON(p *pause, now time.Time) pauseJSON {
	j := pauseJSON{
		All:           p.environment == everywhere,
		Environment:   untrusted(p.environment),
		Slot:          untrusted(p.slot),
		By:            untrusted(p.by),
		Key:           untrusted(p.key),
		Reason:        untrusted(p.reason),
		Since:         wireTime(p.since),
		PausedSeconds: max(0, now.Sub(p.since).Seconds()),
	}
	if p.length > 0 {
		until := wireTime(now.Add(p.until.Sub(now)))
		j.Until = &until
	}
	return j
}

// pausesToJSON returns pauses in their order, an empty list rather than nil.
func pausesToJSON(pauses []*pause, now time.Time) []pauseJSON {
	all := make([]pauseJSON, len(pauses))
	for i, p := range pauses {
		all[i] = pauseToJSON(p, now)
	}
	return all
}

// viewPauses returns the pauses of a view as its JSON has them; nil if there are none.
func viewPauses(v *view, now time.Time) []pauseJSON {
	if len(v.pauses) == 0 {
		return nil
	}
	return pausesToJSON(v.pauses, now)
}

// pauseText returns a pause as a sentence for people, in one line.
func pauseText(p *pause, now time.Time) string {
	what := fmt.Sprintf("%q", p.environment)
	switch {
	case p.environment == everywhere:
		what = "every environment"
	case p.slot != "":
		what = fmt.Sprintf("%s of %q", p.slot, p.environment)
	}
	j := pauseToJSON(p, now)
	text := fmt.Sprintf("%s is paused by %s since %s", what, cmp.Or(p.by, "an unnamed caller"),
		j.Since.Format(time.RFC3339))
	if j.Until != nil {
		text += " until " + j.Until.Format(time.RFC3339)
	}
	if p.reason != "" {
		text += ": " + p.reason
	}
	return text
}

// pausesText returns the first three pauses of a reply, each after "; "; empty without any.
func (r replyError) pausesText(now time.Time) string {
	var b strings.Builder
	for i, p := range r.pauses {
		if i == 3 {
			fmt.Fprintf(&b, "; %d more are paused", len(r.pauses)-i)
			break
		}
		b.WriteString("; " + pauseText(p, now))
	}
	return b.String()
}

// pausedMessage returns the message of errPaused: the pause that is in the way.
func (r replyError) pausedMessage(now time.Time) string {
	if r.pause == nil {
		return errPaused.Error()
	}
	return pauseText(r.pause, now)
}

// allPauses returns the pauses that the JSON of a reply has.
func (r replyError) allPauses() []*pause {
	if errors.Is(r.err, errPaused) && r.pause != nil {
		return []*pause{r.pause}
	}
	return r.pauses
}
