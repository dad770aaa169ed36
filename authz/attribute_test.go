package authz_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func attribute(tb testing.TB, name string) authz.Attribute {
	tb.Helper()
	a, err := authz.ParseAttribute(name)
	require.NoError(tb, err)
	return a
}

func TestAttributesOfNothingAreRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":                "expected claims., session. or identity.",
		"plan":            "expected claims., session. or identity.",
		"Claims.plan":     "expected claims., session. or identity.",
		"request.path":    "expected claims., session. or identity.",
		"claims":          "names joined by dots behind claims",
		"claims.":         "names joined by dots behind claims",
		"session.a..b":    "names joined by dots behind session",
		"session..":       "names joined by dots behind session",
		"session.a\nb":    "names joined by dots behind session",
		"identity":        "identity has id, email, roles, org and kind",
		"identity.groups": "identity has id, email, roles, org and kind",
		"identity.org.id": "identity has id, email, roles, org and kind",
	} {
		_, err := authz.ParseAttribute(name)
		require.ErrorContains(t, err, want, name)
	}
	for name, kind := range map[string]authz.Kind{"claims.a.b": authz.KindBearer, "session.a": authz.KindSession, "identity.id": ""} {
		require.Equal(t, name, attribute(t, name).String())
		require.Equal(t, kind, attribute(t, name).Kind())
	}
}

// Values travel by headers as those of the identity do: text percent-encoded, lists
// as visible JSON. What has no value is not told.
func TestWhatPoliciesTell(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.sessions.sessions["alice"].Values = map[string]any{
		"text": "B\u00fccher & 100%", "number": json.Number("1e400"), "yes": true, "no": false, "null": nil, "empty": "",
		"list": []any{"a b", json.Number("1"), nil, "\U0001f600\x7f"}, "none": []any{}, "object": map[string]any{"b": true, "a": "<"},
		"deep": map[string]any{"er": map[string]any{"text": "x"}, "er.too": "dotted"}, "deep.er.text": "whole", "bad": []any{"\xff"},
	}
	for name, want := range map[string]struct{ header, metadata string }{
		"session.text":         {"B%C3%BCcher%20&%20100%25", "B\u00fccher & 100%"},
		"session.number":       {"1e400", "1e400"},
		"session.yes":          {"true", "true"},
		"session.no":           {"false", "false"},
		"session.null":         {},
		"session.empty":        {},
		"session.absent":       {},
		"session.text.inside":  {},
		"session.list":         {`["a\u0020b",1,null,"\ud83d\ude00\u007f"]`, `["a\u0020b",1,null,"\ud83d\ude00\u007f"]`},
		"session.none":         {"[]", "[]"},
		"session.object":       {`{"a":"\u003c","b":true}`, `{"a":"\u003c","b":true}`},
		"session.bad":          {`["\ufffd"]`, `["\ufffd"]`},
		"session.deep.er.text": {"whole", "whole"},
		"session.deep.er.too":  {"dotted", "dotted"},
		"session.deep.er":      {`{"text":"x"}`, `{"text":"x"}`},
		"claims.text":          {},
		"identity.id":          {"alice", "alice"},
		"identity.email":       {"alice@example.com", "alice@example.com"},
		"identity.org":         {"org-1", "org-1"},
		"identity.kind":        {"session", "session"},
		"identity.roles":       {`["admin","user"]`, `["admin","user"]`},
	} {
		from := attribute(t, name)
		p := authz.Policy{
			Credentials: kinds(authz.KindSession),
			Headers:     []authz.Extra{{Name: "x-told", From: from}}, Metadata: []authz.Extra{{Name: "told", From: from}},
		}
		d, err := g.decide(p, get(t, aliceSession...))
		require.NoError(t, err)
		var headers, metadata []authz.Header
		if want.header != "" {
			headers, metadata = []authz.Header{{Name: "x-told", Value: want.header}}, []authz.Header{{Name: "told", Value: want.metadata}}
		}
		require.Equal(t, headers, d.Extra, name)
		require.Equal(t, metadata, d.Metadata, name)

		all := d.Headers(authz.DefaultIdentityHeaders)
		require.Equal(t, headers, append([]authz.Header(nil), all[4:]...))
		size := 0
		for _, h := range append(all, d.Metadata...) {
			size += len(h.Name) + len(h.Value)
		}
		require.Equal(t, size, d.Size(&authz.DefaultIdentityHeaders))
		require.NoError(t, d.Fits(&authz.DefaultIdentityHeaders, size))
		require.NoError(t, d.Fits(&authz.DefaultIdentityHeaders, 0))
		requireReason(t, authz.ReasonIdentityTooLong, d.Fits(&authz.DefaultIdentityHeaders, size-1))
	}
}

