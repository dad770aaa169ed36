package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

var (
	_ authapi.AccessTokens  = (*token.Issuer)(nil)
	_ authapi.RefreshTokens = (*token.RefreshTokens)(nil)
)

// refreshing returns the refresh tokens of an issuer with these keys.
func refreshing(tb testing.TB, keys ...*token.SigningKey) *token.RefreshTokens {
	tb.Helper()
	return ours(tb, keys...).RefreshTokens()
}

func requireRefused(t *testing.T, r *token.RefreshTokens, text string) {
	t.Helper()
	_, err := r.Parse(text)
	require.Equal(t, authz.ReasonRefreshInvalid, authz.ReasonOf(err), "%q", text)
	if len(text) > 12 {
		require.NotContains(t, err.Error(), text)
	}
}

func TestARefreshTokenIsKnownByItsText(t *testing.T) {
	r := refreshing(t, signingKey(t, p256Key(), ""))
	chain := []authz.RefreshToken{r.First()}
	require.Zero(t, chain[0].Generation)
	for len(chain) < 12 {
		chain = append(chain, r.Successor(chain[len(chain)-1]))
	}
	seen := map[string]bool{}
	for i, made := range chain {
		read, err := r.Parse(made.Text)
		require.NoError(t, err)
		require.Equal(t, made, read)
		require.Equal(t, i, read.Generation)
		require.Equal(t, chain[0].Family, read.Family)
		require.Equal(t, r.Successor(made), r.Successor(read), "the same each time")
		require.False(t, seen[made.Text])
		seen[made.Text] = true
		require.Regexp(t, `^[A-Za-z0-9_-]{22}\.[0-9]+\.[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}$`, made.Text)
	}
	another := r.First()
	require.NotEqual(t, chain[0].Family, another.Family)
}

// A text that is not, to the byte, one that we made is refused, and nothing of
// it is told.
func TestForgedRefreshTokensAreRefused(t *testing.T) {
	r := refreshing(t, signingKey(t, p256Key(), ""))
	made := r.Successor(r.First())
	for i := range made.Text {
		for _, c := range []byte("A.b0-_ \n%=") {
			if made.Text[i] != c {
				requireRefused(t, r, made.Text[:i]+string(c)+made.Text[i+1:])
			}
		}
		requireRefused(t, r, made.Text[:i])
		requireRefused(t, r, made.Text[:i]+made.Text[i+1:])
	}
	parts := strings.Split(made.Text, ".")
	with := func(i int, part string) string {
		changed := append([]string{}, parts...)
		changed[i] = part
		return strings.Join(changed, ".")
	}
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", parts[3][42])
	for _, text := range []string{
		"", ".", "...", made.Text + ".", "." + made.Text, made.Text + "=", made.Text + "\n", " " + made.Text,
		with(1, "0"), with(1, "2"), with(1, "01"), with(1, "+1"), with(1, "-1"), with(1, ""), with(1, "1e0"), with(1, "99999999999999999999"), with(1, "1000000000"),
		with(2, parts[3]), with(3, parts[2]), with(0, refreshing(t, signingKey(t, p256Key(), "")).First().Family),
		// The same bytes, in base64 with other trailing bits.
		with(3, parts[3][:42]+string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1])),
		strings.Repeat("a", 1<<20), strings.Repeat(".", 1<<20), "\xff\xfe.0.\x00.x",
	} {
		requireRefused(t, r, text)
	}
	requireRefused(t, refreshing(t, signingKey(t, otherP256(), "")), made.Text)
}

func TestEveryKeyReadsAndTheFirstMakes(t *testing.T) {
	previous, current := signingKey(t, p256Key(), ""), signingKey(t, edKey(), "")
	before, during, after := refreshing(t, previous, current), refreshing(t, current, previous), refreshing(t, current)
	old := before.First()
	_, err := during.Parse(old.Text)
	require.NoError(t, err)
	requireRefused(t, after, old.Text)

	young := during.Successor(old)
	_, err = after.Parse(young.Text)
	require.NoError(t, err, "a rotated token lives on the new key")
	_, err = before.Parse(young.Text)
	require.NoError(t, err)
	require.NotEqual(t, before.Successor(old), young)
	// Two replicas in the middle of a change disagree, and each finds the other's.
	for _, replica := range []*token.RefreshTokens{before, during} {
		for _, made := range []authz.RefreshToken{before.Successor(old), young} {
			found, ok := replica.Descendant(old, 1, made.Hash)
			require.True(t, ok)
			require.Equal(t, made, found)
		}
	}
	_, ok := after.Descendant(old, 1, before.Successor(old).Hash)
	require.False(t, ok)
}

