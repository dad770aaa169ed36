package oidc_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
)

func TestLogin(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	l := begin(t, p, "/orders?page=2#top")
	got, returnTo, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
	require.NoError(t, err)
	require.Equal(t, "/orders?page=2#top", returnTo)
	require.Equal(t, authz.Login{
		Identity:      authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, Organization: "org-1"},
		Organizations: []string{"org-1", "org-2"},
		AuthTime:      time.Unix(i.clock.Now().Add(-time.Hour).Unix(), 0).UTC(),
		Values:        map[string]any{"provider": "corp"},
		Provider:      authz.ProviderLogin{Issuer: i.URL, Subject: "alice", SessionID: "session-1"},
	}, got)
	require.Zero(t, i.count("/userinfo"), "the ID token said everything")
}

func TestAuthorizationRequest(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t, func(o *oidc.Options) { o.Scopes = []string{"email", "groups"} })
	first, second := begin(t, p, "/"), begin(t, p, "/")
	require.True(t, strings.HasPrefix(first.location.String(), i.URL+"/authorize?tenant=1&"), first.location)
	q := first.location.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": clientID, "redirect_uri": redirectURL, "scope": "openid email groups", "code_challenge_method": "S256",
	} {
		require.Equal(t, []string{want}, q[name], name)
	}
	for name, length := range map[string]int{"state": 32, "nonce": 32, "code_challenge": 43} {
		require.Len(t, q.Get(name), length, name)
		require.NotEqual(t, second.location.Query().Get(name), q.Get(name), name)
	}
	require.NotContains(t, first.location.String(), url.QueryEscape(clientSecret))
	require.Regexp(t, `^[A-Za-z0-9]{8,16}$`, first.flow)
	require.NotEqual(t, first.flow, second.flow)
	require.Equal(t, first.flow, p.Flow(i.authorize(first)))
	require.Equal(t, first.flow, p.Flow(url.Values{"state": {q.Get("state")}, "error": {"access_denied"}}))
	require.Regexp(t, `^[A-Za-z0-9_-]+$`, first.sealed, "fit for a cookie")
	require.Less(t, len(begin(t, p, strings.Repeat("/", 2048)).sealed), 3500, "it must fit a cookie")
}

func TestFlowOfACallbackThatIsNotOurs(t *testing.T) {
	p := newIssuer(t).provider(t)
	for _, query := range []url.Values{
		nil,
		{"code": {"x"}},
		{"state": {""}},
		{"state": {"short"}},
		{"state": {strings.Repeat("A", 33)}},
		{"state": {strings.Repeat("A", 31) + "="}},
		{"state": {strings.Repeat("A", 31) + "/"}},
		{"state": {strings.Repeat("A", 32) + "\n"}},
		{"state": {strings.Repeat("A", 32), strings.Repeat("A", 32)}},
		{"state": {strings.Repeat("A", 1<<20)}},
	} {
		require.Empty(t, p.Flow(query))
	}
}

func TestReturnToThatNoCookieCanKeep(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	for path, want := range map[string]string{
		"/" + strings.Repeat("a", 2047): "/" + strings.Repeat("a", 2047),
		"/" + strings.Repeat("a", 2048): "/",
		"":                              "",
	} {
		l := begin(t, p, path)
		_, returnTo, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
		require.NoError(t, err)
		require.Equal(t, want, returnTo)
	}
}

func TestTabsDoNotDisturbEachOther(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	one, two := begin(t, p, "/one"), begin(t, p, "/two")
	callbackOne, callbackTwo := i.authorize(one), i.authorize(two)

	_, _, err := p.Finish(t.Context(), callbackOne, two.sealed)
	i.requireRefused(t, authz.ReasonBadRequest, "this browser has not begun such a login", err)
	_, _, err = p.Finish(t.Context(), callbackTwo, one.sealed)
	i.requireRefused(t, authz.ReasonBadRequest, "this browser has not begun such a login", err)

	_, returnTo, err := p.Finish(t.Context(), callbackTwo, two.sealed)
	require.NoError(t, err)
	require.Equal(t, "/two", returnTo)
	_, returnTo, err = p.Finish(t.Context(), callbackOne, one.sealed)
	require.NoError(t, err)
	require.Equal(t, "/one", returnTo)
}

