package extauthz_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

const (
	badRequest   = "BadRequest bad_request"
	badPath      = "BadRequest bad_path"
	badHost      = "BadRequest bad_host"
	none         = "Unauthorized no_credential"
	forged       = "Unauthorized session_forged"
	badToken     = "Unauthorized token_invalid"
	unknownKey   = "Forbidden api_key_unknown"
	storeOut     = "ServiceUnavailable store_unavailable"
	aBug         = "ServiceUnavailable internal"
	allowAlice   = "allow alice"
	allowNobody  = "allow "
	aliceCookie  = "sessionId=signed.alice"
	aliceBearer  = "Bearer token-of-alice"
	policyAbsent = "Forbidden policy_unknown"
)

// Both of Envoy's header forms lead to the same reply, for every request here:
// ask asserts it.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		check check
		want  string
	}{
		"session":                               {get("/", "cookie", aliceCookie), allowAlice},
		"session among others":                  {get("/", "cookie", "a=b; sessionId=signed.alice; c=d"), allowAlice},
		"session in the second Cookie header":   {get("/", "cookie", "a=b", "cookie", aliceCookie), allowAlice},
		"the first of two headers decides":      {get("/", "cookie", "sessionId=signed.bob", "cookie", aliceCookie), "allow bob"},
		"the first is forged":                   {get("/", "cookie", "sessionId=x", "cookie", aliceCookie), forged},
		"the first is empty":                    {get("/", "cookie", "", "cookie", aliceCookie), allowAlice},
		"an empty session":                      {get("/", "cookie", "sessionId=", "cookie", aliceCookie), forged},
		"a joined header":                       {get("/", "cookie", "a=x,sessionId=signed.alice"), allowAlice},
		"a forged session":                      {get("/", "cookie", "sessionId=alice"), forged},
		"an unknown session":                    {get("/", "cookie", "sessionId=signed.mallory"), "Unauthorized session_unknown"},
		"a revoked session":                     {get("/", "cookie", "sessionId=signed.revoked"), "Unauthorized session_revoked"},
		"a session of nobody":                   {get("/", "cookie", "sessionId=signed.visitor"), "Unauthorized session_anonymous"},
		"a disabled user":                       {get("/", "cookie", "sessionId=signed.disabled"), "Unauthorized user_disabled"},
		"a stale session":                       {get("/recent/", "cookie", aliceCookie), "Unauthorized session_stale"},
		"a session with bytes":                  {get("/", "cookie", "sessionId=signed.al\xffice"), "Unauthorized session_unknown"},
		"other cookies with bytes":              {get("/", "cookie", "a=\xff\xfe; sessionId=signed.alice"), allowAlice},
		"a cookie name with bytes":              {get("/", "cookie", "\xffsessionId=signed.bob; sessionId=signed.alice"), allowAlice},
		"store out":                             {get("/", "cookie", "sessionId=signed.outage"), storeOut},
		"store has a bug":                       {get("/", "cookie", "sessionId=signed.panic"), aBug},
		"condition has a bug":                   {get("/panics/", "cookie", aliceCookie), aBug},
		"condition has a bug, only on trial":    {get("/trial-panics/", "cookie", aliceCookie), aBug},
		"bearer":                                {get("/", "authorization", aliceBearer), allowAlice},
		"bearer, case":                          {get("/", "authorization", "bEARER token-of-alice"), allowAlice},
		"bearer twice":                          {get("/", "authorization", aliceBearer, "authorization", aliceBearer), badToken},
		"bearer without token":                  {get("/", "authorization", "Bearer"), badToken},
		"bearer with bytes":                     {get("/", "authorization", "Bearer \xff"), badToken},
		"bearer, store out":                     {get("/", "authorization", "Bearer token-of-outage"), storeOut},
		"bearer, store has a bug":               {get("/", "authorization", "Bearer token-of-panic"), aBug},
		"another scheme":                        {get("/", "authorization", "Basic YTpi"), none},
		"session decides over bearer":           {get("/", "cookie", "sessionId=x", "authorization", aliceBearer), forged},
		"key":                                   {get("/internal/", "x-internal-api-key", apiKey), "allow service:billing"},
		"key twice":                             {get("/internal/", "x-internal-api-key", apiKey, "x-internal-api-key", apiKey), unknownKey},
		"key by another spelling":               {get("/internal/", "x_internal_api_key", apiKey), none},
		"wrong key":                             {get("/internal/", "x-internal-api-key", "x"), unknownKey},
		"empty key":                             {get("/internal/", "x-internal-api-key", ""), unknownKey},
		"a key that one form can't show":        {get("/internal/", "x-internal-api-key", legacyKey), unknownKey},
		"no key":                                {get("/internal/", "cookie", aliceCookie), none},
		"nothing":                               {get("/"), none},
		"public":                                {get("/public/"), allowNobody},
		"public with a session":                 {get("/public/", "cookie", aliceCookie), allowNobody},
		"public while the store is out":         {get("/public/", "cookie", "sessionId=signed.outage"), allowNobody},
		"optional, valid":                       {get("/optional/", "cookie", aliceCookie), allowAlice},
		"optional, invalid":                     {get("/optional/", "cookie", "sessionId=x"), allowNobody},
		"optional, unknowable":                  {get("/optional/", "cookie", "sessionId=signed.outage"), storeOut},
		"role":                                  {get("/admin/users", "cookie", aliceCookie), allowAlice},
		"without the role":                      {get("/admin/users", "cookie", "sessionId=signed.bob"), "Forbidden role"},
		"without the role, escaped":             {get("/%61dmin/users", "cookie", "sessionId=signed.bob"), "Forbidden role"},
		"without the role, on trial":            {get("/trial/", "cookie", "sessionId=signed.bob"), "allow bob"},
		"nobody, on trial":                      {get("/trial/"), allowNobody},
		"store out, on trial":                   {get("/trial/", "cookie", "sessionId=signed.outage"), allowNobody},
		"identity over the budget":              {get("/", "cookie", "sessionId=signed.long"), "Forbidden identity_too_long"},
		"identity over the budget, on trial":    {get("/trial/", "cookie", "sessionId=signed.long"), allowNobody},
		"too often":                             {get("/limited/", "cookie", aliceCookie), "TooManyRequests rate_limited"},
		"not too often":                         {get("/roomy/", "cookie", aliceCookie), allowAlice},
		"nobody, not too often":                 {get("/roomy/"), allowNobody},
		"not counted":                           {get("/uncounted/", "cookie", aliceCookie), allowAlice},
		"limiter has a bug":                     {get("/limit-panics/", "cookie", aliceCookie), aBug},
		"no UTF-8 in the identity":              {get("/", "cookie", "sessionId=signed.legacy"), "allow l%EF%BF%BDgacy"},
		"policy by name":                        {named("admin", get("/public/", "cookie", "sessionId=signed.bob")), "Forbidden role"},
		"policy by name, loosened":              {named("public", get("/admin/")), allowNobody},
		"policy by an unknown name":             {named("nobody", get("/public/", "cookie", aliceCookie)), policyAbsent},
		"policy by an empty name":               {named("", get("/public/", "cookie", aliceCookie)), policyAbsent},
		"path parameter":                        {get("/public/;x"), badPath},
		"path parameter, policy by name":        {named("public", get("/public/;x")), allowNobody},
		"path parameter, route by host":         {check{method: "GET", host: "api.example.com", path: "/;x", headers: []header{{"authorization", aliceBearer}}}, allowAlice},
		"odd path":                              {get("/public//"), badPath},
		"odd path, policy by name":              {named("public", get("/public/../admin")), badPath},
		"escaped slash":                         {get("/public%2fadmin"), badPath},
		"no path":                               {get(""), badPath},
		"asterisk":                              {request("OPTIONS", "*"), badPath},
		"odd query is nobody's business":        {get("/public/?a=//../%2f%zz"), allowNobody},
		"odd host":                              {check{method: "GET", host: "a@b", path: "/public/"}, badHost},
		"no host":                               {check{method: "GET", path: "/public/"}, allowNobody},
		"route by host":                         {check{method: "GET", host: "API.Example.com.:443", path: "/public/"}, none},
		"forwarded headers change nothing":      {get("/", "x-forwarded-host", "api.example.com", "x-forwarded-uri", "/public/", "x-original-url", "/public/", "x-forwarded-method", "OPTIONS"), none},
		"pseudo-headers change nothing":         {get("/", ":path", "/public/"), none},
		"cross site":                            {request("POST", "/", "cookie", aliceCookie, "sec-fetch-site", "cross-site"), "Forbidden cross_site"},
		"same site twice":                       {request("POST", "/", "cookie", aliceCookie, "sec-fetch-site", "same-origin", "sec-fetch-site", "same-origin"), "Forbidden cross_site"},
		"WebSocket of another site":             {get("/", "cookie", aliceCookie, "upgrade", "websocket", "origin", "https://evil.test"), "Forbidden cross_site"},
		"redirect":                              {get("/web/", "sec-fetch-mode", "navigate"), "Found no_credential"},
		"redirect with a bad session":           {get("/web/", "sec-fetch-mode", "navigate", "cookie", "sessionId=x"), "Found session_forged"},
		"no redirect for XHR":                   {get("/web/", "sec-fetch-mode", "cors"), none},
		"no redirect for a token":               {get("/web/", "accept", "text/html", "authorization", "Bearer x"), badToken},
		"no redirect while the store is out":    {get("/web/", "sec-fetch-mode", "navigate", "cookie", "sessionId=signed.outage"), storeOut},
		"no redirect of who is known":           {get("/admin/", "sec-fetch-mode", "navigate", "cookie", "sessionId=signed.bob"), "Forbidden role"},
		"identity headers of the client":        {get("/", "x-user-id", "root", "x_user_id", "root"), none},
		"identity headers of a public request":  {get("/public/", "x-user-id", "root", "x_user_id", "root"), allowNobody},
		"identity headers beside a session":     {get("/", "x-user-id", "root", "x-org-id", "root", "cookie", aliceCookie), allowAlice},
		"a header of no value":                  {get("/", "", "", "cookie", aliceCookie), allowAlice},
		"a method of another case":              {request("post", "/", "cookie", aliceCookie, "origin", "https://evil.test"), "Forbidden cross_site"},
		"no method is not safe":                 {request("", "/", "cookie", aliceCookie, "origin", "https://evil.test"), "Forbidden cross_site"},
		"an origin of another site, as a token": {request("POST", "/", "authorization", aliceBearer, "origin", "https://evil.test"), allowAlice},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, answer(ask(t, newServer(t), tt.check)))
		})
	}
}

