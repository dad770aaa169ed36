package authz_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// The bodies of SPEC section 2, byte for byte.
const (
	badRequest  = `{"error":"Bad request"}`
	noToken     = `{"error":"No token provided"}`
	badToken    = `{"error":"Invalid token"}`
	badSession  = `{"error":"Invalid session"}`
	forbidden   = `{"error":"Forbidden"}`
	tooMany     = `{"error":"Too many requests"}`
	unavailable = `{"error":"Authentication unavailable"}`
)

type statusBody struct {
	status int
	body   string
}

// answers is what the client gets for each reason; for user_disabled it is
// the answer to a token.
var answers = map[authz.Reason]statusBody{
	authz.ReasonBadPath:    {400, badRequest},
	authz.ReasonBadHost:    {400, badRequest},
	authz.ReasonBadRequest: {400, badRequest},

	authz.ReasonNoCredential: {401, noToken},

	authz.ReasonTokenInvalid:      {401, badToken},
	authz.ReasonTokenExpired:      {401, badToken},
	authz.ReasonTokenRevoked:      {401, badToken},
	authz.ReasonTokenStale:        {401, badToken},
	authz.ReasonUserDisabled:      {401, badToken},
	authz.ReasonCredentialInvalid: {401, badToken},

	authz.ReasonSessionForged:    {401, badSession},
	authz.ReasonSessionUnknown:   {401, badSession},
	authz.ReasonSessionExpired:   {401, badSession},
	authz.ReasonSessionRevoked:   {401, badSession},
	authz.ReasonSessionMalformed: {401, badSession},
	authz.ReasonSessionAnonymous: {401, badSession},
	authz.ReasonSessionStale:     {401, badSession},
	authz.ReasonSessionIdle:      {401, badSession},

	authz.ReasonAPIKeyUnknown:   {403, forbidden},
	authz.ReasonAPIKeyExpired:   {403, forbidden},
	authz.ReasonAPIKeyPolicy:    {403, forbidden},
	authz.ReasonRole:            {403, forbidden},
	authz.ReasonOrganization:    {403, forbidden},
	authz.ReasonIssuer:          {403, forbidden},
	authz.ReasonAudience:        {403, forbidden},
	authz.ReasonCondition:       {403, forbidden},
	authz.ReasonCrossSite:       {403, forbidden},
	authz.ReasonIdentityTooLong: {403, forbidden},
	authz.ReasonNoPolicy:        {403, forbidden},
	authz.ReasonPolicyUnknown:   {403, forbidden},
	authz.ReasonNoAudience:      {403, forbidden},

	authz.ReasonRateLimited: {429, tooMany},

	authz.ReasonStoreUnavailable:  {503, unavailable},
	authz.ReasonIssuerUnavailable: {503, unavailable},
	authz.ReasonProfileMalformed:  {503, unavailable},
	authz.ReasonOverloaded:        {503, unavailable},
	authz.ReasonInternal:          {503, unavailable},
	authz.ReasonAuditUnavailable:  {503, `{"error":"Authentication unavailable"}`},
	authz.ReasonNotConfirmed:      {503, `{"error":"Not confirmed"}`},

	authz.ReasonPasswordWrong:  {401, `{"error":"Invalid credentials"}`},
	authz.ReasonLoginRefused:   {401, `{"error":"Invalid credentials"}`},
	authz.ReasonRefreshInvalid: {401, `{"error":"Invalid refresh token"}`},
	authz.ReasonRefreshReused:  {401, `{"error":"Invalid refresh token"}`},

	// No refusals. An error with one of them is a bug, and answered like one.
	authz.ReasonAuthenticated: {503, unavailable},
	authz.ReasonAnonymous:     {503, unavailable},
}

func TestEveryReasonHasItsAnswer(t *testing.T) {
	t.Parallel()
	for _, reason := range append(authz.Reasons(), "nobody's") {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			want, listed := answers[reason]
			if reason == "nobody's" {
				want = statusBody{503, unavailable}
			} else {
				require.True(t, listed, "this test does not know the reason")
			}
			got := authz.AnswerTo(&authz.Decision{}, get(t), &authz.Error{Reason: reason})
			require.Equal(t, want.status, got.Status)
			require.Equal(t, want.body, got.Body)
			require.True(t, json.Valid([]byte(got.Body)))
			require.Equal(t, want.status == 429 || want.status == 503, got.RetryAfter > 0, "retry-after")
			require.Empty(t, got.Location)
			require.Empty(t, got.WWWAuthenticate)
		})
	}
	require.Len(t, answers, len(authz.Reasons()))
}

