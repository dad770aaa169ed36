package usercontext_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

var updateAssertions = flag.Bool("update-assertions", false, "write testdata/assertions.json anew")

const assertionsFile = "testdata/assertions.json"

// assertionContract is testdata/assertions.json, which the packages of other languages
// read, too.
type assertionContract struct {
	About    []string        `json:"about"`
	Now      int64           `json:"now"`
	Issuer   string          `json:"issuer"`
	Audience string          `json:"audience"`
	JWKS     json.RawMessage `json:"jwks"`
	Cases    []assertionCase `json:"cases"`
	// What a service makes of the first case by other keys.
	KeySets []keySetCase `json:"keySets"`
}

type keySetCase struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Want string `json:"want"`
}

type assertionCase struct {
	Name      string            `json:"name"`
	Headers   [][2]string       `json:"headers"`
	Want      string            `json:"want"`
	User      *usercontext.User `json:"user,omitempty"`
	SessionID string            `json:"sessionId,omitempty"`
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// gate is who signs, in tests.
type gate struct {
	key *ecdsa.PrivateKey
	kid string
}

func newGate(tb testing.TB, kid string) gate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return gate{key, kid}
}

func (g gate) signText(tb testing.TB, header, payload string) string {
	tb.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, g.key, digest[:])
	require.NoError(tb, err)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + b64(signature)
}

func (g gate) header() string {
	return fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"gatehouse-identity+jwt"}`, g.kid)
}

func (g gate) jwks(tb testing.TB) string {
	tb.Helper()
	public, err := g.key.PublicKey.Bytes()
	require.NoError(tb, err)
	return fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"rsa","alg":"RS256","use":"sig","n":"AQAB","e":"AQAB"},{"use":"sig","kty":"EC","kid":%q,"crv":"P-256","alg":"ES256","x":%q,"y":%q}]}`, g.kid, b64(public[1:33]), b64(public[33:]))
}

const (
	gateIssuer = "https://gateway.example.com"
	signedAt   = 1_800_000_000
)

// claims are those of alice, with changes; a value of "" takes one out.
func signedClaims(changes map[string]string) string {
	all := [][2]string{
		{"iss", `"` + gateIssuer + `"`},
		{"aud", `"orders"`},
		{"sub", `"alice"`},
		{"email", `"alice@example.com"`},
		{"roles", `["admin","member"]`},
		{"org", `"org-1"`},
		{"sid", `"handle-of-the-session"`},
		{"iat", fmt.Sprint(signedAt)},
		{"exp", fmt.Sprint(signedAt + 60)},
	}
	var members []string
	for _, m := range all {
		value, changed := changes[m[0]]
		if !changed {
			value = m[1]
		}
		if value != "" {
			members = append(members, fmt.Sprintf("%q:%s", m[0], value))
		}
	}
	if more := changes["more"]; more != "" {
		members = append(members, more)
	}
	return "{" + strings.Join(members, ",") + "}"
}

