package main

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// FuzzNamesThisHost states that a Host header which lets a page of a browser ask the
// ops listener is an address or one of two names: no name of somebody's own, which a
// name server could make lead here.
func FuzzNamesThisHost(f *testing.F) {
	for _, seed := range []string{"localhost", "LOCALHOST:9090", "127.0.0.1", "[::1]:9090", "gatehouse", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[localhost]", "localhost:x", "", "::1", "[[::1]]", "evil.example:127.0.0.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !namesThisHost(host) {
			return
		}
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		name = strings.ToLower(strings.Trim(name, "[]"))
		if _, err := netip.ParseAddr(name); err != nil {
			require.Contains(t, []string{"localhost", "gatehouse"}, name)
		}
	})
}

// FuzzFromThisHost states that who explains itself as this host has an address that
// no packet from elsewhere carries.
func FuzzFromThisHost(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:1", "[::1]:1", "@", "", "/run/x.sock", "127.0.0.6:1", "192.0.2.1:1", "[::ffff:127.0.0.1]:1", "127.0.0.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, remote string) {
		if !fromThisHost(remote) {
			return
		}
		host, _, err := net.SplitHostPort(remote)
		if err != nil { // a socket
			_, err := netip.ParseAddr(remote)
			require.Error(t, err)
			return
		}
		addr, err := netip.ParseAddr(host)
		require.NoError(t, err)
		require.True(t, addr.IsLoopback())
	})
}

// FuzzParseChange states that what an operator types changes what it names, that the
// API would take the same, and that nothing else is changed.
func FuzzParseChange(f *testing.F) {
	f.Add("roles=admin,member", "disabled=true")
	f.Add(`roles=["a",1]`, "organizationId=")
	f.Add("roles=", "roles=x")
	f.Add("=x", "id=1")
	f.Fuzz(func(t *testing.T, one, two string) {
		pairs := []string{one, two}
		change, err := parseChange(pairs)
		if err != nil {
			return
		}
		given := map[string]string{}
		for _, pair := range pairs {
			name, value, ok := strings.Cut(pair, "=")
			require.True(t, ok)
			require.NotContains(t, given, name)
			require.Contains(t, authapi.UserChangeFields(), name)
			given[name] = value
		}
		changed := authapi.Changes(change)
		require.Len(t, changed, len(given))
		for name := range given {
			require.True(t, slices.Contains(changed, name), "%s of %v", name, changed)
		}
		if value, ok := given["disabled"]; ok {
			require.Equal(t, value == "true", *change.Disabled)
		}
	})
}

// FuzzParseClaims states that claims from the command line become the JSON that was
// meant, and never one that Gatehouse writes itself.
func FuzzParseClaims(f *testing.F) {
	f.Add("plan=gold", `tags:=["a"]`)
	f.Add("sub=x", "exp:=1")
	f.Add("a:=", "a=b=c")
	f.Add(`a:={"b":1}{`, ":=1")
	f.Fuzz(func(t *testing.T, one, two string) {
		claims, err := parseClaims([]string{one, two})
		if err != nil {
			return
		}
		require.Len(t, claims, 2)
		for _, reserved := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", ""} {
			require.NotContains(t, claims, reserved)
		}
		for name, value := range claims {
			text, err := json.Marshal(map[string]any{name: value})
			require.NoError(t, err)
			if raw, isJSON := value.(json.RawMessage); isJSON {
				require.True(t, json.Valid(raw))
			} else {
				require.Contains(t, []string{one, two}, name+"="+value.(string))
			}
			require.True(t, json.Valid(text))
		}
	})
}

// FuzzPrintable states that no text from outside moves a terminal's cursor or colours
// it, whatever a session, a token or a user agent holds, and that two texts don't look
// the same unless one was written to.
func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"plain", "\x1b[31mred", "a\r\nb", "\xff\u202e\u2028", "é😀", `\x1b`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shown := printable(s)
		require.True(t, utf8.ValidString(shown))
		for _, r := range shown {
			require.True(t, r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != '\u202e' && r != '\u2028', "%q", r)
		}
		require.Equal(t, shown, printable(shown), "it is its own form")
		for _, width := range []int{1, 6, 40} {
			require.LessOrEqual(t, utf8.RuneCountInString(shorten(shown, width)), width)
		}
	})
}

// FuzzParseTime states that a time is one moment, and that of its canonical form.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{"2026-01-31T12:00:00Z", "2026-01-31", "1795867200", "0", "-1", "99999999999", "2026-02-30", "2026-01-31T12:00:00+99:00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTime(text)
		if err != nil {
			require.Zero(t, at)
			return
		}
		again, err := parseTime(at.UTC().Format(time.RFC3339Nano))
		if at.UTC().Year() >= 0 && at.UTC().Year() <= 9999 {
			require.NoError(t, err)
			require.True(t, at.Equal(again))
		}
	})
}
