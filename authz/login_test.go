package authz_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// One in 64 began with a hyphen, and 'gatehouse sessions revoke' took it for an
// option.
func TestNoHandleIsAnOption(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range 10_000 {
		handle := authz.Handle(strconv.Itoa(i))
		require.Len(t, handle, 20)
		require.NotEqual(t, byte('-'), handle[0])
		require.False(t, seen[handle])
		seen[handle] = true
	}
}