func TestCallbacksThatDoNotFit(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	other := i.provider(t, func(o *oidc.Options) { o.Name = "other" })
	forged := i.provider(t, func(o *oidc.Options) { o.SealingKeys = [][]byte{[]byte("another-secret-0123456789")} })
	for name, tt := range map[string]struct {
		change  func(q url.Values, l *login)
		message string
	}{
		"no state":         {func(q url.Values, _ *login) { q.Del("state") }, "no state of ours"},
		"empty state":      {func(q url.Values, _ *login) { q.Set("state", "") }, "no state of ours"},
		"state twice":      {func(q url.Values, _ *login) { q.Add("state", q.Get("state")) }, "the parameter state stands twice"},
		"code twice":       {func(q url.Values, _ *login) { q.Add("code", "x") }, "the parameter code stands twice"},
		"state of nobody":  {func(q url.Values, _ *login) { q.Set("state", strings.Repeat("A", 32)) }, "this browser has not begun such a login"},
		"no cookie":        {func(_ url.Values, l *login) { l.sealed = "" }, "this browser has not begun such a login"},
		"cookie of nobody": {func(_ url.Values, l *login) { l.sealed = strings.Repeat("A", 200) }, "this browser has not begun such a login"},
		"long cookie":      {func(_ url.Values, l *login) { l.sealed = strings.Repeat("A", 1<<20) }, "this browser has not begun such a login"},
		"cookie of another provider": {func(q url.Values, l *login) {
			*l = begin(t, other, "/")
			q.Set("state", l.location.Query().Get("state"))
		}, "this browser has not begun such a login"},
		"cookie of another key": {func(q url.Values, l *login) {
			*l = begin(t, forged, "/")
			q.Set("state", l.location.Query().Get("state"))
		}, "this browser has not begun such a login"},
		"neither code nor error":  {func(q url.Values, _ *login) { q.Del("code") }, "neither code nor error"},
		"another issuer (mix-up)": {func(q url.Values, _ *login) { q.Set("iss", "https://evil.example.com") }, "iss names another issuer"},
		"issuer with a slash":     {func(q url.Values, _ *login) { q.Set("iss", i.URL+"/") }, "iss names another issuer"},
		"issuer twice":            {func(q url.Values, _ *login) { q["iss"] = []string{i.URL, "https://evil.example.com"} }, "the parameter iss stands twice"},
		"error of another issuer": {func(q url.Values, _ *login) {
			q.Set("iss", "https://evil.example.com")
			q.Set("error", "access_denied")
		}, "iss names another issuer"},
		"error without state": {func(q url.Values, _ *login) {
			q.Del("state")
			q.Set("error", "access_denied")
		}, "no state of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t, p, "/")
			q := i.authorize(l)
			tt.change(q, &l)
			tokens := i.count("/token")
			got, returnTo, err := p.Finish(t.Context(), q, l.sealed)
			i.requireRefused(t, authz.ReasonBadRequest, tt.message, err)
			require.Equal(t, tokens, i.count("/token"), "no code goes to the provider")
			require.Empty(t, returnTo)
			require.Empty(t, got)
		})
	}
}

func TestLoginMustNotTakeLongerThanTenMinutes(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	l := begin(t, p, "/")
	i.clock.Advance(9 * time.Minute)
	_, _, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
	require.NoError(t, err)

	l = begin(t, p, "/")
	i.clock.Advance(10*time.Minute + time.Second)
	_, _, err = p.Finish(t.Context(), i.authorize(l), l.sealed)
	i.requireRefused(t, authz.ReasonBadRequest, "it may take 10m0s", err)

	l = begin(t, p, "/")
	i.clock.Advance(-2 * time.Minute)
	_, _, err = p.Finish(t.Context(), i.authorize(l), l.sealed)
	i.requireRefused(t, authz.ReasonBadRequest, "it may take 10m0s", err)
}

// The parameter iss of RFC 9207: where the provider says that it always gives
// it, an answer without it is somebody else's.
func TestIssuerInTheCallback(t *testing.T) {
	i := newIssuer(t)
	l := begin(t, i.provider(t), "/")
	q := i.authorize(l)
	q.Set("iss", i.URL)
	_, _, err := i.provider(t).Finish(t.Context(), q, l.sealed)
	require.NoError(t, err)

	i.change(func() { i.discovery = object{"authorization_response_iss_parameter_supported": true} })
	p := i.provider(t)
	l = begin(t, p, "/")
	q = i.authorize(l)
	_, _, err = p.Finish(t.Context(), q, l.sealed)
	i.requireRefused(t, authz.ReasonBadRequest, "no parameter iss", err)
	q.Set("iss", i.URL)
	_, _, err = p.Finish(t.Context(), q, l.sealed)
	require.NoError(t, err)
}

