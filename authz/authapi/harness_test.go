package authapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/authapi/console"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
	"github.com/gatehouse-auth/gatehouse/internal/openapitest"
)

// spec is the description that every exchange of every test is held against.
var spec = func() *openapitest.Spec {
	s, err := openapitest.Load(authapi.OpenAPI())
	if err != nil {
		panic(err)
	}
	return s
}()

// TestMain fails when the description promises what no test has seen, if all
// tests ran.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	all := true
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz", "test.bench"} {
		all = all && flag.Lookup(name).Value.String() == ""
	}
	if unseen := spec.Unseen(); code == 0 && all && len(unseen) > 0 {
		fmt.Fprintf(os.Stderr, "openapi.yaml describes what no test here has seen:\n\t%s\n", strings.Join(unseen, "\n\t"))
		code = 1
	}
	os.Exit(code)
}

// The people of the tests.
var (
	alice = account{authz.User{Identity: authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "user"}, Organization: "org-1"}, Organizations: []string{"org-1", "org-2"}}, "password of alice"}
	bob   = account{authz.User{Identity: authz.Identity{ID: "bob", Email: "Bob@example.com", Roles: []string{"user"}, Organization: "org-1"}, Organizations: []string{"org-1", "org-2"}}, "password of bob"}
	carol = account{authz.User{Identity: authz.Identity{ID: "carol", Email: "carol@example.com"}}, "password of carol"}
)

// The internal keys.
const (
	keyOfBackend  = "internal-key-of-backend"
	keyOfServices = "internal-key-of-services"
	keyExpired    = "internal-key-that-expired"
)

// The bodies of the contract.
const (
	badRequest         = `{"error":"Bad request"}`
	noToken            = `{"error":"No token provided"}`
	invalidToken       = `{"error":"Invalid token"}`
	invalidSession     = `{"error":"Invalid session"}`
	invalidCredentials = `{"error":"Invalid credentials"}`
	noRefreshToken     = `{"error":"No refresh token"}`
	invalidRefresh     = `{"error":"Invalid refresh token"}`
	forbidden          = `{"error":"Forbidden"}`
	notFound           = `{"error":"Not found"}`
	tooMany            = `{"error":"Too many requests"}`
	unavailable        = `{"error":"Authentication unavailable"}`
	notConfirmed       = `{"error":"Not confirmed"}`
	logoutFailed       = `{"error":"Logout failed"}`
	loggedOut          = `{"message":"Logged out successfully"}`
	sessionEnded       = `{"message":"Session ended"}`
)

type object = map[string]any

// bench is an API with everything behind it replaced by fakes.
type bench struct {
	api      *authapi.API
	options  authapi.Options
	clock    *authztest.Clock
	store    *store
	users    *people
	guesses  *guesses
	access   *accessTokens
	refresh  refreshTokens
	idp      *idp
	feed     *feed
	recorder *recorder
	log      *journal
	places   *places       // nil: there are any number
	slow     time.Duration // until a body is there
}

// places say whether there are any, and count who asks. They are for one call after
// another.
type places struct {
	receive, enter    bool
	received, entered int
	receiving, left   int
}

func (p *places) Receive() (received func(), ok bool) {
	p.received++
	if p.receive {
		p.receiving++
	}
	return func() { p.receiving-- }, p.receive
}

func (p *places) Enter() bool { p.entered++; return p.enter }

func (p *places) Leave() { p.left++ }

