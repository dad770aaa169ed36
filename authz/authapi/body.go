package authapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what a client can send, in bytes.
const (
	maxBody     = 64 << 10
	maxDepth    = 32 // of objects and arrays in each other
	maxEmail    = 1024
	maxPassword = 4096
	maxID       = 512
	maxRole     = 512
	maxToken    = 32 << 10
)

// receive reads the body where there is place to wait for it, and reports whether there
// is.
func (c *call) receive(places Places) bool {
	if c.r.ContentLength == 0 {
		return true
	}
	if c.request.SafeMethod() {
		c.ignoreBody() // nobody reads it
		return true
	}
	received, ok := places.Receive()
	if !ok {
		c.ignoreBody()
		return false
	}
	defer received()
	_, _ = c.readBody() // who needs it gets the error
	return true
}

// ignoreBody has the server not wait for the rest of the body before it answers.
func (c *call) ignoreBody() {
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now())
}

// readBody returns the body of a call. Whatever is wrong with it is a bad
// request; it must come within [bodyTime].
func (c *call) readBody() ([]byte, error) { return c.body() }

// receiveBody is readBody, once.
func (c *call) receiveBody() ([]byte, error) {
	control := http.NewResponseController(c.w)
	// Not every ResponseWriter can: then the server's own limits hold.
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		// The deadline stays: the server reads what is left of the body before it
		// answers, and would wait for it.
		return nil, badRequest("read the body: %w", err)
	}
	_ = control.SetReadDeadline(time.Time{})
	return text, nil
}

// bodyTime is how long a client may take to send a body.
const bodyTime = 5 * time.Second

// readJSON reads the body as one JSON object into the fields. Its type is
// JSON, whatever Content-Type says.
func (c *call) readJSON(f fields) error {
	text, err := c.readBody()
	if err != nil {
		return err
	}
	if err := f.decode(text); err != nil {
		return badRequest("body: %w", err)
	}
	return nil
}

// readOptionalJSON does the same where there may be no body.
func (c *call) readOptionalJSON(f fields) error {
	text, err := c.readBody()
	if err != nil || len(bytes.TrimLeft(text, " \t\r\n")) == 0 {
		return err
	}
	if err := f.decode(text); err != nil {
		return badRequest("body: %w", err)
	}
	return nil
}

// isForm reports whether the body says that it is a form.
func (c *call) isForm() bool {
	kind, _, err := mime.ParseMediaType(c.header("content-type"))
	return err == nil && kind == "application/x-www-form-urlencoded"
}

// readForm reads the body as a form. No parameter may be there twice (RFC 6749
// section 3.1).
func (c *call) readForm() (url.Values, error) {
	text, err := c.readBody()
	if err != nil {
		return nil, err
	}
	values, err := parseForm(string(text))
	if err != nil {
		return nil, badRequest("body: %w", err)
	}
	return values, nil
}

func parseForm(text string) (url.Values, error) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, errors.New("not a form") // the cause would quote it
	}
	for name, all := range values {
		if len(all) != 1 {
			return nil, errors.New("a parameter is there twice")
		}
		if !utf8.ValidString(name) || !utf8.ValidString(all[0]) {
			return nil, errors.New("not UTF-8")
		}
	}
	return values, nil
}

// fields are the members that an object may have, by name.
type fields map[string]field

// others takes the members that no field has. Where it is missing they are
// refused: a mistyped member must not be lost without a word where it would
// have changed something. A login, and whatever else brings a credential, takes
// no notice of them, as OAuth 2 does (RFC 6749 section 3.2): clients send more
// than they need to.
const others = "…"

func ignored(json.RawMessage) error { return nil }

// field takes the value of a member. Its error does not quote it.
type field func(value json.RawMessage) error