func TestACallbackCountsOnce(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	l := begin(t, p, "/")
	q := i.authorize(l)
	_, _, err := p.Finish(t.Context(), q, l.sealed)
	require.NoError(t, err)
	_, _, err = p.Finish(t.Context(), q, l.sealed)
	i.requireRefused(t, authz.ReasonLoginRefused, `error "invalid_grant"`, err)
}

// Somebody lures a victim with a code of his own: it was made for another
// verifier.
func TestCodeOfAnotherLogin(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	victim, attacker := begin(t, p, "/"), begin(t, p, "/")
	q := i.authorize(victim)
	q.Set("code", i.authorize(attacker).Get("code"))
	_, _, err := p.Finish(t.Context(), q, victim.sealed)
	i.requireRefused(t, authz.ReasonLoginRefused, `error "invalid_grant"`, err)
}

func TestAnyReplicaFinishes(t *testing.T) {
	i := newIssuer(t)
	keys := func(keys ...string) func(*oidc.Options) {
		return func(o *oidc.Options) {
			o.SealingKeys = nil
			for _, k := range keys {
				o.SealingKeys = append(o.SealingKeys, []byte(k))
			}
		}
	}
	before, during := i.provider(t, keys("old-secret")), i.provider(t, keys("new-secret", "old-secret"))
	after := i.provider(t, keys("new-secret"))
	for _, pair := range []struct {
		name     string
		from, to *oidc.Provider
		ok       bool
	}{
		{"a secret that is rotated out still opens", before, during, true},
		{"the new one seals", during, after, true},
		{"the old one does no more", during, before, false},
		{"gone is gone", before, after, false},
	} {
		l := begin(t, pair.from, "/")
		_, _, err := pair.to.Finish(t.Context(), i.authorize(l), l.sealed)
		require.Equal(t, pair.ok, err == nil, pair.name)
	}
}

func TestProviderRefuses(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	for code, want := range map[string]authz.Reason{
		"access_denied":           authz.ReasonLoginRefused,
		"login_required":          authz.ReasonLoginRefused,
		"invalid_scope":           authz.ReasonLoginRefused,
		"unauthorized_client":     authz.ReasonIssuerUnavailable,
		"server_error":            authz.ReasonIssuerUnavailable,
		"temporarily_unavailable": authz.ReasonIssuerUnavailable,
		"<script>\n":              authz.ReasonLoginRefused,
		strings.Repeat("é", 1000): authz.ReasonLoginRefused,
	} {
		l := begin(t, p, "/")
		q := i.authorize(l)
		q.Set("error", code)
		q.Set("error_description", "mallory@example.com")
		_, _, err := p.Finish(t.Context(), q, l.sealed)
		i.requireRefused(t, want, "callback", err)
		require.NotContains(t, err.Error(), "mallory")
		require.NotContains(t, err.Error(), "\n")
	}
	require.Zero(t, i.count("/token"))
}

func TestTokenEndpointRefuses(t *testing.T) {
	i := newIssuer(t)
	for name, tt := range map[string]struct {
		status  int
		body    string
		reason  authz.Reason
		message string
	}{
		"a code that is not good":     {400, `{"error":"invalid_grant","error_description":"secret"}`, authz.ReasonLoginRefused, `the token endpoint: error "invalid_grant"`},
		"a client that is not known":  {401, `{"error":"invalid_client"}`, authz.ReasonIssuerUnavailable, "check client id and secret"},
		"too much to do":              {503, `{"error":"temporarily_unavailable"}`, authz.ReasonIssuerUnavailable, "temporarily_unavailable"},
		"broken":                      {500, `<html>secret</html>`, authz.ReasonIssuerUnavailable, "the token endpoint answered 500"},
		"too many":                    {429, `secret`, authz.ReasonIssuerUnavailable, "answered 429"},
		"an error with 200":           {200, `{"error":"invalid_grant"}`, authz.ReasonLoginRefused, "invalid_grant"},
		"no JSON":                     {200, `secret`, authz.ReasonLoginRefused, "no tokens that can be read"},
		"no access token":             {200, `{"id_token":"secret"}`, authz.ReasonLoginRefused, "no tokens that can be read"},
		"no ID token":                 {200, `{"access_token":"secret"}`, authz.ReasonLoginRefused, "no ID token"},
		"an ID token that is no text": {200, `{"access_token":"secret","id_token":7}`, authz.ReasonLoginRefused, "no ID token"},
		"an ID token that is no JWT":  {200, `{"access_token":"secret","id_token":"secret"}`, authz.ReasonLoginRefused, "malformed jwt"},
		"a redirect, which code and secret don't follow": {307, ``, authz.ReasonIssuerUnavailable, "answered 307"},
	} {
		t.Run(name, func(t *testing.T) {
			i.change(func() {
				i.before = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path != "/token" {
						return false
					}
					w.Header().Set("Content-Type", "application/json")
					if tt.status == 307 {
						w.Header().Set("Location", "/elsewhere")
					}
					w.WriteHeader(tt.status)
					_, _ = w.Write([]byte(tt.body))
					return true
				}
			})
			_, err := i.finish(t, i.provider(t))
			i.requireRefused(t, tt.reason, tt.message, err)
			require.Zero(t, i.count("/elsewhere"))
			if !strings.Contains(tt.message, "secret") {
				require.NotContains(t, err.Error(), "secret")
			}
		})
	}
}

