package token

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Examination is what [Verifier.Examine] finds, step by step. The first error is
// what [Verifier.Verify] says; what comes behind it was not looked at.
type Examination struct {
	// Header and Claims are as they stand in the token, numbers [json.Number];
	// nil where they can't be read. They are true only where Signature was
	// checked and is nil.
	Header, Claims map[string]any

	Form      error // what no issuer could make right
	Issuer    error // nobody whom we know
	Signature error // by no key of the issuer's, or against its terms; ReasonIssuerUnavailable: not known
	Content   error // the claims, but for exp
	Expired   error // exp has passed
	// Token is there when all but Expired is nil.
	Token *authz.Token
}

// Err returns the first of the errors; nil says that the token is authentic and
// in time.
func (e *Examination) Err() error {
	for _, err := range [...]error{e.Form, e.Issuer, e.Signature, e.Content, e.Expired} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Authentic reports whether a known issuer signed the token: then its claims are
// what the issuer said.
func (e *Examination) Authentic() bool {
	return e.Form == nil && e.Issuer == nil && e.Signature == nil
}

// Examine does what Verify does, for somebody who wants to know why: it goes as
// far as it can, and takes nothing from what was remembered. It lets nobody in.
func (v *Verifier) Examine(ctx context.Context, raw string) Examination {
	var e Examination
	if len(raw) > MaxLength {
		e.Form = invalid("%d bytes long; %d are allowed", len(raw), MaxLength)
		return e
	}
	e.Header, e.Claims = glance(raw)
	u, err := parse(raw)
	if err != nil {
		e.Form = err
		return e
	}
	i, err := v.issuerOf(u)
	if err != nil {
		e.Issuer = err
		return e
	}
	if _, _, err := i.authenticate(ctx, raw, u); err != nil {
		e.Signature = err
		return e
	}
	now := v.now()
	token, err := i.read(u.claims, now)
	if err != nil {
		e.Content = invalid("%w", err)
		return e
	}
	e.Token = &token
	e.Expired = i.expired(&token, now)
	return e
}

// glance reads header and claims of what may be no token at all.
func glance(raw string) (header, claims map[string]any) {
	object := func(segment string) map[string]any {
		text, err := decodeSegment(segment)
		if err != nil {
			return nil
		}
		if members, err := decodeObject(text); err == nil {
			return members
		}
		// Whoever looks for what is wrong with it sees more than the verifier takes.
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		var members map[string]any
		if err := d.Decode(&members); err != nil {
			return nil
		}
		return members
	}
	parts := strings.Split(raw, ".")
	if len(parts) < 2 {
		return nil, nil
	}
	return object(parts[0]), object(parts[1])
}
