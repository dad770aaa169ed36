package authapi

import (
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

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