// decode reads one JSON object, and refuses everything that two programs could
// read differently: a member that is there twice, whatever follows the object,
// what is not UTF-8, half of a surrogate pair.
func (f fields) decode(text []byte) error {
	if err := checkObject(text); err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return errors.New("not JSON")
	}
	for name, value := range members {
		take, known := f[name]
		if !known {
			take, known = f[others]
		}
		if !known {
			return errors.New("a member that does not belong there")
		}
		if err := take(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkObject reports what is wrong with the text of an object beyond its
// members' types.
func checkObject(text []byte) error {
	switch {
	case !utf8.Valid(text):
		return errors.New("not UTF-8")
	case !json.Valid(text):
		return errors.New("not JSON")
	case halfSurrogate(text):
		return errors.New("half of a surrogate pair")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	first, err := d.Token()
	if err != nil || first != json.Delim('{') {
		return errors.New("not an object")
	}
	return checkMembers(d, first.(json.Delim), 1)
}

// checkMembers walks through an object or array that has just begun.
func checkMembers(d *json.Decoder, open json.Delim, depth int) error {
	if depth > maxDepth {
		return errors.New("too deep")
	}
	names := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return errors.New("not JSON")
			}
			if names[name.(string)] {
				return errors.New("a member is there twice")
			}
			names[name.(string)] = true
		}
		value, err := d.Token()
		if err != nil {
			return errors.New("not JSON")
		}
		if inner, ok := value.(json.Delim); ok {
			if err := checkMembers(d, inner, depth+1); err != nil {
				return err
			}
		}
	}
	_, err := d.Token() // its end
	return err
}

// halfSurrogate reports whether valid JSON has an escape of half of a
// surrogate pair. encoding/json would make U+FFFD of it: of any two such
// passwords the same.
func halfSurrogate(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\') // only strings have it
		if i < 0 {
			return false
		}
		text = text[i+1:]
		if text[0] != 'u' {
			text = text[1:]
			continue
		}
		unit := hex4(text[1:5])
		text = text[5:]
		switch {
		case unit < 0xd800 || unit > 0xdfff:
			continue
		case unit > 0xdbff || len(text) < 6 || text[0] != '\\' || text[1] != 'u':
			return true
		}
		if low := hex4(text[2:6]); low < 0xdc00 || low > 0xdfff {
			return true
		}
		text = text[6:]
	}
}

func hex4(digits []byte) uint64 {
	n, _ := strconv.ParseUint(string(digits), 16, 16) // of valid JSON
	return n
}

var errType = errors.New("wrong type")

// into takes a value of exactly the type of T's JSON form; null is none.
func into[T any](target *T) field {
	return func(value json.RawMessage) error {
		if isNull(value) || json.Unmarshal(value, target) != nil {
			return errType
		}
		return nil
	}
}

// bounded takes a string of at most so many bytes.
func bounded(target *string, most int) field {
	return func(value json.RawMessage) error {
		if err := into(target)(value); err != nil {
			return err
		}
		if len(*target) > most {
			return errors.New("too long")
		}
		return nil
	}
}

// named takes the name of something: a string within bounds, without control
// characters.
func named(target *string, most int) field {
	return func(value json.RawMessage) error {
		if err := bounded(target, most)(value); err != nil {
			return err
		}
		return checkName(*target)
	}
}

// optional takes a string as take does; the target stays nil where the member
// is not there.
func optional(target **string, take func(*string) field) field {
	return func(value json.RawMessage) error {
		*target = new(string)
		return take(*target)(value)
	}
}

// upTo is bounded for [optional].
func upTo(most int) func(*string) field {
	return func(target *string) field { return bounded(target, most) }
}

func checkName(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("a control character")
	}
	return nil
}

// identifier takes an id as applications write them: a string, or a whole
// number, which becomes its digits.
func identifier(target *string) field {
	return func(value json.RawMessage) error {
		digits := strings.TrimPrefix(string(value), "-")
		if strings.Trim(digits, "0123456789") == "" && string(value) != "-0" && len(value) <= maxID {
			*target = string(value)
			return nil
		}
		return named(target, maxID)(value)
	}
}

// listOf takes an array, each element as element takes it.
func listOf(target *[]string, element func(*string) field) field {
	return func(value json.RawMessage) error {
		var elements []json.RawMessage
		if err := into(&elements)(value); err != nil {
			return err
		}
		all := make([]string, len(elements))
		for i, e := range elements {
			if err := element(&all[i])(e); err != nil {
				return err
			}
		}
		*target = all
		return nil
	}
}