// A disabled user learns no more than that the credential is no good.
func TestDisabledUserGetsTheAnswerOfTheCredential(t *testing.T) {
	t.Parallel()
	for kind, body := range map[authz.Kind]string{authz.KindSession: badSession, authz.KindBearer: badToken} {
		got := authz.AnswerTo(&authz.Decision{Kind: kind}, get(t), &authz.Error{Reason: authz.ReasonUserDisabled})
		require.Equal(t, 401, got.Status)
		require.Equal(t, body, got.Body)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	limited := &authz.Error{Reason: authz.ReasonRateLimited}
	after := func(d time.Duration) *authz.Decision { return &authz.Decision{Quota: authz.Quota{Next: d}} }
	for wait, want := range map[time.Duration]int{-time.Second: 1, 0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 17 * time.Second: 17} {
		require.Equal(t, want, authz.AnswerTo(after(wait), get(t), limited).RetryAfter)
	}
	require.Equal(t, 1, authz.AnswerTo(after(17*time.Second), get(t), errStore).RetryAfter, "the limiter's wait is not the store's")
	require.Zero(t, authz.AnswerTo(after(17*time.Second), get(t), &authz.Error{Reason: authz.ReasonRole}).RetryAfter)
}

// RFC 6750 section 3: the scheme is followed by at least one parameter; a
// request without any credential gets no error code; the codes are those of
// section 3.1.
func TestChallenge(t *testing.T) {
	t.Parallel()
	const (
		none    = ""
		plain   = `Bearer realm="gatehouse"`
		invalid = `Bearer error="invalid_token"`
		scope   = `Bearer error="insufficient_scope"`
	)
	both := &authz.Policy{Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}}
	sessionOnly := &authz.Policy{Credentials: []authz.Kind{authz.KindSession}}
	for name, tt := range map[string]struct {
		policy *authz.Policy
		kind   authz.Kind
		reason authz.Reason
		want   string
	}{
		"nothing presented, bearer accepted":     {both, "", authz.ReasonNoCredential, plain},
		"nothing presented, bearer not accepted": {sessionOnly, "", authz.ReasonNoCredential, none},
		"invalid token":                          {both, authz.KindBearer, authz.ReasonTokenInvalid, invalid},
		"expired token":                          {both, authz.KindBearer, authz.ReasonTokenExpired, invalid},
		"revoked token":                          {both, authz.KindBearer, authz.ReasonTokenRevoked, invalid},
		"stale token":                            {both, authz.KindBearer, authz.ReasonTokenStale, invalid},
		"disabled user, token":                   {both, authz.KindBearer, authz.ReasonUserDisabled, invalid},
		"forged session, bearer accepted":        {both, authz.KindSession, authz.ReasonSessionForged, none},
		"disabled user, session":                 {both, authz.KindSession, authz.ReasonUserDisabled, none},
		"role, token":                            {both, authz.KindBearer, authz.ReasonRole, scope},
		"issuer, token":                          {both, authz.KindBearer, authz.ReasonIssuer, scope},
		"role, session":                          {both, authz.KindSession, authz.ReasonRole, none},
		"wrong key":                              {both, authz.KindAPIKey, authz.ReasonAPIKeyUnknown, none},
		"store out of reach, token":              {both, authz.KindBearer, authz.ReasonStoreUnavailable, none},
		"limited, token":                         {both, authz.KindBearer, authz.ReasonRateLimited, none},
		"no policy":                              {nil, "", authz.ReasonNoPolicy, none},
		"bad path":                               {nil, "", authz.ReasonBadPath, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := authz.AnswerTo(&authz.Decision{Policy: tt.policy, Kind: tt.kind}, get(t), &authz.Error{Reason: tt.reason})
			require.Equal(t, tt.want, got.WWWAuthenticate)
		})
	}
}

