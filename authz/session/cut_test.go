package session_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
)

var (
	randomID   = regexp.MustCompile(`sess:[\w-]{32}`)
	randomCall = regexp.MustCompile(`[A-Z2-7]{26}`)
)

// state is all that there is at a server but for what was written ahead: the
// indexes, and the marks about use. What is random in it is not.
func (f fixture) state(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, key := range f.allKeys(t, "*") {
		if slices.ContainsFunc([]string{"sessions", "families", "provider", "seen", "confirm"}, func(kind string) bool {
			return strings.HasPrefix(key, "gatehouse:"+kind+":")
		}) {
			continue
		}
		var value any
		var err error
		if strings.HasPrefix(key, "refresh:") {
			value, err = f.client.HGetAll(t.Context(), key).Result()
		} else {
			value, err = f.client.Get(t.Context(), key).Result()
		}
		require.NoError(t, err, key)
		f.indexedIfOurs(t, key, fmt.Sprint(value))
		lines = append(lines, randomID.ReplaceAllString(key, "sess:*")+" = "+randomCall.ReplaceAllString(fmt.Sprint(value), "call"))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// indexedIfOurs fails for a session or a family of ours that no index has.
func (f fixture) indexedIfOurs(t *testing.T, key, value string) {
	t.Helper()
	index := indexOfU
	kind, id, _ := strings.Cut(key, ":")
	switch {
	case kind == "refresh":
		index = "gatehouse:families:{user:u}"
	case kind != "sess" || !strings.Contains(value, `"gatehouse":`):
		return
	}
	require.NoError(t, f.client.ZScore(t.Context(), index, id).Err(), "an index has %s", key)
}

// multiStep is a call that changes several things. prepare returns the call,
// whose answer says all that it returns but for the error.
type multiStep struct {
	prepare func(t *testing.T, f fixture) func(ctx context.Context, s *session.Store) (answer string, err error)
	once    bool // done again it is another one
}

func multiSteps() map[string]multiStep {
	yes, organization := true, "o2"
	provider := authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "s", SessionID: "1"}
	until := time.Now().Add(time.Hour)
	type call = func(ctx context.Context, s *session.Store) (string, error)
	all := func(t *testing.T, f fixture) (id string, c *chain) {
		t.Helper()
		id = f.login(t, func(l *authz.Login) { l.Provider = provider })
		f.login(t, func(l *authz.Login) { l.Provider = provider })
		f.foreign(t, "unseen", "u")
		f.set(t, "user:u", `{"email":"e"}`, 0)
		return id, f.family(t, "f")
	}
	change := func(c authz.UserChange) func(t *testing.T, f fixture) call {
		return func(t *testing.T, f fixture) call {
			t.Helper()
			all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				n, err := s.ChangeUser(ctx, "u", c)
				return fmt.Sprint(n), err
			}
		}
	}
	return map[string]multiStep{
		"Create": {once: true, prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			old, _ := all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				_, err := s.Create(ctx, authz.Login{Identity: authz.Identity{ID: "u"}, Provider: provider, Replaces: old})
				return "", err
			}
		}},
		"CreateFamily": {prepare: func(*testing.T, fixture) call {
			return func(ctx context.Context, s *session.Store) (string, error) {
				return "", s.CreateFamily(ctx, authz.Family{ID: "f", UserID: "u"})
			}
		}},
		"RotateFamily": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			_, c := all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				got, err := s.RotateFamily(ctx, c.token(0), c.token(1).Hash)
				return fmt.Sprint(got.Generation), err
			}
		}},
		"RotateFamily without grace": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			_, c := all(t, f)
			return func(ctx context.Context, _ *session.Store) (string, error) {
				got, err := f.another(session.Options{RefreshGrace: -1, Profiles: true}).RotateFamily(ctx, c.token(0), c.token(1).Hash)
				return fmt.Sprint(got.Generation), err
			}
		}, once: true},
		"RotateFamily, reused": {once: true, prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			_, c := all(t, f)
			f.rotate(t, c, 0)
			return func(ctx context.Context, _ *session.Store) (string, error) {
				_, err := f.another(session.Options{RefreshGrace: -1, Profiles: true}).RotateFamily(ctx, c.token(0), c.token(1).Hash)
				if authz.ReasonOf(orUnknown(err)) == authz.ReasonRefreshReused {
					err = nil
				}
				return "", err
			}
		}},
		"RevokeUser": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				n, err := s.RevokeUser(ctx, "u")
				return fmt.Sprint(n), err
			}
		}},
		"RevokeHandle": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			id, _ := all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				found, err := s.RevokeHandle(ctx, "u", authz.Handle(id))
				return fmt.Sprint(found), err
			}
		}},
		"RevokeHandle of a family": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				found, err := s.RevokeHandle(ctx, "u", authz.Handle("f"))
				return fmt.Sprint(found), err
			}
		}},
		"RevokeFamily": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				return "", s.RevokeFamily(ctx, "f", until)
			}
		}},
		"End": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			id, _ := all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				return "", s.End(ctx, authz.Ending{SessionID: id, Family: "f", TokenID: "j", TokenUntil: until})
			}
		}},
		"EndProviderLogin": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				n, err := s.EndProviderLogin(ctx, provider, "j", until)
				return fmt.Sprint(n), err
			}
		}},
		"ChangeUser":         {prepare: change(authz.UserChange{Organization: &organization, Roles: &[]string{"r"}, Disabled: &yes})},
		"ChangeUser, locked": {prepare: change(authz.UserChange{Disabled: &yes})},
		"CompleteProfile": {prepare: func(*testing.T, fixture) call {
			return func(ctx context.Context, s *session.Store) (string, error) {
				return "", s.CompleteProfile(ctx, authz.User{Identity: authz.Identity{ID: "u", Email: "e"}})
			}
		}},
		"SwitchOrganization": {prepare: func(t *testing.T, f fixture) call {
			t.Helper()
			id, _ := all(t, f)
			return func(ctx context.Context, s *session.Store) (string, error) {
				return "", s.SwitchOrganization(ctx, id, "o2")
			}
		}},
	}
}

