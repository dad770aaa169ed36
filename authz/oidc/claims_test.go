package oidc_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
)

func TestClaimsBecomeAnIdentity(t *testing.T) {
	everything := authz.User{
		Identity:      authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, Organization: "org-1"},
		Organizations: []string{"org-1", "org-2"},
	}
	with := func(change func(*authz.User)) authz.User {
		u := everything
		change(&u)
		return u
	}
	for name, tt := range map[string]struct {
		claims   object
		userInfo object
		names    oidc.Claims
		prefix   string
		want     authz.User
	}{
		"as they are":           {want: everything},
		"a prefix":              {prefix: "corp:", want: with(func(u *authz.User) { u.ID = "corp:alice" })},
		"email not verified":    {claims: object{"email_verified": false}, want: with(func(u *authz.User) { u.Email = "" })},
		"not verified, in text": {claims: object{"email_verified": "false"}, want: with(func(u *authz.User) { u.Email = "" })},
		"verified, in text":     {claims: object{"email_verified": "true"}, want: everything},
		"nothing said about it": {claims: object{"email_verified": nil}, want: everything},
		"one role":              {claims: object{"roles": "admin"}, want: with(func(u *authz.User) { u.Roles = []string{"admin"} })},
		"no roles":              {claims: object{"roles": []string{}}, want: with(func(u *authz.User) { u.Roles = []string{} })},
		"nothing but a subject": {
			claims: object{"email": nil, "email_verified": nil, "roles": nil, "org_id": nil, "organizations": nil},
			want:   authz.User{Identity: authz.Identity{ID: "alice"}},
		},
		"organizations without a current one": {claims: object{"org_id": nil, "organizations": []string{"org-2", "org-1"}}, want: with(func(u *authz.User) {
			u.Organization, u.Organizations = "org-2", []string{"org-2", "org-1"}
		})},
		"no organizations at all": {claims: object{"org_id": nil, "organizations": []string{}}, want: with(func(u *authz.User) {
			u.Organization, u.Organizations = "", []string{}
		})},
		"an organization that is a number": {claims: object{"org_id": 12345678901234567}, want: with(func(u *authz.User) { u.Organization = "12345678901234567" })},
		"paths and other names": {
			claims: object{"realm_access": object{"roles": []string{"r"}}, "upn": "a@corp", "tenant": object{"id": 7}, "https://a.example/orgs": []string{"x"}},
			names:  oidc.Claims{UserID: "upn", Roles: "realm_access.roles", Organization: "tenant.id", Organizations: "https://a.example/orgs"},
			want:   authz.User{Identity: authz.Identity{ID: "a@corp", Roles: []string{"r"}, Organization: "7"}, Organizations: []string{"x"}},
		},
		"an empty name takes nothing": {names: oidc.Claims{Roles: "roles"}, want: authz.User{Identity: authz.Identity{ID: "alice", Roles: []string{"admin", "member"}}}},

		"what the ID token leaves out is asked for": {
			claims:   object{"email": nil, "email_verified": nil, "roles": nil},
			userInfo: object{"email": "info@example.com", "email_verified": true, "roles": []string{"info"}, "org_id": "not asked"},
			want:     with(func(u *authz.User) { u.Email, u.Roles = "info@example.com", []string{"info"} }),
		},
		"the ID token wins":                   {claims: object{"roles": nil}, userInfo: object{"email": "info@example.com"}, want: with(func(u *authz.User) { u.Roles = nil })},
		"not verified, says userinfo":         {claims: object{"roles": nil, "email_verified": nil}, userInfo: object{"email_verified": false}, want: with(func(u *authz.User) { u.Email, u.Roles = "", nil })},
		"address of one, doubts of the other": {claims: object{"email": nil, "email_verified": false}, userInfo: object{"email": "info@example.com"}, want: with(func(u *authz.User) { u.Email = "" })},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			i.change(func() { i.claims, i.userInfo = tt.claims, tt.userInfo })
			got, err := i.finish(t, i.provider(t, func(o *oidc.Options) { o.Claims, o.UserIDPrefix = tt.names, tt.prefix }))
			require.NoError(t, err)
			require.Equal(t, tt.want, authz.User{Identity: got.Identity, Organizations: got.Organizations})
			require.Equal(t, "alice", got.Provider.Subject, "the subject is the provider's word, whatever the user's id is")
			if tt.userInfo != nil {
				require.Equal(t, 1, i.count("/userinfo"))
			}
		})
	}
}

func TestUserIDThatIsNone(t *testing.T) {
	i := newIssuer(t)
	for message, value := range map[string]any{
		`"oid", the user's id, is missing or empty`: nil,
		`the user's id, is missing or empty`:        "",
		"is a number, but not an integer":           1.5,
		"is not a string":                           true,
	} {
		i.change(func() { i.claims = object{"oid": value} })
		_, err := i.finish(t, i.provider(t, func(o *oidc.Options) { o.Claims, o.UserIDPrefix = oidc.Claims{UserID: "oid"}, "corp:" }))
		i.requireRefused(t, authz.ReasonLoginRefused, message, err)
	}
}

func TestUserInfoThatIsNotTaken(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  func(w http.ResponseWriter, r *http.Request)
		reason  authz.Reason
		message string
	}{
		"of another subject": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"sub":"mallory","roles":["admin"]}`))
		}, authz.ReasonLoginRefused, "another subject"},
		"of nobody": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"roles":["admin"]}`)) }, authz.ReasonLoginRefused, "another subject"},
		"no JSON":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`secret`)) }, authz.ReasonLoginRefused, "no JSON object"},
		"a list":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`["secret"]`)) }, authz.ReasonLoginRefused, "no JSON object"},
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`secret`))
		}, authz.ReasonIssuerUnavailable, "the userinfo endpoint: answered 403"},
		"elsewhere, where the access token doesn't follow": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}, authz.ReasonIssuerUnavailable, "answered 302"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t)
			i.change(func() {
				i.claims = object{"roles": nil}
				i.before = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path == "/userinfo" {
						tt.answer(w, r)
					}
					return r.URL.Path == "/userinfo"
				}
			})
			_, err := i.finish(t, i.provider(t))
			i.requireRefused(t, tt.reason, tt.message, err)
			require.NotContains(t, err.Error(), "secret")
			require.Zero(t, i.count("/elsewhere"))
		})
	}
}
