package main

// What is printed of leases that change hands.

import (
	"fmt"
	"time"
)

// runNotice is how late the run of a lost lease hears of it with the default ttl: with its
// next renewal, a third of the ttl later at most.
const runNotice = 40 * time.Second

// tookOver prints from whom a lease was taken over, and until when the old job may still act.
func (t *terminal) tookOver(taken leaseJSON) {
	if taken.Renewed {
		notice := time.Duration(taken.TTLSeconds * float64(time.Second) / 3)
		t.say("call-me: taken over from %s, whose run hears of it by %s (%s) at the latest "+
			"and ends its command", holderName(taken), clockTime(t.now().Add(notice)), durationText(notice))
	} else {
		t.say("call-me: taken over from %s, who is not told: the job may go on until it has ended",
			holderName(taken))
		t.say("hint: see that it has; a call-me run hears of it within %s and ends its command",
			durationText(runNotice))
	}
	if taken.URL != "" {
		t.say("  %s", taken.URL)
	}
}

// overText returns the text of an overError.
func overText(e overError) string {
	text := "the lease on " + e.Environment.String() + " that you want to take over is over"
	if end := e.Ended; end != nil {
		text += fmt.Sprintf("; it %s at %s", endWords(*end), clockTime(end.At))
	}
	return text
}

// handedOver prints on stdout to whom slots were handed over and until when, and on stderr
// how these are given back. names are the environments, and words the same for a command.
// repeated is true if the call has changed nothing, because they were handed over before.
func (t *terminal) handedOver(names []string, words string, h handOver, repeated bool) {
	label := andText(names)
	if repeated {
		fmt.Fprintf(t.out, "%s %s handed over before\n", printable(label), wasOrWere(len(names)))
		return
	}
	until := "until it is released"
	if h.ttl > 0 {
		until = fmt.Sprintf("until %s (%s)", clockTime(t.now().Add(h.ttl)), durationText(h.ttl))
	}
	fmt.Fprintf(t.out, "%s %s handed to %s %s\n", printable(label), isOrAre(len(names)),
		untrusted(h.to), until)
	t.say("hint: to give it back: call-me release %s --holder %s", printable(words), printable(quote(h.to)))
}
