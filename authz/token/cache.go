package token

import (
	"container/list"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// digest stands for a token in the cache: a token that was only seen must not
// be readable in a memory dump, and nobody can make another one with its
// SHA-256.
type digest [sha256.Size]byte

// digestOf makes no copy of the token.
func digestOf(raw string) digest {
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(raw), len(raw))) //nolint:gosec // G103: it is only read
}

// entry is a verified token and what made it so.
type entry struct {
	issuer *issuer
	key    *Key
	kid    string
	alg    string
	token  authz.Token

	// Of a token that is refused whatever the time is, what to say. It has key
	// where its signature is right, and tried, all keys of the issuer, where it is
	// not; where its issuer is not known, it has no issuer.
	refused error
	tried   []*Key
}

// holds reports whether the key that verified the token is still the one for
// it, or the keys that did not are still all. If not, the token has to be verified afresh.
func (e *entry) holds(ctx context.Context) bool {
	if e.issuer == nil {
		return true
	}
	keys, err := e.issuer.keys.Keys(ctx, e.kid, e.alg)
	if e.key == nil {
		return err == nil && slices.Equal(keys, e.tried)
	}
	return err == nil && slices.Contains(keys, e.key) && (e.kid != "" || len(keys) == 1)
}

// cache remembers the tokens that were used last. A nil cache remembers none.
type cache struct {
	size int

	mu      sync.Mutex
	entries map[digest]*list.Element
	recent  *list.List // of cached; the one used last is in front
}

type cached struct {
	digest digest
	entry  *entry
}

func newCache(size int) *cache {
	if size <= 0 {
		return nil
	}
	return &cache{size: size, entries: make(map[digest]*list.Element), recent: list.New()}
}

func (c *cache) get(raw string) (*entry, bool) {
	if c == nil {
		return nil, false
	}
	d := digestOf(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[d]
	if !ok {
		return nil, false
	}
	c.recent.MoveToFront(element)
	return element.Value.(cached).entry, true
}

func (c *cache) put(raw string, e *entry) {
	if c == nil {
		return
	}
	d := digestOf(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[d]; ok {
		c.recent.Remove(element)
	}
	c.entries[d] = c.recent.PushFront(cached{d, e})
	if c.recent.Len() > c.size {
		oldest := c.recent.Remove(c.recent.Back()).(cached)
		delete(c.entries, oldest.digest)
	}
}
