package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The bodies of section 2 of the specification.
const (
	badRequest     = `{"error":"Bad request"}`
	noToken        = `{"error":"No token provided"}`
	invalidToken   = `{"error":"Invalid token"}`
	invalidSession = `{"error":"Invalid session"}`
	forbidden      = `{"error":"Forbidden"}`
	unavailable    = `{"error":"Authentication unavailable"}`
)

// requireDenied checks everything that a refusal promises, whatever its
// reason.
func requireDenied(t *testing.T, r reply, status int, body string) {
	t.Helper()
	require.Equal(t, status, r.status, r.line())
	require.Equal(t, body, r.body)
	require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
	require.Empty(t, r.header.Values("set-cookie"), "a refusal clears no cookie")
	require.Empty(t, r.header.Values("location"))
	require.Equal(t, status == http.StatusServiceUnavailable, r.header.Get("retry-after") != "", "retry-after")
	require.Nil(t, r.arrived, "the request reached a service")
}

// requireAllowed checks that the request arrived, with exactly this identity.
func requireAllowed(t *testing.T, r reply, as identity) {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, r.line())
	require.NotNil(t, r.arrived, "answered without the service")
	require.Equal(t, as.fields(), r.arrived.identity())
}

// both runs a test behind an Envoy that hands headers over in either form.
func both(t *testing.T, test func(t *testing.T, g *gateway)) {
	t.Helper()
	for _, variant := range []string{asShipped, headerMap} {
		t.Run(variant, func(t *testing.T) { test(t, sharedGateway(t, variant)) })
	}
}

// everywhere runs a test as both does, and behind each proxy that asks by HTTP.
func everywhere(t *testing.T, test func(t *testing.T, g *gateway)) {
	t.Helper()
	both(t, test)
	behindProxies(t, test)
}

func TestEveryDenialOfASession(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		id := g.session(t, bob.record())
		good := signed(id, secretCurrent)
		requireAllowed(t, g.get(t, "/users/me", cookie(good)), bob)
		unescaped, err := url.QueryUnescape(strings.ReplaceAll(good, "+", "%2B"))
		require.NoError(t, err)
		signature := unescaped[strings.LastIndexByte(unescaped, '.')+1:]
		record := func(text string) string {
			id := newSessionID()
			require.NoError(t, g.store.Set(t.Context(), "sess:"+id, text, time.Hour).Err())
			return signed(id, secretCurrent)
		}
		destroyed := g.session(t, bob.record())
		require.NoError(t, g.store.Del(t.Context(), "sess:"+destroyed).Err())
		// An id whose signature looks different in base64url.
		other := newSessionID()
		for !strings.Contains(signed(other, secretCurrent), "%2") {
			other = newSessionID()
		}
		require.NoError(t, g.store.Set(t.Context(), "sess:"+other, mustJSON(t, bob.record()), time.Hour).Err())

		list := newSessionID()
		require.NoError(t, g.store.LPush(t.Context(), "sess:"+list, "x").Err())
		disabled := identity{"disabled-1", "d@example.com", `[]`, "org-1"}
		require.NoError(t, g.store.Set(t.Context(), "user:"+disabled.id, `{"disabled":true}`, time.Hour).Err())

		for name, value := range map[string]string{
			"unknown":                          signed(newSessionID(), secretCurrent),
			"destroyed":                        signed(destroyed, secretCurrent),
			"signed with another secret":       signed(id, "not-one-of-the-secrets"),
			"signature of another session":     "s%3A" + newSessionID() + "." + signature,
			"signature cut short":              good[:len(good)-1],
			"signature padded":                 good + "%3D",
			"signature in base64url":           strings.NewReplacer("%2B", "-", "%2F", "_").Replace(signed(other, secretCurrent)),
			"no signature":                     "s%3A" + id,
			"an empty signature":               "s%3A" + id + ".",
			"not marked as signed":             id + "." + signature,
			"the bare id":                      id,
			"no id":                            "s%3A." + signature,
			"empty":                            "",
			"s: alone":                         "s%3A",
			"a JWT":                            g.pem.issue(claimsOf(pemIssuer, bob)),
			"too long":                         "s%3A" + strings.Repeat("a", 5000) + "." + signature,
			"bytes that are not UTF-8":         "s%3A\xff\xfe." + signature,
			"a record that is no JSON":         record(`{"userId":`),
			"a record that is no object":       record(`["userId"]`),
			"a record that is empty":           record(``),
			"a record of nobody":               record(`{"cookie":{"originalMaxAge":86400000}}`),
			"a record with an empty user":      record(`{"cookie":{},"userId":""}`),
			"a record with a null user":        record(`{"cookie":{},"userId":null}`),
			"a record that poses as a service": record(`{"cookie":{},"userId":"service:billing"}`),
			"a record that is a list":          signed(list, secretCurrent),
			"a user who is disabled":           g.login(t, disabled),
		} {
			t.Run(name, func(t *testing.T) {
				requireDenied(t, g.get(t, "/users/me", cookie(value)), 401, invalidSession)
				requireDenied(t, g.do(t, "POST", "/orders", cookie(value)), 401, invalidSession)
				// Whoever it is, it is nobody.
				requireAllowed(t, g.get(t, "/public/hello", cookie(value)), nobody)
			})
		}
	})
}

