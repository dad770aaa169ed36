package oidc_test

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/otlptest"
)

// What a login asks of the provider is below the call that it belongs to, and shows
// nothing of what opens a door.
func TestCallsOfAProviderAreTraced(t *testing.T) {
	c, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	tracer, err := tracing.New(tracing.Options{Endpoint: c.Addr, InsecurePlaintext: true, Sample: 1})
	require.NoError(t, err)
	i := newIssuer(t)
	p := i.provider(t)
	ctx, end := tracer.Start(t.Context())
	location, _, sealed, err := p.Begin(ctx, "/")
	require.NoError(t, err)
	_, _, err = p.Finish(ctx, i.authorize(login{location: must(url.Parse(location)), sealed: sealed}), sealed)
	require.NoError(t, err)
	end()
	require.NoError(t, tracer.Shutdown(t.Context()))

	spans := c.Spans()
	request := spans[slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Kind == "SERVER" })]
	var calls []string
	for _, s := range spans {
		if s.Kind == "CLIENT" {
			require.Equal(t, request.ID, s.Parent)
			calls = append(calls, s.Name)
		}
		for _, secret := range append(i.secrets, clientSecret, sealingKey, clientID) {
			if secret != "" {
				require.NotContains(t, s.String(), secret)
			}
		}
	}
	require.Contains(t, calls, "GET oidc", "discovery")
	require.Contains(t, calls, "POST oidc", "the code")
}

// A discovery document that is fetched again because it is due keeps nobody waiting, and
// is in nobody's trace.
func TestDiscoveryThatIsDueIsNotTraced(t *testing.T) {
	c, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	tracer, err := tracing.New(tracing.Options{Endpoint: c.Addr, InsecurePlaintext: true, Sample: 1})
	require.NoError(t, err)
	i := newIssuer(t)
	p := i.provider(t)
	ctx, end := tracer.Start(t.Context())
	leadsTo := func() string {
		location, _, _, err := p.Begin(ctx, "/")
		require.NoError(t, err)
		return must(url.Parse(location)).Path
	}
	require.Equal(t, "/authorize", leadsTo())
	i.change(func() { i.discovery = object{"authorization_endpoint": i.URL + "/elsewhere"} })
	i.clock.Advance(61 * time.Minute)
	require.Eventually(t, func() bool { return leadsTo() == "/elsewhere" }, 10*time.Second, time.Millisecond)
	end()
	require.NoError(t, tracer.Shutdown(t.Context()))
	spans := c.Spans()
	require.Len(t, spans, 2, "%v", spans)
	require.Equal(t, "GET oidc", spans[0].Name)
	require.Equal(t, "SERVER", spans[1].Kind)
}
