package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// ClaimNames say in which claims an issuer keeps the identity. A name is that
// of a top-level claim, or else a dotted path into nested objects, such as
// realm_access.roles; so a claim named https://example.com/roles works too,
// and where both exist the top-level claim wins. The zero value means sub, email,
// roles and org_id; in any other, an empty UserID is sub, and another empty
// field takes nothing from the claims.
type ClaimNames struct {
	UserID       string // a non-empty string or, except for sub, an integer
	Email        string // a string
	Roles        string // an array of strings, or one string: one role
	Organization string // a string or an integer
}

var defaultClaims = ClaimNames{UserID: "sub", Email: "email", Roles: "roles", Organization: "org_id"}

// claimPath is a name in ClaimNames, taken apart once.
type claimPath struct {
	name  string
	parts []string // nil when there is no dot in it
}

func newClaimPath(name string) claimPath {
	p := claimPath{name: name}
	if strings.Contains(name, ".") {
		p.parts = strings.Split(name, ".")
	}
	return p
}

// in returns the claim, nil when it is absent or null, or the path names none.
func (p claimPath) in(claims map[string]any) any {
	if p.name == "" {
		return nil
	}
	if v, ok := claims[p.name]; ok || p.parts == nil {
		return v
	}
	var v any = claims
	for _, part := range p.parts {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[part]
	}
	return v
}

// id returns a claim that names something: a string, or an integer in its
// decimal form. Absent is "".
func (p claimPath) id(claims map[string]any) (string, error) {
	if n, ok := p.in(claims).(json.Number); ok && p.name != "sub" {
		if strings.ContainsAny(string(n), ".eE") || n == "-0" {
			return "", fmt.Errorf("claim %s is a number, but not an integer", quote(p.name))
		}
		return string(n), nil
	}
	return p.text(claims)
}

func (p claimPath) text(claims map[string]any) (string, error) {
	switch v := p.in(claims).(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		return "", fmt.Errorf("claim %s is not a string", quote(p.name))
	}
}

func (p claimPath) list(claims map[string]any) ([]string, error) {
	v := p.in(claims)
	if v == nil || v == "" {
		return nil, nil
	}
	list, ok := stringOrStrings(v)
	if !ok {
		return nil, fmt.Errorf("claim %s is neither a string nor an array of strings", quote(p.name))
	}
	return list, nil
}

func stringOrStrings(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return nil, false
			}
			list[i] = s
		}
		return list, true
	default:
		return nil, false
	}
}

// optionalString returns a registered claim that must be a string where it
// stands; absent is "".
func optionalString(claims map[string]any, name string) (string, error) {
	v, ok := claims[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("claim %s is not a string", name)
	}
	return s, nil
}

// maxDate is the last second of the year 9999. What lies beyond is no date
// but an overflow to come, or milliseconds taken for seconds.
const maxDate = 253402300799

// date returns a NumericDate (RFC 7519 section 2), which may have a fraction;
// the zero time when it is absent.
func date(claims map[string]any, name string) (time.Time, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("claim %s is not a number", name)
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, fmt.Errorf("claim %s is not a date between 1970 and 9999", name)
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)).UTC(), nil
}

// pastDate is a date that can't lie ahead of now, but for the leeway.
func (i *issuer) pastDate(claims map[string]any, name string, now time.Time) (time.Time, error) {
	t, err := date(claims, name)
	if err != nil {
		return time.Time{}, err
	}
	if t.After(now.Add(i.leeway)) {
		return time.Time{}, fmt.Errorf("claim %s lies %v ahead", name, t.Sub(now))
	}
	return t, nil
}

// read judges the claims of a token whose signature is good, and maps them;
// only whether exp has passed is left to the caller.
func (i *issuer) read(claims map[string]any, now time.Time) (t authz.Token, err error) {
	t = authz.Token{Issuer: i.name, Claims: claims}
	if t.Expires, err = date(claims, "exp"); err != nil {
		return t, err
	}
	if t.Expires.IsZero() {
		return t, errors.New("no exp claim")
	}
	if _, err = i.pastDate(claims, "nbf", now); err != nil {
		return t, err
	}
	if t.IssuedAt, err = i.pastDate(claims, "iat", now); err != nil {
		return t, err
	}
	if t.AuthTime, err = i.pastDate(claims, "auth_time", now); err != nil {
		return t, err
	}
	if t.AuthTime.IsZero() {
		t.AuthTime = t.IssuedAt
	}
	if t.Audiences, err = i.audience(claims); err != nil {
		return t, err
	}
	if t.TokenID, err = optionalString(claims, "jti"); err != nil {
		return t, err
	}
	if i.ownTokens {
		if t.TokenID == "" { // jti is optional for outside issuers only: ours could not be revoked
			return t, errors.New("claim jti is missing or empty, which our own tokens have")
		}
		if t.Family, err = optionalString(claims, "sid"); err != nil {
			return t, err
		}
	}
	t.Identity, err = i.identity(claims)
	return t, err
}

func (i *issuer) audience(claims map[string]any) ([]string, error) {
	var audiences []string
	if v, ok := claims["aud"]; ok {
		if audiences, ok = stringOrStrings(v); !ok {
			return nil, errors.New("claim aud is neither a string nor an array of strings")
		}
	}
	ours := func(a string) bool { return slices.Contains(i.audiences, a) }
	if len(i.audiences) > 0 && !slices.ContainsFunc(audiences, ours) {
		return nil, errors.New("claim aud names none of the audiences that are accepted of this issuer")
	}
	return audiences, nil
}

func (i *issuer) identity(claims map[string]any) (id authz.Identity, err error) {
	if id.ID, err = i.userID.id(claims); err != nil {
		return id, err
	}
	if id.ID == "" {
		return id, fmt.Errorf("claim %s, the user's id, is missing or empty", quote(i.userID.name))
	}
	if id.Email, err = i.email.text(claims); err != nil {
		return id, err
	}
	if id.Roles, err = i.roles.list(claims); err != nil {
		return id, err
	}
	id.Organization, err = i.organization.id(claims)
	return id, err
}
