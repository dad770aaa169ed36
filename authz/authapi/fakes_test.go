package authapi_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
)

// grace is how long a used refresh token gives its successor again.
const grace = 10 * time.Second

// contents are all that a store holds, in the form of JSON, so that before and
// after can be compared.
type contents struct {
	Sessions       map[string]authz.Login
	Created        map[string]time.Time
	Dead           map[string]bool
	Families       map[string]authz.Family
	DeadFamilies   map[string]bool
	Used           map[string]time.Time // family and generation: first use
	Hashes         map[string][32]byte  // family and generation
	Revoked        map[string]time.Time // by jti, until when
	Before         map[string]time.Time
	Profiles       map[string]authz.Profile
	ProviderTokens map[string]time.Time
}

// store is an [authapi.Store] in memory. It keeps the promises of the
// interfaces, and breaks at the step that it is told to.
type store struct {
	clock *authztest.Clock

	mu    sync.Mutex
	c     contents
	steps []string // methods that were called
	made  int

	failAt  int   // the step, from 1, that fails; 0: none
	failure error // how it fails
	lost    bool  // it is done, and only its reply is lost
	breaks  bool  // it panics instead
	hangs   bool  // it waits for the end of the context instead
}

var _ authapi.Store = (*store)(nil)

func newStore(clock *authztest.Clock) *store {
	return &store{clock: clock, c: contents{
		Sessions: map[string]authz.Login{}, Created: map[string]time.Time{}, Dead: map[string]bool{},
		Families: map[string]authz.Family{}, DeadFamilies: map[string]bool{}, Used: map[string]time.Time{}, Hashes: map[string][32]byte{},
		Revoked: map[string]time.Time{}, Before: map[string]time.Time{}, Profiles: map[string]authz.Profile{}, ProviderTokens: map[string]time.Time{},
	}}
}

var errOut = authz.Refuse(authz.ReasonStoreUnavailable, "connection refused")

// do runs one step.
func (s *store) do(ctx context.Context, name string, step func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, name)
	fails := s.failAt == len(s.steps)
	switch {
	case fails && s.breaks:
		panic("a bug in step " + name)
	case fails && s.hangs:
		<-ctx.Done()
		return authz.Refuse(authz.ReasonStoreUnavailable, "%s: %w", name, ctx.Err())
	case fails && !s.lost:
		return s.failure
	case ctx.Err() != nil:
		return authz.Refuse(authz.ReasonStoreUnavailable, "%s: %w", name, ctx.Err())
	}
	err := step()
	if fails {
		return s.failure
	}
	return err
}

// expect sets at which of the coming steps what happens.
func (s *store) expect(failAt int, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps, s.failAt, s.failure, s.lost, s.breaks, s.hangs = nil, failAt, failure, false, false, false
}

func (s *store) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.steps)
}

// snapshot is all that is held.
func (s *store) snapshot(t *testing.T) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	text, err := json.Marshal(s.c)
	require.NoError(t, err)
	return string(text)
}

func (s *store) profile(userID string, p *authz.Profile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil {
		delete(s.c.Profiles, userID)
		return
	}
	s.c.Profiles[userID] = *p
}

func (s *store) mark(userID string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Before[userID] = at
}

// put saves a session as another program would: nothing is known of when and
// where from.
func (s *store) put(id string, l authz.Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Sessions[id] = l
}

func (s *store) session(id string) (authz.Login, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.c.Sessions[id]
	return l, ok
}

func (s *store) standing(userID string) authz.Standing {
	standing := authz.Standing{RevokedBefore: s.c.Before[userID]}
	if p, ok := s.c.Profiles[userID]; ok {
		standing.Profile = &p
	}
	return standing
}

func (s *store) Session(ctx context.Context, id string, o authz.ReadOptions) (found *authz.Session, err error) {
	err = s.do(ctx, "Session", func() error {
		if !o.Fresh {
			return authz.Refuse(authz.ReasonInternal, "the API asks the store itself")
		}
		l, ok := s.c.Sessions[id]
		switch {
		case s.c.Dead[id]:
			return authz.Refuse(authz.ReasonSessionRevoked, "marked dead")
		case !ok:
			return authz.Refuse(authz.ReasonSessionUnknown, "no such session")
		}
		found = &authz.Session{Identity: l.Identity, Organizations: l.Organizations, AuthTime: l.AuthTime, Created: s.c.Created[id], Standing: s.standing(l.ID)}
		return nil
	})
	return found, err
}

