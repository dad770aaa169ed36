package session_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

var _ authz.CookieVerifier = (*session.Signer)(nil)

var update = flag.Bool("update", false, "write testdata/cookies.json anew, from what express-session says")

var cookieSecrets = []string{"keyboard cat", "the one before", "ключ 🗝"}

func newSigner(tb testing.TB, secrets ...string) *session.Signer {
	tb.Helper()
	s, err := session.NewSigner(secrets)
	require.NoError(tb, err)
	return s
}

// nodeModules returns where express-session and its friends are installed.
func nodeModules(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = "../../e2e/express/node_modules"
	}
	dir, err := filepath.Abs(dir)
	require.NoError(tb, err)
	if _, err := os.Stat(filepath.Join(dir, "express-session")); err != nil {
		message := "express-session is not installed: run npm ci in e2e/express, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			tb.Fatal(message)
		}
		tb.Skip(message)
	}
	return dir
}

// askExpress returns the session id that express-session finds in each cookie
// value, "" for none.
func askExpress(t *testing.T, secrets, values []string) []string {
	t.Helper()
	input, err := json.Marshal(map[string]any{"secrets": secrets, "values": values})
	require.NoError(t, err)
	cmd := exec.Command(proctest.Need(t, "node"), "testdata/cookies.cjs")
	cmd.Env = append(os.Environ(), "GATEHOUSE_NODE_MODULES="+nodeModules(t))
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	require.NoError(t, err)
	var ids []*string
	require.NoError(t, json.Unmarshal(output, &ids))
	require.Len(t, ids, len(values))
	found := make([]string, len(ids))
	for i, id := range ids {
		if id != nil {
			found[i] = *id
		}
	}
	return found
}

type cookieVector struct {
	Value string `json:"value"`
	ID    string `json:"id"` // "" when refused
}

// cookieValues are values of every kind that we could think of.
func cookieValues(t *testing.T) []string {
	t.Helper()
	sign := func(secret, id string) (value, plain, sig string) {
		value = newSigner(t, secret).Sign(id)
		plain, err := url.PathUnescape(value)
		require.NoError(t, err)
		return value, plain, plain[strings.LastIndexByte(plain, '.')+1:]
	}
	const id = "XmD1wkYV9mHxvEEfCmkGNvYM-0iDDD_x"
	value, plain, sig := sign(cookieSecrets[0], id)
	values := []string{
		value, plain, `"` + value + `"`, `"` + plain + `"`, `""` + value + `""`, `"` + value, value + `"`, `'` + value + `'`,
		strings.ToLower(value[:4]) + value[4:], // s%3a
		value + "=", value + "%3D", strings.ReplaceAll(strings.ReplaceAll(value, "%2B", "-"), "%2F", "_"),
		plain + "=", strings.NewReplacer("+", "-", "/", "_").Replace(plain),
		value[:len(value)-1], value + "A", value[1:], "S" + value[1:], "s%3A" + value, "s:" + value, "j" + value[1:],
		"", "s", "s:", "s%3A", "s:.", "s%3A.", "s:" + id, "s:" + id + ".", "s:." + sig, id, id + "." + sig,
		"s:x" + id + "." + sig, "s:" + id + "x." + sig, "s:" + id + ".." + sig, "s:" + id + "." + sig + ".", "s:" + id + "." + sig + "." + sig,
		"s:" + id + " ." + sig, "s: " + id + "." + sig, "s:" + id + ". " + sig,
		"%73" + value[1:], "%" + value, value + "%", value + "%4", value + "%zz", value + "%00", "%E9" + value, "%u0073" + value[1:],
		strings.Replace(value, "X", "%58", 1), strings.Replace(plain, "X", "%58", 1), strings.Replace(value, "X", "%2558", 1),
	}
	// The last character of a signature stands for 4 bits, of which 2 count.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := strings.IndexByte(alphabet, plain[len(plain)-1])
	for bits := range 4 {
		values = append(values, plain[:len(plain)-1]+alphabet[last&^3|bits:][:1])
	}
	for i, secret := range append(cookieSecrets, "nobody's", "Keyboard cat", "keyboard cat ") {
		for _, id := range []string{
			id, "a", "1", ".", "..", "a.b", "a.b.", ".a", "s:a", "s:", "with space", "é", "日本", "🗝", "a%b", "a%41", "a+b", "a/b=c",
			`"`, `"a"`, "a,b;c", "a\x00b", "\t", "\r\n", "-_.!~*'()", "{a}", fmt.Sprint("id-", i), strings.Repeat("long", 200),
		} {
			value, _, _ := sign(secret, id)
			values = append(values, value)
		}
	}
	return values
}

