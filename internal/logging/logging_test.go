package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

// formats are the logs in every format, and what they have been told.
func formats() (logs map[string]*slog.Logger, text *bytes.Buffer) {
	text = &bytes.Buffer{}
	return map[string]*slog.Logger{
		"json": logging.New(text, logging.Options{Level: slog.LevelDebug}),
		"text": logging.New(text, logging.Options{Text: true, Level: slog.LevelDebug}),
	}, text
}

// What must never be seen is in all of these.
const (
	password  = "correct-horse-battery-staple"
	sessionID = "kQ3vTfWm0e8nJ1sYpZ4xRb7uHc2dLgAo"
	jwt       = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLW1pbmU"
	apiKey    = "gk_live_8d1f0b6a7c"
)

func TestCredentialsAreNotLogged(t *testing.T) {
	t.Parallel()
	signer, err := session.NewSigner([]string{password})
	require.NoError(t, err)
	cookie := signer.Sign(sessionID)
	pem, err := token.GenerateKey("ES256")
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://u:"+password+"@example.com/cb?code="+apiKey, http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+jwt)
	request.Header.Set("Cookie", "sessionId="+cookie)
	own, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "a", Target: "/", Headers: authz.HeaderMap{"cookie": cookie}})
	require.NoError(t, err)
	user, err := url.Parse("redis://default:" + password + "@127.0.0.1/0")
	require.NoError(t, err)
	secrets := []string{password, sessionID, jwt, apiKey, url.QueryEscape(sessionID), string(pem), strings.Split(string(pem), "\n")[1]}

	// By their types: whatever the name says, and whatever holds them.
	typed := map[string]any{
		"secret":        config.NewSecret(password),
		"secret URL":    config.NewSecretURL("redis://default:" + password + "@127.0.0.1/0"),
		"refresh token": authz.RefreshToken{Family: "f", Text: jwt},
		"principal":     &authz.Principal{SessionID: sessionID, Claims: map[string]any{"jti": apiKey}},
		"login":         authz.Login{Replaces: sessionID, Values: map[string]any{"csrf": apiKey}},
		"ending":        authz.Ending{SessionID: sessionID, Family: apiKey, TokenID: apiKey},
		"request":       own,
		"http request":  request,
		"headers":       request.Header,
		"cookies":       request.Cookies(),
		"cookie":        &http.Cookie{Name: "sessionId", Value: cookie},
		"config":        &config.Config{Sessions: config.Sessions{Secrets: []config.Secret{config.NewSecret(password)}}},
		"key":           config.APIKey{SHA256: apiKey},
		"map":           map[string]string{"x": sessionID},
		"bytes":         []byte(sessionID),
		"struct":        struct{ X string }{sessionID},
		"pointer":       &struct{ X string }{sessionID},
		"raw JSON":      json.RawMessage(`"` + sessionID + `"`),
		"URL":           user,
		"stringer":      bytes.NewBufferString(sessionID),
		"function":      func() {},
	}
	// By the names under which they would be logged, as plain texts.
	named := map[string]any{
		"token": jwt, "session": sessionID, "session_id": sessionID, "sessionId": sessionID, "sid": sessionID, "family": apiKey, "replaces": sessionID,
		"cookie": cookie, "set-cookie": cookie, "password": password, "newPassword": password, "passwd": password, "client_secret": password, "secret": password,
		"api_key": apiKey, "X-Internal-Api-Key": apiKey, "key": apiKey, "authorization": "Basic " + password, "access_token": jwt, "refreshToken": apiKey,
		"otp": 123456, "pin": 123456, "code": apiKey, "csrf_token": apiKey, "credential": apiKey, "credentials": apiKey, "jwt": jwt, "nonce": apiKey, "host": "user:" + password + "@shop",
	}
	// By their looks, in the middle of what is harmless.
	looks := map[string]any{
		"a": "with " + jwt + " in it", "b": "Cookie: sessionId=" + cookie, "c": string(pem), "d": errors.New("call https://u:" + password + "@example.com/x: refused"),
		"e": fmt.Errorf("wrapped: %w", errors.New("GET /cb?state=1&code="+apiKey+"&x=1: refused")), "f": "authorization: bearer abcdefghij" + sessionID, "g": []string{"x", jwt},
		"h": "$argon2id$v=19$m=65536,t=1,p=4$" + sessionID + "$" + sessionID, "i": "/path?access_token=" + apiKey, "j": "s%3A" + sessionID + ".abc",
		"k": "authorization: Basic dXNlcjpwYXNzd29yZDEyMzQ1 was refused", "l": errors.New(`parse "redis://:pa/` + password + `@h:6379/0"`),
		"m": "clone https://" + apiKey + "@example.com/x", "n": "GET sess:" + sessionID + ": WRONGTYPE", "o": "refresh_token=" + apiKey, "p": "at /x;sessionid=" + apiKey,
		"q": "token ewogICJhbGciOiAiUlMyNTYiCn0." + sessionID + ".c2ln", "r": "hash $6$salt$" + sessionID, "s": "/cb?pwd=" + apiKey,
	}
	// By the group that they are in.
	grouped := map[string]any{"password": slog.GroupValue(slog.String("v", password), slog.Int("n", 123456)), "token": slog.GroupValue(slog.String("v", apiKey))}
	for name, values := range map[string]map[string]any{"typed": typed, "named": named, "looks": looks, "grouped": grouped} {
		logs, text := formats()
		for format, log := range logs {
			for key, value := range values {
				text.Reset()
				if name == "typed" {
					key = "x"
				}
				log.Info("line", slog.Any(key, value))
				log.Info("line", slog.Group("g", slog.Any(key, value)))
				log.With(slog.Any(key, value)).WithGroup("h").Error("line")
				if name == "looks" {
					log.Warn(fmt.Sprint(value))
				}
				require.Contains(t, text.String(), "line")
				for _, secret := range append(secrets, "123456", "dXNlcjpw") {
					require.NotContains(t, text.String(), secret, "%s %s %v", name, format, key)
				}
			}
		}
	}
}

