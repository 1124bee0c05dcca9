package main

// The parameters of a call: reading them from the URL and from a form in the body, and
// the checks of each. The limits are in limits.go, the parameters of GET /history in
// server_history.go.

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parameters are the names that the API knows. Each route reads some of them and ignores
// the others; any other name is errParameter.
var parameters = []string{
	"environment", "id", "holder", "url", "reason", "ttl", "wait", "claim", "fence", "slot", "force",
	"since", "limit", "before", "priority", "max_hold", "take", "to", "supersede",
	"first", "waiter", "all", "for", "format",
}

// maxNeeds is the largest number of slots that one request may ask for.
const maxNeeds = 8

// repeatable are the parameters that a POST, PUT or DELETE of /maybe may repeat: a request
// for several slots names each environment, and may name each slot.
var repeatable = []string{"environment", "slot"}

// otherNames are words that people and other lock servers have for parameters, and the
// parameters.
var otherNames = map[string]string{
	"env": "environment", "name": "environment", "resource": "environment", "lock": "environment",
	"timeout": "wait", "owner": "holder", "user": "holder", "expires": "ttl", "lease": "ttl",
	"duration": "ttl", "request": "id", "request_id": "id", "token": "fence", "message": "reason",
}

// A query is the parameters of one call, from the URL and the body. After check they are
// sorted by name, and no name is repeated except for those that may be.
type query []parameter

type parameter struct{ name, value string }

// get returns the value of a parameter, empty if it was not sent.
func (q query) get(name string) string {
	value, _ := q.find(name)
	return value
}

