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

// doorCards is a credential kind of its own: the number of a card, which a reader at
// the door puts into a header.
type doorCards map[string]authz.Identity

func (doorCards) Kind() authz.Kind { return "door_card" }

// Credential only finds it: also a number that is none decides.
func (doorCards) Credential(r *authz.Request) (string, bool) { return r.Headers.Header("x-door-card") }

func (c doorCards) Authenticate(_ context.Context, number string, _ *authz.Policy) (*authz.Principal, error) {
	who, ok := c[number]
	if !ok {
		return nil, authz.Refuse(authz.ReasonCredentialInvalid, "no such card")
	}
	return &authz.Principal{Identity: who, Kind: "door_card"}, nil
}

// A credential kind that is not built in, and why one of its holders is refused.
func ExampleAuthenticator() {
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "lab", Credentials: []authz.Kind{"door_card"}, RolesAny: []string{"chemist"}}},
		Default:  "lab",
	})
	if err != nil {
		panic(err)
	}
	gate := authz.NewAuthorizer(policies, authz.Options{}, doorCards{
		"17": {ID: "marie", Roles: []string{"chemist"}},
		"18": {ID: "max", Roles: []string{"physicist"}},
	})
	for _, number := range []string{"17", "18", "19"} {
		request, err := authz.NewRequest(authz.RequestParts{
			Method: "GET", Authority: "lab.example.com", Target: "/fume-hood", Headers: authz.HeaderMap{"x-door-card": number},
		})
		if err != nil {
			panic(err)
		}
		var trace authz.Trace
		decision, err := gate.Authorize(authz.WithTrace(context.Background(), &trace), request)
		if err == nil {
			fmt.Println(number, decision.Principal.ID)
			continue
		}
		fmt.Println(number, authz.AnswerTo(decision, request, err).Status, err)
		for _, step := range trace.Steps {
			if step.Outcome == authz.OutcomeRefused {
				fmt.Println("  ", step.Stage, step.Name)
			}
		}
	}
	// Output:
	// 17 marie
	// 18 403 role: none of the roles ["chemist"]
	//    condition roles.any
	// 19 401 credential_invalid: no such card
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
