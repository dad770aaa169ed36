package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// A minted token is one of the gate's until it is revoked.
func TestTokensMintAndRevoke(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	g := d.serve(t)
	conn := g.dial(t)
	g.app(t, "bob") // which makes bob's profile
	c := d.run(t, "tokens", "mint", "--user", "bob", "--ttl", "5m", "--claim", "scope=orders:read", "--claim", `a:b:=["x"]`)
	require.Equal(t, exitOK, c.code, c.stderr)
	require.NotContains(t, c.stderr, "warning")
	raw := strings.TrimSuffix(c.stdout, "\n")
	require.Equal(t, 2, strings.Count(raw, "."), "the token alone")
	require.NotContains(t, raw, "\n")
	require.NotContains(t, c.stderr, raw)
	record := c.audited(t)
	require.Equal(t, "mint", record["action"])
	require.Equal(t, "bob", record["user"])
	require.Equal(t, "a:b,scope", record["claims"])
	require.Regexp(t, `^[\w-]{20}$`, record["token"], "a handle")
	id := seenByService(t, conn, bearerOf(raw))
	require.Equal(t, "bob", id["x-user-id"])
	require.Equal(t, `["member","auditor"]`, id["x-user-roles"])

	c = d.pipe(t, raw+"\n", "tokens", "revoke")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Regexp(t, `^Revoked the access token [\w-]+ of bob\n$`, c.stdout)
	require.Equal(t, map[string]any{"action": "revoke", "user": "bob", "token": record["token"], "command": "tokens revoke"}, c.audited(t))
	until(t, "revoked", func() bool { return seenByService(t, conn, bearerOf(raw)) == nil })

	// By its jti, which is all that somebody may have of it.
	var minted struct {
		AccessToken, JTI string
		ExpiresIn        int
		ExpiresAt        time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(d.ok(t, "tokens", "mint", "-u", "bob", "-a", "mobile", "--json")), &minted))
	require.Equal(t, 900, minted.ExpiresIn)
	require.WithinDuration(t, time.Now().Add(15*time.Minute), minted.ExpiresAt, patience)
	require.NotNil(t, seenByService(t, conn, bearerOf(minted.AccessToken)))
	require.Contains(t, d.ok(t, "tokens", "revoke", "--jti", minted.JTI, "--expires", minted.ExpiresAt.Format(time.RFC3339)), "Revoked any token with the jti "+minted.JTI)
	until(t, "revoked", func() bool { return seenByService(t, conn, bearerOf(minted.AccessToken)) == nil })
	ttl := d.client.TTL(t.Context(), "revoked:"+minted.JTI).Val()
	require.InDelta(t, (15*time.Minute + 30*time.Second).Seconds(), ttl.Seconds(), 30)
	d.ok(t, "tokens", "revoke", "--jti", "another")
	require.Greater(t, d.client.TTL(t.Context(), "revoked:another").Val(), 399*24*time.Hour)

	// A login after everything was revoked is behind that, and so is what is minted.
	d.ok(t, "sessions", "revoke", "bob", "--all", "--yes")
	raw = strings.TrimSpace(d.ok(t, "tokens", "mint", "-u", "bob"))
	require.NotNil(t, seenByService(t, conn, bearerOf(raw)))

	// A refresh token ends with its family.
	access, refresh := g.app(t, "bob")
	c = d.pipe(t, refresh, "tokens", "revoke", "-")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Contains(t, c.stdout, "Revoked the refresh family ")
	until(t, "revoked", func() bool { return seenByService(t, conn, bearerOf(access)) == nil })
	require.NotContains(t, c.stdout+c.stderr, refresh)
}

func TestTokensMintWarns(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	require.Contains(t, d.run(t, "tokens", "mint", "--user", "zoe").stderr, `warning: "zoe" has no profile: the token is of a user without email, roles and organization, if there is one of that id at all`)
	require.Contains(t, d.run(t, "tokens", "mint", "--user", "bob").stderr, `warning: "bob" has no profile, which the first login for tokens makes`)
	d.ok(t, "sessions", "set", "bob", "disabled=true")
	c := d.run(t, "tokens", "mint", "--user", "bob")
	require.Contains(t, c.stderr, `warning: "bob" is locked out (disabled)`)
	require.Equal(t, exitOK, c.code)

	for url, warning := range map[string]string{
		"redis://" + proc.Local(proctest.FreePort(t)): "warning: whether the user is known, and not locked out, is not known: the store at redis://127.0.0.1:",
		"embedded://": "warning: the store is embedded in its server",
	} {
		c = piped(t, "", "tokens", "mint", "--user", "bob", "-c", deskFile(t, deskConfig(url, "", "")))
		require.Equal(t, exitOK, c.code, c.stderr)
		require.Contains(t, c.stderr, warning)
		require.Equal(t, 2, strings.Count(c.stdout, "."))
	}
	c = piped(t, "", "tokens", "mint", "--user", "bob", "-c", write(t, "gatehouse.yaml", "{}"))
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "there are no tokens.signing_keys")
}

