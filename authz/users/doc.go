// Package users knows who has a password: from a YAML file with argon2id
// hashes.
//
//	file, err := users.Load("users.yaml")
//	user, err := file.Authenticate(ctx, "alice@example.com", password)
//
// The file:
//
//	users:
//	- id: alice
//	  email: alice@example.com
//	  password_hash: $argon2id$v=19$m=19456,t=2,p=1$…   # gatehouse password hash
//	  roles: [admin]
//	  organizations: [org-1, org-2]                     # a login works in the first
//
// Unknown addresses cost the same time as known ones: the password is hashed
// all the same, with the parameters of one of the file's hashes, always the same
// one for an address. At once one hash less is computed than there are
// processors, and at least one: each takes its megabytes, and a processor for a tenth
// of a second, and checks need one, too. A short queue waits for its turn, and what
// comes beyond it is refused.
//
// It is the user store that Gatehouse brings along. A team with users of its
// own implements the one method.
package users
