package extauthz_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// The service gets the identity signed where the policy says so, for the service that
// the policy or the route names; and nothing that a client says is taken for it.
func TestAssertion(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	odd := []string{"x-identity-assertion", "root", "x_identity_assertion", "root", "X-Identity-Assertion", "root"}
	cookie := append(odd, "cookie", aliceCookie)
	for name, tt := range map[string]struct {
		check        check
		want, signed string
	}{
		"session":                     {named("signed", get("/", cookie...)), "allow alice", "signed.alice.orders"},
		"token":                       {named("signed", get("/", append(odd, "authorization", aliceBearer)...)), "allow alice", "signed.alice.orders"},
		"internal key":                {named("signed-key", get("/", append(odd, "x-internal-api-key", apiKey)...)), "allow service:billing", "signed.service:billing.orders"},
		"nobody":                      {named("signed", get("/", odd...)), allowNobody, ""},
		"an invalid credential":       {named("signed", get("/", append(odd, "cookie", "sessionId=x")...)), allowNobody, ""},
		"a policy that signs nothing": {get("/", cookie...), "allow alice", ""},
		"a policy that signs nothing, whatever the route says": {forService("orders", get("/", cookie...)), "allow alice", ""},
		"named by the policy alone":                            {forService("billing", named("signed", get("/", cookie...))), "allow alice", "signed.alice.orders"},
		"named by the route":                                   {forService("billing", named("signed-by-route", get("/", cookie...))), "allow alice", "signed.alice.billing"},
		"named by both":                                        {forService("billing", named("signed-either", get("/", cookie...))), "allow alice", "signed.alice.billing"},
		"named by the policy, the route says nothing":          {named("signed-either", get("/", cookie...)), "allow alice", "signed.alice.orders"},
		"named by nobody":                                      {named("signed-by-route", get("/", cookie...)), "Forbidden no_audience", ""},
		"an empty name":                                        {forService("", named("signed-either", get("/", cookie...))), "Forbidden no_audience", ""},
		"a name that would split the header":                   {forService("a\r\nb", named("signed-either", get("/", cookie...))), "Forbidden no_audience", ""},
		"a name that is too long":                              {forService(strings.Repeat("x", 256), named("signed-either", get("/", cookie...))), "Forbidden no_audience", ""},
		"no signature":                                         {forService("broken", named("signed-by-route", get("/", cookie...))), "ServiceUnavailable internal", ""},
		"not allowed":                                          {named("signed-key", get("/", cookie...)), "Unauthorized no_credential", ""},
		"not allowed, on trial":                                {forService("orders", named("signed-trial", get("/", "cookie", "sessionId=signed.bob"))), "allow bob", "signed.bob.orders"},
		"no signature, on trial":                               {forService("broken", named("signed-trial", get("/", cookie...))), "allow alice", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response := ask(t, s, tt.check)
			require.Equal(t, tt.want, answer(response))
			signed, set := headerValues(response.GetOkResponse().GetHeaders())[authz.HeaderAssertion]
			require.Equal(t, tt.signed, signed)
			require.Equal(t, tt.signed != "", set)
		})
	}
}

// What is signed counts into the budget.
func TestAssertionInBudget(t *testing.T) {
	t.Parallel()
	// bob's headers, as in TestBudget, and x-identity-assertion: signed.bob.orders
	const size = 59 + 20 + 17
	for budget, want := range map[int]string{size: "allow bob", size - 1: "Forbidden identity_too_long"} {
		s := extauthz.NewServer(newAuthorizer(t), extauthz.Options{MaxHeaderBytes: budget})
		require.Equal(t, want, answer(ask(t, s, named("signed", get("/", "cookie", "sessionId=signed.bob")))))
	}
}
