// Package inbound holds what the HTTP doors have in common: how they read a
// request's headers, and the address of whoever sent it.
package inbound

import (
	"iter"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
)

// Headers are those of an HTTP request, as [authz.Headers]. Repeated ones are
// joined as gateways join them.
type Headers http.Header

// Header returns the value of a header, and whether it is there at all.
func (h Headers) Header(name string) (string, bool) {
	values := h[textproto.CanonicalMIMEHeaderKey(name)]
	if len(values) == 0 {
		return "", false
	}
	if strings.EqualFold(name, "cookie") {
		return strings.Join(values, "; "), true
	}
	return strings.Join(values, ","), true
}

// All yields each header once, by its name in lower case.
func (h Headers) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for name := range h {
			if value, ok := h.Header(name); ok && !yield(strings.ToLower(name), value) {
				return
			}
		}
	}
}

// ClientAddress returns the client's address: hops entries from the right of
// X-Forwarded-For, where our own proxies have written it. What stands further
// left is the client's word. With fewer entries, with one that is no address,
// and without hops it is the peer; the zero Addr for a Unix socket.
func ClientAddress(r *http.Request, hops int) netip.Addr {
	peer := ParseAddress(r.RemoteAddr)
	if hops <= 0 {
		return peer
	}
	entries := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	if len(entries) < hops {
		return peer
	}
	if addr := ParseAddress(strings.TrimSpace(entries[len(entries)-hops])); addr.IsValid() {
		return addr
	}
	return peer
}

// ParseAddress reads an address, with or without a port, as proxies write it; the
// zero Addr for what is none.
func ParseAddress(s string) netip.Addr {
	bare := s
	if inside, opens := strings.CutPrefix(s, "["); opens {
		if closed, closes := strings.CutSuffix(inside, "]"); closes {
			bare = closed
		}
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		with, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		addr = with.Addr()
	}
	return addr.Unmap().WithZone("")
}
