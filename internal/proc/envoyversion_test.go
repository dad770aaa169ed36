package proc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseEnvoyVersion(t *testing.T) {
	v, err := parseEnvoyVersion([]byte("\n/x/envoy  version: dc2d3098ae5641555f15c71d5bb5ce0060a8015c/1.36.2/Clean/RELEASE/BoringSSL\n"))
	require.NoError(t, err)
	require.Equal(t, EnvoyVersion{1, 36}, v)
	_, err = parseEnvoyVersion([]byte("nginx version: nginx/1.22.1"))
	require.Error(t, err)

	require.True(t, EnvoyVersion{1, 9}.Before(EnvoyVersion{1, 36}), "numbers, not letters")
	require.False(t, EnvoyVersion{2, 0}.Before(EnvoyVersion{1, 36}))
	require.False(t, EnvoyVersion{1, 36}.Before(EnvoyVersion{1, 36}))
}

func TestFitEnvoy(t *testing.T) {
	const config = "admin:\n  address: {}\n  allow_paths: [{exact: /ready}]\n  other: 1\nrest: 2\n"
	for _, v := range []EnvoyVersion{allowPathsSince, {1, 40}, {2, 0}} {
		text, err := FitEnvoy([]byte(config), v)
		require.NoError(t, err)
		require.Equal(t, config, string(text))
	}
	text, err := FitEnvoy([]byte(config), EnvoyVersion{1, 36})
	require.NoError(t, err)
	require.YAMLEq(t, "admin: {address: {}, other: 1}\nrest: 2", string(text))
	for _, config := range []string{"rest: 2", "admin: {other: 1}"} {
		text, err := FitEnvoy([]byte(config), EnvoyVersion{1, 36})
		require.NoError(t, err)
		require.Equal(t, config, string(text))
	}
}
