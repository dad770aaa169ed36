package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// NewSession is what [Store.Create] makes a record of.
type NewSession = authz.Login

// Create writes the record of a new session, as express-session would, and
// returns its id: 32 characters from 24 random bytes. The identity stands
// where [Options] Fields say, so that the store finds it again; the device and
// the time stand in the member gatehouse.
//
// The session that l.Replaces ends in the same step; in a Cluster right
// behind it, and then an error may leave a new session that nobody knows.
// Whoever logs in after everything was revoked gets in, though clocks differ, or
// the user authenticated before that: the session counts as made behind the
// user's mark.
func (s *Store) Create(ctx context.Context, l authz.Login) (id string, err error) {
	ttl := cmp.Or(l.TTL, s.o.TTL)
	if l.ID == "" {
		return "", errors.New("create session: no user id")
	}
	if ttl < time.Millisecond || ttl > markLife {
		return "", fmt.Errorf("create session: a time to live of %v: want 1ms to %v", ttl, markLife)
	}
	if _, err := s.newRecord(l, ttl, authz.Standing{}); err != nil {
		return "", fmt.Errorf("create session: %w", err)
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	for {
		id, err := s.create(ctx, l, ttl)
		if !errors.Is(err, errCondition) {
			return id, err
		}
		// Everything of the user was revoked while we were at it, this one
		// included. Once more, behind that.
	}
}

func (s *Store) create(ctx context.Context, l authz.Login, ttl time.Duration) (id string, err error) {
	id = newID()
	keys, ok := s.keys(id)
	if !ok {
		return "", errors.New("create session: an id with braces") // base64 has none
	}
	user := keysOf(l.ID)
	standing, err := s.announce(ctx, l, id, ttl)
	if err != nil {
		return "", err
	}
	record, err := s.newRecord(l, ttl, standing)
	if err != nil {
		return "", fmt.Errorf("create session: %w", err)
	}
	stages := [][]slot{{{absent(keys.dead), put(keys.record, record.encode(), ttl)}}}
	if old, ok := s.keys(l.Replaces); ok {
		owner := s.lastUser(l.Replaces)
		if owner == "" && s.feed != nil { // whoever follows wants to know
			if owner, _, err = s.owners(ctx, old, familyKeys{}); err != nil {
				return "", err
			}
		}
		// Mostly the same user's; another one's index forgets it in time.
		stages = append(stages, []slot{{finish(old, false, 0, owner)}}, []slot{{forget(user.sessions, l.Replaces)}})
	}
	if _, err := s.apply(ctx, "create session", false, stages...); err != nil {
		return "", err
	}
	return id, nil
}

// announce puts a session that will be made into the indexes, and returns the
// user's mark. Whoever revokes all that the user has either comes before, and
// then we see the mark, or finds the session in the index.
func (s *Store) announce(ctx context.Context, l authz.Login, id string, ttl time.Duration) (authz.Standing, error) {
	now := s.o.Now()
	user := keysOf(l.ID)
	_, memory := s.lives(nil, ttl)
	index := s.enter(user.sessions, id, memory, 0, now).withMark(user)
	calls := []*scriptCall{index}
	for _, hash := range providerHashes(l.Provider) {
		calls = append(calls, s.enter(providerKey(hash), id, memory, 0, now))
	}
	if l.Provider.Issuer == "" { // else the provider's code is used up, and the user can't begin anew here
		ctx = repeatable(ctx)
	}
	if _, err := s.send(ctx, calls, false); err != nil {
		return authz.Standing{}, unavailable("index session", err)
	}
	return index.standing()
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

// gatehouseRecord is our own member of the records that we made. What comes
// from the client has a bound.
type gatehouseRecord struct {
	CreatedAt json.Number `json:"createdAt"` // Unix seconds
	Address   string      `json:"address,omitempty"`
	UserAgent string      `json:"userAgent,omitempty"`
	// Provider has the hashes under which the provider's login is indexed, for
	// the gate to keep the session there as long as it lives.
	Provider []string `json:"provider,omitempty"`
}

// OwnMember is the member of a record that is Gatehouse's own.
const OwnMember = "gatehouse"

const (
	cookieMember = "cookie"
	ourMember    = OwnMember

	maxDeviceText = 256 // bytes
)

func (s *Store) newRecord(l authz.Login, ttl time.Duration, standing authz.Standing) (*Record, error) {
	now := s.o.Now()
	roles := l.Roles
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
		{path: f.UserID, value: l.ID},
		{path: f.Email, value: l.Email, omit: l.Email == ""},
		{path: f.Roles, value: roles},
		{path: f.Organization, value: l.Organization, omit: l.Organization == ""},
		{path: f.Organizations, value: l.Organizations, omit: l.Organizations == nil},
		{path: f.AuthTime, value: formatSeconds(cmp.Or(l.AuthTime, now))},
	}
	record := &Record{}
	for _, m := range members {
		if _, taken := l.Values[m.path]; taken {
			return nil, fmt.Errorf("the further values have a %q of their own", m.path)
		}
		if m.omit {
			continue
		}
		if err := record.Set(m.path, m.value); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Values)) {
		if record.index(name) >= 0 || name == ourMember {
			return nil, fmt.Errorf("the further values have a %q, where the identity stands", name)
		}
		text, err := marshal(l.Values[name])
		if err != nil {
			return nil, fmt.Errorf("value %q: %w", name, err)
		}
		if err := record.add(name, text); err != nil {
			return nil, err
		}
	}
	return record, record.Set(ourMember, gatehouseRecord{
		CreatedAt: formatSeconds(behind(standing, now, now)),
		Address:   cut(l.Device.Address),
		UserAgent: cut(l.Device.UserAgent),
		Provider:  providerHashes(l.Provider),
	})
}

// behind puts t behind the user's mark, unless that lies farther in the future
// than clocks differ: whoever set it so wants nobody in.
func behind(standing authz.Standing, t, now time.Time) time.Time {
	if moved := standing.Behind(t); !moved.After(now.Add(maxClockSkew)) {
		return moved
	}
	return t
}

// cut returns the beginning of a text, as UTF-8 and not longer than
// maxDeviceText.
func cut(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxDeviceText+utf8.UTFMax)], "\uFFFD")
	if len(text) <= maxDeviceText {
		return text
	}
	end := maxDeviceText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// createdIn is when a session was made that is ours.
func createdIn(values map[string]any, now time.Time) time.Time {
	member, _ := values[ourMember].(map[string]any)
	return timeIn(member["createdAt"], now)
}

// ourValues is what our member of a record says.
type ourValues struct {
	device   authz.Device
	provider []string
}

// ourValuesIn reads our member of a record, whoever wrote it.
func ourValuesIn(values map[string]any) (v ourValues) {
	member, _ := values[ourMember].(map[string]any)
	address, _ := member["address"].(string)
	agent, _ := member["userAgent"].(string)
	v.device = authz.Device{Address: cut(address), UserAgent: cut(agent)}
	hashes, _ := member["provider"].([]any)
	for _, hash := range hashes[:min(len(hashes), maxProviderHashes)] {
		if text, ok := hash.(string); ok && isHash(text) {
			v.provider = append(v.provider, text)
		}
	}
	return v
}
