package authapi_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// Every operation of the description answers, and nothing else does.
func TestEveryDescribedOperationIsThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	allowed := map[string][]string{}
	for _, operation := range spec.Operations() {
		method, template, _ := strings.Cut(operation, " ")
		allowed[template] = append(allowed[template], method)
	}
	for template, methods := range allowed {
		target := strings.NewReplacer("{provider}", "corp", "{file}", "console.css", "{id}", "bob", "{handle}", "h").Replace(template)
		var allow []string
		for _, method := range methods {
			allow = append(allow, method)
			if method == "GET" {
				allow = append(allow, "HEAD")
			}
		}
		slices.Sort(allow)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "CONNECT"} {
			a := b.call(t, method, target, nil)
			if slices.Contains(allow, method) {
				require.NotEqual(t, 405, a.status, "%s %s", method, target)
				if !strings.Contains(template, "{") { // what a name in the path stands for need not be there
					require.NotEqual(t, 404, a.status, "%s %s", method, target)
				}
				continue
			}
			require.Equal(t, 405, a.status, "%s %s", method, target)
			require.Equal(t, strings.Join(allow, ", "), a.header.Get("Allow"))
			if method != "HEAD" {
				require.Equal(t, `{"error":"Method not allowed"}`, a.body)
			}
		}
	}
	for _, operation := range b.api.Operations() {
		require.Contains(t, spec.Operations(), operation.Method+" "+operation.Path, "served and not described")
	}
}

// Whatever can be wrong with a request itself is 400 for every operation.
func TestRequestsThatCanBeReadInTwoWays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.expect(0, nil)
	for _, operation := range spec.Operations() {
		method, template, _ := strings.Cut(operation, " ")
		target := strings.NewReplacer("{provider}", "corp", "{file}", "console.css", "{id}", "bob", "{handle}", "h").Replace(template)
		requireAnswer(t, b.call(t, method, target, nil, "Host", "user@gateway.example.com"), 400, badRequest)
		requireAnswer(t, b.call(t, method, target+"?a=\x01", nil), 400, badRequest)
		requireAnswer(t, b.call(t, method, "/"+target, nil), 400, badRequest)
		requireAnswer(t, b.call(t, method, target+"/..", nil), 400, badRequest)
	}
	for _, target := range []string{"/auth/./me", "/auth/../auth/me", "/auth%2fme", "/auth/%2e%2e/me", "/auth\\me", "/auth/me%00", "/auth/me#x", "/auth/%zz", "*", "auth/me"} {
		a := b.get(t, target)
		require.Equal(t, 400, a.status, target)
	}
	require.Empty(t, b.store.called())
}

func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	for _, target := range []string{
		"/", "/auth", "/auth/", "/auth/nothing", "/auth/login/", "/auth/me/", "/auth/me;x", "/auth/sessions/", "/auth/sessions/a/b", "/auth/users/", "/auth/users/a", "/auth/users/a/sessions/b/c",
		"/auth/oidc", "/auth/oidc/corp", "/auth/oidc/corp/", "/auth/oidc/corp/x", "/authx/me", "/AUTH/me", "/auth/ME", "/.well-known/", "/.well-known/jwks.json/", "/users/me", "/auth/consolex",
		"/auth/{handle}", "/auth/me%20", "/auth/users/%7Bid%7D",
	} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			a := b.call(t, method, target, nil, admin...)
			require.Equal(t, 404, a.status, "%s %s: %s", method, target, a.body)
			if method != "HEAD" {
				require.Equal(t, notFound, a.body)
			}
		}
	}
	require.Equal(t, "unknown 404", b.recorder.last())
}

// Paths are compared as the gate compares them.
func TestEscapedLettersAreLetters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, _ := b.logIn(t, bob)
	require.Equal(t, 200, b.get(t, "/%61uth/m%65", cookie...).status)
	require.Equal(t, 200, b.get(t, "/auth/me?x=//../%2f", cookie...).status)
}

func TestHEAD(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, _ := b.logIn(t, alice)
	for _, target := range []string{"/auth/me", "/auth/sessions", "/auth/users", "/auth/users/bob/sessions", "/.well-known/jwks.json", "/auth/openapi.yaml", "/auth/console", "/auth/nothing"} {
		get, head := b.get(t, target, cookie...), b.call(t, "HEAD", target, nil, cookie...)
		require.Equal(t, get.status, head.status)
		require.Empty(t, head.body)
		require.Equal(t, get.header, head.header, target)
		require.NotEqual(t, "0", head.header.Get("Content-Length"))
	}
}

