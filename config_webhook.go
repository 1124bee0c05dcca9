package main

// Webhooks in the configuration: who is told of what happens (CALL_ME_WEBHOOK), and of which
// events (CALL_ME_WEBHOOK_EVENTS). server_webhook.go tells them.

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A webhookTarget is the address of a receiver. It is a secret: whoever knows it can write to
// the chat. Only its host may be shown.
type webhookTarget struct {
	address *url.URL
	isPlain bool // the receiver takes plain text, as ntfy does
}

// plainScheme is the beginning of the scheme of a receiver that takes plain text.
const plainScheme = "ntfy+"

// webhooks returns the receivers of CALL_ME_WEBHOOK, none if it is empty. The error is a usage
// error that has no part of an address.
func (c *serverConfig) webhooks() ([]webhookTarget, error) {
	if c.Webhook == "" {
		return nil, nil
	}
	var targets []webhookTarget
	for i, text := range strings.Split(c.Webhook, ",") {
		t, isURL := parseWebhook(strings.TrimSpace(text))
		if !isURL {
			return nil, withHint(usagef("reading %s_WEBHOOK: the %s address is no http or https URL",
				variablePrefix, ordinal(i+1)),
				"CALL_ME_WEBHOOK=https://chat.example/hooks/..., several with commas; "+
					"a comma in an address is %2C")
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// parseWebhook returns the receiver with an address, which is https without a scheme. A host
// whose first label is ntfy, and a scheme that begins with plainScheme, take plain text.
func parseWebhook(text string) (t webhookTarget, isURL bool) {
	text, t.isPlain = strings.CutPrefix(text, plainScheme)
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return t, false
	}
	t.address = u
	t.isPlain = t.isPlain || strings.HasPrefix(strings.ToLower(u.Hostname()), "ntfy.")
	return t, true
}

// The names of webhookEvents that are no kinds of events.
const (
	webhookWaiting  = "waiting"  // somebody has waited for the time after the colon
	webhookExpiring = "expiring" // a lease ends within the time after the colon
	webhookKept     = "kept"     // run --keep-on-failure has kept a slot
)

// webhookNames are the names that webhookEvents may have.
var webhookNames = []string{webhookWaiting, webhookExpiring, webhookKept, "granted", "released",
	"expired", "forced", "taken", "handed", "left", "abandoned", "undeclared", "superseded", "removed",
	"paused", "resumed"}

// webhookEvents are the events of which receivers are told, by their names. Of waiting and
// expiring it is the time, of others zero.
type webhookEvents map[string]time.Duration

// has reports whether receivers are told of the events with the name.
func (e webhookEvents) has(name string) bool {
	_, isThere := e[name]
	return isThere
}

// Decode reads a list such as waiting:30m,expired,forced.
func (e *webhookEvents) Decode(text string) error {
	*e = webhookEvents{}
	for entry := range strings.SplitSeq(text, ",") {
		name, threshold, isTimed := strings.Cut(strings.TrimSpace(entry), ":")
		needsTime := name == webhookWaiting || name == webhookExpiring
		switch {
		case !slices.Contains(webhookNames, name):
			return fmt.Errorf("no list of events: %q is none%s", name, didYouMean(name, webhookNames))
		case needsTime != isTimed:
			return fmt.Errorf("no list of events such as waiting:30m,expired,expiring:10m: %q", entry)
		}
		(*e)[name] = 0
		if needsTime {
			d, err := parseDuration(threshold)
			if err != nil || d <= 0 {
				return fmt.Errorf("no list of events: %q is not a time such as 30m", threshold)
			}
			(*e)[name] = d
		}
	}
	return nil
}
