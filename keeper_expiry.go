package main

// The agenda: which environment has to be looked at next because time has
// passed, and when. Without it every environment would be looked at four times
// a second, and an operation on one would cost more with more of the others.

import (
	"container/heap"
	"time"
)

// An agenda holds each environment at most once, the one that is due first in
// front. The time is a lower bound: what was to end then may have been renewed
// since, and is found to be so when it is looked at.
type expiryQueue []*environment

func (a expiryQueue) Len() int           { return len(a) }
func (a expiryQueue) Less(i, j int) bool { return a[i].expiryDue.Before(a[j].expiryDue) }

func (a expiryQueue) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].expiryIndex, a[j].expiryIndex = i, j
}

func (a *expiryQueue) Push(x any) {
	e := x.(*environment)
	e.expiryIndex = len(*a)
	*a = append(*a, e)
}

func (a *expiryQueue) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	e.expiryDue = time.Time{}
	return e
}

// add has the environment looked at when at has passed, or before.
func (a *expiryQueue) add(e *environment, at time.Time) {
	switch {
	case e.expiryDue.IsZero():
		e.expiryDue = at
		heap.Push(a, e)
	case at.Before(e.expiryDue):
		e.expiryDue = at
		heap.Fix(a, e.expiryIndex)
	}
}

// remove takes the environment off the agenda, if it is on it.
func (a *expiryQueue) remove(e *environment) {
	if !e.expiryDue.IsZero() {
		heap.Remove(a, e.expiryIndex)
	}
}

// next returns an environment that is due, and takes it off; nil when none is.
func (a *expiryQueue) next(now time.Time) *environment {
	if len(*a) == 0 || (*a)[0].expiryDue.After(now) {
		return nil
	}
	return heap.Pop(a).(*environment)
}

// addAll puts the environment on the agenda for everything that time will end.
func (a *expiryQueue) addEnvironment(e *environment) {
	for _, l := range e.leases {
		if !l.deadline.IsZero() {
			a.add(e, l.deadline)
		}
	}
	for _, p := range e.queue {
		if !p.connected {
			a.add(e, p.disconnectedAt.Add(maxAbsence))
		}
	}
}
