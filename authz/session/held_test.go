package session_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestUserSessionHasTheRecordWithoutTheID(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		id := f.login(t, func(l *authz.Login) {
			l.Values = map[string]any{"cart": []any{1}}
			l.Device = authz.Device{Address: "192.0.2.1", UserAgent: "Phone"}
		})
		held, ok, err := f.UserSession(t.Context(), "u", authz.Handle(id))
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, held.Problem)
		require.Equal(t, "u@example.com", held.Email)
		require.Equal(t, "Phone", held.UserAgent)
		require.WithinDuration(t, f.clock.Now(), held.AuthTime, time.Second)
		require.Equal(t, []any{json.Number("1")}, held.Values["cart"])
		require.Contains(t, held.Values, "cookie")

		// Another program's, which the gate never saw, with its own id in it.
		const foreign = "0123456789abcdef0123456789abcdef"
		f.set(t, "sess:"+foreign, `{"userId":"u","self":"`+foreign+`","by":{"`+foreign+`":["sess:`+foreign+`"]},"roles":7}`, time.Hour)
		held, ok, err = f.UserSession(t.Context(), "u", authz.Handle(foreign))
		require.NoError(t, err)
		require.True(t, ok)
		require.ErrorContains(t, held.Problem, "roles", "which the gate refuses")
		text, err := json.Marshal(held)
		require.NoError(t, err)
		require.NotContains(t, string(text), foreign)
		require.JSONEq(t, `{"userId":"u","self":"[session id]","by":{"[session id]":["sess:[session id]"]},"roles":7}`, marshalled(t, held.Values))

		for name, handle := range map[string]string{"nobody's": "x", "another user's": authz.Handle(f.login(t, as("v"))), "an id": id} {
			_, ok, err = f.UserSession(t.Context(), "u", handle)
			require.NoError(t, err, name)
			require.False(t, ok, name)
		}
		require.NoError(t, f.Revoke(t.Context(), id))
		_, ok, err = f.UserSession(t.Context(), "u", authz.Handle(id))
		require.NoError(t, err)
		require.False(t, ok, "ended")
		_, _, err = f.UserSession(t.Context(), "", "x")
		require.ErrorContains(t, err, "no user id")
	})
}

func marshalled(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}