// Checks that no Envoy sends, but anything that speaks the protocol can.
func TestCheckOfNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, req := range map[string]*authv3.CheckRequest{
		"nil":           nil,
		"empty":         {},
		"no request":    {Attributes: &authv3.AttributeContext{}},
		"no HTTP":       {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}},
		"only a policy": {Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"policy": "public"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, badRequest, answer(askOnce(t, s, req)))
		})
	}
	http := func(h *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
		return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}}
	}
	require.Equal(t, badPath, answer(askOnce(t, s, http(&authv3.AttributeContext_HttpRequest{}))))
	require.Equal(t, none, answer(askOnce(t, s, http(&authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: "/", HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{nil, {}, nil}},
	}))))
}

// A list in which some values are text, some bytes: whichever is there counts.
func TestHeaderListWithTextValues(t *testing.T) {
	t.Parallel()
	req := get("/").request()
	req.GetAttributes().GetRequest().GetHttp().HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "cookie", Value: aliceCookie}, {Key: "cookie", RawValue: []byte("sessionId=signed.bob")},
	}}
	// With a list, the map is not looked at: mixing them would let one of the
	// two forms hide a header of the other.
	req.GetAttributes().GetRequest().GetHttp().Headers = map[string]string{"cookie": "sessionId=signed.bob"}
	require.Equal(t, allowAlice, answer(askOnce(t, newServer(t), req)))
}

