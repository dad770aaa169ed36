package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// NewSession is what [Store.Create] makes a record of.
type NewSession struct {
	authz.Identity // the ID is required
	// Organizations are those that the user may switch to.
	Organizations []string
	// AuthTime is when the user authenticated; zero means now.
	AuthTime time.Time
	// TTL is the life of the record, and what it is renewed to; zero means
	// that of the store.
	TTL time.Duration
	// Values are further members of the record, with what [json.Marshal] makes
	// of each. None may stand where the identity or the cookie does.
	Values map[string]any
}

// Create writes the record of a new session, as express-session would, and
// returns its id: 32 characters from 24 random bytes. The identity stands
// where [Options] Fields say, so that the store finds it again.
func (s *Store) Create(ctx context.Context, n NewSession) (id string, err error) {
	ttl := n.TTL
	if ttl == 0 {
		ttl = s.o.TTL
	}
	if n.ID == "" {
		return "", errors.New("create session: no user id")
	}
	if ttl < time.Millisecond || ttl > markLife {
		return "", fmt.Errorf("create session: a time to live of %v: want 1ms to %v", ttl, markLife)
	}
	record, err := s.newRecord(n, ttl)
	if err != nil {
		return "", fmt.Errorf("create session: %w", err)
	}
	id = newID()
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	if err := s.client.Set(ctx, s.o.Prefix+id, record.encode(), ttl).Err(); err != nil {
		return "", unavailable("create session", err)
	}
	return id, nil
}

// newID returns an id of the form that express-session gives them (the npm
// module uid-safe, 24 bytes).
func newID() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// cookieRecord is the cookie object of a record, in the order of
// express-session.
type cookieRecord struct {
	OriginalMaxAge int64  `json:"originalMaxAge"` // ms
	Expires        string `json:"expires"`
	Secure         bool   `json:"secure"`
	HTTPOnly       bool   `json:"httpOnly"`
	Path           string `json:"path"`
	SameSite       string `json:"sameSite"`
}

const cookieMember = "cookie"

func (s *Store) newRecord(n NewSession, ttl time.Duration) (*Record, error) {
	now := s.o.Now()
	authTime := n.AuthTime
	if authTime.IsZero() {
		authTime = now
	}
	roles := n.Roles
	if roles == nil {
		roles = []string{}
	}
	f := s.o.Fields
	members := []struct {
		path  string
		value any
		omit  bool
	}{
		{path: cookieMember, value: cookieRecord{
			OriginalMaxAge: ttl.Milliseconds(),
			Expires:        now.Add(ttl).UTC().Format("2006-01-02T15:04:05.000Z"), // Date.prototype.toISOString
			Secure:         !s.o.Cookie.InsecureHTTP,
			HTTPOnly:       true,
			Path:           "/",
			SameSite:       s.o.Cookie.SameSite,
		}},
		{path: f.UserID, value: n.ID},
		{path: f.Email, value: n.Email, omit: n.Email == ""},
		{path: f.Roles, value: roles},
		{path: f.Organization, value: n.Organization, omit: n.Organization == ""},
		{path: f.Organizations, value: n.Organizations, omit: n.Organizations == nil},
		{path: f.AuthTime, value: formatSeconds(authTime)},
	}
	record := &Record{}
	for _, m := range members {
		if _, taken := n.Values[m.path]; taken {
			return nil, fmt.Errorf("the further values have a %q of their own", m.path)
		}
		if m.omit {
			continue
		}
		if err := record.Set(m.path, m.value); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Values)) {
		if record.index(name) >= 0 {
			return nil, fmt.Errorf("the further values have a %q, where the identity stands", name)
		}
		text, err := marshal(n.Values[name])
		if err != nil {
			return nil, fmt.Errorf("value %q: %w", name, err)
		}
		if err := record.add(name, text); err != nil {
			return nil, err
		}
	}
	return record, nil
}

