package token_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// A key set that was fetched again and has the same keys is the same: what was
// verified by it stays known, and ends with the key.
func TestTokensStayKnownWhenKeysAreFetchedAgain(t *testing.T) {
	var set atomic.Value
	set.Store(jwks(jwk(rsaKey(), kid("r1"))))
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(set.Load().(string)))
	}))
	t.Cleanup(issuer.Close)
	var ahead atomic.Int64
	later := func() time.Time { return now.Add(time.Duration(ahead.Load())) }
	keys, err := token.FetchJWKS(issuer.URL, token.RemoteOptions{Now: later})
	require.NoError(t, err)
	v, err := token.NewVerifier([]token.IssuerOptions{{Issuer: idp, Keys: keys, Audiences: []string{"api"}}}, token.VerifierOptions{Now: later, CacheEntries: 10})
	require.NoError(t, err)
	raw := rs256(nil, object{"exp": at(24 * time.Hour)})
	accepted(t, v, raw)
	fetchedAgain := func() {
		t.Helper()
		ahead.Add(int64(time.Hour))
		require.Eventually(t, func() bool {
			_, _ = v.Remembered(raw) // has them fetched, being due
			return keys.Snapshot().LastSuccess.Equal(later())
		}, 10*time.Second, time.Millisecond)
	}
	fetchedAgain()
	_, known := v.Remembered(raw)
	require.True(t, known)
	set.Store(jwks(jwk(otherRSAKey(), kid("r1"))))
	fetchedAgain()
	_, known = v.Remembered(raw)
	require.False(t, known)
	refused(t, v, raw, authz.ReasonTokenInvalid, "signature")
}

// A token that is refused, whatever the time is, is not taken apart again.
func TestRefusalsAreRemembered(t *testing.T) {
	var ahead atomic.Int64
	v, err := token.NewVerifier(everything(t), token.VerifierOptions{
		Now: func() time.Time { return now.Add(time.Duration(ahead.Load())) }, CacheEntries: 100,
	})
	require.NoError(t, err)
	good := rs256(nil, nil)
	for name, bad := range map[string]struct{ raw, message string }{
		"wrong signature": {good[:len(good)-6] + "AAAAAA", "signature"},
		"other audience":  {rs256(nil, object{"aud": `"web"`}), "aud"},
		"no exp":          {rs256(nil, object{"exp": ""}), "exp"},
		"unknown issuer":  {rs256(nil, object{"iss": `"https://unknown.example"`}), "issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				refused(t, v, bad.raw, authz.ReasonTokenInvalid, bad.message)
			}
			require.Less(t, testing.AllocsPerRun(100, func() { _, _ = v.Verify(t.Context(), bad.raw) }), 3.0)
		})
	}
	early := rs256(nil, object{"nbf": at(10 * time.Minute), "exp": at(time.Hour)})
	for range 2 {
		refused(t, v, early, authz.ReasonTokenInvalid, "ahead")
	}
	ahead.Store(int64(11 * time.Minute))
	accepted(t, v, early)
}
