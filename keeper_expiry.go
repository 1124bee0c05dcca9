package main

// The expiry queue: which environments the keeper must look at because time ends a lease
// or a pause or removes a waiter, and when. Without it the keeper would look at every environment
// four times a second, and the cost of one call would grow with the number of
// environments.
//
// Not here: what ends, see environment.expire in lock.go.

import (
	"container/heap"
	"time"
)

// An expiryQueue is a heap of environments by expiryDue, the earliest first. It has each
// environment at most once. expiryDue is a lower bound: a lease may have been renewed
// since it was set, and then the keeper finds nothing to end and adds the environment
// again.
type expiryQueue []*environment

// Len, Less, Swap, Push and Pop are for container/heap only.

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].expiryDue.Before(q[j].expiryDue) }

func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].expiryIndex, q[j].expiryIndex = i, j
}

func (q *expiryQueue) Push(x any) {
	e := x.(*environment)
	e.expiryIndex = len(*q)
	*q = append(*q, e)
}

func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	e.expiryDue = time.Time{}
	return e
}

// add makes the environment due at the time at, or earlier if it already is.
func (q *expiryQueue) add(e *environment, at time.Time) {
	switch {
	case e.expiryDue.IsZero():
		e.expiryDue = at
		heap.Push(q, e)
	case at.Before(e.expiryDue):
		e.expiryDue = at
		heap.Fix(q, e.expiryIndex)
	}
}

// remove removes the environment from the queue, if it is in it.
func (q *expiryQueue) remove(e *environment) {
	if !e.expiryDue.IsZero() {
		heap.Remove(q, e.expiryIndex)
	}
}

// next removes the environment that has been due the longest from the queue, and returns
// it; nil if none is due.
func (q *expiryQueue) next(now time.Time) *environment {
	if len(*q) == 0 || (*q)[0].expiryDue.After(now) {
		return nil
	}
	return heap.Pop(q).(*environment)
}

// addEnvironment makes the environment due when the first of its leases, its pauses or its
// disconnected waiters will end.
func (q *expiryQueue) addEnvironment(e *environment) {
	for _, l := range e.leases {
		if !l.deadline.IsZero() {
			q.add(e, l.deadline)
		}
	}
	for _, p := range e.pauses {
		if p.length > 0 {
			q.add(e, p.until)
		}
	}
	for _, w := range e.queue {
		if !w.connected.Load() {
			q.add(e, w.disconnectedAt.Add(maxAbsence))
		}
	}
}
