package main

// The published state: what readers see of the environments and of the history, as of one
// commit. It is never changed. Each batch with changes makes a new one, which has all but
// the changed environments in common with the one before it. So readers need no lock, and
// see one state for as long as they like.
//
// Not here: what readers ask of it (keeper_view.go), and when it is replaced
// (keeper_batch.go).

import (
	"iter"
	"slices"
	"strings"
	"time"
)

// maxBlock is the largest number of environments in one block. A change of an environment
// copies its block and the list of all blocks.
const maxBlock = 256

// A publishedState is the environments that are not idle, in the order of their names, and
// the history. It is never changed.
type publishedState struct {
	blocks  [][]*view // none of them is empty
	count   int       // of the environments
	pauses  []*pause  // of everywhere
	history []*event  // oldest first
}

// A view is an environment in a published state. It has the request ids, which its readers
// must not show: an id is the proof that a caller owns a lease. It is never changed.
type view struct {
	name   string
	slots  []string   // as declared, nil if undeclared
	open   []string   // the free slots that a request without wait may have
	kept   []keptSlot // the other free slots, and for whom they are kept
	leases []leaseView
	queue  []*waiter // readers may use what is stored, and connected
	pauses []*pause  // that cover at least one slot: those of everywhere, then its own
}

// A leaseView is a lease in a published state. Of the lease itself readers may use only
// what is stored, and limit: the rest changes with each renewal.
type leaseView struct {
	*lease
	deadline time.Time // hides that of the lease; by the monotonic clock, zero: until released
	kept     bool      // hides that of the lease
}

// newLeaseView returns the lease as it is now.
func newLeaseView(l *lease) leaseView { return leaseView{l, l.deadline, l.kept} }

// viewOf returns the view of an environment. It returns before, the view of the same
// environment until now, if that is the same; before is nil if there is none. find returns
// the other environments, see environment.assign. The caller holds the keeper's mu.
func viewOf(e *environment, before *view, find func(string) *environment) *view {
	assigned, left := e.assign(find)
	v := &view{name: e.name, slots: e.slots, open: left, kept: keptSlots(assigned)}
	if before != nil {
		v.leases, v.queue, v.pauses = before.leases, before.queue, before.pauses
	}
	pauses := slices.Concat(find(everywhere).pauses, e.pauses)
	samePauses := slices.Equal(v.pauses, pauses)
	if !samePauses {
		v.pauses = pauses
	}
	isSame := func(old leaseView, l *lease) bool { return old == newLeaseView(l) }
	sameLeases := slices.EqualFunc(v.leases, e.leases, isSame)
	if !sameLeases {
		v.leases = make([]leaseView, len(e.leases))
		for i, l := range e.leases {
			v.leases[i] = newLeaseView(l)
		}
	}
	sameQueue := slices.Equal(v.queue, e.queue)
	if !sameQueue {
		v.queue = slices.Clone(e.queue)
	}
	isSameRest := before != nil && slices.Equal(before.open, v.open) && slices.Equal(before.kept, v.kept)
	if isSameRest && sameLeases && sameQueue && samePauses {
		return before
	}
	return v
}

// has reports whether the view has this lease, not only one with the same fence.
func (v *view) has(l *lease) bool {
	return slices.ContainsFunc(v.leases, func(old leaseView) bool { return old.lease == l })
}

// renewed returns the view after a renewal has moved the deadline of a lease. The caller
// holds the keeper's mu.
func (v *view) renewed(l *lease) *view {
	changed := *v
	changed.leases = slices.Clone(v.leases)
	for i := range changed.leases {
		if changed.leases[i].lease == l {
			changed.leases[i] = newLeaseView(l)
		}
	}
	return &changed
}

// isOpen reports what environment.isOpen does.
func (v *view) isOpen(slot string) bool {
	return len(v.open) > 0 && (slot == "" || slices.Contains(v.open, slot))
}

// position returns what environment.position does.
func (v *view) position(w *waiter) int {
	i, found := slices.BinarySearchFunc(v.queue, w, byRank)
	if !found {
		return 0
	}
	return i + 1
}

// pauseOf returns what environment.pauseOf does.
func (v *view) pauseOf(slot string) *pause {
	for _, p := range v.pauses {
		if p.covers(v.name, slot) {
			return p
		}
	}
	return nil
}

// newState returns the state of the current environments, with a history that it keeps.
func (k *keeper) newState(history []*event) *publishedState {
	s := newPublishedState(k.current, history, k.find)
	s.pauses = slices.Clone(k.everywhere.pauses)
	return s
}

