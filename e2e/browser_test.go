package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/gatehouse-auth/gatehouse/internal/openapitest"
)

// person is a user of the users file.
type person struct {
	id, email, password string
	roles               []string
	organizations       []string
}

// The people of users.yaml.
var (
	alicesLogin = person{"alice", "alice@example.com", journal.secret("a password", "alice's "+rand.Text()), []string{"admin", "member"}, []string{"org-1", "org-2"}}
	bobsLogin   = person{"bob", "bob@example.com", journal.secret("a password", "bob's "+rand.Text()), []string{"member"}, []string{"org-1", "org-2"}}
	carolsLogin = person{"carol", "carol@example.com", journal.secret("a password", "carol's "+rand.Text()), nil, nil}
)

// usersYAML is a users file, its hashes made after RFC 9106 and the PHC string
// format, not by Gatehouse.
var usersYAML = sync.OnceValue(func() []byte {
	var b strings.Builder
	b.WriteString("users:\n")
	for _, p := range []person{alicesLogin, bobsLogin, carolsLogin} {
		salt := []byte(rand.Text())[:16]
		const memory, passes, threads = 19456, 2, 1
		hash := argon2.IDKey([]byte(p.password), salt, passes, memory, threads, 32)
		fmt.Fprintf(&b, "- id: %s\n  email: %s\n  password_hash: $argon2id$v=19$m=%d,t=%d,p=%d$%s$%s\n", p.id, p.email, memory, passes, threads,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(hash))
		if p.roles != nil {
			fmt.Fprintf(&b, "  roles: [%s]\n", strings.Join(p.roles, ", "))
		}
		if p.organizations != nil {
			fmt.Fprintf(&b, "  organizations: [%s]\n", strings.Join(p.organizations, ", "))
		}
	}
	return []byte(b.String())
})

// credentials is the body of a login.
func (p person) credentials() object { return object{"email": p.email, "password": p.password} }

// user is what the API answers about a person who has just logged in.
func (p person) user() object {
	answer := object{"userId": p.id, "email": p.email, "roles": []any{}, "organizationId": ""}
	for _, role := range p.roles {
		answer["roles"] = append(answer["roles"].([]any), role)
	}
	if len(p.organizations) > 0 {
		answer["organizationId"] = p.organizations[0]
	}
	return answer
}

// identity is what services learn about a person who has just logged in.
func (p person) identity() identity {
	i := identity{p.id, p.email, "[]", ""}
	if p.roles != nil {
		i.roles = `["` + strings.Join(p.roles, `","`) + `"]`
	}
	if len(p.organizations) > 0 {
		i.org = p.organizations[0]
	}
	return i
}

// browser keeps the cookies that it is given, as far as the tests need: it
// knows names, paths and the end of a cookie.
type browser struct {
	*gateway
	agent   string
	headers []string // sent with each request
	cookies map[string]keptCookie
}

type keptCookie struct{ value, path string }

// browse opens a new browser at a gateway.
func (g *gateway) browse() *browser {
	return &browser{gateway: g, agent: "Mozilla/5.0 (e2e)", cookies: map[string]keptCookie{}}
}

// copy is a browser with the cookies of this moment: a thief's, say.
func (b *browser) copy() *browser {
	c := *b
	c.cookies = maps.Clone(b.cookies)
	return &c
}

// request makes a request with what the browser keeps. body nil means none.
func (b *browser) request(t *testing.T, method, target string, body any, headers ...string) reply {
	t.Helper()
	lines := []string{method + " " + target + " HTTP/1.1", "User-Agent: " + b.agent}
	path, _, _ := strings.Cut(target, "?")
	var pairs []string
	for name, kept := range b.cookies {
		if kept.path == "/" || path == kept.path || strings.HasPrefix(path, strings.TrimSuffix(kept.path, "/")+"/") {
			pairs = append(pairs, name+"="+kept.value)
		}
	}
	if len(pairs) > 0 {
		slices.Sort(pairs)
		lines = append(lines, "Cookie: "+strings.Join(pairs, "; "))
	}
	lines = append(lines, b.headers...)
	lines = append(lines, headers...)
	text := ""
	switch body := body.(type) {
	case nil:
	case string: // a form, or what is no JSON
		text = body
	default:
		text = mustJSON(t, body)
		lines = append(lines, "Content-Type: application/json")
	}
	if body != nil || method != "GET" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(text)))
	}
	r := b.send(t, strings.Join(lines, "\n")+"\n\n"+text)
	b.keep(r)
	if r.arrived == nil && (strings.HasPrefix(path, "/auth/") || strings.HasPrefix(path, "/.well-known/")) {
		requireDescribed(t, method, target, lines[1:], text, r)
	}
	return r
}

// openAPI is the description of the auth API, as Gatehouse ships it.
var openAPI = sync.OnceValues(func() (*openapitest.Spec, error) {
	text, err := os.ReadFile("../authz/authapi/openapi.yaml")
	if err != nil {
		return nil, err
	}
	return openapitest.Load(text)
})

