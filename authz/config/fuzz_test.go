package config

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Whatever the text is: no panic; every problem takes one line, has a place
// within the text and shows no variable's value; and what is accepted is also
// valid by the JSON Schema, and its routes and policies compile.
func FuzzLoad(f *testing.F) {
	spec, err := os.ReadFile("testdata/spec.yaml")
	require.NoError(f, err)
	f.Add(string(spec))
	f.Add(strings.NewReplacer(
		`"hex"`, `"`+hash+`"`,
		`, on_store_outage: serve_stale, stale_for: 30s`, ``,
		`, condition: 'claims.scope.contains("orders:read")', rate_limit: partner`, ``,
	).Replace(string(spec)))
	f.Add(secretful)
	for _, tt := range broken {
		f.Add(tt.text)
	}
	f.Add("...")
	f.Add("redis: {url: 'rediss+sentinel://u:p%40@[::1]:1,b/m/3', tls: {ca_file: ca.pem}, password_file: ~}")
	f.Add("server: {check: {listen: 'unix:///a'}, http: {listen: '${HOST}:1'}, ops: {listen: '[fe80::1%eth0]:0'}}")
	f.Add("policies: {a: &a {anonymous: TRUE}, b: {<<: *a, mode: observe}}\nroutes: [{path: '/%41*', host: '*.b', methods: [get], policy: a}]")
	f.Add(withSession + "policies: {a: {credentials: [session], headers: {X-Plan: session.plan, x-kind: identity.kind}, metadata: {plan: '${PLAN}'}}}")
	schema := compileSchema(f)

	f.Fuzz(func(t *testing.T, text string) {
		c, warnings, err := parseTest(text)
		var problems []Problem
		if err != nil {
			require.Nil(t, c)
			require.ErrorAs(t, err, new(Problems))
			problems = err.(Problems) //nolint:errorlint // ErrorAs has just seen that it is one
			require.NotEmpty(t, problems)
		}
		for _, w := range warnings {
			problems = append(problems, Problem(w))
		}
		last := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u0085") +
			strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + 2
		for _, p := range problems {
			require.NotEmpty(t, p.Message)
			require.NotContains(t, p.String(), "\n")
			require.NotContains(t, p.String(), "env-", "the value of a variable")
			if len(text) <= maxConfigBytes {
				require.GreaterOrEqual(t, p.Line, 1, p)
				require.GreaterOrEqual(t, p.Column, 1, p)
				require.LessOrEqual(t, p.Line, last, p)
			}
		}
		if err != nil {
			return
		}
		require.NoError(t, schema.Validate(plain(t, []byte(text))))
		_, err = authz.NewPolicySet(policySet(c))
		require.NoError(t, err)
	})
}

// policySet is what the names and routes of a configuration compile to.
func policySet(c *Config) authz.PolicySetOptions {
	o := authz.PolicySetOptions{Default: c.DefaultPolicy}
	for _, name := range c.PolicyNames() {
		o.Policies = append(o.Policies, authz.Policy{Name: name})
	}
	for _, r := range c.Routes {
		o.Routes = append(o.Routes, authz.Route(r))
	}
	return o
}
