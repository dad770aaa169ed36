package authz_test

import (
	"cmp"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestCrossSite(t *testing.T) {
	t.Parallel()
	const (
		own     = "https://app.example.com"
		trusted = "https://console.example.com"
		evil    = "https://evil.test"
	)
	origins := authz.Origins{trusted, "http://localhost:3000"}
	for name, tt := range map[string]struct {
		method    string
		authority string // "" for app.example.com
		headers   []string
		refused   bool
	}{
		// No browser.
		"neither header":        {method: "POST"},
		"neither header, PATCH": {method: "PATCH", headers: []string{"referer", evil + "/"}},

		// Safe methods.
		"GET of another site":     {method: "GET", headers: []string{"origin", evil, "sec-fetch-site", "cross-site"}},
		"HEAD of another site":    {method: "HEAD", headers: []string{"origin", evil, "sec-fetch-site", "cross-site"}},
		"OPTIONS of another site": {method: "OPTIONS", headers: []string{"origin", evil, "sec-fetch-site", "cross-site"}},

		// Sec-Fetch-Site decides where it is there.
		"same origin":                            {method: "POST", headers: []string{"origin", own, "sec-fetch-site", "same-origin"}},
		"same origin, no Origin":                 {method: "POST", headers: []string{"sec-fetch-site", "same-origin"}},
		"the user typed it":                      {method: "POST", headers: []string{"sec-fetch-site", "none"}},
		"same site is another origin":            {method: "POST", headers: []string{"origin", "https://blog.example.com", "sec-fetch-site", "same-site"}, refused: true},
		"same site, no Origin":                   {method: "POST", headers: []string{"sec-fetch-site", "same-site"}, refused: true},
		"cross site":                             {method: "POST", headers: []string{"origin", evil, "sec-fetch-site", "cross-site"}, refused: true},
		"cross site, no Origin":                  {method: "POST", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"cross site, our Origin":                 {method: "POST", headers: []string{"origin", own, "sec-fetch-site", "cross-site"}, refused: true},
		"an unknown value":                       {method: "POST", headers: []string{"origin", own, "sec-fetch-site", "same-planet"}, refused: true},
		"an empty value":                         {method: "POST", headers: []string{"origin", own, "sec-fetch-site", ""}, refused: true},
		"two values":                             {method: "POST", headers: []string{"origin", own, "sec-fetch-site", "same-origin,cross-site"}, refused: true},
		"a value in another case":                {method: "POST", headers: []string{"origin", own, "sec-fetch-site", "Same-Origin"}, refused: true},
		"trusted, cross site":                    {method: "POST", headers: []string{"origin", trusted, "sec-fetch-site", "cross-site"}},
		"trusted, same site":                     {method: "POST", headers: []string{"origin", trusted, "sec-fetch-site", "same-site"}},
		"PUT of another site":                    {method: "PUT", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"DELETE of another site":                 {method: "DELETE", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"an unknown method of another site":      {method: "PROPFIND", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"no method at all, of another site":      {method: "", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"a method in lower case, of another":     {method: "post", headers: []string{"sec-fetch-site", "cross-site"}, refused: true},
		"a user agent can't be talked out of it": {method: "POST", headers: []string{"sec-fetch-site", "cross-site", "x-requested-with", "XMLHttpRequest"}, refused: true},

		// Origin, before Sec-Fetch-Site.
		"our origin":                      {method: "POST", headers: []string{"origin", own}},
		"our origin, upper case":          {method: "POST", headers: []string{"origin", "https://APP.example.com"}},
		"our origin by plain HTTP":        {method: "POST", headers: []string{"origin", "http://app.example.com"}},
		"our origin, its default port":    {method: "POST", headers: []string{"origin", own + ":443"}},
		"our authority, its default port": {method: "POST", authority: "app.example.com:443", headers: []string{"origin", own}},
		"our port":                        {method: "POST", authority: "app.example.com:8443", headers: []string{"origin", own + ":8443"}},
		"another port":                    {method: "POST", headers: []string{"origin", own + ":8443"}, refused: true},
		"another port than ours":          {method: "POST", authority: "app.example.com:8443", headers: []string{"origin", own}, refused: true},
		"another scheme's default port":   {method: "POST", authority: "app.example.com:80", headers: []string{"origin", own}, refused: true},
		"another site":                    {method: "POST", headers: []string{"origin", evil}, refused: true},
		"a name below ours":               {method: "POST", headers: []string{"origin", "https://x.app.example.com"}, refused: true},
		"a name above ours":               {method: "POST", headers: []string{"origin", "https://example.com"}, refused: true},
		"a name that begins like ours":    {method: "POST", headers: []string{"origin", own + ".evil.test"}, refused: true},
		"a name that ends like ours":      {method: "POST", headers: []string{"origin", "https://evilapp.example.com"}, refused: true},
		"our name as user information":    {method: "POST", headers: []string{"origin", "https://app.example.com@evil.test"}, refused: true},
		"a sandboxed page":                {method: "POST", headers: []string{"origin", "null"}, refused: true},
		"an empty origin":                 {method: "POST", headers: []string{"origin", ""}, refused: true},
		"no URL":                          {method: "POST", headers: []string{"origin", "::"}, refused: true},
		"no scheme":                       {method: "POST", headers: []string{"origin", "app.example.com"}, refused: true},
		"two origins":                     {method: "POST", headers: []string{"origin", own + "," + evil}, refused: true},
		"a file":                          {method: "POST", headers: []string{"origin", "file://"}, refused: true},
		"trusted":                         {method: "POST", headers: []string{"origin", trusted}},
		"trusted, upper case":             {method: "POST", headers: []string{"origin", "HTTPS://Console.Example.com"}},
		"trusted, port":                   {method: "POST", headers: []string{"origin", "http://localhost:3000"}},
		"trusted, another port":           {method: "POST", headers: []string{"origin", "http://localhost:3001"}, refused: true},
		"trusted, another scheme":         {method: "POST", headers: []string{"origin", "http://console.example.com"}, refused: true},
		"trusted as a beginning":          {method: "POST", headers: []string{"origin", trusted + ".evil.test"}, refused: true},

		// A WebSocket is a GET that any page may open and then talk through.
		"WebSocket of ours":               {method: "GET", headers: []string{"upgrade", "websocket", "origin", own}},
		"WebSocket of ours, fetch":        {method: "GET", headers: []string{"upgrade", "websocket", "origin", own, "sec-fetch-site", "same-origin"}},
		"WebSocket of another site":       {method: "GET", headers: []string{"upgrade", "websocket", "origin", evil}, refused: true},
		"WebSocket, another spelling":     {method: "GET", headers: []string{"upgrade", "WebSocket", "origin", evil}, refused: true},
		"WebSocket of another site, sec":  {method: "GET", headers: []string{"upgrade", "websocket", "origin", evil, "sec-fetch-site", "cross-site"}, refused: true},
		"WebSocket of a program":          {method: "GET", headers: []string{"upgrade", "websocket"}},
		"WebSocket of a trusted page":     {method: "GET", headers: []string{"upgrade", "websocket", "origin", trusted}},
		"another upgrade":                 {method: "GET", headers: []string{"upgrade", "h2c", "origin", evil}},
		"WebSocket over HTTP/2 (CONNECT)": {method: "CONNECT", headers: []string{"origin", evil}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority := tt.authority
			if authority == "" {
				authority = "app.example.com"
			}
			r, err := authz.NewRequest(authz.RequestParts{Method: tt.method, Authority: authority, Target: "/", Headers: headerMap(tt.headers...)})
			require.NoError(t, err)
			err = origins.CrossSite(r)
			if tt.refused {
				requireReason(t, authz.ReasonCrossSite, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// Without a host there is no own origin.
func TestCrossSiteWithoutAHost(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{"null", "", "https://", "file://", "https://evil.test"} {
		r := &authz.Request{Method: "POST", Headers: headerMap("origin", origin)}
		requireReason(t, authz.ReasonCrossSite, authz.Origins{}.CrossSite(r))
	}
}

// Only a session cookie is sent by a browser on its own: what a page must add
// by itself proves that the page may.
func TestCSRFConcernsSessionsOnly(t *testing.T) {
	t.Parallel()
	every := []authz.Kind{authz.KindSession, authz.KindBearer, authz.KindAPIKey}
	foreign := []string{"origin", "https://evil.test", "sec-fetch-site", "cross-site"}
	for name, tt := range map[string]struct {
		policy     authz.Policy
		credential []string
		want       authz.Reason
	}{
		"session":                             {authz.Policy{Credentials: every}, []string{"cookie", "sessionId=signed.alice"}, authz.ReasonCrossSite},
		"session, anonymous allowed":          {authz.Policy{Credentials: every, Anonymous: true}, []string{"cookie", "sessionId=signed.alice"}, authz.ReasonCrossSite},
		"session, check off":                  {authz.Policy{Credentials: every, InsecureSkipCSRF: true}, []string{"cookie", "sessionId=signed.alice"}, ""},
		"bearer":                              {authz.Policy{Credentials: every}, []string{"authorization", "Bearer alice-token"}, ""},
		"API key":                             {authz.Policy{Credentials: every}, []string{"x-internal-api-key", apiKey}, ""},
		"a cookie that the policy ignores":    {authz.Policy{Credentials: []authz.Kind{authz.KindBearer}}, []string{"cookie", "sessionId=signed.alice", "authorization", "Bearer alice-token"}, ""},
		"nobody":                              {authz.Policy{Anonymous: true}, nil, ""},
		"an invalid session is no session":    {authz.Policy{Credentials: every, Anonymous: true}, []string{"cookie", "sessionId=forged"}, ""},
		"an invalid session, nobody may pass": {authz.Policy{Credentials: every}, []string{"cookie", "sessionId=forged"}, authz.ReasonSessionForged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newGate(t).decide(tt.policy, request(t, "POST", "/", append(tt.credential, foreign...)...))
			requireReason(t, tt.want, err)
		})
	}

	t.Run("trusted origin", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.origins = authz.Origins{"https://evil.test"} // not so evil after all
		_, err := g.decide(authz.Policy{Credentials: every}, request(t, "POST", "/", append(foreign, "cookie", "sessionId=signed.alice")...))
		require.NoError(t, err)
	})
}

// browserOrigin is an Origin header as browsers write one (RFC 6454 section 6.2):
// the scheme, a host that is a name or an address, and a port or none.
var browserOrigin = regexp.MustCompile(`^(https?)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?$`)

// FuzzCrossSite states that an unsafe request passes by its Origin alone if the
// origin is trusted or names the very authority, whatever else stands in the two;
// that Sec-Fetch-Site decides where it is there; and that where an origin is one
// that a browser writes, nothing else makes it our own.
func FuzzCrossSite(f *testing.F) {
	f.Add("https://app.example.com", "app.example.com", "")
	f.Add("https://app.example.com:443", "APP.example.com", "")
	f.Add("https://app.example.com@evil.test", "app.example.com", "same-site")
	f.Add("http://[::1]:8080", "[::1]:8080", "cross-site")
	f.Add("null", "", "none")
	f.Add("https://console.example.com", "x", "cross-site")
	trusted := authz.Origins{"https://console.example.com"}
	f.Fuzz(func(t *testing.T, origin, authority, site string) {
		pairs := []string{"origin", origin}
		if site != "" {
			pairs = append(pairs, "sec-fetch-site", site)
		}
		r := &authz.Request{Method: "POST", Authority: authority, Headers: headerMap(pairs...)}
		err := trusted.CrossSite(r)
		if err != nil {
			requireReason(t, authz.ReasonCrossSite, err)
		}
		switch {
		case site == "same-origin" || site == "none" || strings.ToLower(origin) == trusted[0]:
			require.NoError(t, err)
			return
		case site != "":
			require.Error(t, err, "a page of another site had it sent")
			return
		}
		m := browserOrigin.FindStringSubmatch(origin)
		if m == nil {
			return // no browser
		}
		port := map[string]string{"http": "80", "https": "443"}[m[1]]
		host, own, _ := strings.Cut(strings.ToLower(authority), "]:")
		if strings.HasPrefix(host, "[") {
			host = strings.TrimSuffix(host, "]") + "]"
		} else {
			host, own, _ = strings.Cut(host, ":")
		}
		if err == nil {
			require.Equal(t, m[2], host, "another host is our own origin")
			require.Equal(t, cmp.Or(m[3], port), cmp.Or(own, port), "another port is our own origin")
		} else if m[3] == "" {
			require.NotEqual(t, strings.ToLower(authority), m[2], "our own origin is refused")
		}
		r.Method = "GET"
		require.NoError(t, trusted.CrossSite(r), "a safe method")
	})
}
