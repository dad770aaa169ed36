package logging

import (
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hidden stands where something was that must not be seen.
const Hidden = "[secret]"

// Redacted is a ReplaceAttr of [slog.HandlerOptions]: it returns an attribute as it may
// be logged. Of values that are no plain text, number or time it shows errors, lists of
// texts, and what has a LogValue; of any other its type alone, since nobody knows what
// is in its fields, now or after the next change.
func Redacted(groups []string, a slog.Attr) slog.Attr {
	if slices.ContainsFunc(groups, func(name string) bool { return ruleOf(name) != shows }) {
		return slog.String(a.Key, Hidden)
	}
	switch v := a.Value; v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(shown(a.Key, v.String()))
	case slog.KindAny:
		a.Value = known(a.Key, v.Any())
	case slog.KindGroup, slog.KindLogValuer: // their members come by themselves
	case slog.KindBool, slog.KindDuration, slog.KindTime:
	case slog.KindFloat64, slog.KindInt64, slog.KindUint64:
		if ruleOf(a.Key) == hides { // a PIN is a number, too
			a.Value = slog.StringValue(Hidden)
		}
	}
	return a
}

// known is for what came through [slog.Any].
func known(key string, v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.StringValue("")
	case *slog.Source:
		return slog.StringValue(v.File + ":" + strconv.Itoa(v.Line))
	case slog.Level:
		return slog.StringValue(v.String())
	case error:
		return slog.StringValue(shown(key, errorText(v)))
	case []string:
		all := make([]string, len(v))
		for i, s := range v {
			all[i] = shown(key, s)
		}
		return slog.AnyValue(all)
	case time.Time:
		return slog.TimeValue(v)
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.String { // a name of a closed list, mostly
		return slog.StringValue(shown(key, r.String()))
	}
	return slog.StringValue(fmt.Sprintf("[not shown: %T]", v))
}

// errorText has a bug in somebody's Error not take the program down.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("[an error that can't be printed: %T]", err)
		}
	}()
	return err.Error()
}

// shown is a text under a name, as it may be logged.
func shown(name, text string) string {
	switch rule := ruleOf(name); {
	case text == "" || rule == shows:
	case rule == showsHandles && isHandle(text):
	case rule == showsKinds && slices.Contains(kinds, text):
	default:
		return Hidden
	}
	if name == "host" { // of a request; with a user in front it is refused
		if i := strings.LastIndexByte(text, '@'); i >= 0 {
			text = Hidden + text[i:]
		}
	}
	return WithoutSecrets(text)
}

// isHandle reports whether a text has the form of authz.Handle: a session id, a token
// id and a token have not.
func isHandle(text string) bool {
	if len(text) != 20 {
		return false
	}
	for i := range len(text) {
		if !isWord(text[i]) && text[i] != '-' {
			return false
		}
	}
	return true
}

// rule is what may be shown under a name.
type rule int

const (
	shows        rule = iota
	showsHandles      // of what opens something
	showsKinds        // of credentials
	hides
)

// kinds are those of credentials, as authz.Kind has them.
var kinds = []string{"session", "bearer", "api_key"}

// ruleOf says what may be shown under a name. Rather too little than too much: whoever
// wants to show more takes another name.
func ruleOf(name string) rule {
	switch name { // as our own lines have them, which are most
	case slog.TimeKey, slog.LevelKey, slog.MessageKey, "decision", "reason", "policy", "method", "host", "path", "took", "error", "user", "request_id", "address":
		return shows
	}
	name = strings.ToLower(joined.Replace(name))
	switch name {
	case "session", "family", "token", "replaces":
		return showsHandles
	case "credential":
		return showsKinds
	case "sessions", "tokens", "families": // how many
		return shows
	}
	if slices.Contains(secretNames, name) || slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(name, part) }) {
		return hides
	}
	return shows
}

// joined writes the words of a name as one.
var joined = strings.NewReplacer("-", "", "_", "", ".", "", " ", "")

