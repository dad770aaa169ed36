package condition_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/condition"
)

func order(t *testing.T) *authz.Request {
	t.Helper()
	r, err := authz.NewRequest(authz.RequestParts{
		Method: "POST", Authority: "Shop.example.com:8443", Target: "/%6frders/7?page=2",
		Address: netip.MustParseAddr("192.0.2.7"),
		Headers: authz.HeaderMap{"x-tenant": "blue", "accept": "text/html"},
	})
	require.NoError(t, err)
	return r
}

func partner() *authz.Principal {
	return &authz.Principal{
		Identity: authz.Identity{ID: "u1", Email: "u1@example.com", Roles: []string{"buyer", "clerk"}, Organization: "org-1"},
		Kind:     authz.KindBearer,
		Claims: map[string]any{
			"scope": "orders:read orders:write", "level": json.Number("3"), "score": json.Number("0.5"), "mfa": true,
			"realm": map[string]any{"groups": []any{"a", json.Number("2")}},
		},
	}
}

func TestConditionsSeeRequestIdentityAndClaims(t *testing.T) {
	for expression, want := range map[string]bool{
		`claims.scope.contains("orders:read")`:                           true,
		`"orders:write" in claims.scope.split(" ")`:                      true,
		`"orders" in claims.scope.split(" ")`:                            false,
		`request.method == "POST" && request.path == "/orders/7"`:        true,
		`request.host == "shop.example.com"`:                             true,
		`request.query == "page=2"`:                                      true,
		`request.address == "192.0.2.7"`:                                 true,
		`request.headers["x-tenant"] == "blue"`:                          true,
		`"x-other" in request.headers`:                                   false,
		`"buyer" in identity.roles && !("admin" in identity.roles)`:      true,
		`identity.roles.exists(r, r.startsWith("cle"))`:                  true,
		`identity.id == "u1" && identity.email.endsWith("@example.com")`: true,
		`identity.org == "org-1" && identity.kind == "bearer"`:           true,
		`claims.level >= 3 && claims.score < 1.0`:                        true,
		`claims.mfa`:                               true,
		`claims.realm.groups[1] == 2`:              true,
		`has(claims.missing)`:                      false,
		`size(session) == 0`:                       true,
		`request.path.matches("^/orders/[0-9]+$")`: true,
		`identity.org in ["org-1", "org-2"] ? request.method != "DELETE" : false`: true,
	} {
		t.Run(expression, func(t *testing.T) {
			permits, err := condition.Compile(expression)
			require.NoError(t, err)
			got, err := permits(order(t), partner())
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestWhatIsNotThereIsAnErrorNotFalse(t *testing.T) {
	for _, expression := range []string{
		`claims.missing == "x"`,
		`claims.scope > 3`,
		`claims.scope`, // a string, not a bool: known only when it is evaluated
		`session.cart == 1`,
		`request.headers["x-none"] == ""`,
		`1 / int(claims.level - 3) == 1`,
	} {
		permits, err := condition.Compile(expression)
		require.NoError(t, err, expression)
		got, err := permits(order(t), partner())
		require.Error(t, err, expression)
		require.False(t, got, expression)
	}
}

// However an expression comes to the headers, they are there.
func TestHeadersAreThereByEveryWay(t *testing.T) {
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "gw", Target: "/", Headers: authz.HeaderMap{"x-a": "1"}})
	require.NoError(t, err)
	for _, expression := range []string{
		`request.headers["x-a"] == "1"`, `"x-a" in dyn(request)["headers"]`, `"x-a" in dyn(request)["head" + "ers"]`,
		`[request].exists(r, "x-a" in r.headers)`, `[request].exists(r, "x-a" in dyn(r)["headers"])`, `{"r": request}.r.headers["x-a"] == "1"`,
	} {
		permits, err := condition.Compile(expression)
		require.NoError(t, err, expression)
		got, err := permits(r, &authz.Principal{})
		require.NoError(t, err, expression)
		require.True(t, got, expression)
	}
}

// Errors are logged, and tell what is wrong without repeating what was sent.
func TestErrorsHoldNothingOfTheRequest(t *testing.T) {
	const secret = "a s3cr3t \" token"
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "gw", Target: "/", Headers: authz.HeaderMap{"x-token": secret}})
	require.NoError(t, err)
	for expression, want := range map[string]string{
		`timestamp(request.headers["x-token"]) > timestamp("2020-01-01T00:00:00Z")`: `invalid RFC 3339 timestamp "…"`,
		`duration(request.headers["x-token"]) > duration("1s")`:                     "",
		`"x".matches(request.headers["x-token"] + "(")`:                             "error parsing regexp",
		`int(request.headers["x-token"]) > 3`:                                       "",
		`claims[request.headers["x-token"]] == 1`:                                   "no such key",
		`claims.scope == "x"`:                                                       "no such key: scope",
	} {
		permits, err := condition.Compile(expression)
		require.NoError(t, err, expression)
		_, err = permits(r, &authz.Principal{})
		require.ErrorContains(t, err, want, expression)
		require.NotContains(t, err.Error(), "s3cr3t", expression)
		require.NotContains(t, err.Error(), "token", expression)
	}
}