// Update changes a record: change gets it, changes it, and what it made is
// written if nobody else wrote in between; else change gets the new one, and
// so on until the deadline. So change may be called several times, also when a
// reply was lost on the way, and must do nothing but change the record. Its
// error ends the update and is returned as it is.
//
// The time to live stays. Refusals are those of [Store.Session] that are about
// the record: unknown, revoked, malformed, and the store's. A record that
// express-session has in memory at that moment overwrites the change when it
// is saved: its save knows no conditions.
func (s *Store) Update(ctx context.Context, id string, change func(*Record) error) error {
	keys, ok := s.keys(id)
	if !ok {
		return authz.Refuse(authz.ReasonSessionUnknown, "an id that no session of ours can have")
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	return s.replace(ctx, target{what: "record", key: keys.record, dead: keys.dead, malformed: authz.ReasonSessionMalformed}, change)
}

func errDead() error { return authz.Refuse(authz.ReasonSessionRevoked, "the session was ended") }

// target is what replace changes.
type target struct {
	what      string
	key       string
	dead      string // the dead mark of a session's record; "" for what is created where it is missing
	malformed authz.Reason
}

// replace has what is in Redis changed and writes it back if it is still the
// same, as often as it takes.
func (s *Store) replace(ctx context.Context, t target, change func(*Record) error) error {
	keys := []string{t.key}
	if t.dead != "" {
		keys = append(keys, t.dead)
	}
	for {
		text, record, err := s.readForChange(ctx, t)
		if err != nil {
			return err
		}
		if err := change(record); err != nil {
			return err
		}
		if !record.changed {
			return nil
		}
		answer, err := replaceScript.Run(ctx, s.client, keys, text, record.encode()).Int64()
		if err != nil {
			return unavailable("write the "+t.what, err)
		}
		switch answer {
		case replaced:
			return nil
		case replaceDead:
			return errDead()
		}
	}
}

func (s *Store) readForChange(ctx context.Context, t target) (text string, record *Record, err error) {
	pipe := s.client.Pipeline()
	get := pipe.Get(ctx, t.key)
	dead := &redis.IntCmd{}
	if t.dead != "" {
		dead = pipe.Exists(ctx, t.dead)
	}
	if err := exec(ctx, pipe); err != nil {
		return "", nil, unavailable("read the "+t.what, err)
	}
	text, exists, err := textOf(get)
	switch {
	case dead.Val() != 0:
		return "", nil, errDead()
	case err != nil:
		return "", nil, authz.Refuse(t.malformed, "the %s: %w", t.what, err)
	case !exists && t.dead != "":
		return "", nil, authz.Refuse(authz.ReasonSessionUnknown, "there is no record of that id")
	case !exists:
		return "", &Record{}, nil
	}
	if record, err = parseRecord([]byte(text)); err != nil {
		return "", nil, authz.Refuse(t.malformed, "the %s: %w", t.what, err)
	}
	return text, record, nil
}

// Revoke ends a session, whether its record is there or not: the mark and the
// removal of the record are one step, and once it has returned nil no request
// passes with that session, whoever saves its record again. Ending it twice is
// no error.
func (s *Store) Revoke(ctx context.Context, id string) error {
	keys, ok := s.keys(id)
	if !ok {
		return authz.Refuse(authz.ReasonSessionUnknown, "an id that no session of ours can have")
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	if err := s.runEnd(ctx, keys); err != nil {
		return unavailable("revoke session", err)
	}
	return nil
}

// minTokenMark is the least that a mark about a token lives, so that a clock
// that is ahead of the verifier's doesn't undo a revocation.
const minTokenMark = time.Minute

// RevokeToken revokes a token by its jti, until the moment from which no
// verifier takes it any more: its exp and the leeway.
func (s *Store) RevokeToken(ctx context.Context, jti string, until time.Time) error {
	if jti == "" {
		return errors.New("revoke token: it has no jti; revoke its user or its family")
	}
	return s.mark(ctx, "revoke token", revokedTokenKey(jti), until)
}

// RevokeFamily revokes a refresh family and the access tokens that came from
// it, until the moment from which no verifier takes any of them any more.
func (s *Store) RevokeFamily(ctx context.Context, family string, until time.Time) error {
	if family == "" {
		return errors.New("revoke family: no name")
	}
	return s.mark(ctx, "revoke family", revokedFamilyKey(family), until)
}

func (s *Store) mark(ctx context.Context, step, key string, until time.Time) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	life := max(until.Sub(s.o.Now()), minTokenMark)
	if err := markScript.Run(ctx, s.client, []string{key}, life.Milliseconds()).Err(); err != nil {
		return unavailable(step, err)
	}
	return nil
}

// RevokeUserBefore revokes everything of a user that carries a time not after
// t: sessions by their authTime, tokens by their iat. The mark never moves
// back.
func (s *Store) RevokeUserBefore(ctx context.Context, userID string, t time.Time) error {
	if userID == "" {
		return errors.New("revoke user: no user id")
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	// The mark counts milliseconds: rounded up, it covers all of t.
	ms := t.Add(time.Millisecond - 1).UnixMilli()
	if err := beforeScript.Run(ctx, s.client, []string{beforeKey(userID)}, ms, markLife.Milliseconds()).Err(); err != nil {
		return unavailable("revoke user", err)
	}
	return nil
}

// Profile returns the profile of a user; ok is false when there is none. It is
// read whether or not [Options] Profiles is set.
func (s *Store) Profile(ctx context.Context, userID string) (p authz.Profile, ok bool, err error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	get := pipe.Get(ctx, profileKey(userID))
	if err := exec(ctx, pipe); err != nil {
		return p, false, unavailable("read profile", err)
	}
	found, err := profileOf(get)
	if err != nil || found == nil {
		return p, false, err
	}
	return *found, true, nil
}

// SaveProfile writes what p has into the profile of a user, which it creates
// where there is none. Fields of p that are nil leave what is there, and so do
// members that are not Gatehouse's; Disabled is always written. A profile that
// can't be read is refused, not replaced.
func (s *Store) SaveProfile(ctx context.Context, userID string, p authz.Profile) error {
	if userID == "" {
		return errors.New("save profile: no user id")
	}
	return s.UpdateProfile(ctx, userID, func(r *Record) error {
		var errs []error
		if p.Email != nil {
			errs = append(errs, r.Set("email", *p.Email))
		}
		if p.Roles != nil {
			errs = append(errs, r.Set("roles", append([]string{}, *p.Roles...)))
		}
		if p.Organization != nil {
			errs = append(errs, r.Set("organizationId", *p.Organization))
		}
		if p.Organizations != nil {
			errs = append(errs, r.Set("organizations", p.Organizations))
		}
		return errors.Join(append(errs, r.Set("disabled", p.Disabled))...)
	})
}

// UpdateProfile changes a profile as [Store.Update] does a record. Where there
// is none, change gets an empty one.
func (s *Store) UpdateProfile(ctx context.Context, userID string, change func(*Record) error) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	return s.replace(ctx, target{what: "profile", key: profileKey(userID), malformed: authz.ReasonProfileMalformed}, change)
}