func TestClientAuthentication(t *testing.T) {
	for name, tt := range map[string]struct {
		methods []string
		secret  string
		basic   bool
		body    bool
	}{
		"unsaid":                {nil, clientSecret, true, false},
		"basic":                 {[]string{"client_secret_basic", "client_secret_post"}, clientSecret, true, false},
		"post":                  {[]string{"private_key_jwt", "client_secret_post"}, clientSecret, false, true},
		"public":                {[]string{"client_secret_basic", "none"}, "", false, false},
		"neither, so we try it": {[]string{"private_key_jwt"}, clientSecret, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			var seen *http.Request
			i.change(func() {
				if tt.methods != nil {
					i.discovery = object{"token_endpoint_auth_methods_supported": tt.methods}
				}
				i.before = func(_ http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == "/token" {
						_ = r.ParseForm()
						seen = r
					}
					return false
				}
			})
			_, err := i.finish(t, i.provider(t, func(o *oidc.Options) { o.ClientSecret = tt.secret }))
			if tt.secret == "" {
				i.requireRefused(t, authz.ReasonIssuerUnavailable, "invalid_client", err)
				require.Equal(t, clientID, seen.PostForm.Get("client_id"))
			} else {
				require.NoError(t, err)
			}
			_, _, basic := seen.BasicAuth()
			require.Equal(t, tt.basic, basic)
			require.Equal(t, tt.body, seen.PostForm.Has("client_secret"))
			require.Len(t, seen.PostForm.Get("code_verifier"), 43)
		})
	}
}

func TestIDTokensThatProveNobody(t *testing.T) {
	i := newIssuer(t)
	now := i.clock.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, tt := range map[string]struct {
		claims  object
		message string
	}{
		"another nonce":                {object{"nonce": "x"}, "nonce is that of another login"},
		"no nonce":                     {object{"nonce": nil}, "nonce is that of another login"},
		"nonce that is no text":        {object{"nonce": 7}, "cannot unmarshal number"},
		"another audience":             {object{"aud": "other"}, "expected audience"},
		"no audience":                  {object{"aud": nil}, "expected audience"},
		"several, ours not":            {object{"aud": []string{"a", "b"}}, "expected audience"},
		"several without azp":          {object{"aud": []string{clientID, "b"}}, "no azp claim that names us"},
		"issued to another":            {object{"aud": []string{clientID, "b"}, "azp": "b"}, "azp names another client"},
		"one audience, another party":  {object{"azp": "b"}, "azp names another client"},
		"another issuer":               {object{"iss": "https://evil.example.com"}, "issued by a different provider"},
		"issuer with a slash":          {object{"iss": i.URL + "/"}, "issued by a different provider"},
		"no issuer":                    {object{"iss": nil}, "issued by a different provider"},
		"expired":                      {object{"iat": at(-time.Hour), "exp": at(-time.Minute)}, "expired"},
		"without end":                  {object{"exp": nil}, "no exp claim"},
		"end before its beginning":     {object{"exp": at(-10 * time.Second)}, "exp lies before iat"},
		"end in text":                  {object{"exp": "tomorrow"}, "unmarshal"},
		"end beyond all dates":         {object{"exp": 1e15}, "not a date between"},
		"of the future":                {object{"iat": at(2 * time.Minute)}, "iat lies ahead"},
		"no date of issue":             {object{"iat": nil}, "no iat claim"},
		"not yet":                      {object{"nbf": at(2 * time.Minute)}, "nbf has not come yet"},
		"authentication of the future": {object{"auth_time": at(2 * time.Minute)}, "auth_time is no date of the past"},
		"authentication in text":       {object{"auth_time": "now"}, "auth_time is no date of the past"},
		"no subject":                   {object{"sub": nil}, "no sub claim"},
		"empty subject":                {object{"sub": ""}, "no sub claim"},
		"another access token":         {object{"at_hash": b64(make([]byte, 16))}, "access token hash"},
		"roles that are none":          {object{"roles": object{"admin": true}}, `"roles" is neither a string nor an array of strings`},
		"roles with a number":          {object{"roles": []any{"a", 7}}, `"roles" is neither a string nor an array of strings`},
		"email that is none":           {object{"email": 7}, `"email" is not a string`},
		"sid that is none":             {object{"sid": 7}, `"sid" is not a string`},
	} {
		t.Run(name, func(t *testing.T) {
			i.change(func() { i.claims = tt.claims })
			got, err := i.finish(t, i.provider(t))
			i.requireRefused(t, authz.ReasonLoginRefused, tt.message, err)
			require.Empty(t, got)
		})
	}
}

