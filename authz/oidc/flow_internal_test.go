package oidc

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

func newTestSealer(tb testing.TB, secrets ...string) *sealer {
	tb.Helper()
	var keys [][]byte
	for _, s := range secrets {
		keys = append(keys, []byte(s))
	}
	s, err := newSealer(keys, "corp", "https://idp.example.com", "web")
	require.NoError(tb, err)
	return s
}

var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func TestSealedFlowsComeBackAsTheyWere(t *testing.T) {
	s := newTestSealer(t, "secret")
	for _, returnTo := range []string{"", "/", "/a?b=c&d#e", strings.Repeat("ä", 1024)} {
		f := newFlow(now, returnTo)
		sealed := s.seal("flow", f)
		got, ok := s.open("flow", sealed)
		require.True(t, ok)
		require.True(t, f.begun.Equal(got.begun))
		got.begun = f.begun
		require.Equal(t, f, got)
		require.Less(t, len(sealed), 3500, "a cookie has 4096 bytes with its name")
		require.NotEqual(t, sealed, s.seal("flow", f), "no two are alike")
	}
}

// Every bit of a sealed flow counts, and so does every letter of its text.
func TestSealedFlowsCanNotBeChanged(t *testing.T) {
	s := newTestSealer(t, "secret")
	f := newFlow(now, "/")
	sealed := s.seal("flow", f)
	for i := range sealed {
		for _, letter := range "AQgw_-\n=" {
			changed := sealed[:i] + string(letter) + sealed[i+1:]
			if changed == sealed {
				continue
			}
			_, ok := s.open("flow", changed)
			require.False(t, ok, "letter %d", i)
		}
		_, ok := s.open("flow", sealed[:i]+"\n"+sealed[i:])
		require.False(t, ok, "a line end before letter %d", i)
	}
	for _, other := range []string{"", sealed + "A", sealed + "=", sealed + "\n", sealed[:len(sealed)-1], sealed[1:]} {
		_, ok := s.open("flow", other)
		require.False(t, ok)
	}
	_, ok := s.open("other", sealed)
	require.False(t, ok, "of another flow")
}

func TestSealedFlowsAreOfOneProvider(t *testing.T) {
	bound := [][]string{
		{"corp", "https://idp.example.com", "web"},
		{"corp", "https://idp.example.com", "app"},
		{"corp", "https://other.example.com", "web"},
		{"other", "https://idp.example.com", "web"},
	}
	var sealers []*sealer
	for _, b := range bound {
		s, err := newSealer([][]byte{[]byte("secret")}, b...)
		require.NoError(t, err)
		sealers = append(sealers, s)
	}
	for i, from := range sealers {
		sealed := from.seal("flow", newFlow(now, "/"))
		for j, to := range sealers {
			_, ok := to.open("flow", sealed)
			require.Equal(t, i == j, ok, "%v opened by %v", bound[i], bound[j])
		}
	}
}

func TestFlowNamesTellNothing(t *testing.T) {
	f := newFlow(now, "/")
	state := text(f.state[:])
	name := flowName(state)
	require.Len(t, name, 12)
	require.NotContains(t, state, name)
	require.Equal(t, name, flowName(state))
	require.NotEqual(t, name, flowName(text(make([]byte, stateBytes))))
}

// fixedFlow is the same in each process.
func fixedFlow() flow {
	f := flow{begun: time.Unix(now.Unix(), 0), returnTo: "/orders?page=2"}
	for i := range f.verifier {
		f.verifier[i] = byte(i)
	}
	copy(f.state[:], f.verifier[1:])
	copy(f.nonce[:], f.verifier[2:])
	return f
}

// Two states may have one name: it is short, and says of which cookie to look, not which
// login it is.
func TestAFlowIsOfItsStateAlone(t *testing.T) {
	p := &Provider{sealer: newTestSealer(t, "secret"), o: Options{Now: func() time.Time { return now }}}
	ours, another := fixedFlow(), newFlow(now, "/")
	state := text(ours.state[:])
	f, err := p.resume(callback{state: state}, p.sealer.seal(flowName(state), ours))
	require.NoError(t, err)
	require.Equal(t, ours, f)
	_, err = p.resume(callback{state: state}, p.sealer.seal(flowName(state), another))
	require.EqualError(t, err, "the state of another login")
}

// sealedBefore are texts that earlier versions have sealed, with first-secret
// and with second-secret: replicas of two versions share logins.
var sealedBefore = []string{
	"ubbNBHzoBpepR-RVejiQg2c_C5NvV4w1nFc16CrxeiTvPIA99GEQU3QIPKkvkoTixAZuQmn6Eu2cKmdL7aFoH4EOcYNZ-ckSknV871JLlZpytuDzDaH5v7iOg1DjSWpX8t-t6cOi1En-dID1mKt-vAMTPZqalCmBSA9wBFwyOMc-cA",
	"GSp6KO8JxL-eu55Lp8DUPQIcaxBq2BP3YGxQEI8ayGpIBtLEL9bAVMF8Y_jfyAej4pCRyKIxHZtFytdm1qO8DdbIOLwLvyyulSYG33-RI-9pp_CYvWF9kaOBSAjvWaPPTbr9oVhOwRv0ngQDy1kcvGd_qfqY1WuTk2O17JZzYMRR1g",
}

// FuzzOpen states that whatever a browser sends, nothing opens but the very text
// that was sealed, and under its own name.
func FuzzOpen(f *testing.F) {
	s := newTestSealer(f, "first-secret", "second-secret")
	for _, sealed := range sealedBefore {
		_, ok := s.open("flow", sealed)
		require.True(f, ok)
		for _, seed := range []string{sealed, sealed + "\n", sealed + "=", sealed[1:], sealed[:60], strings.ToUpper(sealed)} {
			f.Add("flow", seed)
			f.Add("", seed)
		}
	}
	f.Add("flow", "")
	f.Add("flow", strings.Repeat("A", 5000))
	f.Fuzz(func(t *testing.T, name, given string) {
		got, ok := s.open(name, given)
		if !ok {
			require.Zero(t, got)
			return
		}
		require.Equal(t, "flow", name)
		require.Contains(t, sealedBefore, given)
		require.Equal(t, fixedFlow(), got)
	})
}

// FuzzParseFlow states that what parses is written the same way again.
func FuzzParseFlow(f *testing.F) {
	f.Add(newFlow(now, "/").marshal())
	f.Add([]byte{})
	f.Add(make([]byte, flowHead-1))
	f.Add(make([]byte, flowHead))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := parseFlow(b); ok {
			require.Equal(t, b, got.marshal())
		} else {
			require.Less(t, len(b), flowHead)
		}
	})
}

// FuzzLogoutHeader states that no header of a logout token makes a panic, and
// none but those of the list pass with a type.
func FuzzLogoutHeader(f *testing.F) {
	for _, header := range []string{`{}`, `{"typ":"logout+jwt"}`, `{"typ":null}`, `{"typ":7}`, `{"typ":"at+jwt"}`, `[]`, `null`, ``, `{"typ":"JWT"}{`} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if checkLogoutHeader(text([]byte(header))+".e30.x") != nil {
			return
		}
		claims, err := claim.Decode([]byte(header))
		require.NoError(t, err)
		if typ, given := claims["typ"]; given {
			require.Contains(t, logoutTypes, strings.ToLower(typ.(string)))
		}
	})
}
