package users_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/users"
)

// quick is a hash that costs nothing, for tests that are about something else.
func quick(tb testing.TB, password string) string {
	tb.Helper()
	hash, err := argon2id.CreateHash(password, &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(tb, err)
	return hash
}

func people(tb testing.TB) *users.File {
	tb.Helper()
	f, err := users.Parse("users.yaml", fmt.Appendf(nil, `
users:
- id: alice
  email: Alice@Example.com
  password_hash: %s
  roles: [admin, member]
  organizations: [org-1, org-2]
- id: 7
  email: bob@example.com
  password_hash: '%s'
`, quick(tb, "alice's password"), quick(tb, "bob's password")))
	require.NoError(tb, err)
	return f
}

func TestTheRightPasswordNamesTheUser(t *testing.T) {
	f := people(t)
	for _, email := range []string{"alice@example.com", "ALICE@EXAMPLE.COM", " Alice@example.com\t"} {
		got, err := f.Authenticate(t.Context(), email, "alice's password")
		require.NoError(t, err)
		require.Equal(t, &authz.User{
			Identity:      authz.Identity{ID: "alice", Email: "Alice@Example.com", Roles: []string{"admin", "member"}, Organization: "org-1"},
			Organizations: []string{"org-1", "org-2"},
		}, got)
		got.Roles[0], got.Organizations[0] = "changed", "changed" // nobody else's
	}
	got, err := f.Authenticate(t.Context(), "bob@example.com", "bob's password")
	require.NoError(t, err)
	require.Equal(t, &authz.User{Identity: authz.Identity{ID: "7", Email: "bob@example.com"}}, got)
}

func TestAnythingElseIsTheWrongPassword(t *testing.T) {
	f := people(t)
	long := strings.Repeat("x", 1025)
	for name, pair := range map[string][2]string{
		"another password":   {"alice@example.com", "bob's password"},
		"nobody":             {"nobody@example.com", "alice's password"},
		"no address":         {"", "alice's password"},
		"no password":        {"alice@example.com", ""},
		"case of a password": {"alice@example.com", "ALICE'S PASSWORD"},
		"space":              {"alice@example.com", "alice's password "},
		"an id":              {"alice", "alice's password"},
		"too long":           {"alice@example.com", long},
		"NUL":                {"alice@example.com\x00", "alice's password"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := f.Authenticate(t.Context(), pair[0], pair[1])
			require.Nil(t, got)
			require.Equal(t, authz.ReasonPasswordWrong, authz.ReasonOf(err))
			require.NotContains(t, err.Error(), "alice")
		})
	}
	// A password is not cut: what is longer than what is looked at is wrong, even
	// where the beginning is right.
	whole := strings.Repeat("x", 1024)
	f, err := users.Parse("users.yaml", fmt.Appendf(nil, "users: [{id: a, email: a@example.com, password_hash: '%s'}]", quick(t, whole)))
	require.NoError(t, err)
	_, err = f.Authenticate(t.Context(), "a@example.com", whole)
	require.NoError(t, err)
	_, err = f.Authenticate(t.Context(), "a@example.com", whole+"x")
	require.Equal(t, authz.ReasonPasswordWrong, authz.ReasonOf(err))
}

// The work is the same whoever is asked about: one hash, with the parameters of
// a hash of the file.
func TestUnknownUsersCostWhatKnownOnesDo(t *testing.T) {
	f := people(t)
	work := users.Watch(f)
	for _, pair := range [][2]string{
		{"alice@example.com", "alice's password"},
		{"alice@example.com", "wrong"},
		{"nobody@example.com", "wrong"},
		{"", ""},
		{"alice@example.com", ""},
		{"alice@example.com", strings.Repeat("x", 5000)},
		{"nobody@example.com", strings.Repeat("x", 5000)},
	} {
		before := len(work())
		_, _ = f.Authenticate(t.Context(), pair[0], pair[1])
		require.Len(t, work(), before+1, pair[0])
		require.Equal(t, "m=64,t=1,p=1", work()[before])
	}
}