// newBench returns an API with all of its parts, or with what change makes of
// them.
func newBench(t *testing.T, change ...func(*authapi.Options)) *bench {
	t.Helper()
	clock := authztest.NewClock()
	b := &bench{
		clock:    clock,
		store:    newStore(clock),
		users:    &people{all: []account{alice, bob, carol}},
		guesses:  &guesses{},
		access:   &accessTokens{clock: clock, life: 15 * time.Minute, issued: map[string]authz.Token{}},
		refresh:  refreshTokens{"key", new(int)},
		feed:     &feed{},
		idp:      &idp{begun: map[string]string{}, logins: map[string]authz.Login{}},
		recorder: &recorder{},
		log:      newJournal(t),
	}
	key := func(text string, k authz.APIKey) authz.APIKey { k.SHA256 = sha256.Sum256([]byte(text)); return k }
	o := authapi.Options{
		Store: b.store, Cookies: cookies{}, AccessTokens: b.access, RefreshTokens: b.refresh, Verifier: b.access, AdminIssuers: []string{"https://gateway.example.com"}, Leeway: 30 * time.Second,
		APIKeys: authz.NewAPIKeys([]authz.APIKey{
			key(keyOfBackend, authz.APIKey{Name: "backend", AuthAPI: true}),
			key(keyOfServices, authz.APIKey{Name: "services", Policies: []string{"internal"}}),
			key(keyExpired, authz.APIKey{Name: "backend", AuthAPI: true, Expires: clock.Now().Add(-time.Second)}),
		}, clock.Now),
		UserStore: b.users, Guesses: b.guesses, Providers: map[string]authapi.Provider{"corp": b.idp},
		TrustedOrigins: authz.Origins{"https://app.example.com"}, TrustedHops: 1,
		JWKS:      []byte(`{"keys":[{"kty":"RSA","kid":"1","n":"AQ","e":"AQAB"}]}`),
		Console:   console.Handler(console.Options{}),
		Decisions: newDesk(), Status: func(context.Context) authapi.Status { return aStatus },
		Feed:     b.feed,
		Recorder: b.recorder, Log: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: clock.Now,
	}
	for _, c := range change {
		c(&o)
	}
	b.options = o
	var err error
	b.api, err = authapi.New(o)
	require.NoError(t, err)
	for _, secret := range []string{alice.password, bob.password, carol.password, keyOfBackend, keyOfServices, keyExpired} {
		b.log.secret(secret)
	}
	return b
}

// strict gives the API another audit log.
func (b *bench) strict(t *testing.T, log authapi.Audit) {
	t.Helper()
	b.options.Audit = log
	var err error
	b.api, err = authapi.New(b.options)
	require.NoError(t, err)
}

// recorder remembers what was counted.
type recorder struct {
	mu      sync.Mutex
	calls   []string
	changes []string
}

func (r *recorder) RecordCall(call string, status int, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, fmt.Sprintf("%s %d", call, status))
}

func (*recorder) RecordRefusal(string, string) {}

func (r *recorder) RecordChange(action string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, action)
}

func (r *recorder) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[len(r.calls)-1]
}

// journal is a log that must not hold a secret.
type journal struct {
	mu      sync.Mutex
	text    bytes.Buffer
	secrets map[string]bool
}

func newJournal(t *testing.T) *journal {
	t.Helper()
	j := &journal{secrets: map[string]bool{}}
	t.Cleanup(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		for secret := range j.secrets {
			require.NotContains(t, j.text.String(), secret, "the log holds a credential")
		}
	})
	return j
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// secret has the journal watch for a text and returns it.
func (j *journal) secret(s string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(s) > 5 { // shorter ones stand there by chance
		j.secrets[s] = true
	}
	return s
}

// lines returns the lines with this message.
func (j *journal) lines(t *testing.T, message string) []object {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []object
	for line := range strings.Lines(j.text.String()) {
		var o object
		require.NoError(t, json.Unmarshal([]byte(line), &o))
		if o["msg"] == message {
			all = append(all, o)
		}
	}
	return all
}

