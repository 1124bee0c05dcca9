package main

// Who calls: authentication makes a caller of what a call sends, the context of the request
// takes it to the handler, and a table says which role may do what. config_keys.go reads the
// keys, server_auth.go compares them.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A caller is who makes a call, and what it may do. It is a value: what the keys become while a
// call is answered does not change it. The zero value may do and see nothing.
//
// authenticate is the only place that makes one, withKey the only one that puts it into the
// context of a request, and callerOf returns it everywhere else. Whoever adds a way to
// authenticate makes a caller in authenticate, and sets all fields that are not for keys only.
type caller struct {
	// name is recorded with every lease, waiter and event of the caller, is shown to
	// everyone, and says what is its own: see owned. It is empty for a key without a name.
	name string

	// rights are the role, the environments and the limits.
	rights

	// verified is the beginning of the holder that the caller has proved to be, and with which
	// the holder of all its requests begins. It is empty for keys: any of them may name any
	// holder. It is recorded with the leases, waiters and events, as the name is.
	verified string

	// label is the caller in the metrics. There are as many labels as the operator has
	// configured, so a text that a caller chooses must not be one.
	label string

	// address is where the call comes from, see callerAddress. The history and the log have it.
	address string

	// key is the sum of the key that was sent. It is zero for a caller without a key, whom
	// keyring.watch and keyring.now leave alone.
	key keySum

	// until is when the token of the caller ends; zero for keys. hasEnded is true if it has ended
	// before the call: then the call must be about a request by its id, see mayContinue.
	until    time.Time
	hasEnded bool
}

// withoutName is the label of all callers whose key has no name.
const withoutName = "(none)"

// newCaller returns the caller that has an accepted key.
func newCaller(key acceptedKey, address string) caller {
	c := caller{name: key.name, rights: key.rights, label: key.name, address: address, key: key.sum}
	if c.name == "" {
		c.label = withoutName
	}
	return c
}

// authenticate returns who makes a call. The error is errKey if the call proves nothing: it
// sends no key and no token, a wrong one, or several. The caller of authenticate decides what such
// a call gets, see withKey. The error is errUnavailable if a token cannot be verified now.
func (s *server) authenticate(r *http.Request) (caller, error) {
	tokens := s.tokens.Load()
	if token := sentToken(r); token != "" && tokens != nil {
		return s.authenticateToken(r, tokens, token)
	}
	sent, err := sentKey(r)
	if err != nil {
		return caller{}, err
	}
	key, found := s.keys.find(keySumOf(sent))
	if !found {
		return caller{}, errKey
	}
	return newCaller(key, callerAddress(r, s.trustedProxies).String()), nil
}

// authenticateToken returns the caller that a token stands for. Its errors are those of
// authenticate; that of a wrong token says what is wrong with it.
func (s *server) authenticateToken(r *http.Request, tokens *tokenVerifier, token string) (caller, error) {
	c, err := tokens.verify(r.Context(), token)
	c.address = callerAddress(r, s.trustedProxies).String()
	if err != nil && tokens.logged.Allow() {
		s.log.Warn("a token is refused", "reason", err, "from", c.address)
	}
	switch {
	case errors.Is(err, errUnavailable):
		return caller{}, err
	case err != nil:
		return caller{}, refusedToken(err)
	}
	return c, nil
}

// refusedToken returns the error of a token, with the reason.
func refusedToken(reason error) error {
	return fmt.Errorf("%w: the token is refused: %w", errKey, reason)
}

// callerKey is the key of the caller in the context of a request.
type callerKey struct{}

// withCaller returns the request with the caller in its context.
func withCaller(r *http.Request, c caller) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
}

// callerOf returns who makes a call whose handler withKey has called. For any other it is the
// zero caller, which may do and see nothing.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// origin returns what is recorded of the caller with a request.
func (c caller) origin() origin { return origin{key: c.name, verified: c.verified, from: c.address} }

// limits returns what the rules enforce for the caller's requests; nil if it has no limit.
func (c caller) limits() *keyLimits {
	l := keyLimits{ttl: c.maxTTL, hold: c.maxHold, places: c.maxPlaces, priority: c.maxPriority}
	if l == (keyLimits{priority: maxPriority}) {
		return nil
	}
	found := l // l itself stays on the stack
	return &found
}

// defaultTTL returns the ttl of a lease for which the caller names none: the preset, or the
// longest that the key allows if that is shorter. Zero is a lease without end.
func (c caller) defaultTTL(preset time.Duration) time.Duration {
	if c.maxTTL > 0 && (preset == 0 || preset > c.maxTTL) {
		return c.maxTTL
	}
	return preset
}

// owns reports whether the caller may end what was made with a key of this name, without knowing
// its id.
func (c caller) owns(key string) bool { return c.role == roleAdmin || key == "" || key == c.name }

// own limits a selector that has no id to leases that the caller may renew and end: an admin
// and a key without a name all, any other one those that were taken with a key of its name, or
// with one that has none. Whoever knows an id may use it.
func (c caller) own(s selector) selector {
	if s.id == "" && c.role < roleAdmin {
		s.key = c.name
	}
	return s
}

