package session

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// What changes about users while their sessions and tokens live. The next
// request sees it.

// UserStanding returns the user's mark, and the profile where [Options]
// Profiles is set.
func (s *Store) UserStanding(ctx context.Context, userID string) (authz.Standing, error) {
	if userID == "" {
		return authz.Standing{}, errors.New("read the user's standing: no user id")
	}
	return s.TokenStanding(ctx, authz.TokenRef{UserID: userID}, authz.ReadOptions{Fresh: true})
}

// SwitchOrganization changes the organization of one session, as
// [Store.Update] does.
func (s *Store) SwitchOrganization(ctx context.Context, sessionID, organization string) error {
	return s.Update(repeatable(ctx), sessionID, func(r *Record) error { return setID(r, s.o.Fields.Organization, organization) })
}

var errNoProfiles = authz.Refuse(authz.ReasonBadRequest, "profiles are off (identity.profiles): user:<id> is not ours to read or write")

// SwitchProfile changes the organization in the user's profile, as
// [Store.UpdateProfile] does.
func (s *Store) SwitchProfile(ctx context.Context, userID, organization string) error {
	if userID == "" {
		return errors.New("switch profile: no user id")
	}
	if !s.o.Profiles {
		return errNoProfiles
	}
	return s.UpdateProfile(repeatable(ctx), userID, func(r *Record) error { return setID(r, "organizationId", organization) })
}

// CompleteProfile makes the profile of a user where there is none. One that is
// there is the living record and stays as it is, but for one that
// [Store.ChangeUser] had to make without knowing the user: that gets what it
// doesn't have yet. What is empty is not written, except the roles: a user without
// roles has none. Where profiles are off it does nothing.
func (s *Store) CompleteProfile(ctx context.Context, u authz.User) error {
	if u.ID == "" {
		return errors.New("complete profile: no user id")
	}
	if !s.o.Profiles {
		return nil
	}
	return s.UpdateProfile(repeatable(ctx), u.ID, func(r *Record) error {
		partial, _ := r.Get(partialProfile)
		if len(r.members) > 0 && string(partial) != "true" {
			return nil
		}
		r.Delete(partialProfile)
		if ours, _ := r.Get(ourMember); string(ours) == "{}" {
			r.Delete(ourMember)
		}
		var errs []error
		complete := func(name string, value any, empty bool) {
			if _, there := r.Get(name); !there && !empty {
				errs = append(errs, r.Set(name, value))
			}
		}
		complete("email", u.Email, u.Email == "")
		complete("roles", append([]string{}, u.Roles...), false)
		complete("organizationId", u.Organization, u.Organization == "")
		complete("organizations", u.Organizations, u.Organizations == nil)
		return errors.Join(errs...)
	})
}

// partialProfile is a member of a profile that we made of no more than what an
// administrator changed.
const partialProfile = ourMember + ".partial"

// setID writes an id. Where the application keeps it as a number it stays one,
// if it can.
func setID(r *Record, path, id string) error {
	old, _ := r.Get(path)
	if len(old) > 0 && (old[0] == '-' || old[0] >= '0' && old[0] <= '9') {
		if asNumber, err := idOf(path, json.Number(id)); err == nil && asNumber == id && json.Valid([]byte(id)) {
			return r.Set(path, json.RawMessage(id))
		}
	}
	return r.Set(path, id)
}

// changedAtOnce is how many sessions are changed in one step.
const changedAtOnce = 500

// mostTries is how often a step is tried again because somebody else wrote in
// between.
const mostTries = 100

// ChangeUser changes the organization and the roles in every session of a user
// and in the profile, and whether the user is locked out, which stands in the
// profile alone. It returns the number of sessions that live and that it
// applies to. Other members of the records stay, and so does their time to
// live; what others write at the same time is not lost, but for a save by
// express-session of what it has in memory: that knows no conditions.
//
// It looks through all session records first, as [Store.RevokeUser] does, but
// a change that only locks the user out, or in, is made before. Then all is
// changed in one step, or, where it is more than some hundreds of sessions, in
// a few that begin with the profile. In a Cluster the profile is first, and
// record follows record. Where ctx runs out before all was looked through, what
// is known is changed, and the error says that it may not be all; of who is
// only locked out, fewer sessions are counted then. It can be repeated.
//
// Where profiles are off it changes the sessions alone, and can't lock out.
func (s *Store) ChangeUser(ctx context.Context, userID string, c authz.UserChange) (sessions int, err error) {
	switch {
	case userID == "":
		return 0, errors.New("change user: no user id")
	case c == authz.UserChange{}:
		return 0, errors.New("change user: nothing to change")
	case c.Disabled != nil && !s.o.Profiles:
		return 0, errNoProfiles
	}
	ch := &change{userID: userID, UserChange: c}
	profile := s.o.Profiles
	var unconfirmed error // done, and so is what follows
	if profile && (s.single == nil || !ch.ofSessions()) {
		profile = false
		if _, unconfirmed = s.changeSome(ctx, ch, true, nil); unconfirmed != nil && authz.ReasonOf(unconfirmed) != authz.ReasonNotConfirmed {
			return 0, unconfirmed
		}
	}
	ctx, user, missed, err := s.findAll(ctx, userID)
	if err != nil {
		return 0, err
	}
	if !ch.ofSessions() {
		missed = nil // there is nothing that it could have missed
	}
	size := changedAtOnce
	if s.single == nil && ch.ofSessions() {
		size = 1
	}
	for part := range parts(user.all(), size) {
		n, err := s.changeSome(ctx, ch, profile, part)
		profile = false
		sessions += n
		switch {
		case err != nil && authz.ReasonOf(err) == authz.ReasonNotConfirmed:
			unconfirmed = err
		case err != nil:
			return sessions, err
		}
	}
	return sessions, errors.Join(missed, unconfirmed)
}