func TestTokensMintRefuses(t *testing.T) {
	t.Parallel()
	file := deskFile(t, deskConfig("embedded://", "", ""))
	for want, args := range map[string][]string{
		"--user is missing":                           {},
		"is no id of a user":                          {"--user", "service:billing"},
		"--ttl 16m0s is more than tokens.access_ttl":  {"--user", "bob", "--ttl", "16m"},
		"--ttl 1ms: want a second at least":           {"--user", "bob", "--ttl", "1ms"},
		"--ttl -1s: want a second":                    {"--user", "bob", "--ttl", "-1s"},
		`--audience "web" is none of tokens.audience`: {"--user", "bob", "--audience", "api", "--audience", "web"},
		`claim "sub" is not free`:                     {"--user", "bob", "--claim", "sub=alice"},
		`--claim "scope": write NAME=TEXT`:            {"--user", "bob", "--claim", "scope"},
		"is not JSON":                                 {"--user", "bob", "--claim", "level:=three"},
		"--claim a is there twice":                    {"--user", "bob", "--claim", "a=1", "--claim", "a:=1"},
	} {
		c := piped(t, "", append([]string{"tokens", "mint", "-c", file}, args...)...)
		require.Equal(t, exitUsage, c.code, "%v: %s", args, c.stderr)
		require.Contains(t, c.stderr, want)
		require.Empty(t, c.stdout)
	}
}

