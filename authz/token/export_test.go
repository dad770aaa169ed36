package token

import "crypto"

// CacheLen returns how many tokens a verifier remembers.
func CacheLen(v *Verifier) int {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	if v.cache.recent.Len() != len(v.cache.entries) {
		panic("the cache's list and map differ")
	}
	return len(v.cache.entries)
}

// RefusedLen is how many tokens with a wrong signature are remembered.
func RefusedLen(v *Verifier) int {
	v.refused.mu.Lock()
	defer v.refused.mu.Unlock()
	return len(v.refused.entries)
}

// PublicOf is the public key itself.
func PublicOf(k *Key) crypto.PublicKey { return k.public }

// Kept is how many assertions are remembered.
func (a *Assertions) Kept() (n int) {
	for i := range a.shards {
		n += len(a.shards[i].entries)
	}
	return n
}

// Size is what the remembered assertions take, in bytes.
func (a *Assertions) Size() (n int) {
	for i := range a.shards {
		n += a.shards[i].size
	}
	return n
}
