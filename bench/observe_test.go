package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCommandsBetweenTwoReadings(t *testing.T) {
	before, err := parseCommandStats("# Commandstats\r\ncmdstat_get:calls=10,usec=9,usec_per_call=0.75\r\ncmdstat_info:calls=1,usec=2\r\n")
	require.NoError(t, err)
	after, err := parseCommandStats("cmdstat_get:calls=15,usec=9\r\ncmdstat_info:calls=2,usec=2\r\ncmdstat_client|getredir:calls=4,usec=1\r\ncmdstat_evalsha:calls=0,usec=1\r\n")
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"get": 5, "client|getredir": 4}, commandsBetween(before, after), "the first reading is our own")
	_, err = parseCommandStats("cmdstat_get:calls=many")
	require.ErrorContains(t, err, "unexpected form")
}

func TestCommandsPerThousandAreThoseOfTheMeasured(t *testing.T) {
	commands := map[string]int64{"get": 500, "ping": 12}
	total, each := beats{"ping": 2}.perThousand(commands, 2, 2*time.Second, 1000)
	require.InDelta(t, 504, total, 1e-9, "two bystanders sent 8 of the 12")
	require.Equal(t, map[string]float64{"get": 500, "ping": 4}, each)
	total, each = beats{"ping": 2}.perThousand(commands, 3, 2*time.Second, 1000)
	require.InDelta(t, 500, total, 1e-9)
	require.Equal(t, map[string]float64{"get": 500}, each)
	total, _ = beats(nil).perThousand(commands, 0, time.Second, 0)
	require.Zero(t, total)
}

func TestParseRSS(t *testing.T) {
	got, err := parseRSS("Name:\tx\nVmHWM:\t   9000 kB\nVmRSS:\t   2048 kB\n")
	require.NoError(t, err)
	require.Equal(t, int64(2<<20), got)
	_, err = parseRSS("Name:\tx\n")
	require.ErrorContains(t, err, "no VmRSS")
}

func TestParseMetrics(t *testing.T) {
	got := parseMetrics("# HELP a b\n# TYPE a counter\na 3\nb{result=\"hit\"} 1.5e+06\nc{x=\"1 2\"} 4\n\nnonsense\n")
	require.Equal(t, map[string]float64{"a": 3, `b{result="hit"}`: 1.5e6, `c{x="1 2"}`: 4}, got)
}

func TestSessionIDFromTheUsualCookie(t *testing.T) {
	for header, want := range map[string]string{
		"theme=dark; sessionId=s%3Aabc.sig%2B": "abc",
		"sessionId=s:abc.sig":                  "abc",
		"sessionId=abc.sig":                    "",
		"sessionId=%zz":                        "",
		"session=s%3Aabc.sig":                  "",
		"":                                     "",
	} {
		require.Equal(t, want, sessionID(header), header)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 200000: "200,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(n))
	}
}