func TestIDTokensWithinTheLeeway(t *testing.T) {
	i := newIssuer(t)
	now := i.clock.Now()
	for name, claims := range map[string]object{
		"expired just now":            {"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-30 * time.Second).Unix()},
		"a clock that is ahead":       {"iat": now.Add(30 * time.Second).Unix(), "auth_time": now.Add(30 * time.Second).Unix()},
		"several audiences, for us":   {"aud": []string{clientID, "b"}, "azp": clientID},
		"one audience in a list":      {"aud": []string{clientID}},
		"no authentication time":      {"auth_time": nil},
		"dates with a fraction":       {"iat": float64(now.Unix()) - 0.5, "exp": float64(now.Unix()) + 300.25},
		"hash of the access token":    {},
		"distributed claims (groups)": {"_claim_names": object{"groups": "src1"}, "_claim_sources": object{"src1": object{"endpoint": "https://a.example"}}},
	} {
		t.Run(name, func(t *testing.T) {
			i.change(func() { i.claims = claims })
			p := i.provider(t)
			l := begin(t, p, "/")
			if name == "hash of the access token" {
				sum := sha256.Sum256([]byte("access-" + b64([]byte(l.location.Query().Get("nonce")))))
				i.change(func() { i.claims = object{"at_hash": b64(sum[:16])} })
			}
			got, _, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
			require.NoError(t, err)
			require.False(t, got.AuthTime.After(now), "no authentication of the future")
			require.False(t, got.AuthTime.IsZero())
		})
	}
}

func TestSignaturesOfIDTokens(t *testing.T) {
	i := newIssuer(t)
	public := must(i.signs.public().MarshalJSON())
	unsigned := func(header string, claims object) string {
		return b64([]byte(header)) + "." + b64(mustJSON(claims)) + "."
	}
	for name, tt := range map[string]struct {
		raw     func(claims object) string
		message string
	}{
		"none":                     {func(c object) string { return unsigned(`{"alg":"none"}`, c) }, "unexpected signature algorithm"},
		"NONE":                     {func(c object) string { return unsigned(`{"alg":"NONE"}`, c) }, "unexpected signature algorithm"},
		"no algorithm":             {func(c object) string { return unsigned(`{}`, c) }, "unexpected signature algorithm"},
		"HMAC with the public key": {func(c object) string { return hs256(public, c) }, "unexpected signature algorithm"},
		"HMAC with the secret":     {func(c object) string { return hs256([]byte(clientSecret), c) }, "unexpected signature algorithm"},
		"of another key":           {func(c object) string { return key{otherRSAKey(), "RS256", "r1"}.sign(nil, c) }, "no key of the issuer has signed it"},
		"of an unknown key":        {func(c object) string { return key{otherRSAKey(), "RS256", "r2"}.sign(nil, c) }, "no key of the issuer has signed it"},
		"of a key that it brings": {func(c object) string {
			own := key{otherRSAKey(), "RS256", "r9"}
			return own.sign(object{"jwk": own.public()}, c)
		}, "no key of the issuer has signed it"},
		"algorithm that the issuer doesn't announce": {func(c object) string { return key{rsaKey(), "PS256", "r1"}.sign(nil, c) }, "unexpected signature algorithm"},
		"unknown extension": {func(c object) string {
			return key{rsaKey(), "RS256", "r1"}.sign(object{"crit": []string{"x"}, "x": 1}, c)
		}, "no key of the issuer has signed it"},
		"tampered with": {func(c object) string {
			head, tail := cut(key{rsaKey(), "RS256", "r1"}.sign(nil, c))
			return head + "." + b64(mustJSON(c.with(object{"sub": "root"}))) + "." + tail
		}, "no key of the issuer has signed it"},
	} {
		t.Run(name, func(t *testing.T) {
			p := i.provider(t)
			l := begin(t, p, "/")
			i.change(func() { i.rawToken = tt.raw(i.idToken(l.location.Query().Get("nonce"))) })
			_, _, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
			i.requireRefused(t, authz.ReasonLoginRefused, tt.message, err)
		})
	}
}

func TestAlgorithms(t *testing.T) {
	i := newIssuer(t)
	for _, k := range []key{{rsaKey(), "RS256", "r1"}, {ecKey(), "ES256", "e1"}, {edKey(), "EdDSA", "o1"}, {rsaKey(), "RS256", ""}} {
		i.change(func() { i.signs, i.published = k, []key{k} })
		_, err := i.finish(t, i.provider(t))
		require.NoError(t, err, k.alg)
	}
	// An issuer that announces nothing that we take signs with RS256 or not at
	// all.
	i.change(func() { i.discovery = object{"id_token_signing_alg_values_supported": []string{"HS256", "none"}} })
	_, err := i.finish(t, i.provider(t))
	require.NoError(t, err)
	i.change(func() {
		i.signs = key{ecKey(), "ES256", "e1"}
		i.published = []key{i.signs}
	})
	_, err = i.finish(t, i.provider(t))
	i.requireRefused(t, authz.ReasonLoginRefused, "unexpected signature algorithm", err)
}

func TestKeyRotation(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	for n := range 3 {
		_, err := i.finish(t, p)
		require.NoError(t, err)
		require.Equal(t, 1, i.count("/jwks"), "login %d: known keys are not fetched again", n)
	}
	i.change(func() {
		i.signs = key{otherRSAKey(), "RS256", "r2"}
		i.published = []key{i.signs}
	})
	_, err := i.finish(t, p)
	require.NoError(t, err, "a new key is found at once")
	require.Equal(t, 2, i.count("/jwks"))

	i.change(func() {
		i.signs = key{ecKey(), "ES256", "e1"}
		i.published = append(i.published, i.signs)
	})
	_, err = i.finish(t, p)
	require.NoError(t, err, "and the next one, too")
	require.Equal(t, 1, i.count("/.well-known/openid-configuration"))
}

func TestDiscoveryIsRenewed(t *testing.T) {
	i := newIssuer(t)
	p := i.provider(t)
	begin(t, p, "/")
	i.change(func() { i.discovery = object{"authorization_endpoint": i.URL + "/elsewhere"} })
	i.clock.Advance(59 * time.Minute)
	require.Equal(t, "/authorize", begin(t, p, "/").location.Path)
	i.clock.Advance(2 * time.Minute)
	require.Eventually(t, func() bool { return begin(t, p, "/").location.Path == "/elsewhere" }, 10*time.Second, time.Millisecond)
	require.Equal(t, 2, i.count("/.well-known/openid-configuration"))

	// What was known stays good while the issuer is away.
	i.change(func() { i.before = outage })
	i.clock.Advance(2 * time.Hour)
	for range 10 {
		require.Equal(t, "/elsewhere", begin(t, p, "/").location.Path)
	}
}

func outage(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte("secret"))
	return true
}

