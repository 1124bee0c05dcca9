package main

// POST /act: what people do on the status page, as forms send it. It does what the same calls
// of the API do, in the name of the viewer.

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// A pageAct makes a call of the keeper from the parameters of a form.
type pageAct struct {
	action action
	call   func(s *server, q query, name string, v viewer) (*call, error)
	done   string // what is said when it has succeeded, after the name of the environment
}

// pageActs are the values of the parameter act.
var pageActs = map[string]pageAct{
	"reserve": {actionRequest, (*server).actReserve, "is yours"},
	"wait":    {actionRequest, (*server).actReserve, "is yours"},
	"take":    {actionTake, (*server).actReserve, "is yours"},
	"extend":  {actionRenew, (*server).actExtend, "is extended"},
	"release": {actionRelease, (*server).actRelease, "is released"},
	"force":   {actionForce, (*server).actForce, "is released"},
	"remove":  {actionRemove, (*server).actForce, "has one less in its queue"},
	"leave":   {actionRelease, (*server).actLeave, "has you no longer in its queue"},
	"pause":   {actionPause, (*server).actPause, "is paused"},
	"resume":  {actionPause, (*server).actPause, "is resumed"},
}

// act answers POST /act. A script gets JSON; a browser is sent back to the page, or gets the
// page with what is wrong. A viewer who may only look gets errParameter.
func (s *server) act(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	done, err := s.doAct(r, q)
	if fromScript(r) {
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, map[string]untrusted{"done": untrusted(done)})
	}
	if err != nil {
		return s.sendProblem(w, r, q, err)
	}
	w.Header().Set("Location", actBack(q))
	return writeEmpty(w, http.StatusSeeOther)
}

// doAct does what the form asks for, and returns what can be said of it.
func (s *server) doAct(r *http.Request, q query) (done string, err error) {
	v, act := viewerOf(r), pageActs[q.get("act")]
	name, _ := q.find("environment")
	isAll := name == "" && q.get("all") != "" && (q.get("act") == "pause" || q.get("act") == "resume")
	switch {
	case v.Name == "":
		return "", fmt.Errorf("%w: log in with a name as the user, and the key as the password", errParameter)
	case act.call == nil:
		return "", fmt.Errorf("%w: act is none that this page has", errParameter)
	}
	if isAll {
		err = cmp.Or(v.caller.may(act.action), v.caller.mayAll(actionPauseAll))
	} else {
		err = cmp.Or(v.caller.may(act.action), checkEnvironment(name), s.checkSeen(v.caller, []string{name}))
	}
	if err != nil {
		return "", err
	}
	c, err := act.call(s, q, name, v)
	if err != nil {
		return "", err
	}
	rep := s.keeper.requestSlot(r.Context(), c, 0)
	switch {
	case errors.Is(rep.err, errNoSlot) && rep.position > 0:
		if view, err := s.keeper.view(name); err == nil {
			s.attend(view, v.Name, v.caller, time.Now())
		}
		return "you are " + queuePosition(rep.position) + " of " + name, nil
	case rep.err != nil:
		return "", s.replyError(v.caller, c, rep)
	}
	return cmp.Or(name, "every environment") + " " + act.done, nil
}

// actBack returns where the browser goes after a form.
func actBack(q query) string {
	if name := q.get("environment"); name != "" && q.get("back") == "environment" {
		return "/?environment=" + url.QueryEscape(name)
	}
	return "/"
}

// sendProblem sends the page with what is wrong with a form. It returns an error that is no
// refusal as it is.
func (s *server) sendProblem(w http.ResponseWriter, r *http.Request, q query, err error) error {
	status, name := statusOf(err), q.get("environment")
	isUnknown := checkEnvironment(name) != nil || errors.Is(err, errUndeclared)
	if status == http.StatusInternalServerError || isUnknown {
		return err
	}
	d, errData := newPageData(r, nil)
	if errData != nil {
		return err
	}
	d.status, d.Problem = status, name+": "+err.Error()
	var full replyError
	if errors.As(err, &full) {
		d.Problem = name + ": " + full.message(d.Now)
	}
	return s.sendPage(w, r, "page.html", &d, func() error {
		if err := s.fillTable(&d, nil); err != nil {
			return err
		}
		return s.fillOne(&d, name)
	})
}

