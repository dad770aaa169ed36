package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Fields name where in a session record the identity stands: the name of a
// member, or the dotted path to one inside other objects (passport.user). A
// member whose own name has the dots in it comes first. An empty name is the
// default.
type Fields struct {
	UserID        string // default userId; a string, or a whole number
	Email         string // default email
	Roles         string // default roles; an array of strings, or one string
	Organization  string // default organizationId; a string, or a whole number
	Organizations string // default organizations; an array of what organizationId can be, or one
	AuthTime      string // default authTime; Unix seconds, fractions allowed
}

func (f Fields) withDefaults() Fields {
	for _, field := range []struct {
		name  *string
		value string
	}{
		{&f.UserID, "userId"},
		{&f.Email, "email"},
		{&f.Roles, "roles"},
		{&f.Organization, "organizationId"},
		{&f.Organizations, "organizations"},
		{&f.AuthTime, "authTime"},
	} {
		if *field.name == "" {
			*field.name = field.value
		}
	}
	return f
}

// validate refuses fields within our own member of a record.
func (f Fields) validate() error {
	for _, path := range []string{f.UserID, f.Email, f.Roles, f.Organization, f.Organizations, f.AuthTime} {
		if head, _, _ := strings.Cut(path, "."); head == ourMember {
			return fmt.Errorf("field %s: the member %s of a record is Gatehouse's own", path, head)
		}
	}
	return nil
}

// maxClockSkew is how far in the future a record may say that its user
// authenticated. Without a bound, milliseconds taken for seconds would make a
// session that is fresh for ever and that no mark of the user covers.
const maxClockSkew = 5 * time.Minute

// decodeRecord reads a record. What it refuses is malformed: a member that has
// the wrong type is never taken for one that is missing. null is missing. A
// record without a user id gives a session without one.
func (f Fields) decodeRecord(text string, now time.Time) (*authz.Session, error) {
	values, err := decodeObject(text)
	if err != nil {
		return nil, err
	}
	s := &authz.Session{Values: values}
	var errs [4]error
	s.ID, errs[0] = idOf(f.UserID, lookup(values, f.UserID))
	s.Email, errs[1] = stringOf(f.Email, lookup(values, f.Email))
	s.Roles, errs[2] = listOf(f.Roles, lookup(values, f.Roles), stringOf)
	s.Organization, errs[3] = idOf(f.Organization, lookup(values, f.Organization))
	// Not every application writes these two: one may have something else
	// under their names, and its users must not be locked out for it. Then
	// nobody switches, and the session carries no time.
	s.Organizations, _ = listOf(f.Organizations, lookup(values, f.Organizations), idOf)
	s.AuthTime, s.Created = timeIn(lookup(values, f.AuthTime), now), createdIn(values, now)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return s, nil
}

// timeless reports whether a record that was read will be read the same at any
// later time: none of its times lies in the future.
func (f Fields) timeless(s *authz.Session) bool {
	return timeIn(lookup(s.Values, f.AuthTime), endOfTime).Equal(s.AuthTime) && createdIn(s.Values, endOfTime).Equal(s.Created)
}

// endOfTime is later than any time in a record.
var endOfTime = time.Unix(1<<42, 0)

// decodeLoosely reads of a record what can be read: where decodeRecord refuses
// it, the user id at most and the times.
func (f Fields) decodeLoosely(text string, now time.Time) *authz.Session {
	if s, err := f.decodeRecord(text, now); err == nil {
		return s
	}
	s := &authz.Session{}
	values, err := decodeObject(text)
	if err != nil {
		return s
	}
	s.ID, _ = idOf(f.UserID, lookup(values, f.UserID)) // "" where it is none
	s.AuthTime, s.Created = timeIn(lookup(values, f.AuthTime), now), createdIn(values, now)
	s.Values = values
	return s
}

// maxAge returns the life that the record asks for itself: its
// cookie.originalMaxAge. Zero when it has none, or one that makes no sense.
func maxAge(values map[string]any) time.Duration {
	number, ok := lookup(values, "cookie.originalMaxAge").(json.Number)
	if !ok {
		return 0
	}
	ms, err := number.Float64()
	if err != nil || ms < 1 {
		return 0
	}
	return time.Duration(min(ms, float64(markLife.Milliseconds()))) * time.Millisecond
}

