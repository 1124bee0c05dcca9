package main

// What needs somebody: long queues, leases without end, pauses, and a next in the queue who is
// away. The status page shows it above the table.

import (
	"fmt"
	"time"
)

// A pageNeed is why an environment needs somebody.
type pageNeed struct {
	Name, ID string
	Text     string
	Who      untrusted // after the text
}

const (
	longQueue = 5         // waiters; from there on a queue needs somebody
	longWait  = time.Hour // the same, of the one that has waited for longest
	longHold  = time.Hour // from there on a lease without end needs somebody
)

// needs returns why the environment needs somebody, as of now.
func (r pageRow) needs(now time.Time) []pageNeed {
	var all []pageNeed
	add := func(who untrusted, format string, args ...any) {
		all = append(all, pageNeed{r.Name, r.ID(), fmt.Sprintf(format, args...), who})
	}
	since := func(t time.Time) string { return pageDuration(now.Sub(t)) }
	if p := r.Pause; p != nil && !p.All {
		add(p.Reason, "is paused by %s for %s%s", nameOf(p.By), since(p.Since), colonIf(p.Reason))
	}
	if longest := now.Sub(r.Longest); r.Waiting >= longQueue || r.Waiting > 0 && longest >= longWait {
		text := fmt.Sprintf("%d in the queue", r.Waiting)
		if longest >= time.Minute {
			text += ", longest " + pageDuration(longest)
		}
		add("", "%s", text)
	}
	for _, l := range r.Lines {
		if p := l.Pause; p != nil && p.Slot != "" {
			add(p.Reason, "%s is paused by %s for %s%s", l.Slot, nameOf(p.By), since(p.Since),
				colonIf(p.Reason))
		}
		x := l.Lease
		if x == nil || x.Runs || !x.Until.IsZero() || now.Sub(x.Since) < longHold {
			continue
		}
		add(untrusted(nameOf(x.Holder)), "%sheld without end for %s by", slotIf(r, l), since(x.Since))
	}
	if r.Next != nil && r.Next.Away {
		add("", "the next in the queue is disconnected")
	}
	return all
}

// slotIf returns the name of a slot before a text, if its environment has several.
func slotIf(r pageRow, l *pageLine) string {
	if r.Slots <= 1 {
		return ""
	}
	return l.Slot + " "
}

// colonIf returns a colon if the text after it is not empty.
func colonIf(text untrusted) string {
	if text == "" {
		return ""
	}
	return ":"
}
