package oidc_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

func mustJSON(v any) []byte { return must(json.Marshal(v)) }

// hs256 signs with a shared key.
func hs256(secret []byte, claims object) string {
	input := b64([]byte(`{"alg":"HS256","kid":"r1"}`)) + "." + b64(mustJSON(claims))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

// cut returns header and signature of a JWT.
func cut(raw string) (header, signature string) {
	parts := strings.Split(raw, ".")
	return parts[0], parts[2]
}

// logout are the claims of a logout token.
func (i *issuer) logout(changes object) object {
	now := i.clock.Now()
	return object{
		"iss": i.URL, "sub": "alice", "aud": clientID, "sid": "session-1", "jti": "logout-1",
		"iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
		"events": object{logoutEvent: object{}},
	}.with(changes)
}

func (i *issuer) logoutToken(header, changes object) string {
	raw := i.signs.sign(object{"typ": "logout+jwt"}.with(header), i.logout(changes))
	i.mu.Lock()
	defer i.mu.Unlock()
	i.secrets = append(i.secrets, raw)
	return raw
}

func TestLogoutTokens(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	now := time.Unix(i.clock.Now().Unix(), 0)
	all := authz.ProviderLogin{Issuer: i.URL, Subject: "alice", SessionID: "session-1"}
	subject, session := all, all
	subject.SessionID, session.Subject = "", ""
	for name, tt := range map[string]struct {
		header, claims object
		want           authz.ProviderLogin
		until          time.Duration
	}{
		"as it should be":                 {nil, nil, all, 2 * time.Minute},
		"of a subject":                    {nil, object{"sid": nil}, subject, 2 * time.Minute},
		"of a session":                    {nil, object{"sub": nil}, session, 2 * time.Minute},
		"of a session, subject empty":     {nil, object{"sub": ""}, session, 2 * time.Minute},
		"type in full":                    {object{"typ": "application/logout+jwt"}, nil, all, 2 * time.Minute},
		"type in capitals":                {object{"typ": "LOGOUT+JWT"}, nil, all, 2 * time.Minute},
		"general type":                    {object{"typ": "JWT"}, nil, all, 2 * time.Minute},
		"no type":                         {object{"typ": nil}, nil, all, 2 * time.Minute},
		"several audiences":               {nil, object{"aud": []string{"other", clientID}}, all, 2 * time.Minute},
		"without end":                     {nil, object{"exp": nil}, all, 10 * time.Minute},
		"with a far end":                  {nil, object{"exp": now.Add(24 * time.Hour).Unix()}, all, 10 * time.Minute},
		"some minutes old":                {nil, object{"iat": now.Add(-9 * time.Minute).Unix(), "exp": nil}, all, time.Minute},
		"of a clock that is ahead":        {nil, object{"iat": now.Add(30 * time.Second).Unix()}, all, 2 * time.Minute},
		"with other events and an object": {nil, object{"events": object{logoutEvent: object{"a": 1}, "https://a.example": object{}}}, all, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			got, jti, until, err := p.LogoutToken(t.Context(), i.logoutToken(tt.header, tt.claims))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			require.Equal(t, "logout-1", jti)
			require.WithinDuration(t, now.Add(tt.until+time.Minute), until, 0, "with the leeway")
		})
	}
}

func TestLogoutTokensThatAreNotValid(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	at := func(d time.Duration) int64 { return i.clock.Now().Add(d).Unix() }
	for name, tt := range map[string]struct {
		header, claims object
		message        string
	}{
		"an ID token":               {object{"typ": "JWT"}, object{"nonce": "n", "events": nil}, "it has a nonce"},
		"an ID token without nonce": {object{"typ": "JWT"}, object{"events": nil}, "its events are no logout"},
		"a nonce":                   {nil, object{"nonce": "n"}, "it has a nonce"},
		"an empty nonce":            {nil, object{"nonce": ""}, "it has a nonce"},
		"an access token":           {object{"typ": "at+jwt"}, nil, "another kind of token"},
		"a type that is no text":    {object{"typ": 7}, nil, "another kind of token"},
		"another issuer":            {nil, object{"iss": "https://evil.example.com"}, "issued by a different provider"},
		"no issuer":                 {nil, object{"iss": nil}, "issued by a different provider"},
		"another audience":          {nil, object{"aud": "other"}, "expected audience"},
		"no audience":               {nil, object{"aud": nil}, "expected audience"},
		"another party":             {nil, object{"azp": "other"}, "azp names another client"},
		"no date of issue":          {nil, object{"iat": nil}, "no iat claim"},
		"of the future":             {nil, object{"iat": at(2 * time.Minute), "exp": at(4 * time.Minute)}, "iat lies ahead"},
		"old":                       {nil, object{"iat": at(-12 * time.Minute), "exp": at(time.Hour)}, "issued too long ago"},
		"old, without end":          {nil, object{"iat": at(-12 * time.Minute), "exp": nil}, "issued too long ago"},
		"expired":                   {nil, object{"iat": at(-5 * time.Minute), "exp": at(-2 * time.Minute)}, "expired"},
		"not yet":                   {nil, object{"nbf": at(2 * time.Minute)}, "nbf has not come yet"},
		"no id":                     {nil, object{"jti": nil}, "no jti claim"},
		"an empty id":               {nil, object{"jti": ""}, "no jti claim"},
		"an id that is no text":     {nil, object{"jti": 7}, "no jti claim"},
		"of nobody":                 {nil, object{"sub": nil, "sid": nil}, "neither sub nor sid"},
		"of nobody, in empty texts": {nil, object{"sub": "", "sid": ""}, "neither sub nor sid"},
		"subject that is no text":   {nil, object{"sub": 7}, "unmarshal"},
		"session that is no text":   {nil, object{"sid": object{}}, "is not a string"},
		"no events":                 {nil, object{"events": nil}, "its events are no logout"},
		"another event":             {nil, object{"events": object{"https://a.example": object{}}}, "its events are no logout"},
		"event that is no object":   {nil, object{"events": object{logoutEvent: true}}, "its events are no logout"},
		"events that are a list":    {nil, object{"events": []string{logoutEvent}}, "its events are no logout"},
		"unknown extension":         {object{"crit": []string{"x"}, "x": 1}, nil, "no key of the issuer has signed it"},
		"long":                      {nil, object{"x": strings.Repeat("x", 8<<10)}, "longer than 8192 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, jti, until, err := p.LogoutToken(t.Context(), i.logoutToken(tt.header, tt.claims))
			i.requireRefused(t, authz.ReasonBadRequest, tt.message, err)
			require.Empty(t, got)
			require.Empty(t, jti)
			require.Zero(t, until)
		})
	}
}

