package authapi

import (
	"encoding/json"
)

// ReturnPath is returnPath.
func ReturnPath(s string) (string, bool) { return returnPath(s) }

// UserAgent is userAgent.
func UserAgent(s string) string { return userAgent(s) }

// Fold is fold.
func Fold(email string) string { return fold(email) }

// CookieToken is cookieToken.
func CookieToken(s string) bool { return cookieToken(s) }

// CookieValue is cookieValue.
func CookieValue(s string) bool { return cookieValue(s) }

// FlowName is flowName.
func FlowName(s string) bool { return flowName(s) }

// ProviderName is providerName.
func ProviderName(s string) bool { return providerName(s) }

// ParseForm is parseForm, for one parameter.
func ParseForm(text, name string) (string, error) {
	values, err := parseForm(text)
	return values.Get(name), err
}

// Decoded is what a body was read as, as far as it was: by the names of its
// members.
type Decoded map[string]any

// Lenient are the names of the bodies in which further members are ignored.
var Lenient = map[string]bool{"login": true, "token": true, "refresh": true, "revoke": true}

// Bodies decode each JSON body that the API takes.
var Bodies = map[string]func(text []byte) (Decoded, error){
	"login": func(text []byte) (Decoded, error) {
		var b credentialsBody
		err := b.fields().decode(text)
		return Decoded{"email": b.email, "password": b.password}, err
	},
	"token": func(text []byte) (Decoded, error) {
		var b credentialsBody
		err := b.tokenFields().decode(text)
		return Decoded{"email": b.email, "password": b.password, "client": b.client}, err
	},
	"refresh": func(text []byte) (Decoded, error) {
		var b refreshBody
		err := b.fields().decode(text)
		return Decoded{"refreshToken": b.token}, err
	},
	"revoke": func(text []byte) (Decoded, error) {
		var b tokenBody
		err := b.fields().decode(text)
		return Decoded{"token": b.token, "token_type_hint": nil}, err
	},
	"revoke all": func(text []byte) (Decoded, error) {
		var b userBody
		err := b.fields().decode(text)
		return Decoded{"userId": b.userID}, err
	},
	"switch": func(text []byte) (Decoded, error) {
		var b organizationBody
		err := b.fields().decode(text)
		return Decoded{"organizationId": b.organization}, err
	},
	"change": func(text []byte) (Decoded, error) {
		var b changeBody
		err := b.fields().decode(text)
		return Decoded{"organizationId": b.organization, "roles": b.roles, "disabled": b.disabled}, err
	},
	"create": func(text []byte) (Decoded, error) {
		var b newSessionBody
		err := b.fields().decode(text)
		return Decoded{
			"userId": b.userID, "email": b.email, "roles": b.roles, "organizationId": b.organization, "organizations": b.organizations,
			"authTime": b.authTime, "address": b.address, "userAgent": b.userAgent, "data": b.data,
		}, err
	},
}

// CheckObject is checkObject, followed by what encoding/json makes of it.
func CheckObject(text []byte) (map[string]json.RawMessage, error) {
	if err := checkObject(text); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	return members, json.Unmarshal(text, &members)
}
