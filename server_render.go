package main

// Heavy answers: the page, the metrics, the history and the list of all environments, which
// take long with many leases and events. They are rendered one at a time, so that they use
// one processor at most and the keeper has the others. Callers who ask in the same moment
// get the same rendering.

import (
	"runtime"
	"sync"
)

// A renderer renders heavy answers. Its zero value is ready, and it is safe for concurrent
// use.
type renderer struct {
	turn sync.Mutex // held while something is rendered, never while something is sent

	mu   sync.Mutex
	next map[string]*rendering // by key: the renderings that have not begun
}

// A rendering is one answer for all callers who asked for it before it began.
type rendering struct {
	done   chan struct{} // closed when the fields that follow are set
	answer any
	err    error
}

// sharedAnswer calls render when it is its turn, and returns what that returns. Callers with
// the same key share one call if it has not begun when they arrive. So no answer is older
// than the call that it answers, and callers see what they have changed before. If render
// panics, the caller whose goroutine it was panics, and the others get errInternal.
func sharedAnswer[T any](r *renderer, key string, render func() (T, error)) (T, error) {
	r.mu.Lock()
	x := r.next[key]
	isFirst := x == nil
	if isFirst {
		if r.next == nil {
			r.next = map[string]*rendering{}
		}
		x = &rendering{done: make(chan struct{}), err: errInternal}
		r.next[key] = x
	}
	r.mu.Unlock()
	if isFirst {
		r.render(func() {
			r.mu.Lock()
			delete(r.next, key)
			r.mu.Unlock()
			defer close(x.done)
			x.answer, x.err = render()
		})
	}
	<-x.done
	answer, _ := x.answer.(T)
	return answer, x.err
}

// render calls f when it is its turn. Afterwards it lets others run.
func (r *renderer) render(f func()) {
	r.turn.Lock()
	defer runtime.Gosched()
	defer r.turn.Unlock()
	f()
}