func TestLogoutTokensThatNobodySigned(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	public := must(i.signs.public().MarshalJSON())
	claims := i.logout(nil)
	head, tail := cut(i.logoutToken(nil, nil))
	for name, tt := range map[string]struct{ raw, message string }{
		"nothing":                  {"", "no JWT"},
		"text":                     {"hello", "no JWT"},
		"dots":                     {"..", "no JWT"},
		"none":                     {b64([]byte(`{"alg":"none"}`)) + "." + b64(mustJSON(claims)) + ".", "unexpected signature algorithm"},
		"HMAC with the public key": {hs256(public, claims), "unexpected signature algorithm"},
		"HMAC with the secret":     {hs256([]byte(clientSecret), claims), "unexpected signature algorithm"},
		"another key":              {key{otherRSAKey(), "RS256", "r1"}.sign(nil, claims), "no key of the issuer has signed it"},
		"not announced":            {key{rsaKey(), "PS256", "r1"}.sign(nil, claims), "unexpected signature algorithm"},
		"tampered with":            {head + "." + b64(mustJSON(claims.with(object{"sub": "bob"}))) + "." + tail, "no key of the issuer has signed it"},
		"in JSON":                  {`{"payload":"` + b64(mustJSON(claims)) + `","protected":"` + head + `","signature":"` + tail + `"}`, "no JWT"},
		"encrypted":                {head + "....", "malformed jwt"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := p.LogoutToken(t.Context(), tt.raw)
			i.requireRefused(t, authz.ReasonBadRequest, tt.message, err)
		})
	}
}

// Anybody can send logout tokens: those of strangers don't become requests to
// the issuer, and don't keep its users from logging in with a new key.
func TestForgedLogoutTokensDoNotHammerTheIssuer(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	forge := func() {
		t.Helper()
		for n := range 50 {
			_, _, _, err := p.LogoutToken(t.Context(), key{otherRSAKey(), "RS256", fmt.Sprint("x", n)}.sign(nil, i.logout(nil)))
			i.requireRefused(t, authz.ReasonBadRequest, "no key of the issuer has signed it", err)
		}
	}
	forge()
	require.Equal(t, 1, i.count("/jwks"))
	i.clock.Advance(5 * time.Second)
	forge()
	require.Equal(t, 2, i.count("/jwks"))

	i.change(func() {
		i.signs = key{ecKey(), "ES256", "e1"}
		i.published = []key{i.signs}
	})
	_, err := i.finish(t, p)
	require.NoError(t, err)
	require.Equal(t, 3, i.count("/jwks"))
	_, _, _, err = p.LogoutToken(t.Context(), i.logoutToken(nil, nil))
	require.NoError(t, err, "what a login has found counts for logout tokens, too")
}

func TestLogoutTokenOfANewKey(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	_, _, _, err := p.LogoutToken(t.Context(), i.logoutToken(nil, nil))
	require.NoError(t, err)
	i.change(func() {
		i.signs = key{ecKey(), "ES256", "e1"}
		i.published = []key{i.signs}
	})
	i.clock.Advance(5 * time.Second)
	i.logoutSucceeds(t, p)
}

// logoutSucceeds requires that a logout token is taken. Not at once: for a
// moment after a fetch its end is not known to all yet.
func (i *issuer) logoutSucceeds(t *testing.T, p *oidc.Provider) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, _, _, err := p.LogoutToken(t.Context(), i.logoutToken(nil, nil))
		return err == nil
	}, 10*time.Second, time.Millisecond)
}

func TestLogoutTokenWhileKeysAreOutOfReach(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	begin(t, p, "/") // discovery has succeeded
	i.change(func() { i.before = outage })
	for range 20 {
		_, _, _, err := p.LogoutToken(t.Context(), i.logoutToken(nil, nil))
		i.requireRefused(t, authz.ReasonIssuerUnavailable, "the issuer's keys can't be fetched", err)
	}
	require.Equal(t, 1, i.count("/jwks"))
	i.change(func() { i.before = nil })
	i.clock.Advance(3 * time.Second)
	i.logoutSucceeds(t, p)
	i.change(func() { i.before = outage })
	i.clock.Advance(time.Minute)
	i.logoutSucceeds(t, p) // known keys outlive an outage
}
