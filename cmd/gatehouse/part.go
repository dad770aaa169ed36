package main

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync/atomic"
)

// part is what generations hand on to each other as long as what it was made from
// stays the same, because it is warm or has connections: the client of the store,
// the cache, keys that were fetched. It ends with the last generation that has it.
type part[T any] struct {
	value T
	from  any                         // what it was made from; holds secrets
	run   func(context.Context) error // its work in the background; nil: none
	end   func() error                // nil: it needs no end

	holders atomic.Int32
	stop    func() // ends run, and returns when it has
}

// spawn has something run until stop is called, which waits for its end, or until
// the server has drained. Its error ends the server.
type spawn func(run func(context.Context) error) (stop func())

// parts are those that one generation has.
type parts []interface {
	start(spawn)
	drop() error
}

// start begins the work of those for which nobody did.
func (ps parts) start(s spawn) {
	for _, p := range ps {
		p.start(s)
	}
}

// drop lets all of them go, last taken first.
func (ps parts) drop() error {
	var errs []error
	for _, p := range slices.Backward(ps) {
		errs = append(errs, p.drop())
	}
	return errors.Join(errs...)
}

// take adds to a generation the old part, if it was made from the same, or else a
// new one, which build completes. Of old a generation that is current has hold.
func take[T any](to *parts, old *part[T], from any, build func(*part[T]) error) (*part[T], error) {
	p := old
	if p == nil || !reflect.DeepEqual(p.from, from) {
		p = &part[T]{from: from}
		if err := build(p); err != nil {
			return nil, err
		}
	}
	keep(to, p)
	return p, nil
}

// keep adds a part to a generation as it is.
func keep[T any](to *parts, p *part[T]) {
	p.holders.Add(1)
	*to = append(*to, p)
}

func (p *part[T]) start(s spawn) {
	if p.run != nil && p.stop == nil {
		p.stop = s(p.run)
	}
}

func (p *part[T]) drop() error {
	if p.holders.Add(-1) > 0 {
		return nil
	}
	if p.stop != nil {
		p.stop()
	}
	if p.end == nil {
		return nil
	}
	return p.end()
}
