package oidc

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

const (
	logoutEvent    = "http://schemas.openid.net/event/backchannel-logout"
	logoutLife     = 10 * time.Minute // from iat on, whatever exp says
	maxLogoutToken = 8 << 10
)

// Why a signature is not good.
var (
	errUnreachable = errors.New("the issuer's keys can't be fetched") // so nobody knows
	errForged      = errors.New("no key of the issuer has signed it")
)

// watched is a key set that remembers why it refused: the verifier around it
// passes on only the text.
type watched struct {
	gooidc.KeySet
	err error
}

func (w *watched) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := w.KeySet.VerifySignature(ctx, jwt)
	switch {
	case err == nil:
	case strings.HasPrefix(err.Error(), "fetching keys"):
		w.err = fmt.Errorf("%w: %w", errUnreachable, clip(err))
	default:
		w.err = errForged
	}
	return payload, err
}

// verify checks signature, algorithm, issuer and audience of a token of the
// provider; dates are left to the caller. errForged and errUnreachable are
// wrapped in its errors.
func (p *Provider) verify(ctx context.Context, keys gooidc.KeySet, algorithms []string, raw string) (claimSet, *gooidc.IDToken, error) {
	w := &watched{KeySet: keys}
	token, err := gooidc.NewVerifier(p.o.Issuer, w, &gooidc.Config{
		ClientID: p.o.ClientID, SupportedSigningAlgs: algorithms, SkipExpiryCheck: true,
	}).Verify(ctx, raw)
	if w.err != nil {
		return nil, nil, w.err
	}
	if err != nil {
		return nil, nil, clip(err)
	}
	var payload json.RawMessage
	if err := token.Claims(&payload); err != nil {
		return nil, nil, err
	}
	claims, err := claim.Decode(payload)
	return claims, token, err
}

// refuseToken refuses a token that is invalid, or of which nobody knows.
func refuseToken(what string, invalid authz.Reason, err error) error {
	if errors.Is(err, errUnreachable) {
		invalid = authz.ReasonIssuerUnavailable
	}
	return authz.Refuse(invalid, "%s: %w", what, err)
}

// idToken verifies the ID token of a token response (OpenID Connect Core 1.0
// section 3.1.3.7). It comes from the issuer itself, so a key that is not known
// is a new one, and worth a fetch at any time.
func (p *Provider) idToken(ctx context.Context, m *metadata, t *oauth2.Token, nonce string) (claimSet, error) {
	raw, ok := t.Extra("id_token").(string)
	if !ok {
		return nil, authz.Refuse(authz.ReasonLoginRefused, "the token endpoint gave no ID token")
	}
	claims, token, err := p.verify(ctx, m.keys, m.algorithms, raw)
	if errors.Is(err, errForged) {
		claims, token, err = p.verify(ctx, m.keys.renewed(), m.algorithms, raw) //nolint:contextcheck // keys outlive the request that found them
	}
	if err == nil {
		err = p.checkIDToken(claims, token, t.AccessToken, nonce)
	}
	if err != nil {
		return nil, refuseToken("the ID token", authz.ReasonLoginRefused, err)
	}
	return claims, nil
}

func (p *Provider) checkIDToken(claims claimSet, token *gooidc.IDToken, accessToken, nonce string) error {
	if subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(nonce)) != 1 {
		return errors.New("the nonce is that of another login, or missing")
	}
	if err := p.checkParty(claims, token.Audience); err != nil {
		return err
	}
	if sub, ok := claims["sub"].(string); !ok || sub == "" {
		return errors.New("no sub claim")
	}
	now := p.o.Now()
	issued, err := claims.issued(now)
	if err != nil {
		return err
	}
	expires, err := claims.expires(now)
	switch {
	case err != nil:
		return err
	case expires.IsZero():
		return errors.New("no exp claim")
	case expires.Before(issued):
		return errors.New("exp lies before iat")
	}
	if authTime, err := claim.Date(claims, "auth_time"); err != nil || authTime.After(now.Add(leeway)) {
		return errors.New("the claim auth_time is no date of the past")
	}
	if token.AccessTokenHash != "" {
		return token.VerifyAccessToken(accessToken)
	}
	return nil
}

// checkParty makes sure that the token was issued to us, not only for us: a
// token for several must say to which.
func (p *Provider) checkParty(claims claimSet, audience []string) error {
	party, given := claims["azp"]
	switch {
	case given && party != p.o.ClientID:
		return errors.New("the claim azp names another client")
	case !given && len(audience) > 1:
		return errors.New("several audiences, and no azp claim that names us")
	}
	return nil
}