func (s *store) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (found authz.Standing, err error) {
	err = s.do(ctx, "TokenStanding", func() error {
		if !o.Fresh {
			return authz.Refuse(authz.ReasonInternal, "the API asks the store itself")
		}
		found = s.standing(ref.UserID)
		_, revoked := s.c.Revoked[ref.TokenID]
		found.Revoked = revoked && ref.TokenID != "" || s.c.DeadFamilies[ref.Family]
		return nil
	})
	return found, err
}

func (s *store) Create(ctx context.Context, l authz.Login) (id string, err error) {
	err = s.do(ctx, "Create", func() error {
		s.made++
		id = "session-id-" + strconv.Itoa(s.made)
		s.c.Sessions[id], s.c.Created[id] = l, s.standing(l.ID).Behind(s.clock.Now())
		if l.Replaces != "" {
			s.kill(l.Replaces)
		}
		return nil
	})
	return id, err
}

func (s *store) kill(id string) {
	delete(s.c.Sessions, id)
	delete(s.c.Created, id)
	s.c.Dead[id] = true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *store) live(userID string) []string {
	var ids []string
	for id, l := range s.c.Sessions {
		if l.ID == userID && !s.c.Dead[id] && !s.standing(userID).Covers(later(l.AuthTime, s.c.Created[id])) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids
}

func (s *store) UserSessions(ctx context.Context, userID string, sweep bool) (found []authz.ActiveLogin, err error) {
	err = s.do(ctx, "UserSessions", func() error {
		for _, id := range s.live(userID) {
			created, ours := s.c.Created[id]
			if !ours && !sweep {
				continue
			}
			l := s.c.Sessions[id]
			found = append(found, authz.ActiveLogin{
				Handle: authz.Handle(id), User: authz.User{Identity: l.Identity, Organizations: l.Organizations}, Device: l.Device, Created: created, LastSeen: created,
			})
		}
		return nil
	})
	return found, err
}

func (s *store) SwitchOrganization(ctx context.Context, id, organization string) error {
	return s.do(ctx, "SwitchOrganization", func() error {
		l, ok := s.c.Sessions[id]
		if !ok {
			return authz.Refuse(authz.ReasonSessionUnknown, "gone")
		}
		l.Organization = organization
		s.c.Sessions[id] = l
		return nil
	})
}

func (s *store) UserStanding(ctx context.Context, userID string) (found authz.Standing, err error) {
	err = s.do(ctx, "UserStanding", func() error {
		found = s.standing(userID)
		return nil
	})
	return found, err
}

func (s *store) CompleteProfile(ctx context.Context, u authz.User) error {
	return s.do(ctx, "CompleteProfile", func() error {
		p := s.c.Profiles[u.ID]
		if p.Email == nil {
			p.Email = &u.Email
		}
		if p.Roles == nil {
			p.Roles = &u.Roles
		}
		if p.Organization == nil {
			p.Organization = &u.Organization
		}
		if p.Organizations == nil {
			p.Organizations = u.Organizations
		}
		s.c.Profiles[u.ID] = p
		return nil
	})
}

func (s *store) SwitchProfile(ctx context.Context, userID, organization string) error {
	return s.do(ctx, "SwitchProfile", func() error {
		p := s.c.Profiles[userID]
		p.Organization = &organization
		s.c.Profiles[userID] = p
		return nil
	})
}

func (s *store) ChangeUser(ctx context.Context, userID string, c authz.UserChange) (changed int, err error) {
	err = s.do(ctx, "ChangeUser", func() error {
		p := s.c.Profiles[userID]
		if c.Organization != nil {
			p.Organization = c.Organization
		}
		if c.Roles != nil {
			p.Roles = c.Roles
		}
		if c.Disabled != nil {
			p.Disabled = *c.Disabled
		}
		s.c.Profiles[userID] = p
		for _, id := range s.live(userID) {
			l := s.c.Sessions[id]
			if c.Organization != nil {
				l.Organization = *c.Organization
			}
			if c.Roles != nil {
				l.Roles = *c.Roles
			}
			s.c.Sessions[id] = l
			changed++
		}
		return nil
	})
	return changed, err
}

func (s *store) RevokeUser(ctx context.Context, userID string) (ended int, err error) {
	err = s.do(ctx, "RevokeUser", func() error {
		for _, id := range s.live(userID) {
			s.kill(id)
			ended++
		}
		for id, f := range s.c.Families {
			if f.UserID == userID {
				s.c.DeadFamilies[id] = true
			}
		}
		s.c.Before[userID] = s.clock.Now()
		return nil
	})
	return ended, err
}

func (s *store) RevokeHandle(ctx context.Context, userID, handle string) (found bool, err error) {
	err = s.do(ctx, "RevokeHandle", func() error {
		for _, id := range s.live(userID) {
			if _, ours := s.c.Created[id]; ours && authz.Handle(id) == handle {
				s.kill(id)
				found = true
			}
		}
		for id, f := range s.c.Families {
			if f.UserID == userID && authz.Handle(id) == handle && !s.c.DeadFamilies[id] {
				s.c.DeadFamilies[id] = true
				found = true
			}
		}
		return nil
	})
	return found, err
}

func generation(family string, n int) string { return family + " " + strconv.Itoa(n) }

func (s *store) CreateFamily(ctx context.Context, f authz.Family) error {
	return s.do(ctx, "CreateFamily", func() error {
		s.c.Families[f.ID] = f
		s.c.Hashes[generation(f.ID, f.Generation)] = f.Hash
		return nil
	})
}

func (s *store) family(id string) (authz.Family, error) {
	f, ok := s.c.Families[id]
	if !ok || s.c.DeadFamilies[id] || !s.clock.Now().Before(f.Expires) {
		return f, authz.Refuse(authz.ReasonRefreshInvalid, "no such family")
	}
	return f, nil
}

func (s *store) Family(ctx context.Context, id string) (f authz.Family, err error) {
	err = s.do(ctx, "Family", func() error {
		f, err = s.family(id)
		return err
	})
	return f, err
}

func (s *store) UserFamilies(ctx context.Context, userID string) (found []authz.ActiveLogin, err error) {
	err = s.do(ctx, "UserFamilies", func() error {
		for _, id := range slices.Sorted(maps.Keys(s.c.Families)) {
			if f, err := s.family(id); err == nil && f.UserID == userID {
				found = append(found, authz.ActiveLogin{
					Handle: authz.Handle(id), User: authz.User{Identity: authz.Identity{ID: userID}}, Device: f.Device, Created: f.Created, LastSeen: f.LastUsed, Expires: f.Expires,
				})
			}
		}
		return nil
	})
	return found, err
}

func (s *store) RotateFamily(ctx context.Context, t authz.RefreshToken, next [32]byte) (f authz.Family, err error) {
	err = s.do(ctx, "RotateFamily", func() error {
		if f, err = s.family(t.Family); err != nil {
			return err
		}
		now := s.clock.Now()
		used := generation(t.Family, t.Generation)
		if s.c.Hashes[used] != t.Hash {
			return authz.Refuse(authz.ReasonRefreshInvalid, "not of this family")
		}
		if t.Generation < f.Generation {
			if now.Sub(s.c.Used[used]) <= grace {
				return nil
			}
			s.c.DeadFamilies[t.Family] = true
			return authz.Refuse(authz.ReasonRefreshReused, "%w", authz.ErrRefreshReused)
		}
		f.Generation, f.Hash, f.LastUsed, f.Expires = t.Generation+1, next, now, now.Add(7*24*time.Hour)
		s.c.Families[f.ID] = f
		s.c.Used[used] = now
		s.c.Hashes[generation(f.ID, f.Generation)] = next
		return nil
	})
	return f, err
}

func (s *store) RevokeFamily(ctx context.Context, family string, _ time.Time) error {
	return s.do(ctx, "RevokeFamily", func() error {
		s.c.DeadFamilies[family] = true
		return nil
	})
}

func (s *store) End(ctx context.Context, e authz.Ending) error {
	return s.do(ctx, "End", func() error {
		if e.SessionID != "" {
			s.kill(e.SessionID)
		}
		if e.Family != "" {
			s.c.DeadFamilies[e.Family] = true
		}
		if e.TokenID != "" {
			s.c.Revoked[e.TokenID] = e.TokenUntil
		}
		return nil
	})
}

func (s *store) RevokeToken(ctx context.Context, jti string, until time.Time) error {
	return s.do(ctx, "RevokeToken", func() error {
		s.c.Revoked[jti] = until
		return nil
	})
}

func (s *store) EndProviderLogin(ctx context.Context, l authz.ProviderLogin, tokenID string, until time.Time) (ended int, err error) {
	err = s.do(ctx, "EndProviderLogin", func() error {
		if _, again := s.c.ProviderTokens[tokenID]; again {
			return nil
		}
		s.c.ProviderTokens[tokenID] = until
		for id, login := range s.c.Sessions {
			if login.Provider == l && l.Issuer != "" {
				s.kill(id)
				ended++
			}
		}
		return nil
	})
	return ended, err
}

// cookies sign by writing that they do.
type cookies struct{}

func (cookies) Sign(id string) string { return "s%3A" + id + ".signature%2B" }

func (cookies) Verify(value string) (string, bool) {
	id, ok := strings.CutSuffix(value, ".signature%2B")
	return strings.TrimPrefix(id, "s%3A"), ok
}

// refreshTokens are those of one key.
type refreshTokens struct {
	key  string
	made *int
}

func (r refreshTokens) mac(s string) string {
	m := hmac.New(sha256.New, []byte(r.key))
	m.Write([]byte(s))
	return hex.EncodeToString(m.Sum(nil))[:32]
}

func (r refreshTokens) token(family string, n int, secret string) authz.RefreshToken {
	text := family + "." + strconv.Itoa(n) + "." + secret
	text += "." + r.mac(text)
	return authz.RefreshToken{Family: family, Generation: n, Text: text, Hash: sha256.Sum256([]byte(text))}
}

var countFamilies sync.Mutex

func (r refreshTokens) First() authz.RefreshToken {
	countFamilies.Lock()
	defer countFamilies.Unlock()
	*r.made++
	family := "family" + strconv.Itoa(*r.made)
	return r.token(family, 0, r.mac(family))
}

func (r refreshTokens) Parse(text string) (authz.RefreshToken, error) {
	parts := strings.Split(text, ".")
	if len(parts) == 4 && r.mac(strings.Join(parts[:3], ".")) == parts[3] {
		n, _ := strconv.Atoi(parts[1])
		return r.token(parts[0], n, parts[2]), nil
	}
	return authz.RefreshToken{}, authz.Refuse(authz.ReasonRefreshInvalid, "not ours")
}

func (r refreshTokens) Successor(t authz.RefreshToken) authz.RefreshToken {
	return r.token(t.Family, t.Generation+1, r.mac("after "+t.Text))
}

func (r refreshTokens) Descendant(t authz.RefreshToken, n int, hash [32]byte) (authz.RefreshToken, bool) {
	for t.Generation < n {
		t = r.Successor(t)
	}
	return t, t.Hash == hash
}

// accessTokens issue and verify, by keeping what they issued.
type accessTokens struct {
	clock  *authztest.Clock
	life   time.Duration
	leeway time.Duration // behind the end of a token, in which it is still taken

	mu     sync.Mutex
	issued map[string]authz.Token
	err    error // what Issue and Verify answer instead
}

func (a *accessTokens) Issue(g authz.Grant) (string, time.Time, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return "", time.Time{}, a.err
	}
	now := a.clock.Now().Truncate(time.Second)
	for !g.After.IsZero() && !now.After(g.After) {
		now = now.Add(time.Second)
	}
	raw := fmt.Sprintf("eyJ.access-token-%d.sig", len(a.issued)+1)
	a.issued[raw] = authz.Token{
		Identity: authz.Identity{ID: g.UserID}, TokenID: fmt.Sprintf("jti-%d", len(a.issued)+1), Family: g.Family, Issuer: "https://gateway.example.com",
		Audiences: []string{"api"}, IssuedAt: now, AuthTime: g.AuthTime, Expires: now.Add(a.life), Claims: map[string]any{"sid": g.Family},
	}
	return raw, now.Add(a.life), nil
}