// A refusal and an id as express-session sees them, for values made by cookie,
// cookie-signature and express-session themselves or changed from such.
func TestVerifyCommittedVectors(t *testing.T) {
	const file = "testdata/cookies.json"
	if *update {
		values := cookieValues(t)
		vectors := make([]cookieVector, len(values))
		for i, id := range askExpress(t, cookieSecrets, values) {
			vectors[i] = cookieVector{values[i], id}
		}
		text, err := json.MarshalIndent(vectors, "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, append(text, '\n'), 0o644))
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var vectors []cookieVector
	require.NoError(t, json.Unmarshal(text, &vectors))
	signer := newSigner(t, cookieSecrets...)
	accepted := 0
	for _, v := range vectors {
		id, ok := signer.Verify(v.Value)
		require.Equal(t, v.ID, id, "%q", v.Value)
		require.Equal(t, v.ID != "", ok, "%q", v.Value)
		if ok {
			accepted++
		}
	}
	require.Greater(t, accepted, 80)
	require.Greater(t, len(vectors)-accepted, 100)
}

// Literally what cookie-signature 1.2.2 and encodeURIComponent gave for these,
// so that the vectors above don't rest on our own Sign.
func TestSignWritesWhatExpressWrites(t *testing.T) {
	for _, tc := range []struct{ secret, id, want string }{
		{"keyboard cat", "XmD1wkYV9mHxvEEfCmkGNvYM-0iDDD_x", "s%3AXmD1wkYV9mHxvEEfCmkGNvYM-0iDDD_x.udD3ox39wWi1Nh%2Bj4oO0CTGVCEzcN0LGX26nlFHTi0c"},
		{"keyboard cat", "a.b c/é+{}", "s%3Aa.b%20c%2F%C3%A9%2B%7B%7D.J%2FalGO0f5ajnsLChNtiLvRUx1ufEyZCsz6br8y%2FTIEA"},
		{"ключ 🗝", "-_.!~*'()", "s%3A-_.!~*'().a9GORDpILDKdMTEx0dWKXm0zRLqC%2BnYxLasNepwaQII"},
	} {
		signer := newSigner(t, tc.secret, "another")
		require.Equal(t, tc.want, signer.Sign(tc.id))
		id, ok := signer.Verify(tc.want)
		require.True(t, ok)
		require.Equal(t, tc.id, id)
	}
}

func TestVerifyAgreesWithExpressOnMutations(t *testing.T) {
	nodeModules(t)
	random := rand.New(rand.NewPCG(1, 2))
	seeds := cookieValues(t)
	pieces := []string{"%", ".", "s:", `"`, "%3A", "%2B", "+", "=", "%", "%4", "%C3%A9", "%C3", "A", " ", "%2E", "%22", "%25"}
	values := make([]string, 20000)
	for i := range values {
		value := seeds[random.IntN(len(seeds))]
		for range 1 + random.IntN(2) {
			at := random.IntN(len(value) + 1)
			end := min(len(value), at+random.IntN(3))
			value = value[:at] + pieces[random.IntN(len(pieces))] + value[end:]
		}
		values[i] = strings.Trim(value, " ") // as every parser of the header does first
	}
	signer := newSigner(t, cookieSecrets...)
	accepted := 0
	for i, want := range askExpress(t, cookieSecrets, values) {
		got, ok := signer.Verify(values[i])
		require.Equal(t, want, got, "%q", values[i])
		if ok {
			accepted++
		}
	}
	require.Positive(t, accepted, "no mutation left a cookie valid: they prove little")
}

func TestEverySecretVerifiesAndTheFirstSigns(t *testing.T) {
	old, rotated, other := newSigner(t, "old"), newSigner(t, "new", "old"), newSigner(t, "other")
	for _, value := range []string{old.Sign("id"), rotated.Sign("id")} {
		id, ok := rotated.Verify(value)
		require.True(t, ok)
		require.Equal(t, "id", id)
		_, ok = other.Verify(value)
		require.False(t, ok)
	}
	require.Equal(t, newSigner(t, "new").Sign("id"), rotated.Sign("id"))
	_, ok := old.Verify(rotated.Sign("id"))
	require.False(t, ok)
}

func TestVerifyRefusesUnseen(t *testing.T) {
	signer := newSigner(t, "secret")
	longest := strings.Repeat("x", 4096-len(signer.Sign("")))
	value := signer.Sign(longest)
	for len(value) > 4096 { // the signature's own escapes vary
		longest = longest[1:]
		value = signer.Sign(longest)
	}
	_, ok := signer.Verify(value)
	require.True(t, ok)
	for name, value := range map[string]string{
		"too long":                 signer.Sign(strings.Repeat("x", 4096)),
		"no id":                    signer.Sign(""),
		"bytes that aren't ASCII":  strings.Replace(signer.Sign("é"), "%C3%A9", "é", 1),
		"a control byte":           strings.Replace(signer.Sign("\x01"), "%01", "\x01", 1),
		"escapes that aren't text": signer.Sign("\xff"),
	} {
		id, ok := signer.Verify(value)
		require.False(t, ok, name)
		require.Empty(t, id, name)
	}
}

func TestNewSignerRefusesWhatAnybodyCouldSignWith(t *testing.T) {
	_, err := session.NewSigner(nil)
	require.ErrorContains(t, err, "no session secret")
	_, err = session.NewSigner([]string{"hush", ""})
	require.ErrorContains(t, err, "session secret 2 is empty")
	require.NotContains(t, err.Error(), "hush")
}

// Nothing but what Sign made verifies, and that always does.
func FuzzVerify(f *testing.F) {
	signer, err := session.NewSigner(cookieSecrets)
	require.NoError(f, err)
	f.Add("id", "s%3Aid.x")
	f.Add("a.b", `"s:a.b.c"`)
	f.Add("é", "%")
	f.Fuzz(func(t *testing.T, id, value string) {
		signed := signer.Sign(id)
		got, ok := signer.Verify(signed)
		require.Equal(t, id != "" && utf8.ValidString(id) && len(signed) <= 4096, ok, "%q", signed)
		if ok {
			require.Equal(t, id, got)
		}
		if got, ok := signer.Verify(value); ok {
			var forms []string
			for _, secret := range cookieSecrets {
				plain, err := url.PathUnescape(newSigner(t, secret).Sign(got))
				require.NoError(t, err)
				forms = append(forms, plain)
			}
			decoded := strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
			if d, err := url.PathUnescape(decoded); err == nil && utf8.ValidString(d) {
				decoded = d
			}
			require.Contains(t, forms, decoded)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	signer := newSigner(b, "first secret", "second secret")
	value := signer.Sign("XmD1wkYV9mHxvEEfCmkGNvYM-0iDDD_x")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := signer.Verify(value); !ok {
			b.Fatal("not verified")
		}
	}
}
