package main

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// redacted returns a decoded JSON object as it may be shown: without values that
// are secret by the name that they stand under, or by their looks. hidden are the
// paths of those. Nothing of the object itself is changed.
func redacted(object map[string]any) (shown map[string]any, hidden []string) {
	var r redaction
	shown, _ = r.value("", object, true).(map[string]any)
	return shown, r.hidden
}

// redactedClaims does the same by their looks alone: the names of claims say much
// of tokens and nothing of secrets.
func redactedClaims(claims map[string]any) map[string]any {
	var r redaction
	shown, _ := r.value("", claims, false).(map[string]any)
	return shown
}

type redaction struct{ hidden []string }

// redactedValue stands where something secret stood.
const redactedValue = "[not shown]"

func (r *redaction) value(path string, value any, byName bool) any {
	switch v := value.(type) {
	case map[string]any:
		if v == nil {
			return v
		}
		object := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			at := name
			if path != "" {
				at = path + "." + name
			}
			if byName && secretName(name) && holdsSomething(v[name]) {
				r.hidden = append(r.hidden, at)
				object[name] = redactedValue
				continue
			}
			object[name] = r.value(at, v[name], byName)
		}
		return object
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = r.value(path+"["+strconv.Itoa(i)+"]", v[i], byName)
		}
		return list
	case string:
		if secretText.MatchString(v) {
			r.hidden = append(r.hidden, path)
			return redactedValue
		}
	}
	return value
}

// holdsSomething reports whether a value could be a secret: none, true and false
// are not.
func holdsSomething(value any) bool {
	switch v := value.(type) {
	case nil, bool:
		return false
	case string:
		return v != ""
	case json.Number, map[string]any, []any:
	}
	return true
}

// secretName reports whether what stands under a name is likely a secret. Rather
// too many are hidden than too few.
func secretName(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(name))
	if strings.Contains(name, "cookie") && name != "cookie" { // which express-session writes, and no secret with it
		return true
	}
	return slices.Contains(secretNames, name) || slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(name, part) })
}

var (
	secretNames = []string{"pin", "code", "key", "hash", "salt", "sid", "sig", "auth", "sessionid"}
	secretParts = []string{
		"password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "authorization", "apikey", "privatekey", "accesskey", "signingkey",
		"csrf", "xsrf", "otp", "jwt", "bearer", "signature", "nonce", "verifier", "cvv", "cvc", "cardnumber",
	}
	// secretText is a token, a signed cookie, a private key, a password hash, or a URL
	// with a password or a secret parameter in it, whatever it is called.
	secretText = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]*|^s:[\w-]+\.[\w+/=-]+$|^s%3A|-----BEGIN [A-Z ]*PRIVATE KEY|^\$(?:argon2|2[aby]|scrypt|pbkdf2)|(?i:^bearer )|` +
		`(?i:://[^/?#\s]*:[^/?#\s]*@|[?&;#](?:[\w.-]*(?:token|secret|password|passwd|signature|api[-_]?key)|code|key|sig|sid|otp)=[^&;#\s])`)
)
