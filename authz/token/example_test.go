package token_test

import (
	"context"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func Example() {
	pem, err := token.GenerateKey("ES256")
	if err != nil {
		fmt.Println(err)
		return
	}
	key, err := token.ParseSigningKey(pem, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	issuer, err := token.NewIssuer(token.MintOptions{
		Issuer:    "https://gateway.example.com",
		Audiences: []string{"api"},
		Keys:      []*token.SigningKey{key},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	raw, _, err := issuer.Mint(token.Claims{Subject: "user-1", Family: "family-1"})
	if err != nil {
		fmt.Println(err)
		return
	}

	verifier, err := token.NewVerifier([]token.IssuerOptions{issuer.Trust()}, token.VerifierOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	t, err := verifier.Verify(context.Background(), raw)
	fmt.Println(t.ID, t.Family, err)
	_, err = verifier.Verify(context.Background(), raw+"A")
	fmt.Println(authz.ReasonOf(err))
	// Output:
	// user-1 family-1 <nil>
	// token_invalid
}