// Parts that are not there take their calls with them.
func TestInstallationsThatAreNotSetUpForEverything(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		without func(*authapi.Options)
		missing []string
		there   []string
	}{
		"sessions": {func(o *authapi.Options) { o.Cookies = nil }, []string{"POST /auth/login", "GET /auth/oidc/corp/login", "POST /auth/sessions"}, []string{"POST /auth/token", "GET /auth/me", "POST /auth/logout"}},
		"tokens": {
			func(o *authapi.Options) { o.AccessTokens, o.RefreshTokens = nil, nil },
			[]string{"POST /auth/token", "POST /auth/refresh"},
			[]string{"POST /auth/login", "POST /auth/revoke", "POST /auth/introspect", "GET /.well-known/jwks.json"},
		},
		"passwords":   {func(o *authapi.Options) { o.UserStore = nil }, []string{"POST /auth/login", "POST /auth/token", "GET /auth/users"}, []string{"POST /auth/refresh", "GET /auth/oidc/corp/login"}},
		"providers":   {func(o *authapi.Options) { o.Providers = nil }, []string{"GET /auth/oidc/corp/login", "GET /auth/oidc/corp/callback", "POST /auth/oidc/corp/backchannel-logout"}, []string{"POST /auth/login"}},
		"the console": {func(o *authapi.Options) { o.Console = nil }, []string{"GET /auth/console", "GET /auth/console/", "GET /auth/console/console.css"}, []string{"GET /auth/openapi.yaml"}},
		"anything": {
			func(o *authapi.Options) { *o = authapi.Options{Store: o.Store} },
			[]string{"POST /auth/login", "POST /auth/token", "POST /auth/refresh", "GET /auth/users"},
			[]string{"GET /auth/me", "POST /auth/logout", "GET /.well-known/jwks.json", "POST /auth/revoke"},
		},
	} {
		t.Run("without "+name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tt.without)
			for _, call := range tt.missing {
				method, target, _ := strings.Cut(call, " ")
				a := b.call(t, method, target, nil)
				requireAnswer(t, a, 404, notFound)
				if name != "the console" && name != "anything" { // which has no log
					require.Regexp(t, "^the call [a-z_]+ is not there: it needs [a-z_. ]+ in the configuration$", b.log.last(t, "auth")["error"], call)
				}
			}
			for _, call := range tt.there {
				method, target, _ := strings.Cut(call, " ")
				require.NotContains(t, []int{404, 405}, b.call(t, method, target, nil).status, call)
			}
		})
	}
	b := newBench(t, func(o *authapi.Options) { *o = authapi.Options{Store: o.Store} })
	a := b.get(t, "/auth/me", "Cookie", "sessionId=x", "Authorization", "Bearer x")
	requireAnswer(t, a, 401, noToken)
	require.Empty(t, a.header.Get("WWW-Authenticate"))
	require.JSONEq(t, `{"keys":[]}`, b.get(t, "/.well-known/jwks.json").body)
	requireAnswer(t, b.post(t, "/auth/logout", object{"refreshToken": "x"}, "Authorization", "Bearer x"), 200, loggedOut)
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": "x"}), 200, "")
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for target, kind := range map[string]string{"/.well-known/jwks.json": "application/jwk-set+json", "/auth/openapi.yaml": "application/yaml"} {
		a := b.get(t, target)
		require.Equal(t, 200, a.status)
		require.Equal(t, kind, a.header.Get("Content-Type"))
		require.Equal(t, "public, max-age=300", a.header.Get("Cache-Control"))
		etag := a.header.Get("ETag")
		for _, known := range []string{etag, "W/" + etag, `"x", ` + etag, "*", `"x",W/` + etag + `, "y"`} {
			again := b.get(t, target, "If-None-Match", known)
			require.Equal(t, 304, again.status, known)
			require.Empty(t, again.body)
			require.Equal(t, etag, again.header.Get("ETag"))
			require.Equal(t, "public, max-age=300", again.header.Get("Cache-Control"))
		}
		for _, other := range []string{`"x"`, "", strings.Trim(etag, `"`), "W/"} {
			require.Equal(t, a.body, b.get(t, target, "If-None-Match", other).body)
		}
	}
	require.JSONEq(t, `{"keys":[{"kty":"RSA","kid":"1","n":"AQ","e":"AQAB"}]}`, b.get(t, "/.well-known/jwks.json").body)
	require.Equal(t, string(authapi.OpenAPI()), b.get(t, "/auth/openapi.yaml").body)
	authapi.OpenAPI()[0] = 'x' // a copy
	require.Equal(t, byte('o'), authapi.OpenAPI()[0])
	other := newBench(t, func(o *authapi.Options) { o.JWKS = []byte(`{"keys":[]}`) })
	require.NotEqual(t, b.get(t, "/.well-known/jwks.json").header.Get("ETag"), other.get(t, "/.well-known/jwks.json").header.Get("ETag"))
}

func TestConsoleIsMounted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, target := range []string{"/auth/console", "/auth/console/", "/auth/console/console.js", "/auth/console/console.css", "/auth/console/icon.svg", "/auth/console/settings.json"} {
		a := b.get(t, target)
		require.Equal(t, 200, a.status, target)
		require.Equal(t, "console 200", b.recorder.last())
		require.Equal(t, 304, b.get(t, target, "If-None-Match", a.header.Get("ETag")).status)
		requireAnswer(t, b.get(t, target, "Host", "a@b"), 400, badRequest)
	}
	requireAnswer(t, b.get(t, "/auth/console/nothing"), 404, notFound)
	require.Equal(t, 405, b.post(t, "/auth/console", nil).status)
	require.Equal(t, "console 405", b.recorder.last())
	require.Equal(t, "console", b.log.last(t, "auth")["call"])
}

// A console with a bug is an answer, too; one that has begun its own can't be
// given another.
func TestConsoleWithABug(t *testing.T) {
	t.Parallel()
	var begin bool
	b := newBench(t, func(o *authapi.Options) {
		o.Console = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if begin {
				_, _ = w.Write([]byte("<p>"))
			}
			panic("a bug in the console")
		})
	})
	for _, begin = range []bool{false, true} {
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, httptest.NewRequest("GET", "/auth/console", nil))
		if begin {
			require.Equal(t, 200, w.Code)
		} else {
			require.Equal(t, 503, w.Code)
			require.JSONEq(t, unavailable, w.Body.String())
		}
		require.Contains(t, b.log.last(t, "auth")["error"], "a bug in the console")
		require.Equal(t, "ERROR", b.log.last(t, "auth")["level"])
	}
}

// A request that no server has read, or that came through a proxy, has its
// target in another place.
func TestTargets(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, uri := range []string{"", "http://gateway.example.com/.well-known/jwks.json"} {
		r := httptest.NewRequest("GET", "http://gateway.example.com/.well-known/jwks.json", nil)
		r.RequestURI = uri
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
	}
}