// What an operator needs is there all the same.
func TestWhatIsHarmlessIsLogged(t *testing.T) {
	t.Parallel()
	handle := authz.Handle(sessionID)
	for _, test := range []struct {
		key   string
		value any
		want  any
	}{
		{"session", handle, handle},
		{"token", handle, handle},
		{"family", "", ""},
		{"sessions", 3, 3.0},
		{"credential", "api_key", "api_key"},
		{"user", "alice", "alice"},
		{"reason", authz.ReasonRole, "role"},
		{"error", authz.Refuse(authz.ReasonRole, "none of %q", []string{"admin"}), `role: none of ["admin"]`},
		{"changed", []string{"log.level", "policies.user"}, []any{"log.level", "policies.user"}},
		{"path", "/orders/1:2=3@x", "/orders/1:2=3@x"},
		{"warning", "none of [bearer session] was presented", "none of [bearer session] was presented"},
		{"error", errors.New("dial redis://127.0.0.1:6379: refused"), "dial redis://127.0.0.1:6379: refused"},
		{"error", errors.New("GET https://a.example/?code=1234&x=1"), "GET https://a.example/?code=[secret]&x=1"},
		{"hash", "8de83d29f653", "8de83d29f653"},
		{"x", "basic authentication, code=404, GET https://a.example:8080/x?y=1", "basic authentication, code=404, GET https://a.example:8080/x?y=1"},
		{"host", "shop.example:8080", "shop.example:8080"},
		{"x", struct{ A int }{1}, "[not shown: struct { A int }]"},
		{"x", nil, ""},
		{"level", slog.LevelWarn, "WARN"},
	} {
		var text bytes.Buffer
		logging.New(&text, logging.Options{}).Info("m", slog.Any(test.key, test.value), slog.String("last", "1"))
		var entry map[string]any
		require.NoError(t, json.Unmarshal(text.Bytes(), &entry), text.String())
		if test.key != "level" { // which is there twice
			require.Equal(t, test.want, entry[test.key], test.key)
		}
	}
}