// Envoy gives names in lower case. A gateway that does not must not lose its
// headers by it, in neither form.
func TestHeaderNamesOfAnyCase(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for want, c := range map[string]check{
		allowAlice:                   get("/", "Cookie", aliceCookie, "ACCEPT", "x"),
		"allow bob":                  get("/", "AUTHORIZATION", "Bearer token-of-bob"),
		"allow service:billing":      get("/internal/", "X-Internal-Api-Key", apiKey),
		"Forbidden cross_site":       request("POST", "/", "Cookie", aliceCookie, "Sec-Fetch-Site", "cross-site"),
		"Found no_credential":        get("/web/", "Sec-Fetch-Mode", "navigate"),
		"Forbidden role":             get("/admin/", "COOKIE", "sessionId=signed.bob"),
		"Unauthorized no_credential": get("/"),
	} {
		require.Equal(t, want, answer(ask(t, s, c)))
	}
}

// Who answers after Envoy's deadline has answered nobody: Envoy made an error
// of it, and lets the request pass under failure_mode_allow.
func TestRefusalComesBeforeTheCallersDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // where this machine stands still, time does so, too
		s := newServer(t)
		for _, patience := range []time.Duration{time.Second, 2 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			response, err := s.Check(ctx, get("/", "cookie", "sessionId=signed.slow").asMap())
			require.NoError(t, err)
			require.NoError(t, ctx.Err(), "too late")
			require.Equal(t, storeOut, answer(response))
		}

		// A caller without a deadline gets an answer too.
		response, err := s.Check(t.Context(), get("/", "cookie", "sessionId=signed.slow").asMap())
		require.NoError(t, err)
		require.Equal(t, storeOut, answer(response))
	})
}

