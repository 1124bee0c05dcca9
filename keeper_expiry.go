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
type agenda []*environment

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }

func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].seat, a[j].seat = i, j
}

func (a *agenda) Push(x any) {
	e := x.(*environment)
	e.seat = len(*a)
	*a = append(*a, e)
}

func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	e.due = time.Time{}
	return e
}

// add has the environment looked at when at has passed, or before.
func (a *agenda) add(e *environment, at time.Time) {
	switch {
	case e.due.IsZero():
		e.due = at
		heap.Push(a, e)
	case at.Before(e.due):
		e.due = at
		heap.Fix(a, e.seat)
	}
}

// remove takes the environment off the agenda, if it is on it.
func (a *agenda) remove(e *environment) {
	if !e.due.IsZero() {
		heap.Remove(a, e.seat)
	}
}

// next returns an environment that is due, and takes it off; nil when none is.
func (a *agenda) next(now time.Time) *environment {
	if len(*a) == 0 || (*a)[0].due.After(now) {
		return nil
	}
	return heap.Pop(a).(*environment)
}

// addAll puts the environment on the agenda for everything that time will end.
func (a *agenda) addAll(e *environment) {
	for _, l := range e.leases {
		if !l.deadline.IsZero() {
			a.add(e, l.deadline)
		}
	}
	for _, p := range e.line {
		if !p.present {
			a.add(e, p.absent.Add(absence))
		}
	}
}