func newAssertionContract(t *testing.T) *assertionContract {
	t.Helper()
	g, stranger := newGate(t, "key-1"), newGate(t, "key-1")
	plain := [][2]string{{"x-user-id", "alice"}, {"x-user-email", "alice@example.com"}, {"x-user-roles", `["admin","member"]`}, {"x-org-id", "org-1"}}
	alice := &usercontext.User{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, OrganizationID: "org-1"}
	c := &assertionContract{
		About: []string{
			"What a service makes of x-identity-assertion: read by the tests of services/usercontext (Go), sdk/typescript and sdk/python.",
			"now is the clock in Unix seconds, the leeway 10 seconds. want: user, anonymous, malformed or unverified.",
			"keySets are what a service makes of the first case where the gate's address answers with the text: user, unverified, or unavailable.",
			"Written by: go test ./services/usercontext -run TestAssertionContract -update-assertions. The private key is nowhere.",
		},
		Now: signedAt + 20, Issuer: gateIssuer, Audience: "orders", JWKS: json.RawMessage(g.jwks(t)),
	}
	add := func(name, assertion, want string, headers ...[2]string) *assertionCase {
		if headers == nil {
			headers = plain
		}
		one := assertionCase{Name: name, Headers: append(append([][2]string{}, headers...), [2]string{"x-identity-assertion", assertion}), Want: want}
		if want == "user" {
			one.User, one.SessionID = alice, "handle-of-the-session"
		}
		c.Cases = append(c.Cases, one)
		return &c.Cases[len(c.Cases)-1]
	}
	claimed := func(changes map[string]string) string { return g.signText(t, g.header(), signedClaims(changes)) }
	good := claimed(nil)
	add("valid", good, "user")
	add("header name in capitals", good, "user").Headers[4][0] = "X-Identity-Assertion"
	add("nobody's session", claimed(map[string]string{"sid": ""}), "user").SessionID = ""
	least := add("id alone", claimed(map[string]string{"email": "", "org": "", "roles": "[]", "sub": `"service:billing"`, "sid": ""}), "user", [2]string{"x-user-id", "service:billing"}, [2]string{"x-user-roles", "[]"})
	least.User, least.SessionID = &usercontext.User{ID: "service:billing", Roles: []string{}}, ""
	beyond := add("beyond ASCII", claimed(map[string]string{"sub": `"j\u00f6rg 100%"`, "roles": `["\ud83d\ude00","ü"]`, "email": "", "org": ""}), "user", [2]string{"x-user-id", "j%C3%B6rg%20100%25"}, [2]string{"x-user-roles", `["\ud83d\ude00","\u00fc"]`})
	beyond.User = &usercontext.User{ID: "jörg 100%", Roles: []string{"😀", "ü"}}
	add("a claim that is new", claimed(map[string]string{"more": `"amr":["pwd"]`}), "user")
	add("names are exact", claimed(map[string]string{"more": `"SUB":"bob","\u017fub":"bob","authTime":1`}), "user")
	add("members of a claim that is new are nobody's", claimed(map[string]string{"more": `"x":{"a":null,"a":[{"b":1.5,"b":2}]},"__proto__":{"sub":"bob"}`}), "user")
	add("expired within the leeway", claimed(map[string]string{"iat": fmt.Sprint(signedAt - 40), "exp": fmt.Sprint(signedAt + 11)}), "user")
	add("signed ahead within the leeway", claimed(map[string]string{"iat": fmt.Sprint(signedAt + 30), "exp": fmt.Sprint(signedAt + 90)}), "user")

	for name, changes := range map[string]map[string]string{
		"expired":                {"iat": fmt.Sprint(signedAt - 60), "exp": fmt.Sprint(signedAt + 10)},
		"signed in the future":   {"iat": fmt.Sprint(signedAt + 31), "exp": fmt.Sprint(signedAt + 91)},
		"a life too long":        {"exp": fmt.Sprint(signedAt + 301)},
		"no exp":                 {"exp": ""},
		"no iat":                 {"iat": ""},
		"exp before iat":         {"iat": fmt.Sprint(signedAt + 15), "exp": fmt.Sprint(signedAt + 15)},
		"exp as text":            {"exp": fmt.Sprintf(`"%d"`, signedAt+60)},
		"exp is no whole number": {"exp": fmt.Sprintf("%d.5", signedAt+60)},
		"exp with a point":       {"exp": fmt.Sprintf("%d.0", signedAt+60)},
		"exp as a power":         {"exp": "1.80000006e9"},
		"exp beyond all numbers": {"exp": "1e999"},
		"exp with a zero ahead":  {"exp": fmt.Sprintf("0%d", signedAt+60)},
		"aud of another service": {"aud": `"billing"`},
		"aud is a list":          {"aud": `["orders"]`},
		"no aud":                 {"aud": ""},
		"iss of another gate":    {"iss": `"https://gateway.example.net"`},
		"no iss":                 {"iss": ""},
		"no sub":                 {"sub": ""},
		"sub is empty":           {"sub": `""`},
		"no roles":               {"roles": ""},
		"roles are null":         {"roles": "null"},
		"roles are text":         {"roles": `"admin"`},
		"a role that is null":    {"roles": `["admin",null]`},
		"sub twice":              {"more": `"sub":"alice"`},
		"sub twice, one escaped": {"more": `"s\u0075b":"alice"`},
		"sub in capitals":        {"sub": "", "more": `"SUB":"alice"`},
		"sub with a long s":      {"sub": "", "more": `"\u017fub":"alice"`},
		"sub is null":            {"sub": "null"},
		"another user":           {"sub": `"bob"`},
		"other roles":            {"roles": `["admin"]`},
		"roles in another order": {"roles": `["member","admin"]`},
		"another organization":   {"org": `"org-2"`},
		"no organization":        {"org": ""},
		"another address":        {"email": `"bob@example.com"`},
		"half of a pair":         {"sub": `"alice\ud800"`},
	} {
		add(name, claimed(changes), "unverified")
	}
	for name, header := range map[string]string{
		"typ of an access token": `{"alg":"ES256","kid":"key-1","typ":"at+jwt"}`,
		"typ JWT":                `{"alg":"ES256","kid":"key-1","typ":"JWT"}`,
		"no typ":                 `{"alg":"ES256","kid":"key-1"}`,
		"alg of another curve":   `{"alg":"ES384","kid":"key-1","typ":"gatehouse-identity+jwt"}`,
		"no kid":                 `{"alg":"ES256","typ":"gatehouse-identity+jwt"}`,
		"another kid":            `{"alg":"ES256","kid":"key-2","typ":"gatehouse-identity+jwt"}`,
		"kid of an RSA key":      `{"alg":"ES256","kid":"rsa","typ":"gatehouse-identity+jwt"}`,
		"crit":                   `{"alg":"ES256","kid":"key-1","typ":"gatehouse-identity+jwt","crit":["b64"]}`,
		"jku":                    `{"alg":"ES256","kid":"key-1","typ":"gatehouse-identity+jwt","jku":"https://evil.example/jwks"}`,
		"jwk":                    fmt.Sprintf(`{"alg":"ES256","kid":"key-1","typ":"gatehouse-identity+jwt","jwk":%s}`, g.jwks(t)),
		"x5c":                    `{"alg":"ES256","kid":"key-1","typ":"gatehouse-identity+jwt","x5c":["AAAA"]}`,
		"kid is a list":          `{"alg":"ES256","kid":["key-1"],"typ":"gatehouse-identity+jwt"}`,
		"kid is a path":          `{"alg":"ES256","kid":"../key-1","typ":"gatehouse-identity+jwt"}`,
		"kid of every object":    `{"alg":"ES256","kid":"__proto__","typ":"gatehouse-identity+jwt"}`,
		"alg in small letters":   `{"alg":"es256","kid":"key-1","typ":"gatehouse-identity+jwt"}`,
		"header nested deeply":   `{"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		"alg twice":              `{"alg":"none","alg":"ES256","kid":"key-1","typ":"gatehouse-identity+jwt"}`,
	} {
		add(name, g.signText(t, header, signedClaims(nil)), "unverified")
	}
	none := b64([]byte(`{"alg":"none","kid":"key-1","typ":"gatehouse-identity+jwt"}`)) + "." + b64([]byte(signedClaims(nil)))
	add("alg none", none+".", "unverified")
	add("alg none, with a signature", none+"."+strings.Split(good, ".")[2], "unverified")
	public, err := g.key.PublicKey.Bytes()
	require.NoError(t, err)
	hs := b64([]byte(`{"alg":"HS256","kid":"key-1","typ":"gatehouse-identity+jwt"}`)) + "." + b64([]byte(signedClaims(nil)))
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(hs))
	add("HS256 with the public key", hs+"."+b64(mac.Sum(nil)), "unverified")
	add("signed by somebody else", stranger.signText(t, g.header(), signedClaims(nil)), "unverified")
	parts := strings.Split(good, ".")
	digest := sha256.Sum256([]byte(strings.Join(parts[:2], ".")))
	der, err := ecdsa.SignASN1(rand.Reader, g.key, digest[:])
	require.NoError(t, err)
	add("tampered claims", parts[0]+"."+b64([]byte(signedClaims(map[string]string{"roles": `["admin","member","root"]`})))+"."+parts[2], "unverified")
	add("claims of another one", parts[0]+"."+strings.Split(claimed(map[string]string{"sub": `"bob"`}), ".")[1]+"."+parts[2], "unverified")
	add("signature of zeros", parts[0]+"."+parts[1]+"."+b64(make([]byte, 64)), "unverified")
	add("signature cut", parts[0]+"."+parts[1]+"."+parts[2][:80], "unverified")
	add("signature padded", good+"==", "unverified")
	add("signature with a newline", good[:len(good)-3]+"\n"+good[len(good)-3:], "unverified")
	add("signature in DER", parts[0]+"."+parts[1]+"."+b64(der), "unverified")
	add("claims beyond ASCII", parts[0]+".\u00e9."+parts[2], "unverified")
	add("two of them, joined by a comma", good+","+good, "unverified")
	add("two parts", parts[0]+"."+parts[1], "unverified")
	add("four parts", good+".x", "unverified")
	add("no JWT", "alice", "unverified")
	add("empty", "", "unverified")
	add("too long", strings.Repeat("x", 16<<10+1), "unverified")
	add("header no JSON", g.signText(t, "x", signedClaims(nil)), "unverified")
	add("header a list", g.signText(t, "[]", signedClaims(nil)), "unverified")
	add("claims no object", g.signText(t, g.header(), "[]"), "unverified")
	add("something behind the claims", g.signText(t, g.header(), signedClaims(nil)+"{}"), "unverified")

	add("twice", good, "malformed", append(append([][2]string{}, plain...), [2]string{"x-identity-assertion", good})...)
	add("spelt with an underscore", good, "malformed").Headers[4][0] = "x-identity_assertion"
	add("plain headers malformed", good, "malformed", [2]string{"x-user-id", "alice"}, [2]string{"x-user-roles", "admin"})
	add("no plain headers", good, "unverified", [2]string{"x-other", "1"})
	c.Cases = append(c.Cases,
		assertionCase{Name: "no assertion: around the gate", Headers: plain, Want: "unverified"},
		assertionCase{Name: "nobody", Headers: [][2]string{{"x-other", "1"}}, Want: "anonymous"},
	)
	c.KeySets = keySets(t, g, stranger)
	return c
}

// keySets are answers of the gate's address, of which one has the key, others all but.
func keySets(t *testing.T, g, stranger gate) (all []keySetCase) {
	t.Helper()
	add := func(want, name, text string) { all = append(all, keySetCase{name, text, want}) }
	public, err := g.key.PublicKey.Bytes()
	require.NoError(t, err)
	x, y := b64(public[1:33]), b64(public[33:])
	// with changes a member; "" takes it out.
	with := func(changes ...string) string {
		members := [][2]string{{"kty", `"EC"`}, {"crv", `"P-256"`}, {"alg", `"ES256"`}, {"use", `"sig"`}, {"kid", `"key-1"`}, {"x", `"` + x + `"`}, {"y", `"` + y + `"`}}
		for i := 0; i < len(changes); i += 2 {
			for m := range members {
				if members[m][0] == changes[i] {
					members[m][1] = changes[i+1]
				}
			}
		}
		var texts []string
		for _, m := range members {
			if m[1] != "" {
				texts = append(texts, fmt.Sprintf("%q:%s", m[0], m[1]))
			}
		}
		return "{" + strings.Join(texts, ",") + "}"
	}
	set := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	add("user", "the key", set(with()))
	add("user", "a key of another kind, whose members are of other types", set(`{"kty":"oct","kid":5,"x":[],"alg":null}`, with()))
	add("user", "another algorithm's key of the kid", set(with("alg", `"ES384"`), with()))
	add("user", "members that are new", `{"more":{},"keys":[`+strings.Replace(with(), "{", `{"x5c":["AAAA"],"X":"AAAA","iat":1,`, 1)+`]}`)
	add("unverified", "no key", set())
	add("unverified", "somebody else's key of the kid", stranger.jwks(t))
	for name, value := range map[string]string{"kty": `"RSA"`, "crv": `"P-384"`, "alg": `"RS256"`, "use": `"enc"`, "kid": `"key-2"`} {
		add("unverified", "another "+name, set(with(name, value)))
		add("unverified", "no "+name, set(with(name, "")))
		add("unverified", name+" is a list", set(with(name, "["+value+"]")))
	}
	add("unavailable", "the kid twice", set(with(), with()))
	add("unavailable", "no x", set(with("x", "")))
	add("unavailable", "y is a number", set(with("y", "5")))
	add("unavailable", "x is cut", set(with("x", `"`+x[:40]+`"`)))
	add("unavailable", "x is padded", set(with("x", `"`+x+`="`)))
	add("unavailable", "x with a newline", set(with("x", `"`+x[:20]+`\n`+x[20:]+`"`)))
	add("unavailable", "not on the curve", set(with("x", `"`+y+`"`, "y", `"`+y+`"`)))
	add("unavailable", "a key that is a number", set("5", with()))
	add("unavailable", "a key that is null", set("null", with()))
	add("unavailable", "65 keys", set(append([]string{with()}, slices.Repeat([]string{`{"kty":"oct"}`}, 64)...)...))
	add("unavailable", "keys are null", `{"keys":null}`)
	add("unavailable", "KEYS", `{"KEYS":[`+with()+`]}`)
	add("unavailable", "the key itself", with())
	add("unavailable", "a list of keys", `[`+with()+`]`)
	add("unavailable", "a page", "<html>")
	add("unavailable", "nothing", "")
	add("unavailable", "null", "null")
	add("unavailable", "something behind it", set(with())+"{}")
	add("unavailable", "a byte order mark ahead", "\ufeff"+set(with()))
	return all
}

func TestAssertionContract(t *testing.T) {
	if *updateAssertions {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		require.NoError(t, e.Encode(newAssertionContract(t)))
		require.NoError(t, os.WriteFile(assertionsFile, []byte(b.String()), 0o644))
	}
	text, err := os.ReadFile(assertionsFile)
	require.NoError(t, err)
	var c assertionContract
	require.NoError(t, json.Unmarshal(text, &c))
	keys := httptest.NewServer(answering(string(c.JWKS)))
	defer keys.Close()
	for _, one := range c.Cases {
		t.Run(one.Name, func(t *testing.T) {
			v, err := usercontext.NewVerifier(usercontext.VerifierOptions{
				Issuer: c.Issuer, Audience: c.Audience, JWKSURL: keys.URL, Now: func() time.Time { return time.Unix(c.Now, 0) },
			})
			require.NoError(t, err)
			r, err := usercontext.NewReader(usercontext.Options{Verifier: v})
			require.NoError(t, err)
			header := http.Header{}
			for _, h := range one.Headers {
				header[h[0]] = append(header[h[0]], h[1])
			}
			a, err := r.Verified(t.Context(), header)
			want := map[string]error{"anonymous": usercontext.ErrAnonymous, "malformed": usercontext.ErrMalformed, "unverified": usercontext.ErrUnverified}[one.Want]
			require.ErrorIs(t, err, want)
			if one.Want == "user" {
				require.Equal(t, *one.User, a.User)
				require.Equal(t, one.SessionID, a.SessionID)
				return
			}
			require.Error(t, want, one.Want)
			require.Equal(t, usercontext.Assertion{User: usercontext.User{Roles: []string{}}}, a)
			require.NotContains(t, err.Error(), "alice")
		})
	}
	for _, one := range c.KeySets {
		t.Run("keys: "+one.Name, func(t *testing.T) {
			gate := httptest.NewServer(answering(one.Text))
			defer gate.Close()
			v, err := usercontext.NewVerifier(usercontext.VerifierOptions{
				Issuer: c.Issuer, Audience: c.Audience, JWKSURL: gate.URL, Now: func() time.Time { return time.Unix(c.Now, 0) },
			})
			require.NoError(t, err)
			headers := c.Cases[0].Headers
			_, err = v.Verify(t.Context(), headers[len(headers)-1][1])
			require.ErrorIs(t, err, map[string]error{"unverified": usercontext.ErrUnverified, "unavailable": usercontext.ErrKeysUnavailable}[one.Want])
			require.Equal(t, one.Want == "user", err == nil)
		})
	}
}

// answering answers with a text.
func answering(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

// published are keys that a test changes, with a count of the fetches.
type published struct {
	jwks    atomic.Pointer[string]
	fetches atomic.Int32
	down    atomic.Bool
}

func (p *published) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.fetches.Add(1)
	if p.down.Load() {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	_, _ = w.Write([]byte(*p.jwks.Load()))
}

func publish(t *testing.T, now *atomic.Int64) (*published, *usercontext.Verifier) {
	t.Helper()
	p := &published{}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	v, err := usercontext.NewVerifier(usercontext.VerifierOptions{
		Issuer: gateIssuer, Audience: "orders", JWKSURL: server.URL, Now: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	require.NoError(t, err)
	return p, v
}

func (g gate) at(tb testing.TB, now int64) string {
	tb.Helper()
	return g.signText(tb, g.header(), signedClaims(map[string]string{"iat": fmt.Sprint(now), "exp": fmt.Sprint(now + 60)}))
}

// Keys change without a restart, unknown ones can't hammer the gate, and its outage is
// no refusal.
func TestVerifierFollowsRotation(t *testing.T) {
	var now atomic.Int64
	now.Store(signedAt)
	p, v := publish(t, &now)
	one, two := newGate(t, "one"), newGate(t, "two")
	p.jwks.Store(new(one.jwks(t)))
	p.down.Store(true)
	_, err := v.Verify(t.Context(), one.at(t, now.Load()))
	require.ErrorIs(t, err, usercontext.ErrKeysUnavailable)
	require.NotErrorIs(t, err, usercontext.ErrUnverified)
	p.down.Store(false)
	_, err = v.Verify(t.Context(), one.at(t, now.Load()))
	require.ErrorIs(t, err, usercontext.ErrKeysUnavailable, "not so soon again")
	require.EqualValues(t, 1, p.fetches.Load())

	now.Add(10)
	_, err = v.Verify(t.Context(), one.at(t, now.Load()))
	require.NoError(t, err)
	require.EqualValues(t, 2, p.fetches.Load())
	for i := range 100 {
		_, err = v.Verify(t.Context(), newGate(t, fmt.Sprint("unknown-", i)).at(t, now.Load()))
		require.ErrorIs(t, err, usercontext.ErrUnverified)
	}
	require.EqualValues(t, 2, p.fetches.Load(), "unknown kids don't hammer")

	p.jwks.Store(new(two.jwks(t)))
	now.Add(10)
	_, err = v.Verify(t.Context(), two.at(t, now.Load()))
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), one.at(t, now.Load()))
	require.ErrorIs(t, err, usercontext.ErrUnverified, "taken back")

	p.down.Store(true)
	now.Add(3600)
	_, err = v.Verify(t.Context(), two.at(t, now.Load()))
	require.NoError(t, err, "the known keys outlive an outage")
	now.Add(24 * 3600)
	require.Eventually(t, func() bool { // the refresh beside the request above may be under way
		_, err = v.Verify(t.Context(), two.at(t, now.Load()))
		return err != nil
	}, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, err, usercontext.ErrKeysUnavailable)
}

// Who waits for keys gives up with the request.
func TestVerifierHeedsTheRequest(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	v, err := usercontext.NewVerifier(usercontext.VerifierOptions{Issuer: gateIssuer, Audience: "orders", JWKSURL: server.URL})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = v.Verify(ctx, newGate(t, "k").at(t, time.Now().Unix()))
	require.ErrorIs(t, err, usercontext.ErrKeysUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Who can answer for the gate's address once must not send services elsewhere for keys,
// whatever client they fetch them with.
func TestVerifierFollowsNoRedirect(t *testing.T) {
	g := newGate(t, "k")
	elsewhere := httptest.NewServer(answering(g.jwks(t)))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer server.Close()
	for _, client := range []*http.Client{nil, {}, server.Client()} {
		v, err := usercontext.NewVerifier(usercontext.VerifierOptions{Issuer: gateIssuer, Audience: "orders", JWKSURL: server.URL, Client: client})
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), g.at(t, time.Now().Unix()))
		require.ErrorIs(t, err, usercontext.ErrKeysUnavailable)
		require.ErrorContains(t, err, "302")
		require.True(t, client == nil || client.CheckRedirect == nil, "the caller's is left alone")
	}
}

// An error of a newcomer's says what to set, and nothing of what was signed.
func TestVerifierSaysWhatToSet(t *testing.T) {
	g := newGate(t, "one")
	for claim, want := range map[string]string{"iss": `"` + gateIssuer + `": make Issuer`, "aud": `"orders": make Audience`} {
		_, err := verifierOf(t, g.jwks(t)).Verify(t.Context(), g.signText(t, g.header(), signedClaims(map[string]string{claim: `"hidden"`})))
		require.ErrorIs(t, err, usercontext.ErrUnverified)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// A clock that was set back must not keep keys that were taken back.
func TestVerifierRefreshesAfterTheClockWasSetBack(t *testing.T) {
	var now atomic.Int64
	now.Store(signedAt + 24*3600)
	p, v := publish(t, &now)
	one := newGate(t, "one")
	p.jwks.Store(new(one.jwks(t)))
	_, err := v.Verify(t.Context(), one.at(t, now.Load()))
	require.NoError(t, err)
	p.jwks.Store(new(newGate(t, "two").jwks(t)))
	now.Store(signedAt)
	require.Eventually(t, func() bool { // the refresh is beside the requests
		_, err = v.Verify(t.Context(), one.at(t, signedAt))
		return err != nil
	}, 10*time.Second, time.Millisecond)
	require.ErrorIs(t, err, usercontext.ErrUnverified)
}

// What the gate signs, this package takes, and the plain headers agree.
func TestGateSignsWhatServicesTake(t *testing.T) {
	pem, err := token.GenerateKey("ES256")
	require.NoError(t, err)
	key, err := token.ParseSigningKey(pem, "")
	require.NoError(t, err)
	signer, err := token.NewAssertions(token.AssertionOptions{Issuer: gateIssuer, Keys: []*token.SigningKey{key}})
	require.NoError(t, err)
	jwks, err := token.JWKS(nil, signer)
	require.NoError(t, err)
	server := httptest.NewServer(answering(string(jwks)))
	defer server.Close()
	v, err := usercontext.NewVerifier(usercontext.VerifierOptions{Issuer: gateIssuer, Audience: "orders", JWKSURL: server.URL})
	require.NoError(t, err)
	r, err := usercontext.NewReader(usercontext.Options{Verifier: v})
	require.NoError(t, err)
	for _, id := range []authz.Identity{
		{ID: "alice", Email: "a@example.com", Roles: []string{"admin", "<&>\u2028", "\xff\xfe"}, Organization: "組織"},
		{ID: "a\xff\xfeb %41", Email: "\xc3", Organization: "o 1"},
		{ID: "service:billing"},
	} {
		p := authz.Principal{Identity: id, Kind: authz.KindSession, SessionID: "secret-id"}
		signed, err := signer.Assert(&p, "orders")
		require.NoError(t, err)
		headers, err := authz.DefaultIdentityHeaders.Encode(id, 0)
		require.NoError(t, err)
		h := http.Header{usercontext.HeaderAssertion: {signed}}
		for _, one := range headers {
			h.Add(one.Name, one.Value)
		}
		var seen usercontext.Assertion
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		req.Header = h
		r.Require(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			seen, _ = usercontext.AssertionFromContext(req.Context())
		})).ServeHTTP(rec, req)
		require.Equal(t, http.StatusOK, rec.Code)
		require.Equal(t, authz.Handle("secret-id"), seen.SessionID)
	}
	require.Equal(t, authz.HeaderAssertion, usercontext.HeaderAssertion)
}

func TestNewVerifierRefuses(t *testing.T) {
	key := &newGate(t, "k").key.PublicKey
	good := usercontext.VerifierOptions{Issuer: "i", Audience: "a", JWKSURL: "https://gateway.example.com/.well-known/jwks.json"}
	for want, change := range map[string]func(*usercontext.VerifierOptions){
		"give Issuer":     func(o *usercontext.VerifierOptions) { o.Issuer = "" },
		"give Audience":   func(o *usercontext.VerifierOptions) { o.Audience = "" },
		"one of JWKSURL":  func(o *usercontext.VerifierOptions) { o.JWKSURL = "" },
		"JWKSURL and":     func(o *usercontext.VerifierOptions) { o.Keys = map[string]*ecdsa.PublicKey{"k": key} },
		"is no URL":       func(o *usercontext.VerifierOptions) { o.JWKSURL = "gateway" },
		"on another host": func(o *usercontext.VerifierOptions) { o.JWKSURL = "http://gateway.example.com/jwks" },
		"leeway":          func(o *usercontext.VerifierOptions) { o.Leeway = time.Hour },
		"by its kid":      func(o *usercontext.VerifierOptions) { o.JWKSURL, o.Keys = "", map[string]*ecdsa.PublicKey{"": key} },
	} {
		o := good
		change(&o)
		_, err := usercontext.NewVerifier(o)
		require.ErrorContains(t, err, want)
	}
	_, err := usercontext.NewVerifier(good)
	require.NoError(t, err)
}
