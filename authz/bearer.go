package authz

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Bearer authenticates by bearer token (RFC 6750 section 2.1). Safe for
// concurrent use.
type Bearer struct {
	verifier TokenVerifier
	store    StandingStore
	cached   CachedStandingStore // the store, if it is one
}

// NewBearer returns the authenticator of bearer tokens.
func NewBearer(v TokenVerifier, s StandingStore) *Bearer {
	cached, _ := s.(CachedStandingStore)
	return &Bearer{verifier: v, store: s, cached: cached}
}

// Kind returns KindBearer.
func (*Bearer) Kind() Kind { return KindBearer }

// Credential returns what follows the scheme Bearer, in any case, in the
// Authorization header. A scheme with nothing behind it is a credential, and
// an invalid one; another scheme is none.
func (*Bearer) Credential(r *Request) (string, bool) {
	header, ok := r.Headers.Header("authorization")
	if !ok {
		return "", false
	}
	scheme, token, _ := strings.Cut(trimOWS(header), " ")
	return trimOWS(token), strings.EqualFold(scheme, "Bearer")
}

func (*Bearer) looks() string { return `no header authorization with "Bearer"` }

// ShowsBearer reports whether the request shows a bearer token that its policy
// accepts, be it that another credential decided: what a door takes out that keeps
// credentials from services. Another scheme, or a token that only the service
// accepts, is none of ours.
func (d *Decision) ShowsBearer(r *Request) bool {
	_, present := (*Bearer)(nil).Credential(r)
	return present && d.Policy.accepts(KindBearer)
}

// Authenticate implements [Authenticator]. A profile wins over the token's
// claims, field by field.
func (b *Bearer) Authenticate(ctx context.Context, raw string, p *Policy) (*Principal, error) {
	token, err := b.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	var degraded Outage
	standing, err := b.standing(ctx, token, p.reads(ctx))
	if err != nil {
		if p.OnStoreOutage != OutageAcceptBearer || ReasonOf(err) != ReasonStoreUnavailable || errors.Is(err, context.Canceled) {
			return nil, err
		}
		standing, degraded = Standing{}, OutageAcceptBearer
	}
	if standing.Stale {
		degraded = OutageServeStale
	}
	if err := refuseToken(token, &standing); err != nil {
		return nil, suspect(err, token.ID, token.Family)
	}
	principal := &Principal{}
	fillFromToken(principal, token, &standing)
	principal.Degraded = degraded
	return principal, nil
}

// standing asks the store about a token.
func (b *Bearer) standing(ctx context.Context, token *Token, o ReadOptions) (Standing, error) {
	t := TraceFrom(ctx)
	began := t.now()
	standing, err := b.store.TokenStanding(ctx, token.ref(), o)
	if t == nil {
		return standing, err
	}
	if err != nil {
		t.Add(StageRevocation, "marks", began, err, "")
		return standing, err
	}
	b.marks(ctx, t, token.ref(), o, standing.Revoked, began)
	t.standing(&standing, token.ID, token.IssuedAt)
	return standing, nil
}

// marks tells which mark revoked a token, and which could have.
func (b *Bearer) marks(ctx context.Context, t *Trace, ref TokenRef, o ReadOptions, revoked bool, began time.Time) {
	for _, mark := range []struct {
		name string
		ref  TokenRef
	}{{"token's mark", TokenRef{TokenID: ref.TokenID}}, {"family's mark", TokenRef{Family: ref.Family}}} {
		switch {
		case mark.ref == (TokenRef{}):
			t.None(StageRevocation, mark.name, "the token names none")
			continue
		case !revoked:
			t.Add(StageRevocation, mark.name, began, nil, "not there")
			continue
		}
		began = t.now()
		switch s, err := b.store.TokenStanding(ctx, mark.ref, o); {
		case err != nil:
			t.None(StageRevocation, mark.name, "not known: %v", err)
		case s.Revoked:
			t.Add(StageRevocation, mark.name, began, errThere, "")
		default:
			t.Add(StageRevocation, mark.name, began, nil, "not there")
		}
	}
}

var errThere = errors.New("it is there")

func (t *Token) ref() TokenRef { return TokenRef{UserID: t.ID, TokenID: t.TokenID, Family: t.Family} }

// refuseToken says why a token that is authentic lets nobody in; nil where it
// does.
func refuseToken(token *Token, standing *Standing) error {
	switch {
	case standing.Revoked || standing.predates(token.IssuedAt):
		return Refuse(ReasonTokenRevoked, "the token, its family or its user was revoked")
	case standing.Disabled():
		return Refuse(ReasonUserDisabled, "the profile is disabled")
	}
	return nil
}

func fillFromToken(p *Principal, token *Token, standing *Standing) {
	*p = Principal{
		Identity:  token.Identity,
		Kind:      KindBearer,
		AuthTime:  token.AuthTime,
		Issuer:    token.Issuer,
		Audiences: token.Audiences,
		Claims:    token.Claims,
	}
	if standing.Profile != nil {
		standing.Profile.overlay(p)
	}
}

// overlay puts what the profile says over what the token claimed.
func (p *Profile) overlay(principal *Principal) {
	if p.Email != nil {
		principal.Email = *p.Email
	}
	if p.Roles != nil {
		principal.Roles = *p.Roles
	}
	if p.Organization != nil {
		principal.Organization = *p.Organization
	}
	principal.Organizations = p.Organizations
}
