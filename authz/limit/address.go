package limit

import "net/netip"

// networkOf is what an address counts as. Of IPv6 it is the /64: each customer has
// one at least, and so 2⁶⁴ addresses to come from. An IPv4 address is itself, in
// either form.
func networkOf(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if network, err := a.Prefix(64); err == nil { // it has 128 bits
			return network.String()
		}
	}
	return a.String()
}
