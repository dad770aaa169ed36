package authapi_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// directory is where a team keeps its users: in a database, say.
type directory struct{}

func (directory) Authenticate(_ context.Context, email, password string) (*authz.User, error) {
	if email != "erin@example.com" || password != "correct horse battery staple" {
		return nil, authz.Refuse(authz.ReasonPasswordWrong, "no such user, or another password")
	}
	return &authz.User{
		Identity:      authz.Identity{ID: "erin", Email: email, Roles: []string{"member"}, Organization: "org-1"},
		Organizations: []string{"org-1", "org-2"},
	}, nil
}

// A team brings its own users with one method.
func Example() {
	const timeout = 10 * time.Second
	client, err := session.Open("embedded://", session.OpenOptions{Timeout: timeout}) // or redis://…
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	signer, err := session.NewSigner([]string{"a secret of at least 32 random bytes"})
	if err != nil {
		fmt.Println(err)
		return
	}
	api, err := authapi.New(authapi.Options{
		Store:     session.New(client, session.Options{Profiles: true, Timeout: timeout}),
		Cookies:   signer,
		UserStore: directory{},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer := httptest.NewRecorder()
	api.ServeHTTP(answer, httptest.NewRequest("POST", "/auth/login", strings.NewReader(`{"email":"erin@example.com","password":"correct horse battery staple"}`)))
	fmt.Println(answer.Code, answer.Body)
	// Output:
	// 200 {"userId":"erin","email":"erin@example.com","roles":["member"],"organizationId":"org-1"}
}