func TestAllowSetsTheIdentity(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for id, want := range map[string]map[string]string{
		"alice": {"x-user-id": "alice", "x-user-email": "alice@example.com", "x-user-roles": `["admin","user"]`, "x-org-id": "org-1"},
		"bob":   {"x-user-id": "bob", "x-user-email": "bob@example.com", "x-user-roles": `["user"]`},
		"jörg": {
			"x-user-id": "j%C3%B6rg%20100%25", "x-user-email": "j%C3%B6rg@b%C3%BCcher.example",
			"x-user-roles": `["pr\u00fcfer","\ud83d\ude00"]`, "x-org-id": "R&D%0D%0Ax-user-id:%20root",
		},
		"legacy": {"x-user-id": "l%EF%BF%BDgacy", "x-user-roles": `["\ufffd"]`, "x-org-id": "%EF%BF%BD"},
	} {
		for _, credential := range []header{{"cookie", "theme=dark; sessionId=signed." + id}, {"authorization", "Bearer token-of-" + id}} {
			got := headerValues(ask(t, s, get("/", credential.name, credential.value)).GetOkResponse().GetHeaders())
			delete(got, "cookie")
			require.Equal(t, want, got, "%s by %s", id, credential.name)
		}
	}
	got := ask(t, s, get("/internal/", "x-internal-api-key", apiKey)).GetOkResponse()
	require.Equal(t, map[string]string{"x-user-id": "service:billing", "x-user-roles": "[]"}, headerValues(got.GetHeaders()))
	require.Contains(t, got.GetHeadersToRemove(), "x-internal-api-key")
}

// Without identity nothing is set, and all four headers are removed.
func TestAllowWithoutIdentityRemovesAllHeaders(t *testing.T) {
	t.Parallel()
	got := ask(t, newServer(t), get("/public/", "x-user-id", "root", "x-user-roles", `["admin"]`)).GetOkResponse()
	require.Empty(t, got.GetHeaders())
	require.Equal(t, append(authz.DefaultIdentityHeaders.ClientSpellings(),
		"x_identity-assertion", "x-identity_assertion", "x_identity_assertion", "x-identity-assertion"), got.GetHeadersToRemove())
}

func TestConfiguredHeaderNames(t *testing.T) {
	t.Parallel()
	s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{
		Headers: authz.IdentityHeaders{ID: "x-uid", Email: "x-mail", Roles: "x-roles", Organization: "x-org"},
	})
	response, err := s.Check(t.Context(), get("/", "cookie", "sessionId=signed.bob").asMap())
	require.NoError(t, err)
	got := response.GetOkResponse()
	require.Equal(t, map[string]string{"x-uid": "bob", "x-mail": "bob@example.com", "x-roles": `["user"]`}, headerValues(got.GetHeaders()))
	for _, name := range []string{"x_uid", "x_mail", "x_roles", "x-org", "x_org", "x-internal-api-key", "x_internal_api_key"} {
		require.Contains(t, got.GetHeadersToRemove(), name)
	}
	require.NotContains(t, got.GetHeadersToRemove(), "x-uid")
}

func TestBudget(t *testing.T) {
	t.Parallel()
	// bob: 9+3 12+15 12+8
	const size = 9 + 3 + 12 + 15 + 12 + 8
	for budget, want := range map[int]string{0: "allow bob", size: "allow bob", size - 1: "Forbidden identity_too_long"} {
		s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{MaxHeaderBytes: budget})
		require.Equal(t, want, answer(ask(t, s, get("/", "cookie", "sessionId=signed.bob"))))
	}
}

