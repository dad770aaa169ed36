package logging

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What looks for secrets costs more than all else of a line.
func TestOrdinaryTextsAreNotSearched(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"2b9b7c0e-51c3-4b5b-9df1-6f3d6ad2f2a1", "127.0.0.1:8080", "[::1]:8080", "shop.example", "/orders/7:cancel", "/a@b", "/caf%C3%A9", "user-1@example.com",
		"credential_missing: none of [session] was presented", "cookie_invalid: sessionId: the signature is wrong", "dial tcp 127.0.0.1:6379: connection refused",
		"token_expired: it ended 5s ago", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0)", "key: new, they grew: basically", "https://idp.example.com/jwks", "sessions: 3",
	} {
		require.False(t, mayHoldSecrets(text), text)
	}
}

// FuzzSecretsAreSearchedFor states that a text which isn't searched holds nothing that a
// search would find.
func FuzzSecretsAreSearchedFor(f *testing.F) {
	for _, seed := range []string{
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln", "ewogICJhbGciOiAi.c2ln", "ew0KICAiYWxnIjo.x", "eyAiYWxnIjogIlJT.x", "eyIxIjoxfQabc.x", "ewkgICJhbGci.x", "basic dXNlcjpwYXNzd29yZA", "s:abcdefgh.abc", "s%3Aabcdefgh", "s%253aabcdefgh", "sess:kQ3vTfWm0e8nJ1sYpZ4x", "xs:abcdefgh",
		"-----BEGIN EC PRIVATE KEY-----x", "$6$salt$abc", "$argon2id$v=19$m", "bearer abcdefghijklmnopqrstuvwxyz", "BASIC dXNlcjpwYXNzd29yZA==", "ba\u017fic dXNlcjpwYXNzd29yZA",
		"redis://:pw@h", "https://key@h/x", "/cb?code=1", "password=x", "the to\u212aen=x", "a s:12345678", "_sess:1234567890123456", "sssess:1234567890123456",
	} {
		f.Add(seed)
		f.Add("x" + seed)
		f.Add(seed[:len(seed)-1])
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !mayHoldSecrets(text) {
			require.False(t, secretText.MatchString(text), "%q", text)
		}
	})
}