// What Express takes for the same cookie is the same cookie here.
func TestSpellingsOfASessionCookie(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		good := g.login(t, bob)
		bad := signed(newSessionID(), secretCurrent)
		raw, err := url.QueryUnescape(strings.ReplaceAll(good, "+", "%2B"))
		require.NoError(t, err)
		for name, headers := range map[string][]string{
			"as it is":                   {"Cookie: sessionId=" + good},
			"lower-case escapes":         {"Cookie: sessionId=" + strings.Replace(good, "%3A", "%3a", 1)},
			"quoted":                     {`Cookie: sessionId="` + good + `"`},
			"not escaped":                {"Cookie: sessionId=" + raw},
			"spaces around":              {"Cookie:   sessionId = " + good + "  "},
			"no space behind semicolons": {"Cookie: a=1;sessionId=" + good + ";b=2"},
			"others around":              {"Cookie: theme=dark; sessionId=" + good + "; lang=de"},
			"other names that are like":  {"Cookie: xsessionId=1; SESSIONID=2; sessionId2=3; sessionId=" + good},
			"the first of two":           {"Cookie: sessionId=" + good + "; sessionId=" + bad},
			"the first of two headers":   {"Cookie: sessionId=" + good, "Cookie: sessionId=" + bad},
			"the second header":          {"Cookie: a=1", "Cookie: sessionId=" + good},
			"a header name in capitals":  {"COOKIE: sessionId=" + good},
		} {
			t.Run(name, func(t *testing.T) { requireAllowed(t, g.get(t, "/users/me", headers...), bob) })
		}
		for name, headers := range map[string][]string{
			"the second of two":         {"Cookie: sessionId=" + bad + "; sessionId=" + good},
			"the second of two headers": {"Cookie: sessionId=" + bad, "Cookie: sessionId=" + good},
			"the second, first empty":   {"Cookie: sessionId=; sessionId=" + good},
			"the first is a word":       {"Cookie: sessionId=x", "Cookie: a=1; sessionId=" + good},
		} {
			t.Run(name, func(t *testing.T) { requireDenied(t, g.get(t, "/users/me", headers...), 401, invalidSession) })
		}
		for name, headers := range map[string][]string{
			"another name":         {"Cookie: connect.sid=" + good},
			"another case":         {"Cookie: sessionid=" + good},
			"no value at all":      {"Cookie: sessionId"},
			"not in Cookie":        {"Cookie2: sessionId=" + good},
			"in the value of some": {`Cookie: a="sessionId` + good + `"`},
		} {
			t.Run(name, func(t *testing.T) { requireDenied(t, g.get(t, "/users/me", headers...), 401, noToken) })
		}
		r := g.get(t, "/users/me?sessionId="+good)
		requireDenied(t, r, 401, noToken)
	})
}