// Nobody has no attributes, and who is refused isn't told about.
func TestNothingIsToldOfNobody(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	p := authz.Policy{
		Credentials: kinds(authz.KindSession), Anonymous: true, Condition: func(r *authz.Request, _ *authz.Principal) (bool, error) { return r.Method == "GET", nil },
		Headers: []authz.Extra{{Name: "x-kind", From: attribute(t, "identity.kind")}}, Metadata: []authz.Extra{{Name: "kind", From: attribute(t, "identity.kind")}},
	}
	for _, r := range []*authz.Request{get(t), get(t, "cookie", "sessionId=x"), request(t, "POST", "/", aliceSession...)} {
		d, _ := g.decide(p, r)
		require.Empty(t, d.Extra)
		require.Empty(t, d.Metadata)
	}
	d, err := g.decide(p, get(t, aliceSession...))
	require.NoError(t, err)
	require.Len(t, d.Extra, 1)
}

func TestExtrasThatMakeNoSense(t *testing.T) {
	t.Parallel()
	id := attribute(t, "identity.id")
	for want, p := range map[string]authz.Policy{
		`header "X-A"`:                {Headers: []authz.Extra{{Name: "X-A", From: id}}},
		`header "x_a"`:                {Headers: []authz.Extra{{Name: "x_a", From: id}}},
		`header ""`:                   {Headers: []authz.Extra{{From: id}}},
		`header "x-internal-api-key"`: {Headers: []authz.Extra{{Name: "x-internal-api-key", From: id}}},
		`"x-identity-assertion"`:      {Headers: []authz.Extra{{Name: "x-identity-assertion", From: id}}},
		`header "x-nothing"`:          {Headers: []authz.Extra{{Name: "x-nothing"}}},
		`header "x-a" is there twice`: {Headers: []authz.Extra{{Name: "x-a", From: id}, {Name: "x-a", From: id}}},
		`metadata "user"`:             {Metadata: []authz.Extra{{Name: "user", From: id}}},
		`metadata ""`:                 {Metadata: []authz.Extra{{From: id}}},
		`metadata "nothing"`:          {Metadata: []authz.Extra{{Name: "nothing"}}},
		`metadata "a" is there twice`: {Metadata: []authz.Extra{{Name: "a", From: id}, {Name: "a", From: id}}},
	} {
		p.Name = "p"
		_, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{p}})
		require.ErrorContains(t, err, want)
	}
}

// Whatever policy a request has, no client can send a header that some policy adds.
func TestSpellingsOfTheHeadersOfAllPolicies(t *testing.T) {
	t.Parallel()
	id := attribute(t, "identity.id")
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{
		{Name: "a", Headers: []authz.Extra{{Name: "x-plan", From: id}, {Name: "tenant", From: id}}},
		{Name: "b", Headers: []authz.Extra{{Name: "x-plan", From: id}, {Name: "x-a-b", From: id}}},
	}})
	require.NoError(t, err)
	a := authz.NewAuthorizer(policies, authz.Options{})
	require.Equal(t, []string{"tenant", "x-a-b", "x-identity-assertion", "x-plan"}, a.ExtraHeaders())
	all := a.ClientSpellings(authz.DefaultIdentityHeaders)
	identity := authz.DefaultIdentityHeaders.ClientSpellings()
	require.Equal(t, identity, all[:len(identity)])
	require.Equal(t, "x_a-b x-a_b x_a_b x_identity-assertion x-identity_assertion x_identity_assertion x_plan tenant x-a-b x-identity-assertion x-plan", strings.Join(all[len(identity):], " "))
}
