package authz

import (
	"context"
	"strconv"
)

// Sessions authenticates by session cookie. Safe for concurrent use.
type Sessions struct {
	cookie   string
	verifier CookieVerifier
	store    SessionStore
	cached   CachedSessionStore   // the store, if it is one
	inMemory MemoryCookieVerifier // the verifier, if it is one
}

// NewSessions returns the authenticator of the session cookie with that name.
func NewSessions(cookie string, v CookieVerifier, s SessionStore) *Sessions {
	cached, _ := s.(CachedSessionStore)
	inMemory, _ := v.(MemoryCookieVerifier)
	return &Sessions{cookie: cookie, verifier: v, store: s, cached: cached, inMemory: inMemory}
}

// Kind returns KindSession.
func (*Sessions) Kind() Kind { return KindSession }

// Credential returns the first cookie of the name, as it stands in the header.
func (s *Sessions) Credential(r *Request) (string, bool) {
	header, ok := r.Headers.Header("cookie")
	if !ok {
		return "", false
	}
	return FirstCookie(header, s.cookie)
}

func (s *Sessions) looks() string { return "no cookie is named " + strconv.Quote(s.cookie) }

// Authenticate implements [Authenticator]. The signature is checked before
// the store is asked, so guessed ids never get there.
func (s *Sessions) Authenticate(ctx context.Context, value string, p *Policy) (*Principal, error) {
	t := TraceFrom(ctx)
	began := t.now()
	id, ok := s.verifier.Verify(value)
	if !ok {
		err := Refuse(ReasonSessionForged, "the cookie is signed by none of the secrets")
		t.Add(StageProof, "signature", began, err, "")
		return nil, err
	}
	t.Add(StageProof, "signature", began, nil, "made by one of the secrets")
	began = t.now()
	session, err := s.store.Session(ctx, id, p.reads(ctx))
	if err != nil {
		t.Add(StageProof, "record", began, err, "")
		return nil, suspect(err, "", id)
	}
	if t != nil {
		t.Add(StageProof, "record", began, nil, "%s", session.summary())
		t.standing(&session.Standing, session.ID, session.MadeAt())
	}
	if err := refuseSession(session); err != nil {
		return nil, suspect(err, session.ID, id)
	}
	principal := &Principal{}
	fillFromSession(principal, id, session)
	return principal, nil
}

func (s *Session) summary() string {
	text := "made at " + moment(s.MadeAt())
	if !s.LastSeen.IsZero() {
		text += ", last used at " + moment(s.LastSeen)
	}
	if s.Stale {
		text += "; from memory, since the store is out of reach"
	}
	return text
}

// refuseSession says why a session that was found lets nobody in; nil where it
// does.
func refuseSession(session *Session) error {
	switch {
	case session.ID == "": // Express keeps sessions for visitors too, before anybody logs in
		return Refuse(ReasonSessionAnonymous, "the session is nobody's: its record names no user")
	case session.Standing.Revoked || session.Standing.predates(session.MadeAt()):
		return Refuse(ReasonSessionRevoked, "the session falls under the user's revocation mark")
	case session.Standing.Disabled():
		return Refuse(ReasonUserDisabled, "the profile is disabled")
	}
	return nil
}

func fillFromSession(p *Principal, id string, session *Session) {
	var degraded Outage
	if session.Stale {
		degraded = OutageServeStale
	}
	*p = Principal{
		Identity:      session.Identity,
		Kind:          KindSession,
		SessionID:     id,
		Organizations: session.Organizations,
		AuthTime:      session.AuthTime,
		Session:       session.Values,
		Degraded:      degraded,
	}
}