func TestDescendant(t *testing.T) {
	a, b, c := signingKey(t, p256Key(), ""), signingKey(t, edKey(), ""), signingKey(t, otherP256(), "")
	alone, all := refreshing(t, a), refreshing(t, a, b, c)
	makers := []*token.RefreshTokens{refreshing(t, a), refreshing(t, b), refreshing(t, c)}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		first := makers[random.IntN(3)].First()
		last := first
		for range 1 + random.IntN(6) {
			last = makers[random.IntN(3)].Successor(last)
		}
		found, ok := all.Descendant(first, last.Generation, last.Hash)
		require.True(t, ok, "%d steps with three keys", last.Generation)
		require.Equal(t, last, found)
	}
	first := alone.First()
	last := first
	for range 128 {
		last = alone.Successor(last)
	}
	found, ok := alone.Descendant(first, 128, last.Hash)
	require.True(t, ok)
	require.Equal(t, last, found)
	found, ok = all.Descendant(first, 128, last.Hash)
	require.True(t, ok)
	require.Equal(t, last, found)

	_, ok = alone.Descendant(first, 129, alone.Successor(last).Hash)
	require.False(t, ok)
	for _, generation := range []int{-1, 0, 127, 1 << 40} {
		_, ok = alone.Descendant(first, generation, last.Hash)
		require.False(t, ok, generation)
	}
	_, ok = alone.Descendant(last, 0, first.Hash)
	require.False(t, ok, "backwards")
	_, ok = all.Descendant(first, 100, [32]byte{}) // ends, whatever is looked for
	require.False(t, ok)
}

func TestRefreshTokensPrintNothing(t *testing.T) {
	r := refreshing(t, signingKey(t, p256Key(), ""))
	made := r.First()
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", slog.Any("token", made), slog.Any("makers", r))
	text, err := json.Marshal(map[string]any{"token": made})
	require.NoError(t, err)
	secret := strings.Split(made.Text, ".")[2]
	for _, printed := range []string{
		fmt.Sprint(made), fmt.Sprintf("%+v", made), fmt.Sprintf("%#v", made), fmt.Sprintf("%s %q %x", made, made, made), fmt.Sprintf("%v", []any{made}),
		fmt.Sprint(r), fmt.Sprintf("%+v %#v", r, r), b.String(), string(text),
	} {
		require.NotContains(t, printed, secret)
		require.NotContains(t, printed, fmt.Sprintf("%x", secret))
	}
}

// Tokens outlive a release: a text that an earlier one made is still read, and
// has the successor that it had. These were computed by Python's hmac from the
// description of the format, with the key of RFC 8037 appendix A.1.
func TestRefreshTokensOfAnEarlierReleaseLiveOn(t *testing.T) {
	seed := must(base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
	r := refreshing(t, signingKey(t, ed25519.NewKeyFromSeed(seed), "any kid"))
	made, err := r.Parse("AAECAwQFBgcICQoLDA0ODw.9.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8.isRQnbk3rn8qzeX7iWOi5ApmqtgpmVOKXgGrXmFoaaY")
	require.NoError(t, err)
	require.Equal(t, 9, made.Generation)
	require.Equal(t, "AAECAwQFBgcICQoLDA0ODw.10.nAoy9O8b4QZlJLwo91xXkw5ZZRcohAg3vSMmDMOguZ4.oWrBvPRaNDnL57lV4Y5w3kMOwHG_0p866J6Fwr0G1C8", r.Successor(made).Text)
}

// The form of a key's file and its kid are no part of the key: rewriting a file
// with another tool logs nobody out.
func TestRefreshTokensGoByTheKeyAlone(t *testing.T) {
	for name, files := range map[string][2][]byte{
		"EC": {
			pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256Key().(*ecdsa.PrivateKey)))),
			pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key()))),
		},
		"RSA": {
			pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey().(*rsa.PrivateKey))),
			pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey()))),
		},
	} {
		t.Run(name, func(t *testing.T) {
			one := refreshing(t, must(token.ParseSigningKey(files[0], "one")))
			other := refreshing(t, must(token.ParseSigningKey(files[1], "other")))
			made := one.First()
			read, err := other.Parse(made.Text)
			require.NoError(t, err)
			require.Equal(t, one.Successor(made), other.Successor(read))
		})
	}
}