// actReserve makes the call that requests a slot, enters the queue for one, or takes over the
// lease of a fence.
func (s *server) actReserve(q query, name string, v viewer) (*call, error) {
	req, err := q.withoutEmpty("slot").request(v.Name, v.caller.defaultTTL(s.defaultTTL))
	if err != nil {
		return nil, err
	}
	req.holder, req.origin, req.limits = v.Name, v.caller.origin(), v.caller.limits()
	c := &call{kind: callRequest, environment: name, request: req}
	switch q.get("act") {
	case "wait":
		c.wait, c.claim = true, pageClaim
	case "take":
		take := append(query{{"take", q.get("fence")}}, q...)
		c.take, err = takeoverOf(v.caller, take, req)
	}
	return c, err
}

// pageParameters are those of the status page and of its links. None is proposed for another one.
var pageParameters = []string{"act", "after", "back", "past", "q", "show", "view"}

// pagePaths are the routes that know pageParameters, too.
var pagePaths = []string{"/", "/rows", "/act", "/login"}

// withoutPage returns the parameters without those that only the page has.
func (q query) withoutPage() query {
	return slices.DeleteFunc(slices.Clone(q), func(p parameter) bool {
		return slices.Contains(pageParameters, p.name)
	})
}

// withoutEmpty returns the parameters without one that is empty.
func (q query) withoutEmpty(name string) query {
	var kept query
	for _, p := range q {
		if p.name != name || p.value != "" {
			kept = append(kept, p)
		}
	}
	return kept
}

// actFence returns the fence of a form. Its error is errParameter.
func (q query) actFence() (uint64, error) {
	fence, err := strconv.ParseUint(q.get("fence"), 10, 64)
	if err != nil || fence == 0 {
		return 0, fmt.Errorf("%w: fence is missing", errParameter)
	}
	return fence, nil
}

// actExtend makes the call that renews a lease of the viewer for another length.
func (s *server) actExtend(q query, name string, v viewer) (*call, error) {
	fence, errFence := q.actFence()
	ttl, hasTTL, errTTL := q.ttl("ttl")
	own := v.caller.own(selector{holder: v.Name, fence: fence})
	renew := renewal{selector: own, ttl: ttl, hasTTL: hasTTL, at: time.Now(),
		by: v.caller.origin(), limits: v.caller.limits()}
	return &call{kind: callRenew, environment: name, renewal: renew}, cmp.Or(errFence, errTTL)
}

// actRelease makes the call that ends a lease of the viewer.
func (s *server) actRelease(q query, name string, v viewer) (*call, error) {
	fence, err := q.actFence()
	own := v.caller.own(selector{holder: v.Name, fence: fence})
	req := releaseRequest{selector: own, origin: v.caller.origin()}
	return &call{kind: callRelease, environment: name, release: req}, err
}

// actForce makes the call that ends the lease of another, or removes a waiter.
func (s *server) actForce(q query, name string, v viewer) (*call, error) {
	req := releaseRequest{force: true, by: v.Name, why: tidyReason(q.get("reason")),
		origin: v.caller.origin()}
	var err error
	if q.get("act") == "remove" {
		err = q.setRemoval(&req, []string{name})
		if err == nil && req.waiter == 0 {
			err = fmt.Errorf("%w: waiter is missing", errParameter)
		}
	} else {
		req.fence, err = q.actFence()
	}
	return &call{kind: callRelease, environment: name, release: req}, err
}

// actLeave makes the call by which the viewer leaves a queue. A waiter of another holder is
// errNotWaiting.
func (s *server) actLeave(q query, name string, v viewer) (*call, error) {
	view, err := s.keeper.view(name)
	if err != nil {
		return nil, s.undeclared(v.caller, name)
	}
	for _, w := range view.queue {
		isOwn := w.holder == v.Name && w.id != "" && v.caller.owns(w.key)
		if isOwn && strconv.FormatUint(w.number, 10) == q.get("waiter") {
			req := releaseRequest{selector: selector{id: w.id}, origin: v.caller.origin()}
			return &call{kind: callRelease, environment: name, release: req}, nil
		}
	}
	return nil, errNotWaiting
}

// actPause makes the call that pauses or resumes.
func (s *server) actPause(q query, _ string, v viewer) (*call, error) {
	name, req, err := q.withoutEmpty("slot").pause(v.Name)
	req.by, req.resume = v.Name, q.get("act") == "resume"
	req.origin = v.caller.origin()
	return &call{kind: callPause, environment: name, pause: req}, err
}

// login answers GET /login, which makes a browser ask for a user name: it sends the browser to
// the page when it has another name than holder, which is the one that it had before.
func (s *server) login(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	if name := basicUser(r); name != q.get("holder") && name != "" {
		w.Header().Set("Location", "/")
		return writeEmpty(w, http.StatusSeeOther)
	}
	return errKey
}