func TestIssuerThatIsDownThenUp(t *testing.T) {
	i := newIssuer(t)
	i.change(func() { i.before = outage })
	p := i.provider(t)
	const document = "/.well-known/openid-configuration"
	for range 20 {
		_, _, _, err := p.Begin(t.Context(), "/")
		i.requireRefused(t, authz.ReasonIssuerUnavailable, "answered 503", err)
		require.NotContains(t, err.Error(), "secret")
		_, _, _, err = p.LogoutToken(t.Context(), i.logoutToken(nil, nil))
		i.requireRefused(t, authz.ReasonIssuerUnavailable, "answered 503", err)
	}
	require.Equal(t, 1, i.count(document), "an outage costs one fetch per some seconds")
	i.clock.Advance(3 * time.Second)
	_, _, _, err := p.Begin(t.Context(), "/")
	require.Error(t, err)
	require.Equal(t, 2, i.count(document))

	i.change(func() { i.before = nil })
	i.clock.Advance(3 * time.Second)
	_, err = i.finish(t, p)
	require.NoError(t, err)
}

func TestManyWaitForOneDiscovery(t *testing.T) {
	i := newIssuer(t)
	arrived, gone := make(chan struct{}, 100), make(chan struct{})
	i.change(func() {
		i.before = func(http.ResponseWriter, *http.Request) bool {
			arrived <- struct{}{}
			<-gone
			return false
		}
	})
	p := i.provider(t)

	// One whose client has left does not end the fetch of the others.
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, _, _, err := p.Begin(ctx, "/")
		left <- err
	}()
	<-arrived
	cancel()
	i.requireRefused(t, authz.ReasonIssuerUnavailable, "context canceled", <-left)

	var group sync.WaitGroup
	errs := make(chan error, 40)
	for range 40 {
		group.Go(func() {
			_, _, _, err := p.Begin(t.Context(), "/")
			errs <- err
		})
	}
	close(gone)
	group.Wait()
	for range 40 {
		require.NoError(t, <-errs)
	}
	require.Equal(t, 1, i.count("/.well-known/openid-configuration"))
}

