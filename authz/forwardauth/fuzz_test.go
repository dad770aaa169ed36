package forwardauth_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// FuzzQuestion: whatever a client adds to what the proxy says, the request that
// is judged is the proxy's, or none.
func FuzzQuestion(f *testing.F) {
	f.Add("GET", "/public/x", "gateway.example.com", "", "", "")
	f.Add("POST", "/public/x", "", "POST", "https://gateway.example.com/public/x", "")
	f.Add("GET", "/x", "evil.example", "GET", "http://[::1]/x?a=b#", "/x?a=b")
	f.Add("", "", "", "\n", "://", "https:///")
	f.Fuzz(func(t *testing.T, method, uri, host, origMethod, origURL, origURI string) {
		var log recorder
		h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: &log})
		r := httptest.NewRequest(http.MethodGet, "/check?policy=public", http.NoBody)
		all := map[string]string{
			"X-Forwarded-Method": method, "X-Forwarded-Uri": uri, "X-Forwarded-Host": host,
			"X-Original-Method": origMethod, "X-Original-Url": origURL, "X-Original-Uri": origURI,
		}
		for name, value := range all {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Contains(t, []int{200, 400}, w.Code)
		if w.Code != 200 {
			return
		}
		seen := log.all[0].request
		target := seen.RawPath
		if _, query, has := strings.Cut(uri+origURI+origURL, "?"); has {
			target += "?" + seen.Query
			require.True(t, strings.HasSuffix(query, seen.Query))
		}
		for name, want := range map[string]string{
			"X-Forwarded-Uri": target, "X-Original-Uri": target,
			"X-Forwarded-Method": seen.Method, "X-Original-Method": seen.Method, "X-Forwarded-Host": seen.Authority,
		} {
			if given := all[name]; given != "" {
				require.True(t, strings.EqualFold(want, given), "%s: %q is judged", name, want)
			}
		}
		if origURL != "" {
			require.True(t, strings.HasSuffix(origURL, target), "%q is judged", target)
		}
	})
}