// A panic in an Error method is a bug elsewhere, and the line says so.
type brokenError struct{ error }

func TestAnErrorThatPanics(t *testing.T) {
	t.Parallel()
	logs, text := formats()
	for _, log := range logs {
		log.Info("m", slog.Any("error", brokenError{}))
	}
	require.Equal(t, 2, strings.Count(text.String(), "can't be printed"), text.String())
}

// blank are characters that are printable by name, and are not to be seen.
const blank = "\u034f\ufe0f\u180b\u3164\u115f\u1160\uffa0\u2800\u17b4"

// requireOneLine: whatever somebody sent, what came of it is one line of printable text.
func requireOneLine(tb testing.TB, line string) {
	tb.Helper()
	require.True(tb, utf8.ValidString(line), "%q", line)
	require.Equal(tb, 1, strings.Count(line, "\n"), "%q", line)
	require.True(tb, strings.HasSuffix(line, "\n"))
	for _, r := range strings.TrimSuffix(line, "\n") {
		require.True(tb, strconv.IsPrint(r), "%U in %q", r, line)
		require.NotContains(tb, blank, string(r), "%U in %q", r, line)
	}
}

func FuzzLinesCantBeForged(f *testing.F) {
	for _, seed := range []string{
		"plain", "two\nlines", "\r\n{\"msg\":\"audit\"}", "\x1b[31mred\x1b[0m", "C1 \u0085 \u009b31m", "bidi \u202e \u2066 \u200f", "separators \u2028\u2029",
		"zero\u200bwidth \ufeff", "quote \" backslash \\ \\u0041", "a=b c=\"d\"", "\xff\xfe not UTF-8", "\U000e0001 tag", "\u00ad soft", "\x7f\x00\x08",
		"level=ERROR msg=forged", blank,
	} {
		f.Add(seed, "key")
		f.Add("x", seed)
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		for _, inText := range []bool{false, true} {
			var out bytes.Buffer
			log := logging.New(&out, logging.Options{Text: inText})
			for _, write := range []func(){
				func() { log.Info("m", slog.String(key, text)) },
				func() { log.Info(text, slog.Any(key, errors.New(text))) },
				func() {
					log.WithGroup(key).With(slog.String("a", text)).Info("m", slog.Any("list", []string{text, key}))
				},
			} {
				out.Reset()
				write()
				line := out.String()
				requireOneLine(t, line)
				if inText {
					continue
				}
				decoder := json.NewDecoder(strings.NewReader(line))
				var entry map[string]any
				require.NoError(t, decoder.Decode(&entry), "%q", line)
				_, err := decoder.Token()
				require.ErrorIs(t, err, io.EOF)
			}
			// What is escaped says the same as before.
			out.Reset()
			log.Info("m", slog.String("value", text))
			var entry struct{ Value string }
			if !inText && utf8.ValidString(text) && logging.WithoutSecrets(text) == text {
				require.NoError(t, json.Unmarshal(out.Bytes(), &entry))
				require.Equal(t, text, entry.Value)
			}
		}
	})
}

// TestTextLinesKeepTheirFields: no value adds a field to its line.
func TestTextLinesKeepTheirFields(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logging.New(&out, logging.Options{Text: true}).Info("m", slog.String("path", "/a level=ERROR user=\"root\"\u0085\u202e"), slog.String("user", "bob"))
	_, fields, found := strings.Cut(out.String(), "msg=m ")
	require.True(t, found)
	require.Equal(t, `path="/a level=ERROR user=\"root\"\u0085\u202e" user=bob`+"\n", fields)
}

func TestALineThatCantBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain", "\u202e"} {
		h := logging.NewHandler(full{}, logging.Options{})
		var r slog.Record
		r.Message = text
		require.ErrorIs(t, h.Handle(t.Context(), r), errFull)
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