func TestEveryFetchIsBounded(t *testing.T) {
	slow := func(release chan struct{}) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			select { // a body that never ends
			case <-release:
			case <-r.Context().Done():
			}
		}
	}
	huge := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		space := []byte(strings.Repeat(" ", 64<<10))
		for range 100 {
			if _, err := w.Write(space); err != nil || r.Context().Err() != nil {
				return
			}
		}
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/jwks", "/token", "/userinfo"} {
		for _, kind := range []string{"slow", "huge"} {
			t.Run(kind+path, func(t *testing.T) {
				t.Parallel()
				i := newIssuer(t)
				release := make(chan struct{})
				defer close(release)
				answer, message := huge, "answered more than 1048576 bytes"
				if kind == "slow" {
					answer, message = slow(release), "exceeded" // the deadline, or Client.Timeout
				}
				i.change(func() {
					i.claims = object{"roles": nil}
					i.before = func(w http.ResponseWriter, r *http.Request) bool {
						if r.URL.Path == path {
							answer(w, r)
						}
						return r.URL.Path == path
					}
				})
				p := i.provider(t, func(o *oidc.Options) {
					if kind == "slow" {
						o.Timeout = 2 * time.Second // of each call: what comes before it is in time
					}
				})
				location, _, sealed, err := p.Begin(t.Context(), "/")
				if path == "/.well-known/openid-configuration" {
					i.requireRefused(t, authz.ReasonIssuerUnavailable, message, err)
					return
				}
				require.NoError(t, err)
				_, _, err = p.Finish(t.Context(), i.authorize(login{location: must(url.Parse(location))}), sealed)
				i.requireRefused(t, authz.ReasonIssuerUnavailable, message, err)
			})
		}
	}
}

func TestDiscoveryDocumentsThatAreNotTaken(t *testing.T) {
	i := newIssuer(t)
	for name, tt := range map[string]struct {
		discovery object
		message   string
	}{
		"of another issuer":           {object{"issuer": "https://evil.example.com"}, "did not match the issuer URL returned by provider"},
		"of an issuer with a slash":   {object{"issuer": i.URL + "/"}, "did not match"},
		"no token endpoint":           {object{"token_endpoint": nil}, "token_endpoint is no http or https URL"},
		"no authorization endpoint":   {object{"authorization_endpoint": nil}, "authorization_endpoint is no http or https URL"},
		"a script for an endpoint":    {object{"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is no http or https URL"},
		"a file for a key set":        {object{"jwks_uri": "file:///etc/passwd"}, "jwks_uri is no http or https URL"},
		"a password in an endpoint":   {object{"userinfo_endpoint": "https://u:p@a.example"}, "userinfo_endpoint is no http or https URL"},
		"an endpoint that is no text": {object{"token_endpoint": 7}, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			i.change(func() { i.discovery = tt.discovery })
			_, _, _, err := i.provider(t).Begin(t.Context(), "/")
			i.requireRefused(t, authz.ReasonIssuerUnavailable, tt.message, err)
		})
	}
	i.change(func() { i.discovery = object{"userinfo_endpoint": nil} })
	_, _, _, err := i.provider(t).Begin(t.Context(), "/")
	require.NoError(t, err, "a provider needs no userinfo endpoint")
}