// The service sees neither the session cookie nor a bearer token that the
// gate accepts; what is not ours stays.
func TestStripCredentials(t *testing.T) {
	t.Parallel()
	const keeps, goes = "\x00keeps", "\x00goes"
	for name, tt := range map[string]struct {
		check                 check
		cookie, authorization string // keeps: neither set nor removed; goes: removed; else: set to that
	}{
		"the only cookie":                     {get("/", "cookie", aliceCookie), goes, keeps},
		"one of several":                      {get("/", "cookie", "a=b; sessionId=signed.alice; c=d"), "a=b; c=d", keeps},
		"several of the name":                 {get("/", "cookie", "sessionId=signed.alice; a=b; sessionId=signed.bob"), "a=b", keeps},
		"in two headers":                      {get("/", "cookie", "a=b; c=d", "cookie", "sessionId=signed.alice; e=f"), "a=b; c=d; e=f", keeps},
		"in each of two headers":              {get("/", "cookie", aliceCookie, "cookie", "sessionId=signed.bob"), goes, keeps},
		"quoted values, commas":               {get("/", "cookie", `cart="1,2"; sessionId=signed.alice; n=1,2`), `cart="1,2"; n=1,2`, keeps},
		"bytes, as Envoy's map shows them":    {get("/", "cookie", "a=\xe9\xc3\xa9; sessionId=signed.alice"), "a=!\u00e9", keeps},
		"no session cookie":                   {get("/public/", "cookie", "a=b; c=d"), keeps, keeps},
		"public route":                        {get("/public/", "cookie", "a=b; sessionId=signed.alice"), "a=b", keeps},
		"an invalid one":                      {get("/optional/", "cookie", "a=b; sessionId=x"), "a=b", keeps},
		"look-alikes":                         {get("/public/", "cookie", "sessionIdx=1; SessionId=2"), keeps, keeps},
		"bearer":                              {get("/", "authorization", aliceBearer), keeps, goes},
		"bearer, cookies":                     {get("/", "authorization", aliceBearer, "cookie", "a=b"), keeps, goes},
		"both, the session decided":           {get("/", "authorization", aliceBearer, "cookie", "a=b; sessionId=signed.alice"), "a=b", goes},
		"an invalid token, anonymous allowed": {get("/optional/", "authorization", "Bearer x"), keeps, goes},
		"another scheme":                      {get("/", "authorization", "Basic YTpi", "cookie", aliceCookie), goes, keeps},
		"a token that only the service takes": {get("/admin/", "authorization", "Bearer x", "cookie", aliceCookie), goes, keeps},
		"a token on a public route":           {get("/public/", "authorization", "Bearer x"), keeps, keeps},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := ask(t, newServer(t), tt.check)
			got := response.GetOkResponse()
			require.NotNil(t, got, answer(response))
			set := headerValues(got.GetHeaders())
			for name, want := range map[string]string{"cookie": tt.cookie, "authorization": tt.authorization} {
				value, isSet := set[name]
				switch want {
				case keeps:
					require.False(t, isSet)
					require.NotContains(t, got.GetHeadersToRemove(), name)
				case goes:
					require.Contains(t, got.GetHeadersToRemove(), name)
				default:
					require.Equal(t, want, value)
				}
			}

			// Not asked to strip, it strips nothing.
			s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{SessionCookie: "sessionId"})
			got = ask(t, s, tt.check).GetOkResponse()
			require.NotContains(t, headerValues(got.GetHeaders()), "cookie")
			require.NotContains(t, got.GetHeadersToRemove(), "cookie")
			require.NotContains(t, got.GetHeadersToRemove(), "authorization")
		})
	}
}

// refusing is an authenticator that refuses everybody for one reason.
type refusing struct{ reason authz.Reason }

func (refusing) Kind() authz.Kind                         { return authz.KindBearer }
func (refusing) Credential(*authz.Request) (string, bool) { return "", true }
func (r refusing) refusal() error                         { return &authz.Error{Reason: r.reason} }

func (r refusing) Authenticate(context.Context, string, *authz.Policy) (*authz.Principal, error) {
	return nil, r.refusal()
}

// A refusal is a denied arm with a status that is not OK, whatever its reason:
// also one that is no reason to refuse, and one that nobody knows.
func TestNoRefusalIsEverOK(t *testing.T) {
	t.Parallel()
	status := map[int]codes.Code{
		400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied,
		429: codes.ResourceExhausted, 503: codes.Unavailable,
	}
	for _, reason := range append(authz.Reasons(), "nobody's", "") {
		policies, err := authz.NewPolicySet(authz.PolicySetOptions{
			Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindBearer}}}, Default: "p",
		})
		require.NoError(t, err)
		s := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}, refusing{reason}), extauthz.Options{})
		response, err := s.Check(t.Context(), get("/").asMap())
		require.NoError(t, err)
		denied := response.GetDeniedResponse()
		require.NotNil(t, denied, reason)
		want, known := status[int(denied.GetStatus().GetCode())]
		require.True(t, known, denied.GetStatus())
		require.Equal(t, want, codes.Code(response.GetStatus().GetCode()), reason)
		if reason != "" {
			requireSound(t, response)
			require.Equal(t, string(reason), response.GetDynamicMetadata().GetFields()["reason"].GetStringValue())
		}
	}
}

func TestDeniedHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, tt := range map[string]struct {
		check check
		body  string
		want  map[string]string
	}{
		"no credential": {
			get("/"), `{"error":"No token provided"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store", "www-authenticate": `Bearer realm="gatehouse"`},
		},
		"no credential where no bearer is taken": {
			get("/admin/"), `{"error":"No token provided"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store"},
		},
		"token": {
			get("/", "authorization", "Bearer x"), `{"error":"Invalid token"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store", "www-authenticate": `Bearer error="invalid_token"`},
		},
		"session": {
			get("/", "cookie", "sessionId=x"), `{"error":"Invalid session"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store"},
		},
		"role": {
			get("/admin/", "cookie", "sessionId=signed.bob"), `{"error":"Forbidden"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store"},
		},
		"path": {
			get("//"), `{"error":"Bad request"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store"},
		},
		"limit": {
			get("/limited/", "cookie", aliceCookie), `{"error":"Too many requests"}`,
			map[string]string{
				"content-type": "application/json", "cache-control": "no-store", "retry-after": "17",
				"ratelimit-policy": `"partner";q=100;w=60;gatehouse-burst=20`, "ratelimit": `"partner";r=0;t=17`,
			},
		},
		"outage": {
			get("/", "cookie", "sessionId=signed.outage"), `{"error":"Authentication unavailable"}`,
			map[string]string{"content-type": "application/json", "cache-control": "no-store", "retry-after": "1"},
		},
		"redirect": {
			get("/web/a?b=c", "sec-fetch-mode", "navigate"), "",
			map[string]string{"location": "/login?return_to=%2Fweb%2Fa%3Fb%3Dc", "cache-control": "no-store"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			denied := ask(t, s, tt.check).GetDeniedResponse()
			require.Equal(t, tt.body, denied.GetBody())
			require.Equal(t, tt.want, headerValues(denied.GetHeaders()))
		})
	}
}

// What a policy tells beyond the identity is what the caller's credential says, and
// nothing of what the client says.
func TestPoliciesTellMore(t *testing.T) {
	t.Parallel()
	s := extauthz.NewServer(newTelling(t, everybody), extauthz.Options{MaxHeaderBytes: 8192})
	odd := []string{"x-plan", "root", "x_plan", "root", "x-tenant-id", "root", "x-seats", "9"}
	for name, tt := range map[string]struct {
		check             check
		headers, metadata map[string]string
	}{
		"session": {
			named("told", get("/", append(odd, "cookie", aliceCookie)...)),
			map[string]string{"x-kind": "session", "x-plan": "pro", "x-tags": `["a","\u00fc",1]`, "x-tenant-id": "t%201"},
			map[string]string{"beta": "true", "plan": "pro", "tags": `["a","\u00fc",1]`},
		},
		"token": {
			named("told", get("/", append(odd, "authorization", aliceBearer)...)),
			map[string]string{"x-kind": "bearer", "x-scope": "orders:read%20orders:write"},
			map[string]string{},
		},
		"nobody":               {named("told", get("/", odd...)), map[string]string{}, map[string]string{}},
		"more than the budget": {named("told", get("/", "cookie", "sessionId=signed.wordy")), map[string]string{}, map[string]string{}},
		"another policy": {
			named("told-too", get("/", append(odd, "cookie", aliceCookie)...)),
			map[string]string{"x-seats": "12", "x-tenant-id": "org-1"},
			map[string]string{},
		},
		"a policy that tells nothing": {get("/", append(odd, "cookie", aliceCookie)...), map[string]string{}, map[string]string{}},
		"values that would split a header": {
			named("told", get("/", "cookie", "sessionId=signed.j\u00f6rg")),
			map[string]string{"x-kind": "session", "x-plan": "a%0D%0Ax-user-id:%20root,%20100%25"},
			map[string]string{"plan": "a\r\nx-user-id: root, 100%"},
		},
		"no UTF-8": {
			named("told", get("/", "cookie", "sessionId=signed.legacy")),
			map[string]string{"x-kind": "session", "x-plan": "%EF%BF%BD", "x-tags": `{"a":null,"b":"\u003c\ufffd\u003e"}`},
			map[string]string{"plan": "\ufffd", "tags": `{"a":null,"b":"\u003c\ufffd\u003e"}`},
		},
		"too often":          {named("told-limited", get("/", "cookie", aliceCookie)), map[string]string{}, map[string]string{}},
		"too much, on trial": {named("told-trial", get("/", "cookie", "sessionId=signed.wordy")), map[string]string{}, map[string]string{}},
		"not allowed, on trial": {
			named("told-trial", get("/", "cookie", "sessionId=signed.legacy")),
			map[string]string{"x-tags": `{"a":null,"b":"\u003c\ufffd\u003e"}`},
			map[string]string{"tags": `{"a":null,"b":"\u003c\ufffd\u003e"}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := askOf(t, newTelling, s, tt.check)
			if want, ok := map[string]string{
				"more than the budget": "Forbidden identity_too_long", "too often": "TooManyRequests rate_limited",
				"nobody": allowNobody, "too much, on trial": allowNobody,
			}[name]; ok {
				require.Equal(t, want, answer(response))
			}
			headers, metadata := map[string]string{}, map[string]string{}
			for name, value := range headerValues(response.GetOkResponse().GetHeaders()) {
				if !slices.Contains(identityHeaders, name) {
					headers[name] = value
				}
			}
			for name, value := range response.GetDynamicMetadata().GetFields() {
				if !slices.Contains(authz.MetadataFields, name) {
					metadata[name] = value.GetStringValue()
				}
			}
			require.Equal(t, tt.headers, headers)
			require.Equal(t, tt.metadata, metadata)
		})
	}
}

// The client of an allowed request learns what is left, where that is known.
func TestRateLimitHeadersOfWhatIsAllowed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for path, want := range map[string]map[string]string{
		"/roomy/":     {"ratelimit-policy": `"roomy";q=100;w=60;gatehouse-burst=20`, "ratelimit": `"roomy";r=3;t=1`},
		"/uncounted/": {},
		// What only observes slows down nobody.
		"/roomy-trial/": {}, "/limited-trial/": {},
		"/": {},
	} {
		response := ask(t, s, get(path, "cookie", aliceCookie))
		require.Equal(t, want, headerValues(response.GetOkResponse().GetResponseHeadersToAdd()), path)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, tt := range map[string]struct {
		check check
		want  map[string]any
	}{
		"allowed": {
			get("/", "cookie", aliceCookie),
			map[string]any{"decision": "allow", "reason": "authenticated", "policy": "user", "credential": "session", "user": "alice", "organization": "org-1"},
		},
		"no organization": {
			get("/", "authorization", "Bearer token-of-bob"),
			map[string]any{"decision": "allow", "reason": "authenticated", "policy": "user", "credential": "bearer", "user": "bob"},
		},
		"key": {
			get("/internal/", "x-internal-api-key", apiKey),
			map[string]any{"decision": "allow", "reason": "authenticated", "policy": "internal", "credential": "api_key", "user": "service:billing"},
		},
		"nobody": {
			get("/public/", "cookie", aliceCookie),
			map[string]any{"decision": "allow", "reason": "anonymous", "policy": "public"},
		},
		"known, not allowed": {
			get("/admin/", "cookie", "sessionId=signed.bob"),
			map[string]any{"decision": "deny", "reason": "role", "policy": "admin", "credential": "session", "user": "bob"},
		},
		"forged": {
			get("/", "cookie", "sessionId=x"),
			map[string]any{"decision": "deny", "reason": "session_forged", "policy": "user", "credential": "session"},
		},
		"no credential": {
			get("/"),
			map[string]any{"decision": "deny", "reason": "no_credential", "policy": "user"},
		},
		"no policy": {
			named("missing", get("/", "cookie", aliceCookie)),
			map[string]any{"decision": "deny", "reason": "policy_unknown"},
		},
		"no path": {
			get("//", "cookie", aliceCookie),
			map[string]any{"decision": "deny", "reason": "bad_path"},
		},
		"on trial": {
			get("/trial/", "cookie", "sessionId=signed.bob"),
			map[string]any{"decision": "allow", "reason": "authenticated", "policy": "trial", "credential": "session", "user": "bob", "would_deny": "role"},
		},
		"too long, on trial: the first refusal counts": {
			get("/trial/", "cookie", "sessionId=signed.long"),
			map[string]any{"decision": "allow", "reason": "anonymous", "policy": "trial", "credential": "session", "user": "long", "organization": everybody["long"].Organization, "would_deny": "role"},
		},
		"too long": {
			get("/", "cookie", "sessionId=signed.long"),
			map[string]any{"decision": "deny", "reason": "identity_too_long", "policy": "user", "credential": "session", "user": "long", "organization": everybody["long"].Organization},
		},
		"no UTF-8": {
			get("/", "cookie", "sessionId=signed.legacy"),
			map[string]any{"decision": "allow", "reason": "authenticated", "policy": "user", "credential": "session", "user": "l\ufffdgacy", "organization": "\ufffd"},
		},
		"a bug": {
			get("/", "cookie", "sessionId=signed.panic"),
			map[string]any{"decision": "deny", "reason": "internal"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, ask(t, s, tt.check).GetDynamicMetadata().AsMap())
		})
	}
}

// record is one call of a recorder.
type record struct {
	request  *authz.Request
	decision *authz.Decision
	err      error
	took     time.Duration
}

type recorder chan record

func (r recorder) Record(_ context.Context, req *authz.Request, d *authz.Decision, err error, took time.Duration) {
	r <- record{req, d, err, took}
}

// Every check is recorded once, with a request and a decision that are there,
// whatever happened.
func TestRecorder(t *testing.T) {
	t.Parallel()
	records := make(recorder, 1)
	s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{Recorder: records})
	checkOne := func(req *authv3.CheckRequest) record {
		_, err := s.Check(t.Context(), req)
		require.NoError(t, err)
		got := <-records
		require.NotNil(t, got.request)
		require.NotNil(t, got.decision)
		require.GreaterOrEqual(t, got.took, time.Duration(0))
		return got
	}

	got := checkOne(get("/a?b=c", "cookie", aliceCookie).asMap())
	require.NoError(t, got.err)
	require.Equal(t, "/a", got.request.Path)
	require.Equal(t, netip.MustParseAddr("192.0.2.7"), got.request.Address)
	require.Equal(t, authz.ReasonAuthenticated, got.decision.Reason)
	require.Equal(t, "user", got.decision.Policy.Name)

	got = checkOne(get("/trial/").asMap())
	require.NoError(t, got.err)
	require.Equal(t, authz.ReasonNoCredential, authz.ReasonOf(got.decision.Observed))

	for want, req := range map[authz.Reason]*authv3.CheckRequest{
		authz.ReasonBadRequest:       nil,
		authz.ReasonBadPath:          get("//").asMap(),
		authz.ReasonPolicyUnknown:    named("missing", get("/")).asMap(),
		authz.ReasonSessionForged:    get("/", "cookie", "sessionId=x").asMap(),
		authz.ReasonInternal:         get("/panics/", "cookie", aliceCookie).asMap(),
		authz.ReasonStoreUnavailable: get("/", "cookie", "sessionId=signed.outage").asMap(),
	} {
		got := checkOne(req)
		require.Equal(t, want, authz.ReasonOf(got.err))
		require.Equal(t, want, got.decision.Reason)
	}
}

// Whoever asks for all headers sees the same ones in both forms.
func TestAllHeaders(t *testing.T) {
	t.Parallel()
	records := make(recorder, 1)
	s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{Recorder: records})
	c := get("/", "accept", "a", "cookie", "a=b", "accept", "", "cookie", "c=\xff", "x-empty", "", "accept", "c")
	for _, req := range []*authv3.CheckRequest{c.asMap(), c.asList()} {
		_, err := s.Check(t.Context(), req)
		require.NoError(t, err)
		headers := (<-records).request.Headers
		require.Equal(t, map[string]string{
			":method": "GET", ":path": "/", ":authority": "app.example.com",
			"accept": "a,,c", "cookie": "a=b,c=!", "x-empty": "",
		}, maps.Collect(headers.All()))
		for range headers.All() {
			break // may be left early
		}
	}
}

// The client's address is the one that Envoy reports, and no header.
func TestAddress(t *testing.T) {
	t.Parallel()
	records := make(recorder, 1)
	s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{Recorder: records})
	socket := func(address string) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: address}}}
	}
	for name, tt := range map[string]struct {
		address *corev3.Address
		want    netip.Addr
	}{
		"IPv4":           {socket("192.0.2.1"), netip.MustParseAddr("192.0.2.1")},
		"IPv6":           {socket("2001:db8::1"), netip.MustParseAddr("2001:db8::1")},
		"IPv4 in IPv6":   {socket("::ffff:192.0.2.1"), netip.MustParseAddr("192.0.2.1")},
		"none":           {nil, netip.Addr{}},
		"a name":         {socket("client.example"), netip.Addr{}},
		"a Unix socket":  {&corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x"}}}, netip.Addr{}},
		"an empty value": {socket(""), netip.Addr{}},
	} {
		req := get("/", "x-forwarded-for", "203.0.113.9", "x-real-ip", "203.0.113.9", "forwarded", "for=203.0.113.9").asMap()
		req.GetAttributes().GetSource().Address = tt.address
		_, err := s.Check(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, tt.want, (<-records).request.Address, name)
	}
}
