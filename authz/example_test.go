package authz_test

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// A gate with one policy and one internal caller, asked twice.
func Example() {
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{
			{Name: "public", Anonymous: true},
			{Name: "internal", Credentials: []authz.Kind{authz.KindAPIKey}},
		},
		Routes:  []authz.Route{{Path: "/health", Policy: "public"}},
		Default: "internal",
	})
	if err != nil {
		panic(err)
	}
	keys := authz.NewAPIKeys([]authz.APIKey{
		{Name: "billing", SHA256: sha256.Sum256([]byte("a long random key")), Policies: []string{"internal"}},
	}, nil)
	gate := authz.NewAuthorizer(policies, authz.Options{}, keys)

	for _, target := range []string{"/health", "/invoices?year=2026", "/%69nvoices/../health"} {
		for _, presented := range []string{"", "a long random key"} {
			headers := authz.HeaderMap{}
			if presented != "" {
				headers[authz.HeaderAPIKey] = presented
			}
			request, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "example.com", Target: target, Headers: headers})
			decision := &authz.Decision{}
			if err == nil {
				decision, err = gate.Authorize(context.Background(), request)
			}
			switch {
			case err != nil:
				fmt.Println(target, authz.ReasonOf(err), authz.AnswerTo(decision, request, err).Status)
			case decision.Principal != nil:
				fmt.Println(target, decision.Reason, decision.Principal.ID)
			default:
				fmt.Println(target, decision.Reason)
			}
		}
	}
	// Output:
	// /health anonymous
	// /health anonymous
	// /invoices?year=2026 no_credential 401
	// /invoices?year=2026 authenticated service:billing
	// /%69nvoices/../health bad_path 400
	// /%69nvoices/../health bad_path 400
}

// Routes are matched on the decoded path, so an escape is no way around one.
func ExampleCanonicalPath() {
	for _, raw := range []string{"/%61dmin/users", "/caf%C3%A9", "/static/%2e%2e/admin", "/a//b"} {
		path, err := authz.CanonicalPath(raw)
		if err != nil {
			fmt.Println("refused:", authz.ReasonOf(err))
			continue
		}
		fmt.Println(path)
	}
	// Output:
	// /admin/users
	// /café
	// refused: bad_path
	// refused: bad_path
}

// Envoy joins repeated Cookie headers by a comma. The first cookie counts.
func ExampleFirstCookie() {
	value, ok := authz.FirstCookie("theme=dark,sessionId=first; sessionId=second", "sessionId")
	fmt.Println(value, ok)
	// Output: first true
}

func ExampleIdentityHeaders_Encode() {
	headers, err := authz.DefaultIdentityHeaders.Encode(authz.Identity{
		ID: "42", Email: "jörg@example.com", Roles: []string{"admin", "prüfer"}, Organization: "R&D 100%",
	}, 8192)
	if err != nil {
		panic(err)
	}
	for _, h := range headers {
		fmt.Printf("%s: %s\n", h.Name, h.Value)
	}
	// Output:
	// x-user-id: 42
	// x-user-email: j%C3%B6rg@example.com
	// x-org-id: R&D%20100%25
	// x-user-roles: ["admin","pr\u00fcfer"]
}