var (
	secretNames = []string{"pin", "code", "salt", "sid", "sig", "auth", "pass", "pwd", "key"}
	secretParts = []string{
		"password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "authorization", "apikey", "privatekey", "accesskey", "signingkey",
		"cookie", "session", "csrf", "xsrf", "otp", "jwt", "bearer", "signature", "nonce", "verifier",
	}
)

// WithoutSecrets returns a text without those parts that are secret by their looks,
// whatever they are called: tokens, signed cookies, private keys, password hashes, the
// password in a URL, and parameters of a query whose names say so.
func WithoutSecrets(text string) string {
	if !mayHoldSecrets(text) {
		return text
	}
	return secretText.ReplaceAllStringFunc(text, func(found string) string {
		m := secretText.FindStringSubmatch(found)
		for i, name := range secretText.SubexpNames() {
			if name == "before" && m[i] != "" { // what says where it stood
				return m[i] + Hidden
			}
		}
		return Hidden
	})
}

// mayHoldSecrets is false for nearly all texts, where secretText matches nothing, and
// costs little beside it. It looks for what each of its alternatives can't be without.
func mayHoldSecrets(text string) bool {
	for i := range len(text) {
		switch text[i] {
		case 'e':
			if rest := text[i+1:]; len(rest) > 1 && (rest[0] == 'y' && (rest[1] == 'J' || rest[1] == 'A' || rest[1] == 'I') ||
				rest[0] == 'w' && (rest[1] == '0' || rest[1] == 'k' || rest[1] == 'o')) {
				return true
			}
		case ':':
			if strings.HasPrefix(text[i:], "://") && strings.IndexByte(text[i:], '@') > 0 || endsInMark(text[:i]) {
				return true
			}
		case '%':
			if endsInMark(text[:i]) {
				return true
			}
		case '-':
			if strings.HasPrefix(text[i:], "-----BEGIN ") {
				return true
			}
		case '=', '$':
			return true
		case ' ':
			if follows(text[:i], "bearer") || follows(text[:i], "basic") || follows(text[:i], "ba\u017fic") { // as (?i) has it
				return true
			}
		}
	}
	return false
}

// endsInMark reports whether a text ends in what stands before the colon of a signed
// cookie, s, or of the key of a session, sess: each a word of its own.
func endsInMark(text string) bool {
	text, ok := strings.CutSuffix(text, "s")
	if !ok {
		return false
	}
	text = strings.TrimSuffix(text, "ses")
	return text == "" || !isWord(text[len(text)-1])
}

// isWord is \w.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func follows(text, word string) bool {
	return len(text) >= len(word) && strings.EqualFold(text[len(text)-len(word):], word)
}

var secretText = regexp.MustCompile(`eyJ[\w-]+\.[\w-]*\.?[\w-]*(?:\.[\w-]+)*` + // JWT, JWE
	`|\b(?:ey[AI]|ew[0ko])[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*` + // those with spaces in their headers
	`|\bs(?::|%(?:25)?3[Aa])[\w-]{8,}(?:\.[\w+/=%-]+)?` + // cookie-signature
	`|(?P<before>\bsess:)[\w-]{16,}` + // the usual key of a session
	`|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)` +
	`|\$(?:argon2\w*|2[abxy]|[156y]|gy|scrypt|pbkdf2[\w-]*)\$[\w$,=./+-]+` +
	`|(?P<before>(?i:\bbearer ))[\w.~+/=-]{20,}` +
	`|(?P<before>(?i:\bbasic ))[\w+/-]{16,}=*` +
	`|(?P<before>://)[^/?#\s@"]*:[^\s"]*@` + // a password with a slash, too, at the price of a path with an @
	`|(?P<before>://)[^/?#\s@":]+@` +
	`|(?P<before>(?i:[?&;#](?:[\w.-]*(?:token|secret|password|passwd|pwd|signature|session(?:[-_]?id)?|api[-_]?key)|auth|code|jwt|key|otp|pass|sid|sig)=))[^&;#\s"]+` +
	`|(?P<before>(?i:(?:^|\s)[\w.-]*(?:token|secret|password|passwd|pwd)=))[^&;#\s"]+`)