// HTTP/2 clients split the cookie into crumbs.
func TestCookieCrumbs(t *testing.T) {
	both(t, func(t *testing.T, g *gateway) {
		good, bad := g.login(t, bob), signed(newSessionID(), secretCurrent)
		requireAllowed(t, g.http2(t, crumbs("a=1", "sessionId="+good, "b=2")), bob)
		requireAllowed(t, g.http2(t, crumbs("sessionId="+good, "sessionId="+bad)), bob)
		requireDenied(t, g.http2(t, crumbs("sessionId="+bad, "sessionId="+good)), 401, invalidSession)
		requireDenied(t, g.http2(t, crumbs("a=1; b=2", "c=3")), 401, noToken)
		r := g.http2(t, crumbs("a=1", "sessionId="+good, "b=2; c=3"))
		requireAllowed(t, r, bob)
		require.Len(t, r.arrived.values("cookie"), 1)
		require.ElementsMatch(t, []string{"a=1", "sessionId=" + good, "b=2", "c=3"}, strings.Split(r.arrived.values("cookie")[0], "; "))
	})
}

// The kinds of a policy are tried in its order, and the first that is present
// decides.
func TestFirstCredentialDecides(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		session, badSession := cookie(g.login(t, bob)), cookie("s%3Ax.y")
		token, badToken := bearer(g.pem.issue(claimsOf(pemIssuer, alice))), bearer("x.y.z")
		key, badKey := apiKey(apiKeys.billing), apiKey("wrong-key-of-nobody")
		billing := identity{"service:billing", "", "[]", ""}

		// user: session, then bearer.
		requireAllowed(t, g.get(t, "/users/me", token, session), bob)
		requireAllowed(t, g.get(t, "/users/me", badToken, session), bob)
		requireDenied(t, g.get(t, "/users/me", token, badSession), 401, invalidSession)
		requireDenied(t, g.get(t, "/users/me", key), 401, noToken)
		// any: api_key, then bearer, then session.
		requireAllowed(t, g.get(t, "/p/any", key, badToken, badSession), billing)
		requireDenied(t, g.get(t, "/p/any", badKey, token, session), 403, forbidden)
		requireAllowed(t, g.get(t, "/p/any", token, badSession), alice)
		requireDenied(t, g.get(t, "/p/any", badToken, session), 401, invalidToken)
		requireAllowed(t, g.get(t, "/p/any", session), bob)
		// public: valid gives identity, invalid none, and nothing none.
		requireAllowed(t, g.get(t, "/public/hello", session), bob)
		requireAllowed(t, g.get(t, "/public/hello", token), alice)
		requireAllowed(t, g.get(t, "/public/hello", badSession, token), nobody)
		requireAllowed(t, g.get(t, "/public/hello", badToken), nobody)
		requireAllowed(t, g.get(t, "/public/hello"), nobody)
		// open: no kinds, so nothing is looked at.
		requireAllowed(t, g.get(t, "/p/open", session, token, key), nobody)
		// What a policy does not list is no credential.
		requireDenied(t, g.get(t, "/p/session", token), 401, noToken)
		requireDenied(t, g.get(t, "/p/bearer", session), 401, noToken)
		requireDenied(t, g.get(t, "/users/me", "Authorization: Basic Ym9iOmJvYg=="), 401, noToken)
		requireDenied(t, g.get(t, "/users/me"), 401, noToken)
	})
}

