package demopage_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

func get(t *testing.T, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	demopage.New(demopage.Options{Store: "a store"}).ServeHTTP(recorder, httptest.NewRequest(method, path, http.NoBody))
	return recorder
}

func TestPageLoadsOnlyItsOwnFiles(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html", "/demo/app.js": "text/javascript", "/demo/style.css": "text/css", "/demo/icon.svg": "image/svg+xml",
	} {
		response := get(t, http.MethodGet, path)
		require.Equal(t, 200, response.Code, path)
		require.Contains(t, response.Header().Get("Content-Type"), kind)
		policy := response.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, response.Body.String(), "https://", "nothing from elsewhere")
	}
	response := get(t, http.MethodGet, "/elsewhere")
	require.Equal(t, 404, response.Code)
	require.Equal(t, `{"error":"Not found"}`, response.Body.String())
}

// TestNothingIsInline: the policy would keep the browser from running it.
func TestNothingIsInline(t *testing.T) {
	page := get(t, http.MethodGet, "/").Body.String()
	require.NotRegexp(t, `<style|\sstyle=|\son\w+=|javascript:`, page)
	for _, script := range regexp.MustCompile(`<script[^>]*>`).FindAllString(page, -1) {
		require.Contains(t, script, `src="/demo/`)
	}
	require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(`, get(t, http.MethodGet, "/demo/app.js").Body.String())
}

// TestPageTellsWhomToBe: with passwords that everybody may know, since they are
// good nowhere else.
func TestPageTellsWhomToBe(t *testing.T) {
	response := get(t, http.MethodGet, "/demo/state")
	require.Equal(t, 200, response.Code)
	require.Equal(t, "no-store", response.Header().Get("Cache-Control"))
	var state struct {
		Store  string
		People []struct{ Name, About, Email, Password string }
	}
	require.NoError(t, json.Unmarshal(response.Body.Bytes(), &state))
	require.Equal(t, "a store", state.Store)
	require.Len(t, state.People, len(demopage.People()))
	for i, p := range demopage.People() {
		require.Equal(t, p.Email, state.People[i].Email)
		require.Equal(t, p.Password, state.People[i].Password)
		require.Regexp(t, `^demo-`, p.Password, "nobody takes it for a real one")
		require.Contains(t, p.Organizations, p.Organization)
	}
}

// TestServerChangesNothing: what the page does, it does by the auth API.
func TestServerChangesNothing(t *testing.T) {
	for _, path := range []string{"/demo/login", "/demo/logout", "/demo/state", "/"} {
		response := get(t, http.MethodPost, path)
		require.Contains(t, []int{404, 405}, response.Code, path)
		require.Empty(t, response.Header().Values("Set-Cookie"))
	}
}

// TestUsersFileHasThePeople, with the passwords that the page shows.
func TestUsersFileHasThePeople(t *testing.T) {
	var file struct {
		Users []struct {
			ID, Email     string
			PasswordHash  string `yaml:"password_hash"`
			Roles         []string
			Organizations []string
		}
	}
	require.NoError(t, yaml.Load([]byte(demopage.UsersFile), &file, yaml.WithKnownFields()))
	require.Len(t, file.Users, len(demopage.People()))
	for i, p := range demopage.People() {
		user := file.Users[i]
		require.Equal(t, p.ID, user.ID)
		require.Equal(t, p.Email, user.Email)
		require.Equal(t, p.Roles, user.Roles)
		require.Equal(t, p.Organizations, user.Organizations)
		matches, err := argon2id.ComparePasswordAndHash(p.Password, user.PasswordHash)
		require.NoError(t, err)
		require.True(t, matches, p.ID)
	}
}