// issued returns when a token was issued, which must be known, and no moment of
// the future. nbf, where it is, must have come.
func (s claimSet) issued(now time.Time) (time.Time, error) {
	issued, err := claim.Date(s, "iat")
	switch {
	case err != nil:
		return issued, err
	case issued.IsZero():
		return issued, errors.New("no iat claim")
	case issued.After(now.Add(leeway)):
		return issued, errors.New("iat lies ahead; does this machine's clock go wrong, or the provider's?")
	}
	if begins, err := claim.Date(s, "nbf"); err != nil || begins.After(now.Add(leeway)) {
		return issued, errors.New("nbf has not come yet")
	}
	return issued, nil
}

// expires returns when a token expires, which must not have come; zero where
// it doesn't say.
func (s claimSet) expires(now time.Time) (time.Time, error) {
	expires, err := claim.Date(s, "exp")
	if err == nil && !expires.IsZero() && !now.Before(expires.Add(leeway)) {
		err = errors.New("expired")
	}
	return expires, err
}

// LogoutToken verifies a logout token (OpenID Connect Back-Channel Logout 1.0
// section 2.6), by which the provider ends the logins of a subject, or one of
// them. A token without exp, which earlier drafts allowed, is good for ten
// minutes, and so is one with a later exp; expires is when none takes it any
// more. Whether tokenID was seen before is the caller's to know.
//
// ReasonBadRequest for one that is not valid, ReasonIssuerUnavailable when that
// can't be known.
func (p *Provider) LogoutToken(ctx context.Context, raw string) (l authz.ProviderLogin, tokenID string, expires time.Time, err error) {
	if err := checkLogoutHeader(raw); err != nil {
		return l, "", expires, authz.Refuse(authz.ReasonBadRequest, "the logout token: %w", err)
	}
	m, err := p.directory.metadata(ctx)
	if err != nil {
		return l, "", expires, err
	}
	claims, _, err := p.verify(ctx, m.keys, m.algorithms, raw)
	if err == nil {
		l, tokenID, expires, err = p.readLogout(claims)
	}
	if err != nil {
		return authz.ProviderLogin{}, "", time.Time{}, refuseToken("the logout token", authz.ReasonBadRequest, err)
	}
	return l, tokenID, expires, nil
}

// logoutTypes are the values of typ that a logout token may have: its own, or
// the general one, which many providers write.
var logoutTypes = []string{"logout+jwt", "application/logout+jwt", "jwt"}

// checkLogoutHeader refuses what is another kind of token by its own words.
func checkLogoutHeader(raw string) error {
	if len(raw) > maxLogoutToken {
		return fmt.Errorf("longer than %d bytes", maxLogoutToken)
	}
	first, _, _ := strings.Cut(raw, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return errors.New("no JWT")
	}
	header, err := claim.Decode(data)
	if err != nil {
		return errors.New("no JWT")
	}
	typ, given := header["typ"]
	if name, ok := typ.(string); given && (!ok || !slices.Contains(logoutTypes, strings.ToLower(name))) {
		return errors.New("its typ is that of another kind of token")
	}
	return nil
}

// readLogout judges the claims of a logout token whose signature is good.
func (p *Provider) readLogout(claims claimSet) (l authz.ProviderLogin, tokenID string, expires time.Time, err error) {
	if _, given := claims["nonce"]; given {
		return l, "", expires, errors.New("it has a nonce, as only ID tokens do")
	}
	events, _ := claims["events"].(map[string]any)
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return l, "", expires, errors.New("its events are no logout")
	}
	if azp, given := claims["azp"]; given && azp != p.o.ClientID {
		return l, "", expires, errors.New("the claim azp names another client")
	}
	if tokenID, err = claim.NewPath("jti").Text(claims); err != nil || tokenID == "" {
		return l, "", expires, errors.New("no jti claim")
	}
	l.Issuer = p.o.Issuer
	if l.Subject, err = claim.NewPath("sub").Text(claims); err != nil {
		return l, "", expires, err
	}
	if l.SessionID, err = claim.NewPath("sid").Text(claims); err != nil {
		return l, "", expires, err
	}
	if l.Subject == "" && l.SessionID == "" {
		return l, "", expires, errors.New("neither sub nor sid")
	}
	now := p.o.Now()
	issued, err := claims.issued(now)
	if err != nil {
		return l, "", expires, err
	}
	if expires, err = claims.expires(now); err != nil {
		return l, "", expires, err
	}
	if latest := issued.Add(logoutLife); expires.IsZero() || expires.After(latest) {
		expires = latest
	}
	if expires = expires.Add(leeway); !now.Before(expires) {
		return l, "", expires, errors.New("issued too long ago")
	}
	return l, tokenID, expires, nil
}