// parts are the parts of a list, one at least.
func parts(list []string, size int) iter.Seq[[]string] {
	if len(list) == 0 {
		return slices.Values([][]string{nil})
	}
	return slices.Chunk(list, size)
}

// change is a [authz.UserChange] of one user.
type change struct {
	userID string
	authz.UserChange
}

// ofSessions reports whether it changes sessions at all.
func (c *change) ofSessions() bool { return c.Organization != nil || c.Roles != nil }

// changeSome applies a change to the profile and to some sessions in one step.
func (s *Store) changeSome(ctx context.Context, c *change, profile bool, ids []string) (sessions int, err error) {
	confirmed := profile && c.Disabled != nil
	for range mostTries {
		var steps []slot
		if profile {
			part, err := s.profileChange(ctx, c, confirmed)
			if err != nil {
				return 0, err
			}
			steps = append(steps, part)
		}
		parts, n, err := s.sessionChanges(ctx, c, ids)
		if err != nil {
			return 0, err
		}
		steps = slices.DeleteFunc(append(steps, parts...), func(part slot) bool { return len(part) == 0 })
		if len(steps) == 0 {
			return n, nil
		}
		if _, err = s.apply(ctx, "change user", confirmed, steps); !errors.Is(err, errCondition) {
			return n, err
		}
	}
	return 0, unavailable("change user", errors.New("others write all the time"))
}

// profileChange returns the steps that change the profile. With always there
// are some even if it is so already: for the replicas to confirm.
func (s *Store) profileChange(ctx context.Context, c *change, always bool) (slot, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	key := profileKey(c.userID)
	text, r, err := s.readForChange(ctx, target{what: "profile", key: key, malformed: authz.ReasonProfileMalformed})
	if err != nil {
		return nil, err
	}
	if err := c.inProfile(r); err != nil {
		return nil, err
	}
	if text == "" {
		if err := r.Set(partialProfile, true); err != nil {
			return nil, err
		}
	}
	if !r.changed && !always {
		return nil, nil
	}
	return slot{holds(key, text), write(key, r.encode())}, nil
}

func (c *change) inProfile(r *Record) error {
	var errs []error
	if c.Organization != nil {
		errs = append(errs, setID(r, "organizationId", *c.Organization))
	}
	if c.Roles != nil {
		errs = append(errs, r.Set("roles", append([]string{}, *c.Roles...)))
	}
	if c.Disabled != nil {
		errs = append(errs, r.Set("disabled", *c.Disabled))
	}
	return errors.Join(errs...)
}

// sessionChanges returns the steps that change sessions, and how many of them
// are the user's and live.
func (s *Store) sessionChanges(ctx context.Context, c *change, ids []string) (steps []slot, sessions int, err error) {
	if len(ids) == 0 {
		return nil, 0, nil
	}
	standing, err := s.markOf(ctx, c.userID)
	if err != nil {
		return nil, 0, err
	}
	var errs []error
	err = s.look(ctx, ids, func(found *candidate) {
		if !found.of(c.userID, standing) {
			return
		}
		sessions++
		r, err := parseRecord([]byte(found.text))
		if err == nil {
			err = c.inSession(r, s.o.Fields)
		}
		if err != nil {
			errs = append(errs, authz.Refuse(authz.ReasonSessionMalformed, "a session of the user: %w", err))
			return
		}
		if r.changed {
			steps = append(steps, slot{absent(found.keys.dead), holds(found.keys.record, found.text), write(found.keys.record, r.encode())})
		}
	})
	return steps, sessions, errors.Join(append(errs, err)...)
}

func (c *change) inSession(r *Record, f Fields) error {
	var errs []error
	if c.Organization != nil {
		errs = append(errs, setID(r, f.Organization, *c.Organization))
	}
	if c.Roles != nil {
		errs = append(errs, r.Set(f.Roles, append([]string{}, *c.Roles...)))
	}
	return errors.Join(errs...)
}
