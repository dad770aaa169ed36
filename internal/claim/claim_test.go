package claim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

func TestPath(t *testing.T) {
	claims, err := claim.Decode([]byte(`{"a":{"b":"nested","n":7,"c":["x"]},"a.b":"whole","https://example.com/r":["y"],"null":null,"sub":7,"one":"z","empty":"","mixed":["x",1],"f":1.5,"zero":-0}`))
	require.NoError(t, err)
	for name, want := range map[string]string{"a.b": "whole", "a.n": "7", "a.x": "", "one.b": "", "null": "", "": "", "absent": "", "empty": ""} {
		got, err := claim.NewPath(name).ID(claims)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	for name, message := range map[string]string{"sub": `claim "sub" is not a string`, "f": "not an integer", "zero": "not an integer", "a": "not a string"} {
		_, err := claim.NewPath(name).ID(claims)
		require.ErrorContains(t, err, message)
	}
	for name, want := range map[string][]string{"a.c": {"x"}, "https://example.com/r": {"y"}, "one": {"z"}, "empty": nil, "null": nil, "a.c.d": nil} {
		got, err := claim.NewPath(name).List(claims)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{"mixed", "f", "a"} {
		_, err := claim.NewPath(name).List(claims)
		require.ErrorContains(t, err, "neither")
	}
}

func TestDate(t *testing.T) {
	claims, err := claim.Decode([]byte(`{"exp":1700000000.5,"text":"1","past":-1,"far":1e12}`))
	require.NoError(t, err)
	got, err := claim.Date(claims, "exp")
	require.NoError(t, err)
	require.Equal(t, time.UnixMilli(1700000000500).UTC(), got)
	got, err = claim.Date(claims, "absent")
	require.NoError(t, err)
	require.Zero(t, got)
	for _, name := range []string{"text", "past", "far"} {
		_, err := claim.Date(claims, name)
		require.Error(t, err, name)
	}
	_, err = claim.Decode([]byte(`[]`))
	require.Error(t, err)
}
