package authapi_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestUserAgentIsBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, "Firefox/145", authapi.UserAgent("Firefox/145"))
	require.Equal(t, "ab\uFFFDc", authapi.UserAgent("a\x00b\xffc\r\n\x7f"))
	long := authapi.UserAgent(strings.Repeat("é", 300))
	require.Len(t, long, 256)
	require.True(t, utf8.ValidString(authapi.UserAgent("x"+strings.Repeat("é", 300))))
	require.LessOrEqual(t, len(authapi.UserAgent(strings.Repeat("\xff", 300))), 256)
	require.Len(t, authapi.UserAgent(strings.Repeat("x", 256)), 256)
	require.Len(t, authapi.UserAgent(strings.Repeat("x", 257)), 256)
	require.Len(t, authapi.UserAgent("x"+strings.Repeat("é", 300)), 255, "no half of a character, and nothing in its place")
}
