package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

const secretful = `
server: {http: {public_url: https://gateway.example.com}}
redis: {url: "redis://app:literal-redis-password@redis.example.com:6379/1"}
sessions:
  secrets: ["${SESSION_SECRET}", literal-session-secret]
  secrets_file: secrets
policies: {p: {credentials: [session]}}
oidc:
  providers:
    a: {issuer: https://idp.example.com, client_id: web, client_secret: literal-client-secret}
    b: {issuer: https://idp.example.com, client_id: web, client_secret_file: secret}
`

var secretTexts = []string{
	"env-session-secret-0123456789", "literal-redis-password", "literal-session-secret",
	"first-secret-of-the-file", "second-secret-of-the-file", "literal-client-secret", "file-secret-value",
}

// everyForm prints a value in every way that a program is likely to.
func everyForm(t *testing.T, value any) map[string]string {
	t.Helper()
	forms := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%t"} {
		forms[verb] = fmt.Sprintf(verb, value)
	}
	forms["Println"] = fmt.Sprintln(value)
	text, err := json.Marshal(value)
	require.NoError(t, err)
	forms["json"] = string(text)
	text, err = yaml.Dump(value)
	require.NoError(t, err)
	forms["yaml"] = string(text)
	text, err = yaml.Marshal(value)
	require.NoError(t, err)
	forms["yaml Marshal"] = string(text)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", slog.Any("value", value))
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", slog.Any("value", value))
	forms["slog"] = log.String()
	forms["error"] = fmt.Errorf("wrapped: %v", value).Error()
	return forms
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	c, _ := mustParse(t, secretful)
	c.Redis.Password = NewSecret("literal-redis-password")
	values := map[string]any{
		"pointer": c, "value": *c, "redis": c.Redis, "sessions": c.Sessions, "oidc": c.OIDC,
		"secret": c.Sessions.Secrets[0], "secrets": c.Sessions.Secrets, "url": c.Redis.URL, "pointer to secret": &c.Sessions.Secrets[1],
		// fmt doesn't ask the methods of what is in unexported fields.
		"unexported": struct {
			s Secret
			u SecretURL
			r Redis
		}{c.Sessions.Secrets[0], c.Redis.URL, c.Redis},
	}
	for name, value := range values {
		for form, text := range everyForm(t, value) {
			for _, secret := range secretTexts {
				require.NotContains(t, text, secret, "%s as %s", name, form)
				require.NotContains(t, text, fmt.Sprintf("%x", secret), "%s as %s", name, form)
			}
		}
	}
}

func TestSecretReveals(t *testing.T) {
	c, _ := mustParse(t, secretful)
	var revealed []string
	for _, s := range c.Sessions.Secrets {
		revealed = append(revealed, s.Reveal())
	}
	require.Equal(t, []string{
		"env-session-secret-0123456789", "literal-session-secret",
		"first-secret-of-the-file", "second-secret-of-the-file",
	}, revealed)
	require.Equal(t, "literal-client-secret", c.OIDC.Providers["a"].ClientSecret.Reveal())
	require.Equal(t, "file-secret-value", c.OIDC.Providers["b"].ClientSecret.Reveal())
	require.Equal(t, "redis://app:literal-redis-password@redis.example.com:6379/1", c.Redis.URL.Reveal())
}

func TestSecretPlaceholder(t *testing.T) {
	require.Equal(t, "[secret]", NewSecret("x").String())
	require.Equal(t, "[secret] [secret] [secret]", fmt.Sprintf("%s %d %#v", NewSecret("x"), NewSecret("x"), NewSecret("x")))
	require.Empty(t, Secret{}.String())
	require.Empty(t, Secret{}.Reveal())
	text, err := json.Marshal(map[string]encoding.TextMarshaler{"k": NewSecret("x"), "u": NewSecretURL("redis://:x@h")})
	require.NoError(t, err)
	require.JSONEq(t, `{"k":"[secret]","u":"redis://***@h"}`, string(text))
	for _, m := range []encoding.TextMarshaler{NewSecret("text"), NewSecretURL("redis://:text@h")} {
		text, err := m.MarshalText()
		require.NoError(t, err)
		require.NotContains(t, string(text), "text")
		require.NotContains(t, m.(fmt.GoStringer).GoString(), "text")
	}
	require.True(t, SecretURL{}.IsZero())
	require.True(t, Secret{}.IsZero())
	require.True(t, NewSecret("").IsZero())
	require.False(t, NewSecret("x").IsZero())
}

func TestSecretURLShowsOnlyWhere(t *testing.T) {
	for text, want := range map[string]string{
		"redis://127.0.0.1:6379/0":        "redis://127.0.0.1:6379/0",
		"rediss://u:p@h:1/2":              "rediss://***@h:1/2",
		"redis://:pa/ss@h/0":              "redis://***@h/0",
		"redis://:p@ss@h/0":               "redis://***@h/0",
		"redis://h/0?password=secret":     "redis://h/0",
		"redis://h/0#secret":              "redis://h/0",
		"redis+sentinel://:p@a,b:1/m/0":   "redis+sentinel://***@a,b:1/m/0",
		"embedded://":                     "embedded://",
		"secret without a scheme":         "[secret]",
		"redis://h/0?x=y://z:secret@host": "redis://***@host",
		"":                                "",
	} {
		require.Equal(t, want, NewSecretURL(text).String(), text)
		require.Equal(t, want, fmt.Sprintf("%+v", NewSecretURL(text)), text)
	}
}