func TestTokensInspect(t *testing.T) {
	t.Parallel()
	published := deskIssuer(t, "other.pem", time.Now()).PublicJWKS()
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(published) }))
	t.Cleanup(idp.Close)
	d := newDesk(t, "", `issuers: [{issuer: "`+idp.URL+`", jwks_url: "`+idp.URL+`/jwks", audiences: [api], algorithms: [ES256]}]`)
	g := d.serve(t)
	mint := func(i *token.Issuer, c token.Claims) string {
		raw, _, err := i.Mint(c)
		require.NoError(t, err)
		return raw
	}
	now := time.Now()
	own := deskIssuer(t, "current.pem", now)
	access, refresh := g.app(t, "bob")
	revokedAccess, revokedRefresh := g.app(t, "alice")
	require.Equal(t, exitOK, d.pipe(t, revokedRefresh, "tokens", "revoke").code)
	_, usedRefresh := g.app(t, "alice")
	status, _, _ := g.call(t, "POST", "/auth/refresh", `{"refreshToken":"`+usedRefresh+`"}`, nil)
	require.Equal(t, 200, status)
	byJTI := mint(own, token.Claims{Subject: "bob", TokenID: "jti-1"})
	d.ok(t, "tokens", "revoke", "--jti", "jti-1")
	old := mint(deskIssuer(t, "current.pem", now.Add(-10*time.Minute)), token.Claims{Subject: "carol"})
	d.ok(t, "sessions", "revoke", "carol", "--all", "--yes")
	d.ok(t, "sessions", "set", "dave", "disabled=true")
	idpKey := deskIssuer(t, "other.pem", now)
	outside, err := token.NewIssuer(token.MintOptions{Issuer: idp.URL, Audiences: []string{"api"}, Keys: []*token.SigningKey{deskSigningKey(t, "other.pem")}})
	require.NoError(t, err)
	nobody, err := token.NewIssuer(token.MintOptions{Issuer: "https://nobody.example.com", Audiences: []string{"api"}, Keys: []*token.SigningKey{deskSigningKey(t, "other.pem")}})
	require.NoError(t, err)
	fromIDP := mint(outside, token.Claims{Subject: "erin"})

	for name, test := range map[string]struct {
		raw     string
		args    []string
		valid   bool
		reason  string
		problem string
		kind    string
		issuer  string
		signed  string
	}{
		"good":                     {access, nil, true, "", "", "access", "tokens", "valid"},
		"good, offline":            {access, []string{"--offline"}, true, "", "", "access", "tokens", "valid"},
		"from a header":            {"Authorization: Bearer " + access, nil, true, "", "", "access", "tokens", "valid"},
		"expired":                  {mint(deskIssuer(t, "current.pem", now.Add(-time.Hour)), token.Claims{Subject: "bob"}), nil, false, "token_expired", "expired at", "access", "tokens", "valid"},
		"of another key":           {mint(idpKey, token.Claims{Subject: "bob"}), nil, false, "token_invalid", "the issuer has no key for kid", "access", "tokens", "invalid"},
		"changed":                  {access[:strings.LastIndexByte(access, '.')] + fromIDP[strings.LastIndexByte(fromIDP, '.'):], nil, false, "token_invalid", "the signature does not verify", "access", "tokens", "invalid"},
		"of nobody":                {mint(nobody, token.Claims{Subject: "bob"}), nil, false, "token_invalid", "is not known", "access", "", "unchecked"},
		"of an identity provider":  {fromIDP, nil, true, "", "", "access", "issuers[0]", "valid"},
		"of one, offline":          {fromIDP, []string{"--offline"}, false, "issuer_unavailable", "leave out --offline", "access", "issuers[0]", "unchecked"},
		"revoked by jti":           {byJTI, nil, false, "token_revoked", "it was revoked by its jti", "access", "tokens", "valid"},
		"revoked with its family":  {revokedAccess, nil, false, "token_revoked", "its refresh family was revoked", "access", "tokens", "valid"},
		"revoked with its user":    {old, nil, false, "token_revoked", "issued no later than that", "access", "tokens", "valid"},
		"of who is locked out":     {mint(own, token.Claims{Subject: "dave"}), nil, false, "user_disabled", "locked out", "access", "tokens", "valid"},
		"no token":                 {"hello", nil, false, "token_invalid", "it is no JWT", "unknown", "", "unchecked"},
		"refresh":                  {refresh, nil, true, "", "", "refresh", "tokens", "valid"},
		"refresh, revoked":         {revokedRefresh, nil, false, "refresh_invalid", "no such refresh family", "refresh", "tokens", "valid"},
		"refresh, used":            {usedRefresh, nil, false, "refresh_reused", "it was used before", "refresh", "tokens", "valid"},
		"refresh, whether offline": {refresh, []string{"--offline"}, false, "store_unavailable", "leave out --offline", "refresh", "tokens", "valid"},
		"refresh, forged":          {refresh[:len(refresh)-4] + "AAAA", nil, false, "token_invalid", "no refresh token that was made with the keys", "unknown", "", "unchecked"},
	} {
		t.Run(name, func(t *testing.T) {
			c := d.pipe(t, test.raw+"\n", append([]string{"tokens", "inspect", "--json"}, test.args...)...)
			require.Equal(t, test.valid, c.code == exitOK, c.stdout+c.stderr)
			require.Empty(t, c.stderr)
			var found map[string]any
			require.NoError(t, json.Unmarshal([]byte(c.stdout), &found))
			text := func(name string) string { s, _ := found[name].(string); return s }
			require.Equal(t, test.valid, found["valid"])
			require.Equal(t, []string{test.reason, test.kind, test.issuer, test.signed}, []string{text("reason"), text("kind"), text("issuer"), text("signature")}, c.stdout)
			require.Contains(t, text("problem"), test.problem)

			human := d.pipe(t, test.raw, append([]string{"tokens", "inspect"}, test.args...)...)
			require.Equal(t, c.code, human.code)
			verdict := "verdict +not good: .*"
			if test.valid {
				verdict = "verdict +(good|authentic and in time; whether it was revoked was not asked)"
			}
			require.Regexp(t, "^"+verdict, human.stdout)
			require.Contains(t, human.stdout, test.problem)
			for part := range strings.SplitSeq(test.raw, ".") {
				if len(part) > 20 {
					require.NotContains(t, c.stdout+human.stdout, part, "a part of the token")
				}
			}
		})
	}

	text := d.pipe(t, access, "tokens", "inspect").stdout
	require.Regexp(t, `issued +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \(\d+s ago\)\n`, text)
	require.Regexp(t, `expires +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \(in 14m\)\n`, text)
	require.Regexp(t, `against it +nothing\n`, text)
	require.Regexp(t, `profile +bob@example.com  roles member,auditor  organization org-2\n`, text)
	require.Contains(t, d.pipe(t, "{}.{}.x", "tokens", "inspect").stdout, "no JWT")
	require.Contains(t, d.pipe(t, mint(nobody, token.Claims{Subject: "bob"}), "tokens", "inspect").stdout, "claims (nobody vouches for them)\n")

	// What can't be known is not good.
	require.NoError(t, d.redis.Stop())
	c := d.pipe(t, access, "tokens", "inspect")
	require.Equal(t, exitFailed, c.code)
	require.Regexp(t, `^verdict +not good: not known: the store at redis://127\.0\.0\.1:\d+: .*connection refused`, c.stdout)
	require.Equal(t, exitOK, d.pipe(t, access, "tokens", "inspect", "--offline").code)
}