func TestKnownButNotAllowed(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		admin, member := cookie(g.login(t, alice)), cookie(g.login(t, bob))
		elsewhere := cookie(g.login(t, identity{"carol", "c@example.com", `["admin"]`, "org-2"}))
		requireAllowed(t, g.get(t, "/users/admin/stats", admin), alice)
		requireDenied(t, g.get(t, "/users/admin/stats", member), 403, forbidden)
		requireAllowed(t, g.get(t, "/p/web", member), bob)
		requireDenied(t, g.get(t, "/p/web", elsewhere), 403, forbidden)
		requireDenied(t, g.get(t, "/misnamed", admin), 403, forbidden) // a policy that does not exist
		requireDenied(t, g.get(t, "/p/unrouted", admin), 403, forbidden)
		requireDenied(t, g.get(t, "/p/unrouted"), 403, forbidden)
		requireAllowed(t, g.get(t, "/p/trial", member), bob) // would be denied: counted only

		huge := alice.record()
		huge["email"] = strings.Repeat("a", 9000) + "@example.com"
		requireDenied(t, g.get(t, "/users/me", cookie(signed(g.session(t, huge), secretCurrent))), 403, forbidden)
	})
}

// max_auth_age counts from authTime; a session that does not tell it is too
// old.
func TestRecentAuthentication(t *testing.T) {
	g := sharedGateway(t, asShipped)
	for name, tc := range map[string]struct {
		authTime any
		recent   bool
	}{
		"just now":             {time.Now().Unix(), true},
		"a while ago":          {time.Now().Add(-14 * time.Minute).Unix(), true},
		"too long ago":         {time.Now().Add(-16 * time.Minute).Unix(), false},
		"not told":             {nil, false},
		"in another century":   {-1, false},
		"a text, not a number": {"now", false},
	} {
		t.Run(name, func(t *testing.T) {
			session := cookie(signed(g.session(t, with(bob.record(), object{"authTime": tc.authTime})), secretCurrent))
			r := g.get(t, "/banking/7?x=1", session)
			if !tc.recent {
				requireDenied(t, r, 401, invalidSession)
				return
			}
			requireAllowed(t, r, bob)
			require.Equal(t, "/orders/7?x=1", r.arrived.target)
		})
	}
}

// A browser that asks for a page is sent to the login page, nobody else.
func TestRedirectForNavigationOnly(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		navigation := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html"}
		for name, headers := range map[string][]string{
			"navigation":                          navigation,
			"navigation with a dead session":      append([]string{cookie(signed(newSessionID(), secretCurrent))}, navigation...),
			"navigation with a forged session":    append([]string{cookie("s%3Ax.y")}, navigation...),
			"a browser without fetch metadata":    {"Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"},
			"navigation with a header of anybody": append([]string{"x-other: 1"}, navigation...),
		} {
			t.Run(name, func(t *testing.T) {
				r := g.get(t, "/p/web/page?tab=1&next=//evil.example", headers...)
				require.Equal(t, http.StatusFound, r.status, r.line())
				require.Nil(t, r.arrived)
				require.Empty(t, r.header.Values("set-cookie"))
				target, err := url.Parse(r.header.Get("location"))
				require.NoError(t, err)
				require.Equal(t, "/login", target.Path)
				require.Empty(t, target.Host+target.Scheme, "another origin")
				require.Equal(t, []string{"/p/web/page?tab=1&next=//evil.example"}, target.Query()["return_to"])
				require.Len(t, target.Query(), 1)
			})
		}
		for name, tc := range map[string]struct {
			method  string
			headers []string
		}{
			"a script by fetch":      {"GET", []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/html"}},
			"a script by XHR":        {"GET", append([]string{"X-Requested-With: XMLHttpRequest"}, navigation...)},
			"an API client":          {"GET", []string{"Accept: application/json"}},
			"an API client, any":     {"GET", []string{"Accept: */*"}},
			"a client that says nil": {"GET", nil},
			"a form":                 {"POST", navigation},
			"a deletion":             {"DELETE", navigation},
			"a picture":              {"GET", []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Accept: text/html"}},
		} {
			t.Run(name, func(t *testing.T) {
				requireDenied(t, g.do(t, tc.method, "/p/web/page", tc.headers...), 401, noToken)
			})
		}
		// Who is known and not allowed is not sent to log in again.
		carol := cookie(g.login(t, identity{"carol", "c@example.com", `[]`, "org-2"}))
		requireDenied(t, g.get(t, "/p/web/page", append([]string{carol}, navigation...)...), 403, forbidden)
		// Nor is anybody where the policy does not say so.
		requireDenied(t, g.get(t, "/users/me", navigation...), 401, noToken)
	})
}

