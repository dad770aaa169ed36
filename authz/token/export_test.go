package token

// CacheLen returns how many tokens a verifier remembers.
func CacheLen(v *Verifier) int {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	if v.cache.recent.Len() != len(v.cache.entries) {
		panic("the cache's list and map differ")
	}
	return len(v.cache.entries)
}
