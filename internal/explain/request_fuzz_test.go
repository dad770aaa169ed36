package explain_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/explain"
)

// FuzzRequest states that a request which a server is sent to explain is the one that
// it explains: the method, host and target as they were, each header once, and no
// address that was not given.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"method":"GET","authority":"h","target":"/a?b","headers":[["Cookie","a=1"],["cookie","b=2"],["X","1"],["x","2"]],"address":"::ffff:192.0.2.1","policy":"user"}`,
		`{"headers":[["a"]]}`, `{"headers":[["a","b","c"]]}`, `{"address":"x"}`, `{"policy":null}`, `{"policy":""}`, `{"headers":null}`, `{}`, `null`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r explain.Request
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		parts, err := r.Parts()
		if err != nil {
			require.Error(t, func() error { _, err := netip.ParseAddr(r.Address); return err }())
			require.Less(t, len(err.Error()), 400)
			return
		}
		require.Equal(t, []string{r.Method, r.Authority, r.Target}, []string{parts.Method, parts.Authority, parts.Target})
		require.Equal(t, r.Policy != nil, parts.HasPolicyName)
		require.Equal(t, r.Address != "", parts.Address.IsValid())
		names := map[string]int{}
		for _, h := range r.Headers {
			names[strings.ToLower(h[0])] += len(h[1])
		}
		found := maps.Collect(parts.Headers.All())
		require.Len(t, found, len(names))
		for name, value := range found {
			require.GreaterOrEqual(t, len(value), names[name], "a value of %s is lost", name)
		}
	})
}