func TestCrossSiteRequests(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		token := bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
		const evil, own = "Origin: https://evil.example", "Origin: https://gateway.example.com"
		const crossSite, sameOrigin, none = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			for _, headers := range [][]string{
				{evil},
				{crossSite},
				{evil, crossSite},
				{"Origin: null"},
				{"Origin: https://gateway.example.com.evil.example"},
				{"Origin: https://evil-gateway.example.com"},
				{"Origin: https://gateway.example.com:8443"},
				{"Origin: "},
				{own, evil},
				{own + " https://evil.example"},
			} {
				requireDenied(t, g.do(t, method, "/p/session", append(headers, session)...), 403, forbidden)
			}
			for _, headers := range [][]string{{own}, {own, sameOrigin}, {sameOrigin}, {none}, {"x-other: 1"}} {
				requireAllowed(t, g.do(t, method, "/p/session", append(headers, session)...), bob)
			}
			// No browser sends these credentials by itself.
			requireAllowed(t, g.do(t, method, "/p/bearer", evil, crossSite, token), bob)
			requireAllowed(t, g.do(t, method, "/p/nocsrf", evil, crossSite, session), bob)
		}
		requireAllowed(t, g.get(t, "/p/session", evil, crossSite, session), bob)
		requireDenied(t, g.do(t, "POST", "/p/session", evil, crossSite), 401, noToken)
	})
}

// Whatever a session says arrives losslessly, and never as a header of its own.
func TestIdentityIsEncoded(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		for _, tc := range []struct {
			id, email, org string
			roles          []string
		}{
			{"zoë", "zoë@exämple.com", "Zoë & Söhne", []string{"überprüfer", "角色", "😀"}},
			{"u\r\nx-user-roles: [\"admin\"]", "a\nb@example.com", "org\r\n\r\nGET /users/admin HTTP/1.1", []string{"a\r\nx-org-id: evil"}},
			{"50%", "a+b%20c@example.com", "%0d%0a", []string{"%22", "a,b", `"`, `\`, "]"}},
			{"u 1", "\"a b\"@example.com", " org ", []string{" ", ""}},
			{"u\x00\x7f\t1", "e\u2028@example.com", "\u00a0", []string{"\x00", "\u2028"}},
			{"plain-1", "plain@example.com", "org-1", []string{}},
			{"nothing-else", "", "", nil},
		} {
			record := bob.record()
			record["userId"], record["email"], record["organizationId"], record["roles"] = tc.id, tc.email, tc.org, tc.roles
			r := g.get(t, "/users/me", cookie(signed(g.session(t, record), secretCurrent)))
			require.Equal(t, 200, r.status, r.line())
			got := map[string]string{}
			for _, f := range r.arrived.identity() {
				require.NotContains(t, got, f.name, "twice")
				require.Regexp(t, `^[!-~]+$`, f.value)
				got[f.name] = f.value
			}
			for name, want := range map[string]string{"x-user-id": tc.id, "x-user-email": tc.email, "x-org-id": tc.org} {
				value, err := url.PathUnescape(got[name])
				require.NoError(t, err)
				require.Equal(t, want, value)
			}
			var roles []string
			require.NoError(t, json.Unmarshal([]byte(got["x-user-roles"]), &roles))
			require.Equal(t, append([]string{}, tc.roles...), roles)
		}
	})
}