// Whenever Redis is cut off in the middle of a call: an error, and then either
// all of it has happened or nothing; and when the line comes back at once, all
// of it, with the right answer.
func TestCutOffInTheMiddleAllOrNothingHappens(t *testing.T) {
	t.Parallel()
	stride := 1
	if testing.Short() { // with the race detector, in 'make check': there is only one caller
		stride = 3
	}
	for name, step := range multiSteps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, backends[1])
			direct := s.store(t, living)
			l := line.New(t, strings.TrimPrefix(s.url, "redis://"))
			options := living
			options.Now, options.Timeout = direct.clock.Now, patience
			// run prepares anew and makes the call over the wire.
			type outcome struct {
				answer string
				err    error
				before string // the state
				again  func() error
			}
			run := func(cut line.Cut, scripts bool) outcome {
				require.NoError(t, direct.client.FlushAll(t.Context()).Err())
				if !scripts {
					require.NoError(t, direct.client.ScriptFlush(t.Context()).Err())
				}
				l.Arm(line.Cut{})
				client, err := session.Open("redis://"+l.Addr, session.OpenOptions{Timeout: patience})
				require.NoError(t, err)
				defer func() { _ = client.Close() }()
				f := direct
				call := step.prepare(t, fixture{Store: f.Store, clock: f.clock, client: client, writes: f.writes})
				o := outcome{before: direct.state(t)}
				if !scripts {
					require.NoError(t, direct.client.ScriptFlush(t.Context()).Err())
				}
				l.Arm(cut)
				o.answer, o.err = call(t.Context(), session.New(client, options))
				o.again = func() error {
					_, err := call(t.Context(), direct.Store)
					return err
				}
				return o
			}
			for _, scripts := range []bool{false, true} { // whether the server has them
				whole := run(line.Cut{}, scripts)
				require.NoError(t, whole.err)
				after, commands := direct.state(t), l.Commands()
				require.GreaterOrEqual(t, commands, 2)
				applied := 0
				for cutAt := commands; cutAt > 0; cutAt -= stride {
					for _, taken := range []bool{false, true} {
						at := fmt.Sprintf("command %d of %d, taken: %v", cutAt, commands, taken)
						cut := run(line.Cut{At: cutAt, Taken: taken}, scripts)
						requireReason(t, authz.ReasonStoreUnavailable, cut.err)
						got := direct.state(t)
						require.NotEqual(t, cut.before, after)
						if got != cut.before {
							require.Equal(t, after, got, at)
							applied++
						}
						if !step.once {
							require.NoError(t, cut.again())
							require.Equal(t, after, direct.state(t), "done again after %s", at)
						}

						healed := run(line.Cut{At: cutAt, Taken: taken, Heals: true}, scripts)
						require.NoError(t, healed.err, at)
						require.Equal(t, whole.answer, healed.answer, at)
						require.Equal(t, after, direct.state(t), at)
					}
				}
				require.Positive(t, applied, "at the last command, whose reply was lost")
			}
		})
	}
}
