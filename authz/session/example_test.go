package session_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// From a login to the end of the session, in a store within the process.
func Example() {
	ctx := context.Background()
	const timeout = 10 * time.Second
	client, err := session.Open("embedded://", session.OpenOptions{Timeout: timeout, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	store := session.New(client, session.Options{Rolling: true, Timeout: timeout})
	signer, err := session.NewSigner([]string{"keep me secret"})
	if err != nil {
		fmt.Println(err)
		return
	}

	id, err := store.Create(ctx, session.NewSession{Identity: authz.Identity{ID: "alice", Roles: []string{"admin"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	cookie := signer.Sign(id) // the value of Set-Cookie

	id, ok := signer.Verify(cookie)
	fmt.Println("signed by us:", ok)
	s, err := store.Session(ctx, id, authz.ReadOptions{Fresh: true})
	fmt.Println(s.ID, s.Roles, err)

	fmt.Println(store.Revoke(ctx, id))
	_, err = store.Session(ctx, id, authz.ReadOptions{Fresh: true})
	fmt.Println(authz.ReasonOf(err))
	// Output:
	// signed by us: true
	// alice [admin] <nil>
	// <nil>
	// session_revoked
}
