package usergrpc_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/usercontext/usergrpc"
)

// FuzzRequire states that a gRPC service sees the same user as an HTTP service that
// is sent the same headers, or refuses for the same reason.
func FuzzRequire(f *testing.F) {
	f.Add("x-user-id", "alice", "x-user-roles", `["admin"]`)
	f.Add("x-user-id", "alice", "x-user-id", "bob")
	f.Add("x_user_id", "alice", "x-user-id", "bob")
	f.Add("x-user-id-bin", "\xff", "x-org-id", "%zz")
	f.Add("x-user-roles", "[", "", "")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		md := metadata.MD{}
		h := http.Header{}
		for _, one := range [][2]string{{name1, value1}, {name2, value2}} {
			name := strings.ToLower(one[0]) // as gRPC has them
			md.Append(name, one[1])
			h[name] = append(h[name], one[1])
		}
		want, wantErr := usercontext.FromHeaders(h)
		ctx, err := usergrpc.Require(metadata.NewIncomingContext(t.Context(), md))
		require.Equal(t, wantErr == nil, err == nil)
		if err != nil {
			require.Nil(t, ctx)
			code := codes.InvalidArgument
			if errors.Is(wantErr, usercontext.ErrAnonymous) {
				code = codes.Unauthenticated
			}
			require.Equal(t, code, status.Code(err))
			return
		}
		got, ok := usercontext.FromContext(ctx)
		require.True(t, ok)
		require.Equal(t, want, got)
		_, ok = usercontext.FromContext(context.Background())
		require.False(t, ok)
	})
}
