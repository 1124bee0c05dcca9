package main

// What a caller may send: parameters in the query or in a form, their names,
// their forms and their limits.

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

// parameters are the names that the API knows; each call reads those that
// mean something to it.
var parameters = []string{"environment", "id", "holder", "url", "reason", "ttl", "wait", "claim", "fence", "slot", "force", "since", "limit", "before"}

// A query is what one call has sent, in no order.
type query []parameter

type parameter struct{ name, value string }

// get returns what was sent under a name; empty: nothing.
func (q query) get(name string) string {
	value, _ := q.find(name)
	return value
}

func (q query) find(name string) (value string, found bool) {
	for _, p := range q {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// plain reports whether the call sends what the call-me of 2019 knew: it is
// answered as in 2019.
func (q query) plain() bool { return len(q) == 1 && q[0].name == "environment" }

// readQuery reads the URL's query and a form in the body, up to its end: only
// then does the server notice a caller who leaves. A body that is no form is
// passed over, as in 2019. Its errors are errMalformed, errTooLarge, and
// errParameter for unknown names.
func readQuery(w http.ResponseWriter, r *http.Request) (query, error) {
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
	if key, _ := sentKey(r); q.tells(key) || becomesHolder(r) && (query{{"", basicUser(r)}}).tells(key) {
		return nil, fmt.Errorf("%w: the key is sent in its header, and nowhere else", errMalformed)
	}
	return q, q.check()
}

// tells reports whether a key is part of what is sent: it would be shown to
// everyone. A key of less than minTold bytes may be a word that is meant.
func (q query) tells(key string) bool {
	if len(key) < minTold {
		return false
	}
	return slices.ContainsFunc(q, func(p parameter) bool {
		return strings.Contains(p.name, key) || strings.Contains(p.value, key)
	})
}

const minTold = 8

// becomesHolder reports whether the caller's user name may be stored.
func becomesHolder(r *http.Request) bool {
	return r.Method == http.MethodPost || r.Method == http.MethodDelete
}

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
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // answering has set one
	return body, nil
}

// parseQuery reads parameters. Its error is errMalformed.
func parseQuery(encoded string) (query, error) {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errMalformed, err)
	}
	q := make(query, 0, len(values))
	for name, all := range values {
		for _, value := range all {
			q = append(q, parameter{name, value})
		}
	}
	return q, nil
}

func parseForm(body []byte, contentType string) (query, error) {
	switch kind, details, _ := mime.ParseMediaType(contentType); kind {
	case "application/x-www-form-urlencoded":
		return parseQuery(string(body))
	case "multipart/form-data":
		return parseMultipart(body, details["boundary"])
	}
	return nil, nil
}

func parseMultipart(body []byte, boundary string) (query, error) {
	q := query{}
	for parts := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			return q, nil
		}
		var value []byte
		if err == nil {
			value, err = io.ReadAll(part) // no more than body
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

// check sorts the parameters, and reports names that are repeated or unknown.
func (q query) check() error {
	slices.SortFunc(q, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(q); i++ {
		if name := q[i].name; name == q[i-1].name {
			return fmt.Errorf("%w: parameter %q is repeated", errMalformed, shorten(name, maxEnvironment))
		}
	}
	for _, p := range q {
		if !slices.Contains(parameters, p.name) {
			return fmt.Errorf("%w: %q is unknown%s", errParameter, shorten(p.name, maxEnvironment), didYouMean(p.name, parameters))
		}
	}
	return nil
}

// environment returns the name of the environment; errParameter when it is
// missing or none.
func (q query) environment() (string, error) {
	name := q.get("environment")
	if name == "" {
		return "", fmt.Errorf("%w: environment is required", errParameter)
	}
	return name, checkEnvironment(name)
}

// request returns who asks, and for what. What is missing takes the default;
// so do empty values.
func (q query) request(defaultHolder string, defaultTTL time.Duration) (request, error) {
	asked := request{id: q.get("id"), holder: q.get("holder"), url: tidyLink(q.get("url")), reason: tidyReason(q.get("reason")), ttl: defaultTTL}
	if asked.holder == "" {
		asked.holder = defaultHolder
	}
	if ttl, found, err := q.ttl("ttl"); err != nil {
		return request{}, err
	} else if found {
		asked.ttl = ttl
	}
	return asked, cmp.Or(checkID(asked.id), checkHolder(asked.holder), checkLink(asked.url))
}

// selector returns which leases are meant.
func (q query) selector(defaultHolder string) (selector, error) {
	s := selector{id: q.get("id"), holder: q.get("holder"), slot: q.get("slot")}
	if s.id == "" && s.holder == "" {
		s.holder = defaultHolder
	}
	if text, found := q.find("fence"); found { // an empty one would mean any lease
		fence, err := strconv.ParseUint(text, 10, 64)
		if err != nil || fence == 0 {
			return s, fmt.Errorf("%w: fence must be a number that a grant told", errParameter)
		}
		s.fence = fence
	}
	if _, found := q.find("slot"); found && s.slot == "" {
		return s, fmt.Errorf("%w: slot is empty, and would mean any", errParameter)
	}
	return s, cmp.Or(checkID(s.id), checkHolder(s.holder), checkText("slot", s.slot, maxEnvironment+maxEnvironment))
}

// ttl returns a duration of 1 s to 30 days, or 0: without end.
func (q query) ttl(name string) (d time.Duration, found bool, err error) {
	text := q.get(name)
	if text == "" {
		return 0, false, nil
	}
	if d, err = parseTTL(text); err != nil {
		return 0, true, fmt.Errorf("%w: %s must be a duration such as 90s or 2h, from %v to %v, or 0", errParameter, name, minTTL, maxTTL)
	}
	return d, true, nil
}

// wait returns how long the caller wants to be in the queue for now, at most
// maxWait, and whether it wants to at all.
func (q query) wait() (d time.Duration, found bool, err error) {
	text := q.get("wait")
	if text == "" {
		return 0, false, nil
	}
	if d, err = time.ParseDuration(text); err != nil || d < 0 {
		return 0, true, fmt.Errorf("%w: wait must be a duration such as 25s", errParameter)
	}
	return min(d, maxWait), true, nil
}

// force reports whether the lease is to be ended whoever holds it.
func (q query) force() (bool, error) {
	text, found := q.find("force")
	if !found {
		return false, nil
	}
	force, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%w: force must be 1 or 0", errParameter)
	}
	return force, nil
}