// find returns the value of a parameter, and whether it was sent.
func (q query) find(name string) (value string, found bool) {
	for _, p := range q {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// all returns the values of a parameter that may be repeated, in the order in which they
// were sent.
func (q query) all(name string) (values []string) {
	for _, p := range q {
		if p.name == name {
			values = append(values, p.value)
		}
	}
	return values
}

// is2019 reports whether environment is the only parameter, as in the 2019 API. Such a
// call gets the 2019 response: a status without a body.
func (q query) is2019() bool { return len(q) == 1 && q[0].name == "environment" }

// readQuery returns the parameters of the URL and of a form in the body. It reads the body
// to its end, because net/http notices a closed connection only after that. A body that is
// no form is ignored, as in 2019, and so is the body of a GET or HEAD. It returns
// errMalformed for what cannot be parsed, for a repeated name and for a parameter that
// contains the key, errTooLarge for more than maxBody bytes, and errParameter for an
// unknown name.
func readQuery(w http.ResponseWriter, r *http.Request, repeatable ...string) (query, error) {
	if len(r.Header["Content-Type"]) > 1 {
		return nil, fmt.Errorf("%w: Content-Type is repeated", errMalformed)
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 && r.Method != http.MethodGet && r.Method != http.MethodHead {
		form, err := parseForm(body, r.Header.Get("Content-Type"))
		if err != nil {
			return nil, err
		}
		q = append(q, form...)
	}
	if q.hasSecretOf(r) {
		return nil, fmt.Errorf("%w: the key is sent in its header, and nowhere else", errMalformed)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		q.setVerified(callerOf(r).verified)
	}
	if slices.Contains(pagePaths, r.URL.Path) {
		return q, q.withoutPage().check(repeatable)
	}
	return q, q.check(repeatable)
}

// contains reports whether a name or a value contains the key. Parameters are shown to
// everyone, so such a call is rejected. A key of less than minSecret bytes is not looked
// for, because it may be a word that is meant.
func (q query) contains(key string) bool {
	if len(key) < minSecret {
		return false
	}
	return slices.ContainsFunc(q, func(p parameter) bool {
		return strings.Contains(p.name, key) || strings.Contains(p.value, key)
	})
}

// minSecret is the length in bytes of the shortest key that contains looks for.
const minSecret = 8

// readBody returns the body of a request, nil if there is none. It returns errTooLarge for
// more than maxBody bytes, and errMalformed for a body that has not arrived within
// bodyTime or cannot be read. After a body has arrived, the connection has no read deadline.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	tooLarge := fmt.Errorf("%w: a body has %d bytes at most", errTooLarge, maxBody)
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var atLimit *http.MaxBytesError
	switch {
	case errors.As(err, &atLimit):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w: the body has not arrived within %v", errMalformed, bodyTime)
	case err != nil:
		return nil, fmt.Errorf("%w: reading the body: %s", errMalformed, shorten(err.Error(), maxField))
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // set by server.handle
	return body, nil
}

// parseQuery parses URL-encoded parameters, and returns them in no order. The values are
// copies: one that is stored does not keep the whole text in memory. Its error is
// errMalformed.
func parseQuery(encoded string) (query, error) {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	q := make(query, 0, len(values))
	for name, all := range values {
		for _, value := range all {
			q = append(q, parameter{name, strings.Clone(value)})
		}
	}
	return q, nil
}

// parseForm parses a form in the body, URL-encoded or multipart. It returns nil for any
// other type of content. Its error is errMalformed.
func parseForm(body []byte, contentType string) (query, error) {
	switch kind, details, _ := mime.ParseMediaType(contentType); kind {
	case "application/x-www-form-urlencoded":
		return parseQuery(string(body))
	case "multipart/form-data":
		return parseMultipart(body, details["boundary"])
	}
	return nil, nil
}

// parseMultipart parses a multipart form. A file, a part without a name and a body that is
// not in this form are errMalformed.
func parseMultipart(body []byte, boundary string) (query, error) {
	q := query{}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return q, nil
		}
		var value []byte
		if err == nil {
			value, err = io.ReadAll(part) // at most len(body)
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %s", errMalformed, shorten(err.Error(), maxField))
		case part.FileName() != "":
			return nil, fmt.Errorf("%w: a file is not expected", errMalformed)
		case part.FormName() == "":
			return nil, fmt.Errorf("%w: a part has no name", errMalformed)
		}
		q = append(q, parameter{part.FormName(), string(value)})
	}
}

// check sorts the parameters by name. It returns errMalformed for a repeated name that is not
// repeatable, and errParameter for an unknown one.
func (q query) check(repeatable []string) error {
	slices.SortStableFunc(q, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(q); i++ {
		if name := q[i].name; name == q[i-1].name && !slices.Contains(repeatable, name) {
			return fmt.Errorf("%w: parameter %q is repeated", errMalformed, shorten(name, maxEnvironment))
		}
	}
	for _, p := range q {
		if !slices.Contains(parameters, p.name) {
			name := shorten(p.name, maxEnvironment)
			proposal := didYouMean(p.name, parameters)
			if meant := otherNames[strings.ToLower(p.name)]; meant != "" {
				proposal = fmt.Sprintf("; did you mean %q?", meant)
			}
			return fmt.Errorf("%w: %q is unknown%s", errParameter, name, proposal)
		}
	}
	return nil
}

// environments returns the names of the environments, at least one, each of them once and in
// their order. It returns errParameter if there is none, or one that is not allowed as a
// name. It does not check whether they are declared.
func (q query) environments() ([]string, error) {
	names := q.all("environment")
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: environment is required", errParameter)
	}
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("%w: environment is required", errParameter)
		}
		if err := checkEnvironment(name); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// setNeeds sets the slots that a request asks for: the one of its only environment, or one for
// each environment that is sent. Its error is errParameter.
func (q query) setNeeds(req *request) error {
	names, slots := q.all("environment"), q.all("slot")
	switch {
	case len(slots) > 0 && len(slots) != len(names):
		return fmt.Errorf("%w: send a slot for each environment, an empty one for any, or none", errParameter)
	case len(names) > maxNeeds:
		return fmt.Errorf("%w: a request is for %d slots at most", errParameter, maxNeeds)
	case len(names) > 1 && req.id == "":
		return fmt.Errorf("%w: a request for several slots needs an id", errParameter)
	}
	for i, name := range names {
		n := need{environment: name}
		if len(slots) > 0 {
			n.slot = slots[i]
		}
		if err := checkText("slot", n.slot, maxEnvironment+maxEnvironment); err != nil {
			return err
		}
		req.needs = append(req.needs, n)
	}
	if len(req.needs) == 1 {
		req.slot, req.needs = req.needs[0].slot, nil
		return nil
	}
	slices.SortFunc(req.needs, func(a, b need) int {
		return cmp.Or(strings.Compare(a.environment, b.environment), strings.Compare(a.slot, b.slot))
	})
	return nil
}

// priority returns the priority of a request, zero if it is missing or empty. Its error is
// errParameter.
func (q query) priority() (int, error) {
	text := q.get("priority")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -maxPriority || n > maxPriority {
		return 0, fmt.Errorf("%w: priority must be a whole number from -%d to %d",
			errParameter, maxPriority, maxPriority)
	}
	return n, nil
}

// request returns the request that a POST makes. A missing or empty holder or ttl gets
// the default. A url that is too long or contains a command of a CI system is dropped, and
// a reason is changed so that it can be shown. Its error is errParameter.
func (q query) request(defaultHolder string, defaultTTL time.Duration) (request, error) {
	req := request{
		id:     q.get("id"),
		holder: cmp.Or(q.get("holder"), defaultHolder),
		url:    tidyLink(q.get("url")),
		reason: tidyReason(q.get("reason")),
		ttl:    defaultTTL,
	}
	ttl, found, errTTL := q.ttl("ttl")
	priority, errPriority := q.priority()
	maxHold, _, errMaxHold := q.ttl("max_hold")
	if err := cmp.Or(errTTL, errPriority, errMaxHold, q.setNeeds(&req)); err != nil {
		return request{}, err
	}
	req.priority, req.maxHold = priority, maxHold
	if found {
		req.ttl = ttl
	}
	return req, cmp.Or(checkID(req.id), checkHolder(req.holder), checkLink(req.url))
}

// selector returns the selector of the leases that a PUT or DELETE names by id, holder,
// fence and slot. The default holder is used if neither id nor holder is given. Its error
// is errParameter; an empty fence or slot is one, because it would select any lease.
func (q query) selector(defaultHolder string) (selector, error) {
	s := selector{id: q.get("id"), holder: q.get("holder"), slot: q.get("slot")}
	if s.id == "" && s.holder == "" {
		s.holder = defaultHolder
	}
	if text, found := q.find("fence"); found {
		fence, err := strconv.ParseUint(text, 10, 64)
		if err != nil || fence == 0 {
			return s, fmt.Errorf("%w: fence must be the number that a grant returned", errParameter)
		}
		s.fence = fence
	}
	if len(q.all("slot")) > 1 {
		return s, fmt.Errorf("%w: parameter %q is repeated", errMalformed, "slot")
	}
	if _, found := q.find("slot"); found && s.slot == "" {
		return s, fmt.Errorf("%w: slot is empty, and would mean any", errParameter)
	}
	errSlot := checkText("slot", s.slot, maxEnvironment+maxEnvironment)
	return s, cmp.Or(checkID(s.id), checkHolder(s.holder), errSlot)
}

// ttl returns the duration of the named parameter, ttl or claim: minTTL to maxTTL, or zero
// for no limit. found is false if the parameter is missing or empty. Any other text is
// errParameter.
func (q query) ttl(name string) (d time.Duration, found bool, err error) {
	text := q.get(name)
	if text == "" {
		return 0, false, nil
	}
	d, err = parseTTL(text)
	if err != nil {
		return 0, true, fmt.Errorf("%w: %s must be a duration such as 90s or 2h, from %v to %v, or 0",
			errParameter, name, minTTL, maxTTL)
	}
	return d, true, nil
}

// wait returns how long this call may wait in the queue, limited to maxWait. found is false
// if the call does not wait: the parameter is missing or empty. A negative duration and
// any other text are errParameter.
func (q query) wait() (d time.Duration, found bool, err error) {
	text := q.get("wait")
	if text == "" {
		return 0, false, nil
	}
	d, err = parseDuration(text)
	if err != nil {
		return 0, true, fmt.Errorf("%w: wait must be a duration such as 25s", errParameter)
	}
	return min(d, maxWait), true, nil
}

// flag returns the value of a parameter that is 1 or 0, false if it is missing. Text that is no
// bool of strconv.ParseBool is errParameter.
func (q query) flag(name string) (bool, error) {
	text, found := q.find(name)
	if !found {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%w: %s must be 1 or 0", errParameter, name)
	}
	return value, nil
}