func TestMistakesAreFoundWhenCompiling(t *testing.T) {
	for expression, want := range map[string]string{
		``:                           "line 1, column",
		`request.metod == "GET"`:     "undefined field 'metod'",
		`identity.role == "x"`:       "undefined field 'role'",
		`user.id == "x"`:             "undeclared reference to 'user'",
		`request.method == 3`:        "no matching overload",
		`request.method`:             "must be true or false",
		`identity.roles`:             "must be true or false",
		`request.method == "GET" &&`: "line 1, column",
		`claims.scope.frobnicate()`:  "undeclared reference to 'frobnicate'",
		strings.Repeat("true && ", 2000) + "true": "bytes long",
	} {
		_, err := condition.Compile(expression)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n", "one line")
	}
}

func TestCostIsBounded(t *testing.T) {
	permits, err := condition.Compile(`claims.list.all(a, claims.list.all(b, claims.list.all(c, a + b + c >= 0)))`)
	require.NoError(t, err)
	list := make([]any, 1000)
	for i := range list {
		list[i] = json.Number(fmt.Sprint(i))
	}
	p := partner()
	p.Claims["list"] = list
	_, err = permits(order(t), p)
	require.ErrorContains(t, err, "cost")
}

func TestAnonymousHasAnEmptyIdentity(t *testing.T) {
	permits, err := condition.Compile(`identity.id == "" && size(identity.roles) == 0 && size(claims) == 0`)
	require.NoError(t, err)
	got, err := permits(order(t), &authz.Principal{})
	require.NoError(t, err)
	require.True(t, got)
}

// A compiled condition is shared by all requests.
func TestConcurrentUse(t *testing.T) {
	permits, err := condition.Compile(`identity.id == claims.sub`)
	require.NoError(t, err)
	r := order(t)
	for i := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprint(i)
			for range 200 {
				got, err := permits(r, &authz.Principal{Identity: authz.Identity{ID: id}, Claims: map[string]any{"sub": id}})
				require.NoError(t, err)
				require.True(t, got)
			}
		})
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`claims.scope.contains("orders:read")`)
	f.Add(`request.headers.exists(h, h == "x")`)
	f.Fuzz(func(t *testing.T, expression string) {
		permits, err := condition.Compile(expression)
		if err != nil {
			return
		}
		// Whatever compiles ends, and gives true only without an error.
		if got, err := permits(order(t), partner()); err != nil && got {
			t.Fatal("true and an error")
		}
	})
}

func BenchmarkCondition(b *testing.B) {
	permits, err := condition.Compile(`claims.scope.contains("orders:read") && request.method == "POST"`)
	require.NoError(b, err)
	r, err := authz.NewRequest(authz.RequestParts{Method: "POST", Target: "/orders"})
	require.NoError(b, err)
	p := partner()
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := permits(r, p); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func TestPartsOfACondition(t *testing.T) {
	r, p := order(t), partner()
	for expression, want := range map[string][]string{
		`claims.mfa`:                            nil,
		`claims.mfa || identity.org == "org-2"`: nil,
		`claims.mfa && identity.org == "org-2" && (claims.level > 2 || claims.nothing)`: {
			`claims.mfa: true`, `identity.org == "org-2": false`, `claims.level > 2 || claims.nothing: true`,
		},
		`has(claims.scope) && claims.scope.split(" ").exists(s, s == "orders:read" && s != "") && claims.nothing`: {
			`has(claims.scope): true`, `claims.scope.split(" ").exists(s, s == "orders:read" && s != ""): true`, `claims.nothing: error`,
		},
	} {
		parts, err := condition.Parts(expression)
		require.NoError(t, err)
		var got []string
		for _, part := range parts {
			holds, err := part.Holds(r, p)
			outcome := fmt.Sprint(holds)
			if err != nil {
				outcome = "error"
			}
			got = append(got, part.Text+": "+outcome)
		}
		require.Equal(t, want, got, expression)
	}
	_, err := condition.Parts(`nonsense(`)
	require.Error(t, err)
}
