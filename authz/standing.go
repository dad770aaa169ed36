package authz

import "time"

// Covers reports whether the user's mark revokes what was made at this time:
// what is not newer than the mark. A zero time is not covered: a mark applies
// to what carries a time.
func (s Standing) Covers(made time.Time) bool { return s.predates(made) }

// MadeAt is how old the credential is, which the user's mark is compared with:
// when the session was made, else when the user authenticated, whichever is
// later. A provider may have authenticated the user long before that. Zero when
// the record says neither.
func (s *Session) MadeAt() time.Time {
	if s.Created.After(s.AuthTime) {
		return s.Created
	}
	return s.AuthTime
}

// Behind returns t, put behind the user's mark if need be: whoever logs in
// after everything of theirs was revoked must not fall under that, only
// because two clocks differ.
func (s Standing) Behind(t time.Time) time.Time {
	if !s.Covers(t) {
		return t
	}
	return s.RevokedBefore.Add(time.Millisecond)
}

// Disabled reports whether the user's profile locks the user out.
func (s Standing) Disabled() bool { return s.Profile != nil && s.Profile.Disabled }

// Over returns u as the profile has it: what the profile says wins, field by
// field, and what it leaves out stays. A nil profile says nothing.
func (p *Profile) Over(u User) User {
	if p == nil {
		return u
	}
	if p.Email != nil {
		u.Email = *p.Email
	}
	if p.Roles != nil {
		u.Roles = *p.Roles
	}
	if p.Organization != nil {
		u.Organization = *p.Organization
	}
	if p.Organizations != nil {
		u.Organizations = p.Organizations
	}
	return u
}