// An https issuer can send us nowhere else: neither by a redirect nor by what
// its discovery document says.
func TestNothingLeavesTLS(t *testing.T) {
	i := newIssuer(t)
	plain := i.URL
	i.Server = httptest.NewTLSServer(i)
	t.Cleanup(i.Close)
	private := func(o *oidc.Options) { o.HTTPClient = i.Client() }
	_, err := i.finish(t, i.provider(t, private))
	require.NoError(t, err)

	for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"} {
		i.change(func() { i.discovery = object{name: plain + "/x"} })
		_, _, _, err := i.provider(t, private).Begin(t.Context(), "/")
		i.requireRefused(t, authz.ReasonIssuerUnavailable, name+" leaves TLS", err)
	}
	i.change(func() { i.discovery = nil })

	for _, tt := range []struct{ path, to, message string }{
		{"/.well-known/openid-configuration", plain + "/.well-known/openid-configuration", "a redirect away from TLS"},
		{"/.well-known/openid-configuration", "/.well-known/openid-configuration", "more than 3 redirects"},
		{"/jwks", plain + "/jwks", "a redirect away from TLS"},
	} {
		i.change(func() {
			i.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != tt.path || r.TLS == nil {
					return false
				}
				http.Redirect(w, r, tt.to, http.StatusFound)
				return true
			}
		})
		p := i.provider(t, private)
		location, _, sealed, err := p.Begin(t.Context(), "/")
		if err == nil {
			_, _, err = p.Finish(t.Context(), i.authorize(login{location: must(url.Parse(location))}), sealed)
		}
		i.requireRefused(t, authz.ReasonIssuerUnavailable, tt.message, err)
	}

	i.change(func() {
		i.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/jwks" && r.URL.RawQuery == "" {
				http.Redirect(w, r, "/jwks?moved", http.StatusFound)
			}
			return r.URL.Path == "/jwks" && r.URL.RawQuery == ""
		}
	})
	_, err = i.finish(t, i.provider(t, private))
	require.NoError(t, err, "within TLS keys may move")

	_, _, _, err = i.provider(t).Begin(t.Context(), "/")
	i.requireRefused(t, authz.ReasonIssuerUnavailable, "certificate", err)
}

func TestErrorsOfAnIssuerAreShortened(t *testing.T) {
	i := newIssuer(t)
	i.change(func() { i.discovery = object{"issuer": "https://" + strings.Repeat("x", 10_000)} })
	_, _, _, err := i.provider(t).Begin(t.Context(), "/")
	i.requireRefused(t, authz.ReasonIssuerUnavailable, "…", err)
}

func TestKeySetThatCannotBeRead(t *testing.T) {
	i := newIssuer(t)
	for body, status := range map[string]int{"{": 200, `{"keys":[{"kty":"RSA"}]}`: 200, "busy": 500, "[]": 200} {
		i.change(func() {
			i.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/jwks" {
					return false
				}
				w.WriteHeader(status)
				_, _ = fmt.Fprint(w, body)
				return true
			}
		})
		_, err := i.finish(t, i.provider(t))
		i.requireRefused(t, authz.ReasonIssuerUnavailable, "the issuer's keys can't be fetched", err)
	}
	i.change(func() {
		i.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/jwks" {
				_, _ = fmt.Fprint(w, `{"keys":[]}`)
			}
			return r.URL.Path == "/jwks"
		}
	})
	_, err := i.finish(t, i.provider(t))
	i.requireRefused(t, authz.ReasonLoginRefused, "no key of the issuer has signed it", err)
}

func TestNewChecksItsOptions(t *testing.T) {
	good := oidc.Options{Issuer: "https://idp.example.com", ClientID: "web", RedirectURL: redirectURL, SealingKeys: [][]byte{[]byte("k")}}
	_, err := oidc.New(good)
	require.NoError(t, err)
	for message, change := range map[string]func(*oidc.Options){
		"the issuer is no http or https URL":          func(o *oidc.Options) { o.Issuer = "idp.example.com" },
		"the issuer is no http or https URL ":         func(o *oidc.Options) { o.Issuer = "https://u:p@idp.example.com" },
		"an issuer with a query or fragment can't be": func(o *oidc.Options) { o.Issuer += "?a" },
		"no client id":                     func(o *oidc.Options) { o.ClientID = "" },
		"no sealing key":                   func(o *oidc.Options) { o.SealingKeys = nil },
		"sealing key 1 is empty":           func(o *oidc.Options) { o.SealingKeys = [][]byte{[]byte("k"), {}} },
		"the redirect URL is not absolute": func(o *oidc.Options) { o.RedirectURL = "/auth/oidc/corp/callback" },
	} {
		o := good
		change(&o)
		_, err := oidc.New(o)
		require.ErrorContains(t, err, strings.TrimSpace(message))
	}
}