// outside adds a token of another issuer.
func (a *accessTokens) outside(raw string, t authz.Token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.Expires.IsZero() {
		t.Expires = a.clock.Now().Add(time.Hour)
	}
	a.issued[raw] = t
}

func (a *accessTokens) Verify(_ context.Context, raw string) (*authz.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, ok := a.issued[raw]
	switch {
	case a.err != nil:
		return nil, a.err
	case !ok:
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "no such token")
	case !a.clock.Now().Before(t.Expires.Add(a.leeway)):
		return nil, authz.Refuse(authz.ReasonTokenExpired, "expired")
	}
	return &t, nil
}

func (a *accessTokens) VerifyExpired(_ context.Context, raw string) (*authz.Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, ok := a.issued[raw]
	switch {
	case a.err != nil:
		return nil, a.err
	case !ok:
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "no such token")
	}
	return &t, nil
}

// fail makes every call fail; nil heals.
func (a *accessTokens) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// people are a user store and a finder.
type people struct {
	mu    sync.Mutex
	all   []account
	asked []string // email addresses, as they came
	err   error
	find  string // of the last search
}

type account struct {
	authz.User
	password string
}

func (u *people) Authenticate(_ context.Context, email, password string) (*authz.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, email)
	if u.err != nil {
		return nil, u.err
	}
	for _, a := range u.all {
		if strings.EqualFold(a.Email, email) && a.password == password {
			return &a.User, nil
		}
	}
	return nil, authz.Refuse(authz.ReasonPasswordWrong, "no such pair")
}

