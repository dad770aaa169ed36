package demopage

import (
	_ "embed"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// UsersFile is a users file for Gatehouse with everybody of [People].
//
//go:embed users.yaml
var UsersFile string

// Person is somebody to be in the demo.
type Person struct {
	authz.User
	Name     string
	About    string // in a few words
	Password string // which everybody knows: it is printed, and shown on the page
}

// People are who can log in where the demo runs. user-service knows the first
// two. They are no secret, and must never be users of anything else.
func People() []Person {
	return []Person{Alice, Bob, Carol}
}

// Alice administrates, Bob may work in two organizations, Carol in one.
var (
	Alice = person("alice", "Alice", "administrator, org-1", []string{"admin"}, "org-1", "org-2")
	Bob   = person("bob", "Bob", "member, org-2", []string{"member"}, "org-2", "org-1")
	Carol = person("carol", "Carol", "member, org-2 only", []string{"member"}, "org-2")
)

// person works in the first of the organizations.
func person(id, name, about string, roles []string, organizations ...string) Person {
	return Person{
		User: authz.User{
			Identity:      authz.Identity{ID: id, Email: id + "@example.com", Roles: roles, Organization: organizations[0]},
			Organizations: organizations,
		},
		Name:     name,
		About:    about,
		Password: "demo-" + id,
	}
}
