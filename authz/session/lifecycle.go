package session

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

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

// Profile returns the profile of a user; ok is false when there is none. It is
// read whether or not [Options] Profiles is set.
func (s *Store) Profile(ctx context.Context, userID string) (p authz.Profile, ok bool, err error) {
	ctx, cancel := s.deadline(repeatable(ctx))
	defer cancel()
	pipe := s.client.Pipeline()
	get := pipe.Get(ctx, profileKey(userID))
	if err := exec(ctx, pipe); err != nil {
		return p, false, unavailable("read profile", err)
	}
	found, err := profileIn(replyOf(get))
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