// newPublishedState returns the state of the environments, which it reads, and of the
// history, which it keeps, without the pause of all.
func newPublishedState(
	environments map[string]*environment, history []*event, find func(string) *environment,
) *publishedState {
	all := make([]*view, 0, len(environments))
	for _, e := range environments {
		if !e.isIdle() {
			all = append(all, viewOf(e, nil, find))
		}
	}
	slices.SortFunc(all, func(a, b *view) int { return strings.Compare(a.name, b.name) })
	s := &publishedState{count: len(all), history: history}
	for block := range slices.Chunk(all, maxBlock/2) {
		s.blocks = append(s.blocks, slices.Clip(block))
	}
	return s
}

// place returns the index of the block in which the name belongs, its index in that block,
// and whether it is there. Without any block all are zero.
func (s *publishedState) place(name string) (block, at int, found bool) {
	if len(s.blocks) == 0 {
		return 0, 0, false
	}
	byFirst := func(b []*view, name string) int { return strings.Compare(b[0].name, name) }
	block, found = slices.BinarySearchFunc(s.blocks, name, byFirst)
	if !found {
		block = max(0, block-1)
	}
	byName := func(v *view, name string) int { return strings.Compare(v.name, name) }
	at, found = slices.BinarySearchFunc(s.blocks[block], name, byName)
	return block, at, found
}

// find returns the view of an environment; nil if it is idle.
func (s *publishedState) find(name string) *view {
	block, at, found := s.place(name)
	if !found {
		return nil
	}
	return s.blocks[block][at]
}

// pausesOf returns the pauses that cover a slot of the environments: that of all, then those of
// each.
func (s *publishedState) pausesOf(environments []string) []*pause {
	pauses := slices.Clone(s.pauses)
	for _, name := range environments {
		if v := s.find(name); v != nil {
			pauses = append(pauses, v.pauses[len(s.pauses):]...)
		}
	}
	return pauses
}

// all iterates over the views in the order of their names.
func (s *publishedState) all() iter.Seq[*view] {
	return func(yield func(*view) bool) {
		for _, block := range s.blocks {
			for _, v := range block {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// differsFor reports whether an environment that a reader sees is another one than in the state
// before, or the pause of all is.
func (s *publishedState) differsFor(before *publishedState, isSeen func(string) bool) bool {
	isHidden := func(v *view) bool { return !isSeen(v.name) }
	now := slices.DeleteFunc(slices.Collect(s.all()), isHidden)
	then := slices.DeleteFunc(slices.Collect(before.all()), isHidden)
	return !slices.Equal(now, then) || !slices.Equal(s.pauses, before.pauses)
}

// copied returns a copy of the state, to which set may be applied until it is published.
func (s *publishedState) copied() *publishedState {
	copied := *s
	copied.blocks = slices.Clone(s.blocks)
	return &copied
}

// update applies the present leases and the queue of an environment, as set does.
func (s *publishedState) update(e *environment, find func(string) *environment) {
	before := s.find(e.name)
	if e.isIdle() {
		s.set(e.name, nil)
		return
	}
	after := viewOf(e, before, find)
	if after != before {
		s.set(e.name, after)
	}
}

// set replaces the view of the environment, or removes it if v is nil. It changes a state
// that copied has returned, but none of the blocks, which other states have too.
func (s *publishedState) set(name string, v *view) {
	i, at, found := s.place(name)
	switch {
	case v == nil && !found:
	case v == nil:
		s.count--
		s.replaceBlock(i, slices.Concat(s.blocks[i][:at], s.blocks[i][at+1:]))
	case len(s.blocks) == 0:
		s.count, s.blocks = 1, [][]*view{{v}}
	case found:
		changed := slices.Clone(s.blocks[i])
		changed[at] = v
		s.blocks[i] = changed
	default:
		s.count++
		s.replaceBlock(i, slices.Concat(s.blocks[i][:at], []*view{v}, s.blocks[i][at:]))
	}
}

// replaceBlock replaces the block at i. It splits a block that is too long, joins a short
// one with the next, and removes an empty one.
func (s *publishedState) replaceBlock(i int, block []*view) {
	half := len(block) / 2
	switch {
	case len(block) == 0:
		s.blocks = slices.Delete(s.blocks, i, i+1)
	case len(block) > maxBlock:
		s.blocks = slices.Replace(s.blocks, i, i+1, slices.Clip(block[:half]), block[half:])
	case len(block) < maxBlock/8 && i+1 < len(s.blocks) && len(s.blocks[i+1]) < maxBlock/2:
		s.blocks = slices.Replace(s.blocks, i, i+2, slices.Concat(block, s.blocks[i+1]))
	default:
		s.blocks[i] = block
	}
}