// A token that is good past its time is not shown as if nothing were odd.
func TestTokensInspectTellsOfTheLeeway(t *testing.T) {
	t.Parallel()
	files, err := deskFiles()
	require.NoError(t, err)
	d := newDesk(t, "", `issuers: [{issuer: "`+gatewayURL+`/idp", public_key_file: idp.pem, algorithms: [ES256], audiences: [api], leeway: 5m}]`)
	writeBeside(t, d.file, "idp.pem", publicPEM(t, files["other.pem"]))
	issuer, err := token.NewIssuer(token.MintOptions{
		Issuer: gatewayURL + "/idp", Audiences: []string{"api"}, Keys: []*token.SigningKey{deskSigningKey(t, "other.pem")},
		TTL: time.Minute, Now: func() time.Time { return time.Now().Add(-time.Minute - 5*time.Second) },
	})
	require.NoError(t, err)
	late, _, err := issuer.Mint(token.Claims{Subject: "bob"})
	require.NoError(t, err)
	c := d.pipe(t, late, "tokens", "inspect")
	require.Equal(t, exitOK, c.code, c.stdout)
	require.Regexp(t, `expires +20\S+Z \(\S+ ago\), which doesn't count yet: clocks differ\n`, c.stdout)
}

func deskSigningKey(t *testing.T, file string) *token.SigningKey {
	t.Helper()
	files, err := deskFiles()
	require.NoError(t, err)
	key, err := token.ParseSigningKey([]byte(files[file]), "")
	require.NoError(t, err)
	return key
}

// Whoever wants to revoke is told when nothing was.
func TestTokensRevokeSaysWhenThereIsNothingToRevoke(t *testing.T) {
	t.Parallel()
	files, err := deskFiles()
	require.NoError(t, err)
	d := newDesk(t, "", `issuers: [{issuer: "https://idp.example.com", public_key_file: idp.pem, algorithms: [ES256]}]`)
	public := publicPEM(t, files["other.pem"])
	writeBeside(t, d.file, "idp.pem", public)
	expired, _, err := deskIssuer(t, "current.pem", time.Now().Add(-time.Hour)).Mint(token.Claims{Subject: "bob"})
	require.NoError(t, err)
	foreign, _, err := deskIssuer(t, "other.pem", time.Now()).Mint(token.Claims{Subject: "bob"})
	require.NoError(t, err)
	for name, test := range map[string]struct {
		stdin, want string
		code        int
		args        []string
	}{
		"expired":             {expired, "nothing to revoke: the token expired at", exitFailed, nil},
		"of another key":      {foreign, "nothing was revoked: the issuer has no key for kid", exitFailed, nil},
		"no token":            {"hello", "nothing was revoked: not a JWS", exitFailed, nil},
		"without jti":         {withoutJTI(t, files["other.pem"]), "'gatehouse sessions revoke bob --all'", exitFailed, nil},
		"nothing":             {" \n", "no token: pipe one into standard input", exitUsage, nil},
		"too much":            {strings.Repeat("x", 65<<10), "more than 64 KiB", exitUsage, nil},
		"a token as jti":      {"", "that is a whole token", exitUsage, []string{"--jti", expired}},
		"an empty jti":        {"", "--jti is empty", exitUsage, []string{"--jti", ""}},
		"jti and token":       {"", "name one of them", exitUsage, []string{"--jti", "x", "-"}},
		"expires alone":       {"", "--expires belongs to --jti", exitUsage, []string{"--expires", "2030-01-01"}},
		"expires in the past": {"", "nothing to revoke", exitUsage, []string{"--jti", "x", "--expires", "1000000000"}},
		"expires some day":    {"", `"tomorrow" is no time`, exitUsage, []string{"--jti", "x", "--expires", "tomorrow"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := d.pipe(t, test.stdin, append([]string{"tokens", "revoke"}, test.args...)...)
			require.Equal(t, test.code, c.code, c.stderr)
			require.Contains(t, c.stderr, test.want)
			require.Equal(t, 1, strings.Count(c.stderr, "\n"))
			require.Empty(t, c.stdout)
			for part := range strings.SplitSeq(test.stdin, ".") {
				if len(part) > 20 {
					require.NotContains(t, c.stderr, part)
				}
			}
		})
	}
	require.Zero(t, d.client.DBSize(t.Context()).Val())
}

func privateKey(t *testing.T, text string) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return key.(*ecdsa.PrivateKey)
}

func publicPEM(t *testing.T, text string) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(privateKey(t, text).Public())
	require.NoError(t, err)
	return pemText("PUBLIC KEY", der)
}

func writeBeside(t *testing.T, file, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(text), 0o600))
}

// withoutJTI is a token of an outside issuer, which need not have a jti.
func withoutJTI(t *testing.T, key string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: privateKey(t, key)}, nil)
	require.NoError(t, err)
	signed, err := signer.Sign(fmt.Appendf(nil, `{"iss":"https://idp.example.com","sub":"bob","exp":%d}`, time.Now().Add(time.Hour).Unix()))
	require.NoError(t, err)
	raw, err := signed.CompactSerialize()
	require.NoError(t, err)
	return raw
}
