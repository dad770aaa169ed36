package authapi

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// clientAddress returns the client's address: hops entries from the right of
// X-Forwarded-For, where our own proxies have written it. What stands further
// left is the client's word. With fewer entries, with one that is no address,
// and without hops it is the peer; the zero Addr for a Unix socket.
func clientAddress(r *http.Request, hops int) netip.Addr {
	peer := parseAddress(r.RemoteAddr)
	if hops <= 0 {
		return peer
	}
	entries := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	if len(entries) < hops {
		return peer
	}
	if addr := parseAddress(strings.TrimSpace(entries[len(entries)-hops])); addr.IsValid() {
		return addr
	}
	return peer
}

// parseAddress reads an address, with or without a port, as proxies write it.
func parseAddress(s string) netip.Addr {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		with, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		addr = with.Addr()
	}
	return addr.Unmap().WithZone("")
}

// maxUserAgent is how much of a user agent is kept, in bytes.
const maxUserAgent = 256

// device is where the call comes from, for its owner to recognize.
func (c *call) device() authz.Device {
	return authz.Device{Address: c.address(), UserAgent: userAgent(c.header("user-agent"))}
}

// userAgent is what is kept of one: valid UTF-8, at most 256 bytes, no control
// characters.
func userAgent(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxUserAgent {
		s = strings.ToValidUTF8(s[:maxUserAgent], "")
	}
	return s
}
