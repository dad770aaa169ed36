package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLongTokensAreAsLongAsTheyShould(t *testing.T) {
	c, err := newCredentials(1, time.Now())
	require.NoError(t, err)
	token, err := c.longToken(usualToken)
	require.NoError(t, err)
	require.InDelta(t, usualToken+2, len(token), 2)
	short, err := c.longToken(1)
	require.NoError(t, err)
	require.Less(t, len(short), usualToken)
}

func TestCallsOfAPageDiffer(t *testing.T) {
	a, b := call(0, "cookie: a=b\r\n"), call(1, "")
	require.True(t, strings.HasPrefix(a, "GET /orders/10?expand=items HTTP/1.1\r\n"))
	require.True(t, strings.HasPrefix(b, "GET /orders/11?expand=items HTTP/1.1\r\n"))
	require.True(t, strings.HasSuffix(a, "\r\nsec-fetch-dest: empty\r\ncookie: a=b\r\n\r\n"))
	require.Len(t, a, len(b)+len("cookie: a=b\r\n"))
}
