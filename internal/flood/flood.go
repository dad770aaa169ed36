// Package flood bounds lines that come by the thousand when something is out of order for
// all, or when somebody wants a disk to be full.
package flood

import (
	"maps"
	"sync"
	"time"
)

// lines of one kind are let through in a second, and second is how long that is.
const (
	lines  = 10
	second = time.Second
)

// Bound counts lines by kind: of each it lets ten a second through. It is safe for
// concurrent use. Kinds come from a closed list.
type Bound[K comparable] struct {
	over func(kind K, left int)

	mu   sync.Mutex
	each map[K]*flood
}

// flood is what came of one kind in this second.
type flood struct {
	lines, left int
	end         *time.Timer
}

// New returns a bound. over is told, when a second is over, of what kind how many were
// left out, if any were.
func New[K comparable](over func(kind K, left int)) *Bound[K] {
	return &Bound[K]{over: over, each: map[K]*flood{}}
}

// Passes reports whether a line of this kind is among the first ones of its second.
func (b *Bound[K]) Passes(kind K) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.each[kind]
	if f == nil {
		f = &flood{}
		f.end = time.AfterFunc(second, func() { b.end(kind, f) })
		b.each[kind] = f
	}
	if f.lines < lines {
		f.lines++
		return true
	}
	f.left++
	return false
}

// end ends the second of a kind, if nobody has yet.
func (b *Bound[K]) end(kind K, f *flood) {
	b.mu.Lock()
	if b.each[kind] != f {
		b.mu.Unlock()
		return
	}
	delete(b.each, kind)
	b.mu.Unlock()
	f.end.Stop()
	if f.left > 0 {
		b.over(kind, f.left)
	}
}

// Flush ends all seconds now.
func (b *Bound[K]) Flush() {
	b.mu.Lock()
	each := maps.Clone(b.each)
	b.mu.Unlock()
	for kind, f := range each {
		b.end(kind, f)
	}
}