// Where users' hashes differ in cost, an unknown address looks like any of
// them, and always like the same one.
func TestDecoysAreLikeTheFilesHashes(t *testing.T) {
	dear, err := argon2id.CreateHash("x", &argon2id.Params{Memory: 128, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(t, err)
	f, err := users.Parse("users.yaml", fmt.Appendf(nil, "users:\n- {id: a, email: a, password_hash: '%s'}\n- {id: b, email: b, password_hash: '%s'}\n", dear, quick(t, "x")))
	require.NoError(t, err)
	work := users.Watch(f)
	seen := map[string]int{}
	for i := range 60 {
		address := fmt.Sprintf("nobody-%d@example.com", i)
		for _, spelling := range []string{address, strings.ToUpper(address)} {
			_, _ = f.Authenticate(t.Context(), spelling, "x")
		}
		costs := work()
		require.Equal(t, costs[len(costs)-2], costs[len(costs)-1])
		seen[costs[len(costs)-1]]++
	}
	require.Len(t, seen, 2)

	empty, err := users.Parse("users.yaml", []byte("users: []"))
	require.NoError(t, err)
	work = users.Watch(empty)
	_, err = empty.Authenticate(t.Context(), "a", "x")
	require.Equal(t, authz.ReasonPasswordWrong, authz.ReasonOf(err))
	require.Equal(t, []string{users.DefaultParameters.String()}, work())
}

func TestTooManyAtOnceAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := people(t)
		release := make(chan struct{})
		running, room := users.Block(f, release)
		var logins sync.WaitGroup
		for range room {
			logins.Go(func() {
				_, err := f.Authenticate(context.Background(), "alice@example.com", "alice's password")
				require.NoError(t, err)
			})
		}
		synctest.Wait()
		require.Less(t, running(), room, "the others wait")
		_, err := f.Authenticate(t.Context(), "alice@example.com", "alice's password")
		require.Equal(t, authz.ReasonOverloaded, authz.ReasonOf(err))
		close(release)
		logins.Wait()
		_, err = f.Authenticate(t.Context(), "alice@example.com", "alice's password")
		require.NoError(t, err)
	})
}

func TestWhoWaitsTooLongIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := people(t)
		release := make(chan struct{})
		running, room := users.Block(f, release)
		var logins sync.WaitGroup
		for range room - 1 {
			logins.Go(func() { _, _ = f.Authenticate(context.Background(), "alice@example.com", "x") })
		}
		synctest.Wait()
		require.Positive(t, running())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.Authenticate(ctx, "alice@example.com", "x")
		require.Equal(t, authz.ReasonOverloaded, authz.ReasonOf(err))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(release)
		logins.Wait()
	})
}

func TestFindUsers(t *testing.T) {
	f := people(t)
	for text, want := range map[string][]string{
		"": {"alice", "7"}, "ali": {"alice"}, "EXAMPLE": {"alice", "7"}, "org-2": {"alice"}, "7": {"7"}, "nobody": nil,
	} {
		found, err := f.FindUsers(t.Context(), text, 10)
		require.NoError(t, err)
		var ids []string
		for _, u := range found {
			ids = append(ids, u.ID)
		}
		require.Equal(t, want, ids, text)
	}
	found, err := f.FindUsers(t.Context(), "", 1)
	require.NoError(t, err)
	require.Len(t, found, 1)
}

func TestAFilePrintsNoHash(t *testing.T) {
	f := people(t)
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", slog.Any("file", f))
	text, err := json.Marshal(map[string]any{"file": f})
	require.NoError(t, err)
	for _, printed := range []string{fmt.Sprint(f), fmt.Sprintf("%+v", f), fmt.Sprintf("%#v", *f), fmt.Sprintf("%s", f), b.String(), string(text)} {
		require.NotContains(t, printed, "argon2id")
	}
}

func TestHash(t *testing.T) {
	hash, err := users.Hash("correct horse battery staple")
	require.NoError(t, err)
	require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, hash)
	again, err := users.Hash("correct horse battery staple")
	require.NoError(t, err)
	require.NotEqual(t, hash, again, "each has a salt of its own")
	f, err := users.Parse("users.yaml", []byte("users:\n- id: a\n  email: a@example.com\n  password_hash: "+hash+"\n"))
	require.NoError(t, err)
	require.Empty(t, f.Warnings())
	_, err = f.Authenticate(t.Context(), "a@example.com", "correct horse battery staple")
	require.NoError(t, err)
	for _, password := range []string{"", strings.Repeat("x", 1025)} {
		_, err := users.Hash(password)
		require.Error(t, err)
	}
}

