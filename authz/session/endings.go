package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Once one of these calls has returned nil, nothing that it ended passes any
// more, whoever saves its record again, and as many replicas as [Options]
// ConfirmReplicas asks for hold it. After an error with
// [authz.ReasonNotConfirmed] it has ended here, and a replica that takes over
// now may not know. After another error either all or nothing has ended; in a
// Cluster, perhaps a part. All of them can be repeated.

// Revoke ends a session, whether its record is there or not. Ending it twice is
// no error.
func (s *Store) Revoke(ctx context.Context, id string) error {
	if _, ok := s.keys(id); !ok {
		return authz.Refuse(authz.ReasonSessionUnknown, "an id that no session of ours can have")
	}
	return s.revoke(ctx, "revoke session", authz.Ending{SessionID: id}, s.familyMark())
}

// RevokeFamily ends a refresh family and revokes the access tokens that came
// from it, until the moment from which no verifier takes any of them any more.
func (s *Store) RevokeFamily(ctx context.Context, family string, until time.Time) error {
	if family == "" {
		return errors.New("revoke family: no name")
	}
	return s.revoke(ctx, "revoke family", authz.Ending{Family: family}, s.lifeUntil(until))
}

// RevokeToken revokes a token by its jti, until the moment from which no
// verifier takes it any more: its exp and the leeway.
func (s *Store) RevokeToken(ctx context.Context, jti string, until time.Time) error {
	if jti == "" {
		return errors.New("revoke token: it has no jti; revoke its user or its family")
	}
	return s.revoke(ctx, "revoke token", authz.Ending{TokenID: jti, TokenUntil: until}, 0)
}

// End ends all that e names. An id that no session of ours can have names none.
func (s *Store) End(ctx context.Context, e authz.Ending) error {
	return s.revoke(ctx, "log out", e, s.familyMark())
}

// minTokenMark is the least that a mark about a token lives, so that a clock
// that is ahead of the verifier's doesn't undo a revocation.
const minTokenMark = time.Minute

func (s *Store) lifeUntil(t time.Time) time.Duration { return max(t.Sub(s.o.Now()), minTokenMark) }

func (s *Store) revoke(ctx context.Context, what string, e authz.Ending, familyLife time.Duration) error {
	session, hasSession := s.keys(e.SessionID)
	family, hasFamily := keysOfFamily(e.Family)
	var ends, forgets []slot
	switch {
	case hasFamily:
		ends = append(ends, slot{drop(family, familyLife)})
	case e.Family != "": // not ours, but a token can name it
		ends = append(ends, slot{markFor(revokedFamilyKey(e.Family), familyLife)})
	}
	if e.TokenID != "" {
		ends = append(ends, slot{markFor(revokedTokenKey(e.TokenID), s.lifeUntil(e.TokenUntil))})
	}
	if len(ends) == 0 && !hasSession {
		return nil
	}
	if hasSession || hasFamily {
		sessionUser, familyUser, err := s.owners(ctx, session, family)
		if err != nil {
			return err
		}
		if hasSession {
			ends = append(ends, slot{finish(session, false, 0, sessionUser)})
		}
		if sessionUser != "" {
			forgets = append(forgets, slot{forget(keysOf(sessionUser).sessions, e.SessionID)})
		}
		if familyUser != "" {
			forgets = append(forgets, slot{forget(keysOf(familyUser).families, e.Family)})
		}
	}
	_, err := s.apply(ctx, what, true, ends, forgets)
	return err
}

// owners returns whose a session and a family are, as far as their records say,
// so that their indexes need not remember them any longer.
func (s *Store) owners(ctx context.Context, session recordKeys, family familyKeys) (sessionUser, familyUser string, err error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	record, user := &redis.StringCmd{}, &redis.StringCmd{}
	if session.record != "" {
		record = pipe.Get(ctx, session.record)
	}
	if family.record != "" {
		user = pipe.HGet(ctx, family.record, "user")
	}
	if err := exec(ctx, pipe); err != nil {
		return "", "", unavailable("read what is to end", err)
	}
	return s.o.Fields.decodeLoosely(record.Val(), s.o.Now()).ID, user.Val(), nil
}

// RevokeUserBefore revokes everything of a user that carries a time not after
// t: sessions by their authTime, tokens by their iat. The mark never moves
// back.
func (s *Store) RevokeUserBefore(ctx context.Context, userID string, t time.Time) error {
	if userID == "" {
		return errors.New("revoke user: no user id")
	}
	_, err := s.apply(ctx, "revoke user", true, []slot{{moveMark(userID, t)}})
	return err
}

// RevokeUser ends all that a user has, and returns how many sessions lived.
//
// It looks through all session records first, in small steps that leave the
// store time for others, for those that another program made; so it takes as
// long as there are records, and nothing has happened if it can't be done. Only
// where ctx runs out before it is through, what is in the user's indexes and
// whatever carries a time ends all the same, and the error says that it may not
// be all. Then all of it ends in one step, or, where it is more than some
// hundreds of sessions, in a few, beginning with the mark that covers whatever
// carries a time. In a Cluster the mark is first, and the records
// follow slot by slot. A login at the same time either is in the index and ends
// as well, or counts as one after it, as its time says.
//
// One thing is out of its reach: a session that another program makes while it
// looks, with no time in it (authTime) by which the mark could cover it.
func (s *Store) RevokeUser(ctx context.Context, userID string) (sessions int, err error) {
	if userID == "" {
		return 0, errors.New("revoke user: no user id")
	}
	ctx, user, missed, err := s.findAll(ctx, userID)
	if err != nil {
		return 0, err
	}
	sessions, err = s.revokeFound(ctx, userID, user)
	return sessions, errors.Join(missed, err)
}

