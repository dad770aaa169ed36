package oidc

import (
	"bytes"
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

// Claims say in which claims a provider keeps the identity. A name is that of a
// top-level claim, or else a dotted path into nested objects, such as
// realm_access.roles. The zero value means sub, email, roles, org_id and
// organizations; in any other an empty UserID is sub, and another empty field
// takes nothing from the claims.
type Claims struct {
	UserID        string // a non-empty string or, except for sub, an integer
	Email         string // a string
	Roles         string // an array of strings, or one string: one role
	Organization  string // a string or an integer
	Organizations string // an array of strings, or one string
}

var defaultClaims = Claims{
	UserID: "sub", Email: "email", Roles: "roles", Organization: "org_id", Organizations: "organizations",
}

// names are the claims that are mapped.
func (c Claims) names() []string {
	return slices.DeleteFunc(
		[]string{c.UserID, c.Email, c.Roles, c.Organization, c.Organizations},
		func(name string) bool { return name == "" },
	)
}

// claimSet are the claims about a user, numbers as [json.Number].
type claimSet map[string]any

// decodeClaims reads one JSON object.
func decodeClaims(data []byte) (claimSet, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var set claimSet
	if err := d.Decode(&set); err != nil {
		return nil, errors.New("the claims are no JSON object")
	}
	return set, nil
}

// find returns a claim; nil where there is none, or a null.
func (s claimSet) find(name string) any {
	if v, ok := s[name]; ok || !strings.Contains(name, ".") {
		return v
	}
	var v any = map[string]any(s)
	for part := range strings.SplitSeq(name, ".") {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[part]
	}
	return v
}

// text returns a claim that is a string; "" where there is none.
func (s claimSet) text(name string) (string, error) {
	switch v := s.find(name).(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("the claim %s is no string", strconv.Quote(name))
}

// id returns a claim that names something: a string or, except for sub, an
// integer in its decimal form.
func (s claimSet) id(name string) (string, error) {
	if n, ok := s.find(name).(json.Number); ok && name != "sub" {
		if strings.ContainsAny(n.String(), ".eE") {
			return "", fmt.Errorf("the claim %s is a number, but no integer", strconv.Quote(name))
		}
		return n.String(), nil
	}
	return s.text(name)
}

// list returns a claim that is an array of strings, or one string; nil where
// there is none.
func (s claimSet) list(name string) ([]string, error) {
	switch v := s.find(name).(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, len(v))
		for i := range v {
			member, ok := v[i].(string)
			if !ok {
				return nil, fmt.Errorf("the claim %s has a member that is no string", strconv.Quote(name))
			}
			list[i] = member
		}
		return list, nil
	}
	return nil, fmt.Errorf("the claim %s is no array of strings", strconv.Quote(name))
}

// lastDate is the last second of the year 9999. What lies beyond is no date but
// an overflow to come.
const lastDate = 253402300799

// date returns a NumericDate (RFC 7519 section 2); zero where there is none.
func (s claimSet) date(name string) (time.Time, error) {
	v, ok := s[name]
	if !ok {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("the claim %s is no number", name)
	}
	seconds, err := n.Float64()
	if err != nil || seconds < 0 || seconds > lastDate {
		return time.Time{}, fmt.Errorf("the claim %s is no date between 1970 and 9999", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// denied reports whether the claim says false, in the way of JSON or as the
// text that some providers write.
func (s claimSet) denied(name string) bool {
	v := s[name]
	return v == false || v == "false"
}

// user maps claims: those of the ID token, and for what it doesn't have those
// of the userinfo endpoint.
func (c Claims) user(idToken, userInfo claimSet, prefix string) (u authz.User, err error) {
	from := func(name string) claimSet {
		if idToken.find(name) == nil {
			return userInfo
		}
		return idToken
	}
	if u.ID, err = from(c.UserID).id(c.UserID); err != nil {
		return u, err
	}
	if u.ID == "" {
		return u, fmt.Errorf("the claim %s, the user's id, is missing or empty", strconv.Quote(c.UserID))
	}
	u.ID = prefix + u.ID
	if u.Email, err = from(c.Email).text(c.Email); err != nil {
		return u, err
	}
	// An address that the provider has not verified may be anybody's.
	if idToken.denied("email_verified") || userInfo.denied("email_verified") {
		u.Email = ""
	}
	if u.Roles, err = from(c.Roles).list(c.Roles); err != nil {
		return u, err
	}
	if u.Organizations, err = from(c.Organizations).list(c.Organizations); err != nil {
		return u, err
	}
	if u.Organization, err = from(c.Organization).id(c.Organization); err != nil {
		return u, err
	}
	if u.Organization == "" && len(u.Organizations) > 0 {
		u.Organization = u.Organizations[0]
	}
	return u, nil
}
