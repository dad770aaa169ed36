package inbound_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/inbound"
)

var _ authz.Headers = inbound.Headers(nil)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		peer      string
		forwarded []string
		hops      int
		want      string
	}{
		"the peer":                        {"192.0.2.1:40000", nil, 0, "192.0.2.1"},
		"the peer, whatever is forwarded": {"192.0.2.1:40000", []string{"203.0.113.9"}, 0, "192.0.2.1"},
		"one hop":                         {"192.0.2.1:40000", []string{"203.0.113.9"}, 1, "203.0.113.9"},
		"one hop, the client adds some":   {"192.0.2.1:40000", []string{"10.0.0.1, 198.51.100.7", "203.0.113.9"}, 1, "203.0.113.9"},
		"two hops":                        {"192.0.2.1:40000", []string{"10.0.0.1, 203.0.113.9", "198.51.100.7"}, 2, "203.0.113.9"},
		"two hops, one entry":             {"192.0.2.1:40000", []string{"203.0.113.9"}, 2, "192.0.2.1"},
		"a hop, no entry":                 {"192.0.2.1:40000", nil, 1, "192.0.2.1"},
		"a hop, an empty entry":           {"192.0.2.1:40000", []string{""}, 1, "192.0.2.1"},
		"no address":                      {"192.0.2.1:40000", []string{"203.0.113.9, unknown"}, 1, "192.0.2.1"},
		"a name":                          {"192.0.2.1:40000", []string{"localhost"}, 1, "192.0.2.1"},
		"with a port":                     {"192.0.2.1:40000", []string{"203.0.113.9:1234"}, 1, "203.0.113.9"},
		"IPv6":                            {"[2001:db8::1]:40000", []string{"2001:DB8::2"}, 1, "2001:db8::2"},
		"IPv6 in brackets":                {"[2001:db8::1]:40000", []string{"[2001:db8::2]"}, 1, "2001:db8::2"},
		"IPv6 with a port":                {"[2001:db8::1]:40000", []string{"[2001:db8::2]:443"}, 1, "2001:db8::2"},
		"half a bracket":                  {"192.0.2.1:40000", []string{"2001:db8::2]"}, 1, "192.0.2.1"},
		"the other half":                  {"192.0.2.1:40000", []string{"[203.0.113.9"}, 1, "192.0.2.1"},
		"IPv6, the peer":                  {"[2001:db8::1]:40000", nil, 0, "2001:db8::1"},
		"IPv4 in IPv6":                    {"[::ffff:192.0.2.1]:40000", nil, 0, "192.0.2.1"},
		"a zone":                          {"[fe80::1%eth0]:40000", nil, 0, "fe80::1"},
		"spaces":                          {"192.0.2.1:40000", []string{" 10.0.0.1 ,\t203.0.113.9 "}, 1, "203.0.113.9"},
		"a Unix socket":                   {"@", nil, 0, "invalid IP"},
		"a Unix socket, one hop":          {"@", []string{"203.0.113.9"}, 1, "203.0.113.9"},
		"a Unix socket, two hops":         {"@", []string{"203.0.113.9"}, 2, "invalid IP"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			for _, line := range tt.forwarded {
				r.Header.Add("X-Forwarded-For", line)
			}
			require.Equal(t, tt.want, inbound.ClientAddress(r, tt.hops).String())
		})
	}
}

func TestRepeatedHeadersAreOneValue(t *testing.T) {
	t.Parallel()
	h := inbound.Headers(http.Header{"Cookie": {"a=1", "b=2"}, "Accept": {"text/html", "*/*"}, "X-Empty": {""}})
	require.Equal(t, map[string]string{"cookie": "a=1; b=2", "accept": "text/html,*/*", "x-empty": ""}, maps.Collect(h.All()))
	value, ok := h.Header("COOKIE")
	require.True(t, ok)
	require.Equal(t, "a=1; b=2", value)
	_, ok = h.Header("x-none")
	require.False(t, ok)
}