// requireDescribed holds the description of the auth API true: each exchange
// that any test has with it is one that the description knows.
func requireDescribed(t *testing.T, method, target string, lines []string, body string, r reply) {
	t.Helper()
	spec, err := openAPI()
	require.NoError(t, err)
	header := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	if r.header.Get("server") == "gateway" && r.header.Get("cache-control") == "" {
		return // Envoy's own refusal of a path, say
	}
	answer := r.header.Clone()
	require.NoError(t, spec.Check(openapitest.Exchange{
		Method: method, Target: target, Header: header, RequestBody: []byte(body),
		Status: r.status, AnswerHeader: answer, Body: []byte(r.body),
	}))
}

func (b *browser) keep(r reply) {
	for _, line := range r.header.Values("set-cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			panic(err) // net/http understands what Gatehouse writes
		}
		secretCookie(c.Name, c.Value)
		if c.MaxAge < 0 || c.Value == "" {
			delete(b.cookies, c.Name)
			continue
		}
		b.cookies[c.Name] = keptCookie{c.Value, c.Path}
	}
}

// secretCookie has the journal watch for a cookie's value, and for what in it
// is a secret by itself.
func secretCookie(name, value string) {
	journal.secret("cookie "+name, value)
	if at := strings.LastIndexByte(value, '.'); at > 0 {
		journal.secret("the signature of cookie "+name, value[at+1:])
		if id, ok := strings.CutPrefix(value[:at], "s%3A"); ok {
			journal.secret("the session id of cookie "+name, id)
		}
	}
}

func (b *browser) post(t *testing.T, path string, body any, headers ...string) reply {
	t.Helper()
	return b.request(t, "POST", path, body, headers...)
}

func (b *browser) open(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	return b.request(t, "GET", path, nil, headers...)
}

// sessionID returns the id in the session cookie.
func (b *browser) sessionID(t *testing.T) string {
	t.Helper()
	id, ok := strings.CutPrefix(b.cookies["sessionId"].value, "s%3A")
	require.True(t, ok)
	id, _, _ = strings.Cut(id, ".")
	return id
}

// logIn begins a session.
func (b *browser) logIn(t *testing.T, p person) {
	t.Helper()
	r := b.post(t, "/auth/login", p.credentials())
	require.Equal(t, 200, r.status, r.line())
	require.Equal(t, p.user(), r.json(t))
}

// app is a program that holds tokens itself, on a phone, say.
type app struct {
	*browser
	access, refresh string
}

// app logs in with a mobile app's tokens.
func (g *gateway) app(t *testing.T, p person) *app {
	t.Helper()
	a := &app{browser: g.browse()}
	a.agent = "Phone/1.0 (e2e)"
	r := a.post(t, "/auth/token", with(p.credentials(), object{"client": "mobile"}))
	require.Equal(t, 200, r.status, r.line())
	require.Empty(t, r.header.Values("set-cookie"))
	a.take(t, r)
	require.NotEmpty(t, a.refresh)
	return a
}

// take takes the tokens out of an answer.
func (a *app) take(t *testing.T, r reply) {
	t.Helper()
	answer := r.json(t)
	a.access = journal.secret("an access token", text(answer["accessToken"]))
	journal.secret("the signature of an access token", a.access[strings.LastIndexByte(a.access, '.')+1:])
	if fresh := text(answer["refreshToken"]); fresh != "" {
		a.refresh = secretRefresh(fresh)
	}
}

// secretRefresh has the journal watch for a refresh token and the last part of
// it, which nobody could write by chance.
func secretRefresh(token string) string {
	if at := strings.LastIndexByte(token, '.'); at > 0 {
		journal.secret("the end of a refresh token", token[at+1:])
	}
	return journal.secret("a refresh token", token)
}

// renew refreshes.
func (a *app) renew(t *testing.T) reply {
	t.Helper()
	r := a.post(t, "/auth/refresh", object{"refreshToken": a.refresh})
	if r.status == 200 {
		a.take(t, r)
	}
	return r
}

// call makes a request with the access token.
func (a *app) call(t *testing.T, path string) reply {
	t.Helper()
	return a.open(t, path, bearer(a.access))
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// json reads the body as one JSON object.
func (r reply) json(t *testing.T) object {
	t.Helper()
	var o object
	require.NoError(t, json.Unmarshal([]byte(r.body), &o), r.line())
	return o
}

// list returns the objects of an array in an answer.
func list(v any) []object {
	var all []object
	items, _ := v.([]any)
	for _, item := range items {
		o, _ := item.(object)
		all = append(all, o)
	}
	return all
}

// requireAnswer checks status and body to the byte, and what every answer of
// the auth API says about itself.
func requireAnswer(t *testing.T, r reply, status int, body string) {
	t.Helper()
	require.Equal(t, status, r.status, r.line())
	require.Equal(t, body, r.body)
	require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
	require.Equal(t, []string{"no-store"}, r.header.Values("cache-control"))
	if status == 429 || status == 503 {
		require.Regexp(t, `^[1-9][0-9]*$`, r.header.Get("retry-after"))
	}
}

// decoded returns header and claims of a token, unverified.
func decoded(t *testing.T, token string) (header, claims object) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, into := range []*object{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(raw, into))
	}
	return header, claims
}