// scope returns a text that is equal for callers that see the same environments, for answers
// that several callers share.
func (c caller) scope() string {
	if !c.isLimited() {
		return ""
	}
	return fmt.Sprintf(" for %q", c.environments)
}

// An action is what a call does, as far as roles differ in it.
type action string

const (
	actionLook     action = "look"
	actionRequest  action = "request"
	actionRenew    action = "renew"
	actionRelease  action = "release"
	actionHandOver action = "hand over"
	actionForce    action = "release by force"
	actionTake     action = "take a lease over"
	actionRemove   action = "remove a waiter"
	actionPause    action = "pause or resume"
	actionPauseAll action = "pause or resume all environments"
	actionMetrics  action = "read the metrics"
	actionBackup   action = "copy the database"
)

// requiredRoles is the role that each action needs, or one that may do more.
var requiredRoles = map[action]role{
	actionLook:     roleView,
	actionRequest:  roleJob,
	actionRenew:    roleJob,
	actionRelease:  roleJob,
	actionHandOver: roleJob,
	actionForce:    roleAdmin,
	actionTake:     roleAdmin,
	actionRemove:   roleAdmin,
	actionPause:    roleAdmin,
	actionPauseAll: roleAdmin,
	actionMetrics:  roleView,
	actionBackup:   roleAdmin,
}

// may returns nil if the role of the caller is enough for an action, else a forbiddenError. An
// action that the table does not have needs more than any role.
func (c caller) may(a action) error {
	needed := requiredRoles[a]
	if needed != 0 && c.role >= needed {
		return nil
	}
	return forbiddenError{caller: c, action: a, role: needed}
}

// mayAll returns nil if the caller sees all environments, else a forbiddenError: the action is
// about all of them.
func (c caller) mayAll(a action) error {
	if !c.isLimited() {
		return nil
	}
	return forbiddenError{caller: c, action: a}
}

// A forbiddenError says what a caller lacks for an action. It is errForbidden; on /maybe, where
// 403 means that no slot is free, respondError sends it as errNotAllowed.
type forbiddenError struct {
	caller caller
	action action
	role   role // that is needed; zero if the caller would have to see all environments
}

// Error names the caller, and the role that it has and lacks.
func (e forbiddenError) Error() string {
	if e.role == 0 {
		return fmt.Sprintf("%s may not %s: that needs a key for all environments, without environments=",
			e.caller, e.action)
	}
	return fmt.Sprintf("%s may not %s: that needs the role %s, and it has %s",
		e.caller, e.action, e.role, e.caller.role)
}

// Is reports that the error is errForbidden.
func (forbiddenError) Is(target error) bool { return target == errForbidden }

// String returns the caller for a sentence.
func (c caller) String() string {
	if c.name == "" {
		return "a key without a name"
	}
	return fmt.Sprintf("the key %q", c.name)
}

// ownKey answers GET /key: what the key of the caller may do.
func (s *server) ownKey(w http.ResponseWriter, r *http.Request) error {
	c := callerOf(r)
	answer := keyJSON{Name: untrusted(c.name), Role: untrusted(c.role.String()),
		MaxTTLSeconds: c.maxTTL.Seconds(), MaxHoldSeconds: c.maxHold.Seconds(),
		MaxPlaces: c.maxPlaces, MaxPriority: c.maxPriority}
	for _, pattern := range c.environments {
		answer.Environments = append(answer.Environments, untrusted(pattern))
	}
	return writeJSON(w, http.StatusOK, answer)
}

// describeForbidden sets what the JSON of an error says of a forbiddenError or of a limitError,
// if it is one.
func describeForbidden(body *errorJSON, err error) {
	var limit limitError
	if errors.As(err, &limit) {
		body.Message, body.Key = untrusted(limitText(limit)), untrusted(limit.key)
		body.Limit = &limitJSON{Name: untrusted(limit.limit), Value: untrusted(limitValue(limit)),
			Seconds: limit.length.Seconds()}
	}
	var forbidden forbiddenError
	if !errors.As(err, &forbidden) {
		return
	}
	body.Key, body.NeedsRole = untrusted(forbidden.caller.name), untrusted(forbidden.role.String())
	if forbidden.role == 0 {
		patterns := strings.Join(forbidden.caller.environments, ",")
		body.Limit = &limitJSON{Name: "environments", Value: untrusted(patterns)}
	}
}

// limitText returns a limitError as a sentence.
func limitText(e limitError) string {
	what := "allows " + e.limit + "=" + limitValue(e)
	if e.limit == "max-places" {
		what = "allows to have and wait for " + e.limit + "=" + limitValue(e) + " slots at once"
	}
	return fmt.Sprintf("the key %q %s", e.key, what)
}

// limitValue returns the limit as the file of keys has it.
func limitValue(e limitError) string {
	if e.length > 0 {
		return durationText(e.length)
	}
	return strconv.Itoa(e.number)
}