func (u *people) FindUsers(_ context.Context, text string, limit int) ([]authz.User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.find = text
	if u.err != nil {
		return nil, u.err
	}
	var found []authz.User
	for _, a := range u.all {
		if strings.Contains(a.Email, text) && len(found) < limit {
			found = append(found, a.User)
		}
	}
	return found, nil
}

// guesses remembers what it is told.
type guesses struct {
	mu         sync.Mutex
	told       []string
	retryAfter int
	err        error // of Attempt
	errAfter   error // of Succeeded
}

func (g *guesses) Attempt(_ context.Context, account, address string) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, "attempt "+account+" "+address)
	return g.retryAfter, g.err
}

func (g *guesses) Undecided(_ context.Context, account, address string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, "undecided "+account+" "+address)
	return nil
}

func (g *guesses) Succeeded(_ context.Context, account, address string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, "succeeded "+account+" "+address)
	return g.errAfter
}

// idp is an OpenID provider: it vouches for whoever the code names.
type idp struct {
	mu     sync.Mutex
	begun  map[string]string // flow → path
	logins map[string]authz.Login
	err    error
}

func (p *idp) Begin(_ context.Context, returnTo string) (location, flow, sealed string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return "", "", "", p.err
	}
	flow = "flow" + strconv.Itoa(len(p.begun)+1)
	p.begun[flow] = returnTo
	return "https://idp.example.com/authorize?state=" + flow, flow, "sealed-" + flow, nil
}

func (*idp) Flow(query url.Values) string { return query.Get("state") }

func (p *idp) Finish(_ context.Context, query url.Values, sealed string) (authz.Login, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	flow := query.Get("state")
	path, begun := p.begun[flow]
	l, known := p.logins[query.Get("code")]
	switch {
	case p.err != nil:
		return authz.Login{}, "", p.err
	case !begun || sealed != "sealed-"+flow:
		return authz.Login{}, "", authz.Refuse(authz.ReasonBadRequest, "not of this browser")
	case !known:
		return authz.Login{}, "", authz.Refuse(authz.ReasonLoginRefused, "the code is of nobody")
	}
	return l, path, nil
}

func (p *idp) LogoutToken(_ context.Context, raw string) (authz.ProviderLogin, string, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	subject, ok := strings.CutPrefix(raw, "logout-token-of-")
	if p.err != nil {
		return authz.ProviderLogin{}, "", time.Time{}, p.err
	}
	if !ok {
		return authz.ProviderLogin{}, "", time.Time{}, authz.Refuse(authz.ReasonBadRequest, "not a logout token")
	}
	return authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: subject}, "jti of " + raw, time.Unix(2e9, 0), nil
}