// What the reference implementation makes is understood: the test vector of
// phc-winner-argon2's test.c for argon2id, version 19.
func TestHashOfTheReferenceImplementation(t *testing.T) {
	f, err := users.Parse("users.yaml", []byte(`
users:
- id: a
  email: a@example.com
  password_hash: $argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc
`))
	require.NoError(t, err)
	require.Empty(t, f.Warnings())
	_, err = f.Authenticate(t.Context(), "a@example.com", "password")
	require.NoError(t, err)
}

func TestEverythingWrongWithAFileIsSaid(t *testing.T) {
	good := quick(t, "x")
	_, err := users.Parse("u.yaml", []byte(`users:
- id: service:x
  email: a@example.com
  password_hash: `+good+`
- id: b
  email: " A@EXAMPLE.com"
  password_hash: hunter2hunter2
- id: b
  email: c@example.com
  password_hash: $argon2id$v=19$m=2097152,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc
- {id: d, email: d@example.com, password: secret}
- email: e@example.com
  password_hash: $argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc
- id: f
  password_hash: $argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc
- {id: g, email: g@example.com, roles: admin}
- {id: h, id: h, email: h@example.com}
- just a text
- {id: i, email: i@example.com, roles: [a, a, "", {}]}
`))
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		"u.yaml:2:7: users[0].id: begins with service:",
		"u.yaml:6:10: users[1].email: the address of the user on line 3",
		"u.yaml:7:18: users[1].password_hash: not an argon2id hash",
		"u.yaml:8:7: users[2].id: the id of the user on line 5",
		"u.yaml:10:18: users[2].password_hash: m=2097152,t=2,p=1 cost too much",
		"u.yaml:11:33: users[3]: unknown key",
		"u.yaml:12:3: users[4].id: missing",
		"u.yaml:13:18: users[4].password_hash: m=64,t=0,p=1 make no hash",
		"u.yaml:14:3: users[5].email: missing",
		"u.yaml:15:18: users[5].password_hash: not an argon2id hash",
		"u.yaml:16:40: users[6].roles: not a list",
		"u.yaml:17:11: users[7].id: there twice",
		"u.yaml:18:3: users[8]: not a user",
		"u.yaml:19:44: users[9].roles[1]: there twice",
		"u.yaml:19:47: users[9].roles[2]: empty",
		"u.yaml:19:51: users[9].roles[3]: not a text",
	} {
		require.Greater(t, len(lines), i, "%s is missing in\n%s", want, err)
		require.True(t, strings.HasPrefix(lines[i], want), "%q in place of %q", lines[i], want)
	}
	require.Len(t, lines, 16)
	require.NotContains(t, err.Error(), "hunter2")
	require.NotContains(t, err.Error(), "CTFh")
	require.NotContains(t, err.Error(), "secret")
}

func TestFilesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"":           "empty",
		"# nothing":  "empty",
		"- id: a":    "want users:",
		"users: a":   "not a list",
		"people: []": "unknown key",
		"users: [{id: u, email: e@example.com, password_hash: $argon2id$v=19$m=19456,t=2,p=1$c2FsdA$a2V5}]": "put the hash into single quotes",
		"users: []\nmore: []":    "unknown key",
		"users: [":               "not YAML",
		"users: []\n---\nx: 1\n": "second document",
		"\xff":                   "not UTF-8",
	} {
		_, err := users.Parse("u.yaml", []byte(text))
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "u.yaml", text)
	}
	_, err := users.Load(filepath.Join(t.TempDir(), "nothing.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWeakHashesAreTaken(t *testing.T) {
	f := people(t)
	require.Len(t, f.Warnings(), 2)
	require.True(t, strings.HasPrefix(f.Warnings()[0], "users.yaml:5:18: users[0].password_hash: m=64,t=1,p=1 is quickly guessed at"), f.Warnings()[0])
}

// Whatever a file holds, it is read or refused with places, and never printed.
func FuzzParse(f *testing.F) {
	f.Add([]byte("users: [{id: a, email: b, password_hash: 'x', roles: [a]}]"))
	f.Add([]byte("users:\n- id: a\n  email: a@b\n  password_hash: $argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n"))
	f.Add([]byte("users: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := users.Parse("u.yaml", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.True(t, strings.HasPrefix(line, "u.yaml:"), line)
			}
			return
		}
		found, err := file.FindUsers(t.Context(), "", 1<<20)
		require.NoError(t, err)
		require.Len(t, found, file.Len())
		ids := map[string]bool{}
		for _, u := range found {
			require.NotEmpty(t, u.ID)
			require.False(t, ids[u.ID])
			ids[u.ID] = true
		}
	})
}