// What an access token is issued for lies behind the user's mark by the rule of
// the gate, though it counts whole seconds.
func TestIssuedBehindTheMark(t *testing.T) {
	i := ours(t, signingKey(t, p256Key(), ""))
	for name, tc := range map[string]struct {
		after  time.Time
		issued time.Time
	}{
		"no mark":                     {time.Time{}, now},
		"an old one":                  {now.Add(-time.Second), now},
		"of a moment ago":             {now.Add(-time.Millisecond), now},
		"of this very second":         {now, now.Add(time.Second)},
		"of this second, later in it": {now.Add(300 * time.Millisecond), now.Add(time.Second)},
		"of the next one":             {now.Add(time.Second), now.Add(2 * time.Second)},
		"of a clock that is ahead":    {now.Add(20 * time.Second), now.Add(21 * time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			raw, expires, err := i.Issue(authz.Grant{UserID: "bob", Family: "f", AuthTime: now.Add(-time.Minute), After: tc.after})
			require.NoError(t, err)
			_, claims := decoded(t, raw)
			require.InDelta(t, tc.issued.Unix(), claims["iat"], 0)
			require.Equal(t, tc.issued.Add(15*time.Minute), expires)
			require.InDelta(t, expires.Unix(), claims["exp"], 0)
			found := accepted(t, verifier(t, i.Trust()), raw)
			require.True(t, found.IssuedAt.After(tc.after))
			require.False(t, authz.Standing{RevokedBefore: tc.after}.Covers(found.IssuedAt))
		})
	}
	_, _, err := i.Issue(authz.Grant{UserID: "bob", After: now.Add(time.Minute)})
	require.ErrorContains(t, err, "clocks")
	_, _, err = i.Issue(authz.Grant{})
	require.Error(t, err)
}

// In the middle of "gatehouse keys rotate" two files hold the same key.
func TestTheSameKeyTwiceCountsOnce(t *testing.T) {
	k := signingKey(t, p256Key(), "")
	i := ours(t, k, k)
	var set struct{ Keys []any }
	require.NoError(t, json.Unmarshal(i.PublicJWKS(), &set))
	require.Len(t, set.Keys, 1)
	_, err := token.NewIssuer(token.MintOptions{Issuer: gateway, Audiences: []string{"api"}, Keys: []*token.SigningKey{
		signingKey(t, p256Key(), "one"), signingKey(t, otherP256(), "one"),
	}})
	require.ErrorContains(t, err, `have the kid "one"`)
}

// Whatever is accepted is what we would write ourselves, to the byte; and only
// with the right mac.
func FuzzParseRefreshToken(f *testing.F) {
	r := refreshing(f, signingKey(f, p256Key(), ""))
	first := r.First()
	f.Add(first.Text, 3, byte('A'))
	f.Add(r.Successor(first).Text, 30, byte('.'))
	f.Add("a.0.b.c", 0, byte(0))
	f.Add(strings.Repeat("A", 22)+".999999999."+strings.Repeat("A", 43)+"."+strings.Repeat("A", 43), 25, byte('1'))
	f.Fuzz(func(t *testing.T, text string, at int, c byte) {
		got, err := r.Parse(text)
		if err != nil {
			require.Equal(t, authz.ReasonRefreshInvalid, authz.ReasonOf(err))
			require.Zero(t, got)
		} else {
			parts := strings.Split(got.Text, ".")
			require.Len(t, parts, 4)
			require.Equal(t, text, got.Text)
			require.Equal(t, parts[0], got.Family)
			require.Equal(t, parts[1], strconv.Itoa(got.Generation))
			for _, part := range []int{0, 2, 3} {
				raw, err := base64.RawURLEncoding.DecodeString(parts[part])
				require.NoError(t, err)
				require.Equal(t, parts[part], base64.RawURLEncoding.EncodeToString(raw))
			}
		}
		// Nobody gets another token out of a genuine one by changing a byte.
		genuine := []byte(first.Text)
		if at >= 0 && at < len(genuine) && genuine[at] != c {
			genuine[at] = c
			_, err := r.Parse(string(genuine))
			require.Error(t, err)
		}
	})
}
