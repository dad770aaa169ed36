package authz_test

import (
	"maps"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestNewRequest(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("192.0.2.7")
	r, err := authz.NewRequest(authz.RequestParts{
		Method: "get", Authority: "App.Example.com.:8443", Target: "/%61/b%20c?x=%2e%2e/&y=//;z", Address: address,
		Headers: headerMap("cookie", "a=b"), PolicyName: "user", HasPolicyName: true,
	})
	require.NoError(t, err)
	require.Equal(t, &authz.Request{
		Method: "GET", Authority: "App.Example.com.:8443", Host: "app.example.com",
		Path: "/a/b c", RawPath: "/%61/b%20c", Query: "x=%2e%2e/&y=//;z", Address: address,
		Headers: headerMap("cookie", "a=b"), PolicyName: "user", HasPolicyName: true,
	}, r)
}

// No query, however odd, changes the path; what no query may hold is refused.
func TestNewRequestQuery(t *testing.T) {
	t.Parallel()
	for query, ok := range map[string]bool{
		"":                       true,
		"a=b&c=d":                true,
		"?":                      true,
		"/../admin":              true,
		"a=%2f%2e%5c%00%zz%":     true,
		`a=\\`:                   true,
		"a;b":                    true,
		"\u00e9\xff":             true,
		"a=[]{}|<>^`\"":          true,
		"a b":                    false,
		"a#b":                    false,
		"#":                      false,
		"a\x00b":                 false,
		"\x00a":                  false,
		"a\nb":                   false,
		"a\tb":                   false,
		"a\x7f":                  false,
		"a\r\nx-user-id: root":   false,
		"a%0d%0ax-user-id:root":  true,
		"return_to=//evil.test/": true,
	} {
		t.Run(strconv.QuoteToASCII(query), func(t *testing.T) {
			t.Parallel()
			r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Target: "/a?" + query})
			require.Equal(t, "/a", r.Path)
			require.Equal(t, query, r.Query)
			if ok {
				require.NoError(t, err)
			} else {
				requireReason(t, authz.ReasonBadPath, err)
			}
		})
	}
}

// A refused request is there for the log, as far as it got.
func TestNewRequestAlwaysReturnsARequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		parts authz.RequestParts
		want  authz.Reason
	}{
		"nothing":        {authz.RequestParts{}, authz.ReasonBadPath},
		"OPTIONS *":      {authz.RequestParts{Method: "OPTIONS", Authority: "h", Target: "*"}, authz.ReasonBadPath},
		"CONNECT":        {authz.RequestParts{Method: "CONNECT", Authority: "h:443", Target: "h:443"}, authz.ReasonBadPath},
		"absolute form":  {authz.RequestParts{Method: "GET", Authority: "h", Target: "http://h/"}, authz.ReasonBadPath},
		"only a query":   {authz.RequestParts{Method: "GET", Authority: "h", Target: "?a"}, authz.ReasonBadPath},
		"bad host":       {authz.RequestParts{Method: "GET", Authority: "u@h", Target: "/"}, authz.ReasonBadHost},
		"bad path":       {authz.RequestParts{Method: "GET", Authority: "h", Target: "/a/../b?c"}, authz.ReasonBadPath},
		"fragment":       {authz.RequestParts{Method: "GET", Authority: "h", Target: "/a#b?c"}, authz.ReasonBadPath},
		"both are wrong": {authz.RequestParts{Method: "GET", Authority: "u@h", Target: "x"}, authz.ReasonBadHost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := authz.NewRequest(tt.parts)
			requireReason(t, tt.want, err)
			require.NotNil(t, r)
			require.Equal(t, tt.parts.Method, r.Method)
			require.Equal(t, tt.parts.Authority, r.Authority)
			_, ok := r.Headers.Header("cookie")
			require.False(t, ok)
			require.Empty(t, r.Path)
		})
	}
}

func TestHeaderMap(t *testing.T) {
	t.Parallel()
	m := authz.HeaderMap{"a": "1", "b": ""}
	for name, want := range map[string]string{"a": "1", "b": ""} {
		got, ok := m.Header(name)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := m.Header("A")
	require.False(t, ok)
	require.Equal(t, map[string]string{"a": "1", "b": ""}, maps.Collect(m.All()))
	require.Empty(t, maps.Collect(authz.HeaderMap(nil).All()))
}

func TestSafeMethod(t *testing.T) {
	t.Parallel()
	for method, safe := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true,
		"POST": false, "PUT": false, "PATCH": false, "DELETE": false, "CONNECT": false, "": false, "GETS": false, "PROPFIND": false, "get": false,
	} {
		require.Equal(t, safe, (&authz.Request{Method: method}).SafeMethod(), "%q", method)
	}
}