// last returns the last line with this message.
func (j *journal) last(t *testing.T, message string) object {
	t.Helper()
	all := j.lines(t, message)
	require.NotEmpty(t, all)
	return all[len(all)-1]
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// call makes one call. body nil means none, a string is sent as it is, anything
// else as JSON. headers are name, value, name, value.
func (b *bench) call(t *testing.T, method, target string, body any, headers ...string) answer {
	t.Helper()
	text := ""
	switch body := body.(type) {
	case nil:
	case string:
		text = body
	default:
		encoded, err := json.Marshal(body)
		require.NoError(t, err)
		text = string(encoded)
	}
	var content io.Reader = strings.NewReader(text)
	if b.slow > 0 && text != "" {
		content = io.MultiReader(readerFunc(func([]byte) (int, error) { time.Sleep(b.slow); return 0, io.EOF }), content)
	}
	r := httptest.NewRequest(method, "/", content)
	r.RequestURI = target
	r.URL.Path, _, _ = strings.Cut(target, "?")
	r.Host = "gateway.example.com"
	r.RemoteAddr = "192.0.2.1:40000"
	for i := 0; i < len(headers); i += 2 {
		switch name := headers[i]; name {
		case "Host":
			r.Host = headers[i+1]
		case "Cookie":
			for pair := range strings.SplitSeq(headers[i+1], "; ") {
				_, value, _ := strings.Cut(pair, "=")
				b.log.secret(value)
			}
			fallthrough
		default:
			r.Header.Add(name, headers[i+1])
		}
	}
	return b.serve(t, r, text)
}

// serve serves a request and checks what every answer promises.
func (b *bench) serve(t *testing.T, r *http.Request, body string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	if b.places == nil {
		b.api.ServeHTTP(w, r)
	} else {
		b.api.Serve(w, r, b.places)
	}
	result := w.Result()
	text, err := io.ReadAll(result.Body)
	require.NoError(t, err)
	a := answer{result.StatusCode, result.Header, string(text)}
	require.NoError(t, spec.Check(openapitest.Exchange{
		Method: r.Method, Target: r.RequestURI, Header: r.Header, RequestBody: []byte(body),
		Status: a.status, AnswerHeader: a.header, Body: text,
	}))
	require.Equal(t, []string{"nosniff"}, a.header.Values("X-Content-Type-Options"))
	if a.status >= 400 || !strings.HasPrefix(r.RequestURI, "/auth/console") && r.RequestURI != "/auth/openapi.yaml" && r.RequestURI != "/.well-known/jwks.json" {
		require.Equal(t, []string{"no-store"}, a.header.Values("Cache-Control"))
	}
	require.Equal(t, a.status == 429 || a.status == 503, a.header.Get("Retry-After") != "")
	if a.status >= 500 {
		require.Empty(t, a.header.Values("Set-Cookie"), "not known is no reason to touch a cookie")
	}
	if a.status >= 400 {
		require.Equal(t, []string{"application/json"}, a.header.Values("Content-Type"))
	}
	require.False(t, strings.HasSuffix(a.body, "\n") && a.header.Get("Content-Type") == "application/json")
	for _, line := range a.header.Values("Set-Cookie") {
		pair, _, _ := strings.Cut(line, ";")
		_, value, _ := strings.Cut(pair, "=")
		b.log.secret(value)
	}
	var tokens struct{ AccessToken, RefreshToken string }
	if json.Unmarshal(text, &tokens) == nil {
		b.log.secret(tokens.AccessToken)
		b.log.secret(tokens.RefreshToken)
	}
	return a
}

func (b *bench) post(t *testing.T, target string, body any, headers ...string) answer {
	t.Helper()
	return b.call(t, "POST", target, body, headers...)
}

func (b *bench) get(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	return b.call(t, "GET", target, nil, headers...)
}

// requireAnswer checks status and body to the byte.
func requireAnswer(t *testing.T, a answer, status int, body string) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, body, a.body)
}

func (a answer) json(t *testing.T) object {
	t.Helper()
	var o object
	require.NoError(t, json.Unmarshal([]byte(a.body), &o), a.body)
	return o
}

func (a answer) objects(t *testing.T, name string) []object {
	t.Helper()
	list, ok := a.json(t)[name].([]any)
	require.True(t, ok, a.body)
	all := make([]object, len(list))
	for i, o := range list {
		all[i] = o.(object)
	}
	return all
}

// cookie returns the value that an answer sets; "" for cleared and for none.
func (a answer) cookie(name string) string {
	for _, line := range a.header.Values("Set-Cookie") {
		if rest, ok := strings.CutPrefix(line, name+"="); ok {
			value, _, _ := strings.Cut(rest, ";")
			return value
		}
	}
	return ""
}

func credentials(who account) object { return object{"email": who.Email, "password": who.password} }

func with(o, more object) object {
	all := object{}
	for _, from := range []object{o, more} {
		maps.Copy(all, from)
	}
	return all
}

func cookieOf(id string) []string { return []string{"Cookie", "sessionId=" + cookies{}.Sign(id)} }

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func key(k string) []string { return []string{"X-Internal-Api-Key", k} }

// logIn returns the headers with a new session of somebody.
func (b *bench) logIn(t *testing.T, who account, headers ...string) (cookie []string, id string) {
	t.Helper()
	a := b.post(t, "/auth/login", credentials(who), headers...)
	require.Equal(t, 200, a.status, a.body)
	id, ok := cookies{}.Verify(a.cookie("sessionId"))
	require.True(t, ok)
	return cookieOf(id), id
}

// tokens are those of an app.
type tokens struct{ access, refresh string }

func (b *bench) app(t *testing.T, who account, headers ...string) tokens {
	t.Helper()
	a := b.post(t, "/auth/token", with(credentials(who), object{"client": "mobile"}), headers...)
	require.Equal(t, 200, a.status, a.body)
	o := a.json(t)
	return tokens{o["accessToken"].(string), o["refreshToken"].(string)}
}

// works reports whether a credential is good.
func (b *bench) works(t *testing.T, headers []string) bool {
	t.Helper()
	a := b.get(t, "/auth/me", headers...)
	require.Contains(t, []int{200, 401}, a.status, a.body)
	return a.status == 200
}

func join(lists ...[]string) []string { return slices.Concat(lists...) }