func TestOnlyNavigationsAreRedirected(t *testing.T) {
	t.Parallel()
	const html = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for name, tt := range map[string]struct {
		method  string
		headers []string
		want    bool
	}{
		"navigation":                      {"GET", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document", "accept", html}, true},
		"navigation, HEAD":                {"HEAD", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document"}, true},
		"navigation without destination":  {"GET", []string{"sec-fetch-mode", "navigate"}, true},
		"a browser before Sec-Fetch":      {"GET", []string{"accept", html}, true},
		"from another site":               {"GET", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document", "sec-fetch-site", "cross-site"}, true},
		"form":                            {"POST", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document", "accept", html}, false},
		"form before Sec-Fetch":           {"POST", []string{"accept", html}, false},
		"PUT":                             {"PUT", []string{"accept", html}, false},
		"DELETE":                          {"DELETE", []string{"accept", html}, false},
		"OPTIONS":                         {"OPTIONS", []string{"accept", html}, false},
		"fetch":                           {"GET", []string{"sec-fetch-mode", "cors", "sec-fetch-dest", "empty", "accept", "*/*"}, false},
		"fetch that asks for HTML":        {"GET", []string{"sec-fetch-mode", "cors", "sec-fetch-dest", "empty", "accept", html}, false},
		"fetch, same origin":              {"GET", []string{"sec-fetch-mode", "same-origin", "accept", html}, false},
		"image":                           {"GET", []string{"sec-fetch-mode", "no-cors", "sec-fetch-dest", "image"}, false},
		"frame":                           {"GET", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "iframe", "accept", html}, false},
		"WebSocket":                       {"GET", []string{"sec-fetch-mode", "websocket", "sec-fetch-dest", "websocket", "upgrade", "websocket"}, false},
		"XMLHttpRequest that says so":     {"GET", []string{"x-requested-with", "XMLHttpRequest", "accept", html}, false},
		"… in a browser with Sec-Fetch":   {"GET", []string{"x-requested-with", "XMLHttpRequest", "sec-fetch-mode", "navigate"}, false},
		"API client":                      {"GET", []string{"accept", "application/json"}, false},
		"curl":                            {"GET", []string{"accept", "*/*"}, false},
		"no headers at all":               {"GET", nil, false},
		"no method":                       {"", []string{"accept", html}, false},
		"a method of another spelling":    {"get", []string{"accept", html}, true}, // the canonical request has it in upper case
		"an unknown Sec-Fetch-Mode":       {"GET", []string{"sec-fetch-mode", "", "accept", html}, false},
		"two values of Sec-Fetch-Mode":    {"GET", []string{"sec-fetch-mode", "navigate,cors", "accept", html}, false},
		"an unknown Sec-Fetch-Dest":       {"GET", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "", "accept", html}, false},
		"HTML among others, with a space": {"GET", []string{"accept", "application/json, text/html"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := authz.Policy{Name: "web", Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, LoginURL: "/login"}
			r := request(t, tt.method, "/page?tab=1&x=a%20b", tt.headers...)
			for _, d := range []*authz.Decision{
				{Policy: &p},
				{Policy: &p, Kind: authz.KindSession},
			} {
				got := authz.AnswerTo(d, r, &authz.Error{Reason: authz.ReasonNoCredential})
				if tt.want {
					require.Equal(t, authz.Answer{Status: 302, Location: "/login?return_to=%2Fpage%3Ftab%3D1%26x%3Da%2520b"}, got)
				} else {
					require.Equal(t, 401, got.Status)
					require.Equal(t, noToken, got.Body)
					require.Empty(t, got.Location)
				}
			}

			// An API client is never sent to a login page, nor is anybody by a
			// policy without one.
			got := authz.AnswerTo(&authz.Decision{Policy: &p, Kind: authz.KindBearer}, r, &authz.Error{Reason: authz.ReasonTokenExpired})
			require.Equal(t, authz.Answer{Status: 401, Body: badToken, WWWAuthenticate: `Bearer error="invalid_token"`}, got)
			plain := p
			plain.LoginURL = ""
			require.Equal(t, 401, authz.AnswerTo(&authz.Decision{Policy: &plain}, r, &authz.Error{Reason: authz.ReasonNoCredential}).Status)
		})
	}
}

// Only who is not logged in can be helped by logging in.
func TestOnlyUnauthenticatedIsRedirected(t *testing.T) {
	t.Parallel()
	p := &authz.Policy{Name: "web", LoginURL: "/login"}
	r := get(t, "sec-fetch-mode", "navigate")
	for _, reason := range authz.Reasons() {
		got := authz.AnswerTo(&authz.Decision{Policy: p, Kind: authz.KindSession}, r, &authz.Error{Reason: reason})
		if answers[reason].status == 401 {
			require.Equal(t, 302, got.Status, reason)
			require.Empty(t, got.Body, reason)
			continue
		}
		require.Equal(t, answers[reason].status, got.Status, reason)
		require.Empty(t, got.Location, reason)
	}
}

// The target is a path of this origin, whatever the client asked for.
func TestLoginLocation(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]struct{ login, location string }{
		"/":                           {"/login", "/login?return_to=%2F"},
		"/a?b=c":                      {"/login?app=web", "/login?app=web&return_to=%2Fa%3Fb%3Dc"},
		"/a?":                         {"/login", "/login?return_to=%2Fa"},
		"/a?x=%0d%0aset-cookie:%20a":  {"/login", "/login?return_to=%2Fa%3Fx%3D%250d%250aset-cookie%3A%2520a"},
		"/a?next=https://evil.test/":  {"/login", "/login?return_to=%2Fa%3Fnext%3Dhttps%3A%2F%2Fevil.test%2F"},
		"/caf%C3%A9":                  {"/login", "/login?return_to=%2Fcaf%25C3%25A9"},
		"/@evil.test/%40?return_to=x": {"/login", "/login?return_to=%2F%40evil.test%2F%2540%3Freturn_to%3Dx"},
	} {
		p := &authz.Policy{Name: "web", LoginURL: want.login}
		r := request(t, "GET", target, "sec-fetch-mode", "navigate")
		got := authz.AnswerTo(&authz.Decision{Policy: p}, r, &authz.Error{Reason: authz.ReasonNoCredential})
		require.Equal(t, want.location, got.Location)
		u, err := url.Parse(got.Location)
		require.NoError(t, err)
		require.Empty(t, u.Host)
		require.Equal(t, "/login", u.Path)
		back, err := url.Parse(u.Query().Get("return_to"))
		require.NoError(t, err)
		require.Empty(t, back.Scheme)
		require.Empty(t, back.Host, "comes back to this origin")
	}
}
