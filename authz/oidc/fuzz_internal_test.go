package oidc

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// FuzzDiscovery states that a discovery document sends neither a browser nor our
// secret anywhere but to web addresses without a password in them, over TLS where
// the issuer is; that it names no algorithm which is not ours to take, HMAC and
// none least of all; and that only the issuer's own counts.
func FuzzDiscovery(f *testing.F) {
	const good = `{"issuer":"https://idp.example.com","authorization_endpoint":"https://idp.example.com/a","token_endpoint":"https://idp.example.com/t","jwks_uri":"https://idp.example.com/k"`
	for _, document := range []string{
		good + `}`,
		good + `,"userinfo_endpoint":"http://idp.example.com/u"}`,
		good + `,"id_token_signing_alg_values_supported":["none","HS256","RS256","ES256",null]}`,
		good + `,"token_endpoint_auth_methods_supported":["client_secret_post"],"authorization_response_iss_parameter_supported":true}`,
		strings.Replace(good, "https://idp.example.com/t", "https://u:p@idp.example.com/t", 1) + `}`,
		strings.Replace(good, "https://idp.example.com/a", "javascript:alert(1)", 1) + `}`,
		strings.Replace(good, `"issuer":"https:`, `"issuer":"http:`, 1) + `}`,
		`{}`, `null`, `[]`, `{"issuer":7}`,
	} {
		f.Add(document, true)
		f.Add(strings.ReplaceAll(document, "https:", "http:"), false)
	}
	f.Fuzz(func(t *testing.T, document string, tls bool) {
		issuer := "http://idp.example.com"
		if tls {
			issuer = "https://idp.example.com"
		}
		asked := 0
		c := newClients(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(document)), Request: r}, nil
		})}, time.Minute)
		d := &directory{issuer: issuer, clients: c, timeout: time.Minute, now: func() time.Time { return now }}
		m, err := d.fetch(t.Context(), nil)
		require.Equal(t, 1, asked)
		if err != nil {
			require.Nil(t, m)
			require.LessOrEqual(t, len(err.Error()), maxError+len("…"))
			return
		}
		var says struct{ Issuer string }
		require.NoError(t, json.Unmarshal([]byte(document), &says))
		require.Equal(t, issuer, says.Issuer)
		for _, location := range []string{m.endpoint.AuthURL, m.endpoint.TokenURL, m.userInfo, m.keys.location} {
			if location == "" {
				require.Empty(t, m.userInfo)
				continue
			}
			u, err := url.Parse(location)
			require.NoError(t, err)
			require.True(t, u.Scheme == "https" || u.Scheme == "http" && !tls, location)
			require.NotEmpty(t, u.Host)
			require.Nil(t, u.User)
		}
		require.NotEmpty(t, m.algorithms)
		for _, a := range m.algorithms {
			require.Contains(t, algorithms, a)
		}
	})
}

// FuzzCallback states that no callback goes on with a login but the one whose state
// this browser's cookie was sealed with, and that a parameter which stands twice
// is never half taken.
func FuzzCallback(f *testing.F) {
	s := newTestSealer(f, "first-secret", "second-secret")
	begun := fixedFlow()
	state := text(begun.state[:])
	sealed := s.seal(flowName(state), begun)
	f.Add("state="+state+"&code=c", sealed)
	f.Add("state="+state+"&state="+state+"&code=c", sealed)
	f.Add("state="+state+"&code=c&code=d&iss=x", sealed)
	f.Add("code=c", sealed)
	f.Add("state=&error=access_denied", "")
	f.Add("state="+strings.ToUpper(state), sealed)
	f.Fuzz(func(t *testing.T, rawQuery, cookie string) {
		query, _ := url.ParseQuery(rawQuery) // as net/http does: what is malformed is left out
		p := &Provider{sealer: s, o: Options{Now: func() time.Time { return now }}}
		c, err := parseCallback(query)
		if err != nil {
			twice := false
			for _, name := range []string{"state", "iss", "code", "error"} {
				twice = twice || len(query[name]) > 1
			}
			require.True(t, twice)
			return
		}
		for name, value := range map[string]string{"state": c.state, "iss": c.iss, "code": c.code, "error": c.failure} {
			require.LessOrEqual(t, len(query[name]), 1)
			require.Equal(t, query.Get(name), value)
		}
		require.Equal(t, flowName(c.state), p.Flow(query))
		got, err := p.resume(c, cookie)
		if err != nil {
			require.Zero(t, got)
			require.NotContains(t, err.Error(), state)
			return
		}
		require.Equal(t, state, c.state, "the state of no login")
		require.Equal(t, begun, got)
	})
}

// FuzzUser states that claims make one person or nobody: whoever the ID token
// names stays who it names, whatever the userinfo endpoint adds; an address that
// somebody says is not verified is none; and what was read is what package claim
// reads of that very document.
func FuzzUser(f *testing.F) {
	f.Add(`{"sub":"alice","email":"a@example.com","roles":["r"],"org_id":7}`, `{"sub":"mallory","email":"m@example.com","email_verified":false}`, "")
	f.Add(`{"sub":"alice"}`, `{"roles":"admin","organizations":["o1","o2"]}`, "realm_access.roles")
	f.Add(`{"sub":null,"id":12345678901234567890}`, `{"sub":"x","id":"y","realm_access":{"roles":[1]}}`, "id")
	f.Add(`{"sub":7}`, `{}`, "sub")
	f.Add(`{"sub":"a","a":{"b":"c"},"a.b":"d"}`, `{"email_verified":"false"}`, "a.b")
	f.Fuzz(func(t *testing.T, idToken, userInfo, name string) {
		one, err := claim.Decode([]byte(idToken))
		if err != nil {
			return
		}
		two, _ := claim.Decode([]byte(userInfo))
		names := defaultClaims
		if name != "" {
			names.UserID = name
		}
		u, err := names.user(one, two, "corp:")
		if err != nil {
			return
		}
		require.NotEqual(t, "corp:", u.ID, "nobody")
		if id, _ := claim.NewPath(names.UserID).ID(one); id != "" {
			require.Equal(t, "corp:"+id, u.ID, "the other document says who it is")
		}
		for _, verified := range []any{one["email_verified"], two["email_verified"]} {
			if verified == false || verified == "false" {
				require.Empty(t, u.Email)
			}
		}
		if list, err := claim.NewPath("roles").List(one); err == nil && list != nil {
			require.Equal(t, list, u.Roles)
		}
		if u.Organization != "" && one["org_id"] == nil && two["org_id"] == nil {
			require.True(t, slices.Contains(u.Organizations, u.Organization))
		}
	})
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		return nil, errors.New("nothing is sent")
	}
	return f(r)
}
