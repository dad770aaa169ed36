package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// HeldSession is one session of a user, with all that its record holds.
type HeldSession struct {
	authz.ActiveLogin
	AuthTime time.Time // when the user authenticated; zero: unknown
	// Values is the record, its numbers [json.Number]. What the application keeps
	// there may be secret. Wherever the session's id stands in it, a placeholder
	// does. nil where the record is no JSON object.
	Values map[string]any
	// Problem is what is wrong with the record, so that the gate refuses it; nil
	// for nothing.
	Problem error
}

// UserSession returns the session of a user that has the handle, if it lives;
// ok is false when there is none. It looks into the user's index, and only where
// it isn't there through all records, as [Store.UserSessions] does with sweep.
func (s *Store) UserSession(ctx context.Context, userID, handle string) (_ HeldSession, ok bool, err error) {
	if userID == "" {
		return HeldSession{}, false, errors.New("show session: no user id")
	}
	ctx = repeatable(ctx)
	named := func(id string) bool { return authz.Handle(id) == handle }
	for _, sweep := range [...]bool{false, true} {
		user, err := s.findUser(ctx, userID, sweep)
		if err != nil {
			return HeldSession{}, false, err
		}
		all := user.all()
		i := slices.IndexFunc(all, named)
		if i < 0 {
			continue
		}
		var held HeldSession
		err = s.look(ctx, all[i:i+1], func(c *candidate) {
			if ok = c.of(userID, user.standing); ok {
				held = s.held(c)
			}
		})
		return held, ok, err
	}
	return HeldSession{}, false, nil
}

func (s *Store) held(c *candidate) HeldSession {
	now := s.o.Now()
	h := HeldSession{ActiveLogin: c.login(now), AuthTime: c.AuthTime}
	_, h.Problem = s.o.Fields.decodeRecord(c.text, now)
	h.Values, _ = withoutText(c.Values, c.sessionID).(map[string]any)
	return h
}

// hiddenID stands where a session's id stood.
const hiddenID = "[session id]"

// withoutText returns a decoded JSON value in which no string holds the text, nor
// the name of a member. Nothing of the value itself is changed.
func withoutText(value any, text string) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, text, hiddenID)
	case json.Number:
		if v.String() == text {
			return hiddenID
		}
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = withoutText(v[i], text)
		}
		return list
	case map[string]any:
		if v == nil {
			return nil
		}
		object := make(map[string]any, len(v))
		for name, member := range v {
			object[strings.ReplaceAll(name, text, hiddenID)] = withoutText(member, text)
		}
		return object
	}
	return value
}
