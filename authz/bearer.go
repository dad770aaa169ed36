package authz

import (
	"context"
	"errors"
	"strings"
)

// Bearer authenticates by bearer token (RFC 6750 section 2.1). Safe for
// concurrent use.
type Bearer struct {
	verifier TokenVerifier
	store    StandingStore
}

// NewBearer returns the authenticator of bearer tokens.
func NewBearer(v TokenVerifier, s StandingStore) *Bearer { return &Bearer{verifier: v, store: s} }

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

// Authenticate implements [Authenticator]. A profile wins over the token's
// claims, field by field.
func (b *Bearer) Authenticate(ctx context.Context, raw string, p *Policy) (*Principal, error) {
	token, err := b.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	ref := TokenRef{UserID: token.ID, TokenID: token.TokenID, Family: token.Family}
	var degraded Outage
	standing, err := b.store.TokenStanding(ctx, ref, p.readOptions())
	if err != nil {
		if p.OnStoreOutage != OutageAcceptBearer || ReasonOf(err) != ReasonStoreUnavailable || errors.Is(err, context.Canceled) {
			return nil, err
		}
		standing, degraded = Standing{}, OutageAcceptBearer
	}
	if standing.Revoked || standing.predates(token.IssuedAt) {
		return nil, Refuse(ReasonTokenRevoked, "the token, its family or its user was revoked")
	}
	principal := &Principal{
		Identity:  token.Identity,
		Kind:      KindBearer,
		AuthTime:  token.AuthTime,
		Issuer:    token.Issuer,
		Audiences: token.Audiences,
		Claims:    token.Claims,
		Degraded:  degraded,
	}
	if profile := standing.Profile; profile != nil {
		if profile.Disabled {
			return nil, Refuse(ReasonUserDisabled, "the profile is disabled")
		}
		profile.overlay(principal)
	}
	return principal, nil
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