func role(target *string) field {
	return func(value json.RawMessage) error {
		if err := named(target, maxRole)(value); err != nil {
			return err
		}
		if *target == "" {
			return errors.New("empty")
		}
		return nil
	}
}

// seconds takes Unix seconds, fractions allowed, within the years that a
// record can hold.
func seconds(target *time.Time) field {
	return func(value json.RawMessage) error {
		var n float64
		if err := into(&n)(value); err != nil {
			return err
		}
		if n <= 0 || n > math.MaxUint32 {
			return errors.New("not a time in Unix seconds")
		}
		*target = time.UnixMilli(int64(n * 1000))
		return nil
	}
}

// object takes an object, its members as they are.
func object(target *map[string]json.RawMessage) field { return into(target) }

// nullable takes null for a member that is missing.
func nullable(f field) field {
	return func(value json.RawMessage) error {
		if isNull(value) {
			return nil
		}
		return f(value)
	}
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

// credentialsBody is what a login sends.
type credentialsBody struct {
	email, password *string
	client          string
}

func (b *credentialsBody) fields() fields {
	return fields{"email": optional(&b.email, upTo(maxEmail)), "password": optional(&b.password, upTo(maxPassword)), others: ignored}
}

// The clients that a token login may be for.
const (
	clientWeb    = "web"
	clientMobile = "mobile"
)

func (b *credentialsBody) tokenFields() fields {
	f := b.fields()
	f["client"] = func(value json.RawMessage) error {
		if err := into(&b.client)(value); err != nil {
			return err
		}
		if !slices.Contains([]string{"", clientWeb, clientMobile}, b.client) {
			return errors.New("neither web nor mobile")
		}
		return nil
	}
	return f
}

// refreshBody is what refresh and logout may send.
type refreshBody struct{ token string }

func (b *refreshBody) fields() fields {
	return fields{"refreshToken": nullable(bounded(&b.token, maxToken)), others: ignored}
}

// tokenBody is what revoke and introspect send.
type tokenBody struct{ token string }

func (b *tokenBody) fields() fields {
	var hint string // of no use: the token says by itself what it is
	return fields{"token": bounded(&b.token, maxToken), "token_type_hint": bounded(&hint, maxID), others: ignored}
}

// userBody names a user.
type userBody struct{ userID string }

func (b *userBody) fields() fields { return fields{"userId": identifier(&b.userID)} }

// organizationBody names an organization.
type organizationBody struct{ organization *string }

func (b *organizationBody) fields() fields {
	return fields{"organizationId": optional(&b.organization, identifier)}
}

// changeBody is what an administrator changes.
type changeBody struct {
	organization *string
	roles        *[]string
	disabled     *bool
}

func (b *changeBody) fields() fields {
	return fields{
		"organizationId": optional(&b.organization, identifier),
		"roles": func(value json.RawMessage) error {
			b.roles = new([]string)
			return listOf(b.roles, role)(value)
		},
		"disabled": func(value json.RawMessage) error {
			b.disabled = new(bool)
			return into(b.disabled)(value)
		},
	}
}

// newSessionBody is a user whom a login service has authenticated. Applications
// write null for what they don't have.
type newSessionBody struct {
	userID, email, organization string
	roles, organizations        []string
	authTime                    time.Time
	address, userAgent          string
	data                        map[string]json.RawMessage
}

func (b *newSessionBody) fields() fields {
	return fields{
		"userId":         identifier(&b.userID),
		"email":          nullable(named(&b.email, maxEmail)),
		"roles":          nullable(listOf(&b.roles, role)),
		"organizationId": nullable(identifier(&b.organization)),
		"organizations":  nullable(listOf(&b.organizations, identifier)),
		"authTime":       nullable(seconds(&b.authTime)),
		"address":        nullable(named(&b.address, maxID)),
		"userAgent":      nullable(bounded(&b.userAgent, maxBody)),
		"data":           nullable(object(&b.data)),
	}
}
