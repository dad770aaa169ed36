package oidc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/internal/oidctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// keycloak is a running Keycloak with a realm of ours.
type keycloak struct {
	*http.Client
	url   string
	token string // of the administrator
}

// startKeycloak runs it from scratch, in memory. Its name is no loopback
// address: for one of those it would mark its cookies Secure, and over plain
// HTTP only browsers send them back then.
func startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	path := os.Getenv("GATEHOUSE_KEYCLOAK")
	if path == "" {
		t.Skip("Keycloak takes a minute or two: set GATEHOUSE_KEYCLOAK to the path of its kc.sh (needs Java 17)")
	}
	port := strconv.Itoa(proctest.FreePort(t))
	p := proctest.Start(t, path, []string{
		"start-dev", "--db=dev-mem", "--http-host=127.0.0.1", "--http-port=" + port, "--cache=local",
	}, proc.Options{Env: []string{
		"PATH=" + os.Getenv("PATH"), "JAVA_HOME=" + os.Getenv("JAVA_HOME"), "HOME=" + t.TempDir(),
		"KC_BOOTSTRAP_ADMIN_USERNAME=root", "KC_BOOTSTRAP_ADMIN_PASSWORD=root",
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err := p.AwaitLine(ctx, func(line string) bool { return strings.Contains(line, "Listening on:") })
	require.NoError(t, err)

	k := &keycloak{url: "http://keycloak.test:" + port, Client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}}}
	t.Cleanup(k.CloseIdleConnections)
	answer := k.send(t, "POST", "/realms/master/protocol/openid-connect/token", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"root"}, "password": {"root"},
	})
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(answer, &tokens))
	k.token = tokens.AccessToken
	return k
}

// send makes a request: a form of values, JSON of anything else.
func (k *keycloak) send(t *testing.T, method, path string, body any) []byte {
	t.Helper()
	contentType, data := "application/json", mustJSON(body)
	if form, ok := body.(url.Values); ok {
		contentType, data = "application/x-www-form-urlencoded", []byte(form.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, k.url+path, bytes.NewReader(data))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	if k.token != "" {
		req.Header.Set("Authorization", "Bearer "+k.token)
	}
	resp, err := k.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Less(t, resp.StatusCode, 300, "%s %s: %s", method, path, answer)
	return answer
}

func TestKeycloak(t *testing.T) {
	k := startKeycloak(t)
	logouts := make(chan string, 10)
	ours := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		logouts <- r.FormValue("logout_token")
	}))
	defer ours.Close()
	k.send(t, "POST", "/admin/realms", object{
		"realm": "shop", "enabled": true, "sslRequired": "none",
		"roles": object{"realm": []object{{"name": "admin"}}},
		"users": []object{{
			"username": "alice", "enabled": true, "email": "alice@example.com", "emailVerified": true, "firstName": "Alice", "lastName": "Ask",
			"credentials": []object{{"type": "password", "value": "correct horse"}}, "realmRoles": []string{"admin"},
		}},
		"clients": []object{{
			"clientId": clientID, "secret": clientSecret, "redirectUris": []string{redirectURL}, "frontchannelLogout": false,
			"attributes": object{
				"pkce.code.challenge.method": "S256", "backchannel.logout.url": ours.URL, "backchannel.logout.session.required": "true",
			},
			"protocolMappers": []object{{
				"name": "roles", "protocol": "openid-connect", "protocolMapper": "oidc-usermodel-realm-role-mapper",
				"config": object{"claim.name": "realm_access.roles", "multivalued": "true", "id.token.claim": "true", "jsonType.label": "String"},
			}},
		}},
	})

	p, err := oidc.New(oidc.Options{
		Name: "keycloak", Issuer: k.url + "/realms/shop", ClientID: clientID, ClientSecret: clientSecret, RedirectURL: redirectURL,
		Claims: oidc.Claims{Email: "email", Roles: "realm_access.roles"}, UserIDPrefix: "kc:",
		SealingKeys: [][]byte{[]byte(sealingKey)}, HTTPClient: k.Client, Timeout: time.Minute,
	})
	require.NoError(t, err)
	b := oidctest.NewBrowser(t, "gateway.example.com")
	b.Transport = k.Transport
	l := begin(t, p, "/orders")
	back, page := b.Visit(t, l.location.String(), url.Values{"username": {"alice"}, "password": {"correct horse"}})
	require.Equal(t, "gateway.example.com", back.Host, "%s", page)
	got, returnTo, err := p.Finish(t.Context(), back.Query(), l.sealed)
	require.NoError(t, err)
	require.Equal(t, "/orders", returnTo)
	require.Equal(t, "kc:"+got.Provider.Subject, got.ID)
	require.Equal(t, "alice@example.com", got.Email)
	require.Contains(t, got.Roles, "admin")
	require.NotEmpty(t, got.Provider.SessionID)
	require.WithinRange(t, got.AuthTime, time.Now().Add(-time.Minute), time.Now())

	k.send(t, "POST", "/admin/realms/shop/users/"+got.Provider.Subject+"/logout", object{})
	var raw string
	select {
	case raw = <-logouts:
	case <-time.After(time.Minute):
		t.Fatal("no logout token came")
	}
	ended, jti, _, err := p.LogoutToken(t.Context(), raw)
	require.NoError(t, err)
	require.NotEmpty(t, jti)
	require.Equal(t, got.Provider, ended)

	_, _, err = p.Finish(t.Context(), back.Query(), l.sealed)
	require.Equal(t, authz.ReasonLoginRefused, authz.ReasonOf(err), "a code counts once")
}