// decodeProfile reads a profile. A member that is null is there, and empty.
func decodeProfile(text string) (*authz.Profile, error) {
	values, err := decodeObject(text)
	if err != nil {
		return nil, err
	}
	p := &authz.Profile{}
	var errs [4]error
	if v, ok := values["email"]; ok {
		p.Email = new(string)
		*p.Email, errs[0] = stringOf("email", v)
	}
	if v, ok := values["roles"]; ok {
		p.Roles = new([]string)
		*p.Roles, errs[1] = listOf("roles", v, stringOf)
	}
	if v, ok := values["organizationId"]; ok {
		p.Organization = new(string)
		*p.Organization, errs[2] = idOf("organizationId", v)
	}
	p.Organizations, _ = listOf("organizations", values["organizations"], idOf) // as in a session
	if v := values["disabled"]; v != nil {
		disabled, ok := v.(bool)
		if !ok {
			errs[3] = wrongType("disabled", "true or false")
		}
		p.Disabled = disabled
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return p, nil
}

// decodeObject reads one JSON object with nothing behind it. Numbers stay
// [json.Number]; of members with the same name the last one counts, as in
// JavaScript.
func decodeObject(text string) (map[string]any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if values == nil {
		return nil, errors.New("not a JSON object: null")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a JSON object: something follows it")
	}
	return values, nil
}

// lookup returns the member at a path, nil when there is none.
func lookup(values map[string]any, path string) any {
	if v, ok := values[path]; ok {
		return v
	}
	head, rest, dotted := strings.Cut(path, ".")
	if !dotted {
		return nil
	}
	child, _ := values[head].(map[string]any)
	return lookup(child, rest)
}

// wrongType doesn't show the value: it may be personal.
func wrongType(name, want string) error { return fmt.Errorf("%s is not %s", name, want) }

func stringOf(name string, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", wrongType(name, "a string")
}

func idOf(name string, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		// 1e3 and 1.0 are whole, but nobody who asks for user 1000 means them.
		if digits := strings.TrimPrefix(v.String(), "-"); strings.Trim(digits, "0123456789") == "" && v != "-0" {
			return v.String(), nil
		}
	}
	return "", wrongType(name, "a string or a whole number")
}

// listOf reads an array of elements, or one element alone. An empty string
// alone is none.
func listOf(name string, v any, element func(name string, v any) (string, error)) ([]string, error) {
	array, ok := v.([]any)
	if !ok {
		one, err := element(name, v)
		if err != nil {
			return nil, wrongType(name, "an array of strings or one string")
		}
		if one == "" {
			return nil, nil
		}
		return []string{one}, nil
	}
	list := make([]string, len(array))
	for i, v := range array {
		var err error
		if list[i], err = element(fmt.Sprintf("%s[%d]", name, i), v); err != nil {
			return nil, err
		}
		if v == nil {
			return nil, wrongType(fmt.Sprintf("%s[%d]", name, i), "a string")
		}
	}
	return list, nil
}

// timeIn reads a time as applications keep it: in Unix seconds, which is what
// Gatehouse writes, in milliseconds (JavaScript's Date.now), or as an ISO 8601
// text (a Date in JSON). Zero when it is none of these, or lies in the future.
func timeIn(v any, now time.Time) time.Time {
	var t time.Time
	switch v := v.(type) {
	case string:
		var err error
		if t, err = time.Parse(time.RFC3339, v); err != nil {
			return timeIn(json.Number(v), now)
		}
	case json.Number:
		seconds, err := strconv.ParseFloat(v.String(), 64)
		if err != nil || !(seconds >= 0) || seconds > math.MaxInt32*1e3 {
			return time.Time{}
		}
		if seconds > leastMilliseconds {
			seconds /= 1e3
		}
		whole, fraction := math.Modf(seconds)
		t = time.Unix(int64(whole), int64(math.Round(fraction*1e6))*1e3)
	}
	if t.After(now.Add(maxClockSkew)) {
		return time.Time{}
	}
	return t
}

// leastMilliseconds tells milliseconds from seconds: as the one it is a moment
// of 1973, as the other one of the year 5138.
const leastMilliseconds = 1e11

// formatSeconds writes what [timeIn] reads, to the millisecond. Whole
// seconds would not do: whoever logs in again right after all that they had
// was revoked would seem to have done so before.
func formatSeconds(t time.Time) json.Number {
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
}

// marshal is [json.Marshal] without the escapes for HTML, which JSON.stringify
// doesn't write either.
func marshal(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
