package users

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Watch returns what tells the parameters of every hash that was computed.
func Watch(f *File) (work func() []string) {
	var mu sync.Mutex
	var all []string
	check := f.check
	f.check = func(password, hash string) (bool, error) {
		mu.Lock()
		all = append(all, strings.Split(hash, "$")[3])
		mu.Unlock()
		return check(password, hash)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// Block makes every hash wait for release. room is how many logins find a place.
func Block(f *File, release <-chan struct{}) (running func() int, room int) {
	var n atomic.Int64
	check := f.check
	f.check = func(password, hash string) (bool, error) {
		n.Add(1)
		defer n.Add(-1)
		<-release
		return check(password, hash)
	}
	// Channels made inside the bubble, so that waiting for them counts as idle.
	f.hashing = make(chan struct{}, cap(f.hashing))
	f.waiting = make(chan struct{}, cap(f.waiting))
	return func() int { return int(n.Load()) }, cap(f.waiting)
}
