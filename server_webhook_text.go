package main

// What a notice of a webhook looks like: a sentence for people, in JSON with the event, or
// alone. Names and reasons of others are shown so that a chat neither calls anybody nor makes a
// link of them.

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
)

// maxNoticeText is the largest number of bytes of a text of others in a sentence. The event
// beside the sentence has the whole text.
const maxNoticeText = 200

// A noticeForm is what a receiver reads.
type noticeForm int

const (
	formJSON  noticeForm = iota // the sentence as text, and the event
	formSlack                   // the same, with Slack's escapes in the sentence
	formText                    // the sentence, and nothing else in the JSON
	formPlain                   // the sentence as plain text
)

// noticeFormOf returns the form for a receiver. Google Chat rejects JSON with an unknown field.
func noticeFormOf(t webhookTarget) noticeForm {
	switch host := strings.ToLower(t.address.Hostname()); {
	case t.isPlain:
		return formPlain
	case isWithin(host, "slack.com"), isWithin(host, "slack-gov.com"):
		return formSlack
	case isWithin(host, "chat.googleapis.com"):
		return formText
	}
	return formJSON
}

// isWithin reports whether a host is a domain or within it.
func isWithin(host, domain string) bool { return host == domain || strings.HasSuffix(host, "."+domain) }

// body returns what is sent of a notice, and its type.
func (f noticeForm) body(n notice) (body []byte, contentType string) {
	text := n.sentence(f.escape)
	message := struct {
		Text  string      `json:"text"`
		Event *noticeJSON `json:"event,omitempty"`
	}{Text: text, Event: &n.event}
	switch f {
	case formPlain:
		return []byte(text), "text/plain; charset=utf-8"
	case formText:
		message.Event = nil
	}
	body, _ = json.Marshal(message) // strings, numbers and times
	return body, "application/json"
}

// escape returns a text of others on one line, of at most maxNoticeText bytes before the
// escapes, without anything that a chat takes for a mention, a link or a command.
func (f noticeForm) escape(text untrusted) string {
	broken := breakLinks(shorten(visible(string(text)), maxNoticeText))
	switch f {
	case formSlack:
		return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(broken)
	case formPlain:
		return broken
	}
	return strings.NewReplacer("<", "‹", ">", "›").Replace(broken)
}

// breakLinks puts an invisible space where a chat would see a mention (@channel), an address
// with or without a scheme, or a link of Markdown.
func breakLinks(text string) string {
	const space = '\u200b'
	var b strings.Builder
	all := []rune(text)
	for i, r := range all {
		b.WriteRune(r)
		next := ' '
		if i+1 < len(all) {
			next = all[i+1]
		}
		switch {
		case r == '@', r == ':' && next == '/', r == '/' && next == '/',
			r == '.' && unicode.IsLetter(next), r == ']' && strings.ContainsRune("([:", next):
			b.WriteRune(space)
		}
	}
	return b.String()
}

// sentence returns the notice in words. escape is applied to each text of others.
func (n notice) sentence(escape func(untrusted) string) string {
	e := n.event
	name := func(holder untrusted) string {
		if holder == "" {
			return "somebody"
		}
		return escape(holder)
	}
	where := "all environments"
	if !e.All {
		where = escape(untrusted(slotLabel(e.Environment, e.Slot)))
	}
	holder, by := name(e.Holder), name(e.By)
	if e.By == "" && e.From != "" {
		by += " at " + escape(e.From)
	}
	why := inBrackets(escape(e.Why))
	held := secondsText(e.HeldSeconds)
	switch n.name {
	case webhookWaiting:
		return where + ": " + n.waitText(holder, name)
	case webhookExpiring:
		until := e.Until.Format("15:04 MST")
		return fmt.Sprintf("%s: the lease of %s ends at %s, in %s, and nobody renews it",
			where, holder, until, durationText(e.Until.Sub(e.At)))
	case webhookKept:
		return fmt.Sprintf("%s is kept for %s after %s%s", where, name(e.To), held,
			inBrackets(escape(untrusted(strings.TrimPrefix(string(e.Why), keptPrefix)))))
	case "paused":
		return fmt.Sprintf("%s: paused by %s%s", where, by, inBrackets(escape(e.Reason)))
	case "resumed":
		if e.From == "" {
			return fmt.Sprintf("%s: the pause has ended after %s", where, held)
		}
		return fmt.Sprintf("%s: %s has ended the pause after %s", where, by, held)
	case "granted":
		return fmt.Sprintf("%s: granted to %s%s", where, holder, inBrackets(escape(e.Reason)))
	case "released":
		return fmt.Sprintf("%s: %s has released it after %s", where, holder, held)
	case "expired":
		return fmt.Sprintf("%s: the lease of %s has expired after %s", where, holder, held)
	case "forced":
		return fmt.Sprintf("%s: %s has ended the lease of %s by force, after %s%s",
			where, by, holder, held, why)
	case "taken":
		return fmt.Sprintf("%s: %s has taken it over from %s, after %s%s", where, by, holder, held, why)
	case "handed":
		return fmt.Sprintf("%s: %s has handed it over to %s, after %s%s",
			where, holder, name(e.To), held, why)
	case "superseded", "removed":
		return fmt.Sprintf("%s: the request of %s was %s by %s%s", where, holder, n.name, by, why)
	}
	return fmt.Sprintf("%s: the request of %s has ended: %s", where, holder, n.name)
}

// waitText returns a long wait in words. name returns the name of a holder.
func (n notice) waitText(holder string, name func(untrusted) string) string {
	text := fmt.Sprintf("%s has waited for %s", holder, secondsText(n.event.WaitedSeconds))
	if n.event.Waiting > 1 {
		text += fmt.Sprintf(", %d wait", n.event.Waiting)
	}
	if n.event.HeldBy != "" {
		text += "; " + name(n.event.HeldBy) + " has it"
	}
	return text
}