// revokeFound ends what was found of a user, and moves the mark.
func (s *Store) revokeFound(ctx context.Context, userID string, user userSessions) (sessions int, err error) {
	k := keysOf(userID)
	var ends, forgets []slot
	err = s.look(ctx, user.all(), func(c *candidate) {
		forgets = append(forgets, slot{forget(k.sessions, c.sessionID)})
		if c.ID != "" && c.ID != userID {
			return // somebody else is logged in with it by now
		}
		// What is not there, or nobody's, ends as well: another program may
		// still have it in memory as it was, and save it.
		ends = append(ends, slot{finish(c.keys, c.of(userID, user.standing), maxAge(c.Values), userID)})
	})
	if err != nil {
		return 0, err
	}
	for _, id := range user.families {
		if keys, ok := keysOfFamily(id); ok {
			ends = append(ends, slot{drop(keys, s.familyMark())})
		}
		forgets = append(forgets, slot{forget(k.families, id)})
	}
	return s.apply(ctx, "revoke user", true, []slot{{moveMark(userID, s.o.Now())}}, ends, forgets)
}

// RevokeHandle ends the session or the refresh family of a user that has the
// handle; found is false when no living one has it. It finds what is in the
// user's indexes: what was made here, what the gate saw, and what a sweep of
// [Store.UserSessions] found.
func (s *Store) RevokeHandle(ctx context.Context, userID, handle string) (found bool, err error) {
	if userID == "" {
		return false, errors.New("revoke by handle: no user id")
	}
	user, err := s.findUser(ctx, userID, false)
	if err != nil {
		return false, err
	}
	named := func(id string) bool { return authz.Handle(id) == handle }
	// What was ended before is ended again, and stays in the index: whoever
	// was told that it is not confirmed repeats the call.
	var ends []slot
	if i := slices.IndexFunc(user.indexed, named); i >= 0 {
		err = s.look(ctx, user.indexed[i:i+1], func(c *candidate) {
			if c.ID == "" || c.ID == userID {
				found = found || c.of(userID, user.standing)
				ends = append(ends, slot{finish(c.keys, false, maxAge(c.Values), userID)})
			}
		})
	}
	if i := slices.IndexFunc(user.families, named); err == nil && i >= 0 {
		id := user.families[i]
		err = s.lookAtFamilies(ctx, user.families[i:i+1], func(f authz.Family) {
			found = found || !user.standing.Covers(f.Created)
		})
		if keys, ok := keysOfFamily(id); ok {
			ends = append(ends, slot{drop(keys, s.familyMark())})
		}
	}
	if err != nil || len(ends) == 0 {
		return false, err
	}
	_, err = s.apply(ctx, "revoke by handle", true, ends)
	return found, err
}

// EndProviderLogin ends the sessions that were made with this login of an
// OpenID provider: those of its SessionID where it has one, else all of its
// Subject. It returns how many there were.
//
// tokenID is the jti of the provider's request. It counts once until the given
// time: a second one changes nothing and is no error.
func (s *Store) EndProviderLogin(ctx context.Context, l authz.ProviderLogin, tokenID string, until time.Time) (sessions int, err error) {
	hashes := providerHashes(l)
	if len(hashes) == 0 || tokenID == "" {
		return 0, errors.New("end provider login: it needs an issuer, a subject or a session id, and the id of the request")
	}
	index, request := providerKey(hashes[0]), logoutKey(l.Issuer, tokenID)
	ids, known, err := s.providerSessions(ctx, index, request)
	if err != nil {
		return 0, err
	}
	taken := slot{absent(request), markFor(request, s.lifeUntil(until))}
	if known { // perhaps since the first try was not confirmed
		_, err := s.apply(ctx, "end provider login", true, []slot{taken[1:]})
		return 0, err
	}
	var ends, forgets []slot
	err = s.look(ctx, ids, func(c *candidate) {
		ends = append(ends, slot{finish(c.keys, c.exists, maxAge(c.Values), c.ID)})
		forgets = append(forgets, slot{forget(index, c.sessionID)})
		if c.ID != "" {
			forgets = append(forgets, slot{forget(keysOf(c.ID).sessions, c.sessionID)})
		}
	})
	if err != nil {
		return 0, err
	}
	// The request is marked last: until then it can be repeated.
	if s.single == nil {
		if sessions, err = s.apply(ctx, "end provider login", true, ends, forgets); err == nil {
			_, err = s.apply(ctx, "end provider login", true, []slot{taken[1:]})
		}
		return sessions, err
	}
	sessions, err = s.apply(ctx, "end provider login", true, []slot{taken[:1]}, ends, forgets, []slot{taken[1:]})
	if errors.Is(err, errCondition) {
		return 0, nil // another one took it at this moment
	}
	return sessions, err
}

// providerSessions returns the sessions in a provider's index, and whether the
// request was there before.
func (s *Store) providerSessions(ctx context.Context, index, request string) (ids []string, known bool, err error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	before := pipe.Exists(ctx, request)
	members := pipe.ZRange(ctx, index, 0, -1)
	if err := exec(ctx, pipe); err != nil {
		return nil, false, unavailable("read the provider's logins", err)
	}
	if err := members.Err(); err != nil {
		return nil, false, unavailable("read the provider's logins", err)
	}
	return members.Val(), before.Val() != 0, nil
}

// markOf returns the user's mark.
func (s *Store) markOf(ctx context.Context, userID string) (standing authz.Standing, err error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	before := pipe.Get(ctx, beforeKey(userID))
	if err := exec(ctx, pipe); err != nil {
		return standing, unavailable("read the user's mark", err)
	}
	if standing.RevokedBefore, err = timeOf(before); err != nil {
		return standing, unavailable("read the user's mark", err)
	}
	return standing, nil
}
