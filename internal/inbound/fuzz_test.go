package inbound_test

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/inbound"
)

// FuzzClientAddress states that the client has no say in its own address: once our
// own proxies have written their entries, nothing that stands further left changes
// it, in the same line or in one of its own; and that what is found is an address
// in one form, of the peer or of an entry.
func FuzzClientAddress(f *testing.F) {
	f.Add("192.0.2.1:40000", "10.0.0.1, 198.51.100.7", "203.0.113.9", 1)
	f.Add("[2001:db8::1]:40000", "x", "[2001:DB8::2]:443", 2)
	f.Add("@", "", ",", 1)
	f.Add("[fe80::1%eth0]:1", "::ffff:192.0.2.1,\t", "unknown", 3)
	f.Add("192.0.2.1:1", "a\nb", "1.2.3.4, 1.2.3.4", -1)
	f.Fuzz(func(t *testing.T, peer, clients, ours string, hops int) {
		ask := func(lines ...string) netip.Addr {
			return inbound.ClientAddress(&http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": lines}}, hops)
		}
		found := ask(clients, ours)
		if found.IsValid() {
			require.Empty(t, found.Zone())
			require.False(t, found.Is4In6(), "one client has two addresses")
			entries := append(strings.Split(clients+","+ours, ","), peer)
			named := false
			for _, e := range entries {
				named = named || inbound.ParseAddress(strings.TrimSpace(e)) == found
			}
			require.True(t, named, "%v is nobody's", found)
		}
		require.Equal(t, found, ask(clients+","+ours), "one line or two")
		if hops <= strings.Count(ours, ",")+1 {
			require.Equal(t, ask(ours), found, "what the client adds")
			require.Equal(t, found, ask("203.0.113.77", clients, ours), "what the client adds")
		}
		if hops <= 0 {
			require.Equal(t, inbound.ParseAddress(peer), found)
		}
	})
}

var bracketed = regexp.MustCompile(`^\[([^\[\]]*)\]$`)

// FuzzParseAddress states that package net, which reads addresses in another way,
// finds the same one, or none; and that the canonical form means itself.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"192.0.2.1", "192.0.2.1:1", "[2001:db8::1]:443", "[::1]", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4:99999", "[1.2.3.4]", "1.2.3", "0x7f.1", "[[::1]]", "::1]", "127.1", "01.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		found := inbound.ParseAddress(s)
		if !found.IsValid() {
			require.Nil(t, net.ParseIP(s), "%q is an address", s)
			return
		}
		require.Equal(t, found, inbound.ParseAddress(found.String()), "%q", s)
		require.Equal(t, found, inbound.ParseAddress(netip.AddrPortFrom(found, 443).String()), "%q", s)
		host := s
		if h, _, err := net.SplitHostPort(s); err == nil {
			host = h
		}
		if m := bracketed.FindStringSubmatch(host); m != nil {
			host = m[1]
		}
		host, _, _ = strings.Cut(host, "%")
		require.Equal(t, net.ParseIP(host).String(), found.String(), "%q", s)
	})
}
