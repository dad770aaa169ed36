package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"github.com/alexedwards/argon2id"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// File is the users of a file, read once. It prints without its hashes. Safe
// for concurrent use.
type File struct {
	users   []user
	byEmail map[string]int // by fold
	decoys  []string       // a hash for each set of parameters in the file, as often as it is there
	key     []byte         // chooses the decoy of an unknown address
	hashing chan struct{}  // one place for each hash that is being computed
	waiting chan struct{}  // one place for each that is, or waits to be

	// check compares a password with a hash; tests count its calls.
	check func(password, hash string) (bool, error)

	warnings []string
}

type user struct {
	authz.User
	hash string
}

// maxPassword bounds the work of hashing what nobody types. Longer passwords
// are wrong.
const maxPassword = 1024

// queue is how many may wait for each that is hashed.
const queue = 16

func newFile(all []user) *File {
	// One processor is left to all others: else logins alone would make checks wait,
	// by the tenth of a second that a hash takes.
	hashing := max(runtime.GOMAXPROCS(0)-1, 1)
	f := &File{
		users:   all,
		byEmail: make(map[string]int, len(all)),
		key:     make([]byte, sha256.Size),
		hashing: make(chan struct{}, hashing),
		waiting: make(chan struct{}, hashing*(1+queue)),
		check:   argon2id.ComparePasswordAndHash,
	}
	_, _ = rand.Read(f.key) // never fails: crypto/rand ends the program instead
	for i, u := range all {
		f.byEmail[fold(u.Email)] = i
		f.decoys = append(f.decoys, decoy(u.hash))
	}
	if len(all) == 0 {
		f.decoys = []string{decoy("$argon2id$v=19$" + DefaultParameters.String() + "$$")}
	}
	return f
}

// decoy returns a hash of no password, with the parameters of another one.
func decoy(hash string) string {
	parameters := strings.Split(hash, "$")[3]
	return "$argon2id$v=19$" + parameters + "$" + noSalt + "$" + noKey
}

// 16 and 32 zero bytes in base64.
var (
	noSalt = strings.Repeat("A", 22)
	noKey  = strings.Repeat("A", 43)
)

// fold brings an email address into the form in which addresses are compared:
// without surrounding white space and without case. Strictly, the part before
// the @ has one; no mail service that people use minds it, and people do not
// know.
func fold(email string) string { return strings.ToLower(strings.ToUpper(strings.TrimSpace(email))) }

// Authenticate returns the user with this email address and password.
// [authz.ReasonPasswordWrong] for any pair that is not one, after the same work
// whether or not there is such a user; [authz.ReasonOverloaded] when too many
// wait, or ctx ends before it is their turn. Addresses are compared without
// case and surrounding white space.
func (f *File) Authenticate(ctx context.Context, email, password string) (*authz.User, error) {
	i, known := f.byEmail[fold(email)]
	hash := f.decoyFor(email)
	if known {
		hash = f.users[i].hash
	}
	tooLong := len(password) > maxPassword
	if tooLong {
		password = password[:maxPassword]
	}
	match, err := f.compare(ctx, password, hash)
	switch {
	case err != nil:
		return nil, err
	case !match || !known || tooLong || password == "":
		return nil, authz.Refuse(authz.ReasonPasswordWrong, "no user has this address and password")
	}
	found := f.users[i].User
	found.Roles, found.Organizations = slices.Clone(found.Roles), slices.Clone(found.Organizations)
	return &found, nil
}

// decoyFor returns what the password of an unknown address is compared with.
// For one address it is always the same, as it would be for a known one.
func (f *File) decoyFor(email string) string {
	mac := hmac.New(sha256.New, f.key)
	mac.Write([]byte(fold(email)))
	return f.decoys[binary.BigEndian.Uint64(mac.Sum(nil))%uint64(len(f.decoys))]
}

// compare computes one hash when there is room for it.
func (f *File) compare(ctx context.Context, password, hash string) (bool, error) {
	select {
	case f.waiting <- struct{}{}:
		defer func() { <-f.waiting }()
	default:
		return false, authz.Refuse(authz.ReasonOverloaded, "%d passwords are being checked or wait for it", cap(f.waiting))
	}
	select {
	case f.hashing <- struct{}{}:
		defer func() { <-f.hashing }()
	case <-ctx.Done():
		return false, authz.Refuse(authz.ReasonOverloaded, "it was not the password's turn in time: %w", ctx.Err())
	}
	match, err := f.check(password, hash)
	if err != nil { // Load has decoded it
		return false, authz.Refuse(authz.ReasonInternal, "compare a password: %w", err)
	}
	return match, nil
}

// FindUsers returns at most limit users whose id, email address or
// organization holds the text, whatever its case, in the order of the file. An
// empty text finds all.
func (f *File) FindUsers(_ context.Context, text string, limit int) ([]authz.User, error) {
	wanted := fold(text)
	holds := func(s string) bool { return strings.Contains(fold(s), wanted) }
	var found []authz.User
	for _, u := range f.users {
		if len(found) >= limit {
			break
		}
		if holds(u.ID) || holds(u.Email) || slices.ContainsFunc(u.Organizations, holds) {
			u.Roles, u.Organizations = slices.Clone(u.Roles), slices.Clone(u.Organizations)
			found = append(found, u.User)
		}
	}
	return found, nil
}

// Warnings are doubts about a file that is valid, one line each with its place:
// hashes that cost too little.
func (f *File) Warnings() []string { return slices.Clone(f.warnings) }

// Len returns the number of users.
func (f *File) Len() int { return len(f.users) }

// String says how many users there are.
func (f File) String() string { return fmt.Sprintf("%d users", len(f.users)) }

// Format writes String, whatever the verb.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.String()) }

// LogValue returns String.
func (f File) LogValue() slog.Value { return slog.StringValue(f.String()) }
