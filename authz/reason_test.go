package authz_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Every table of reasons is tested against Reasons, so Reasons is tested
// against the source: a reason that is declared and not listed would escape
// all of those tests.
func TestReasonsListsEveryDeclaredReason(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	require.NoError(t, err)
	var declared []authz.Reason
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			values := spec.(*ast.ValueSpec)
			require.Equal(t, "Reason", values.Type.(*ast.Ident).Name, "%s: each constant names its type", values.Names[0])
			require.Len(t, values.Values, 1)
			value, err := strconv.Unquote(values.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			declared = append(declared, authz.Reason(value))
		}
	}
	require.NotEmpty(t, declared)
	require.Equal(t, declared, authz.Reasons(), "in the order of their declaration")

	seen := map[authz.Reason]bool{}
	for _, reason := range authz.Reasons() {
		require.Regexp(t, `^[a-z]+(_[a-z]+)*$`, string(reason), "one word: a metric label and a metadata value")
		require.False(t, seen[reason], reason)
		seen[reason] = true
	}
}

func TestReasonsCanNotBeChanged(t *testing.T) {
	t.Parallel()
	authz.Reasons()[0] = "changed"
	require.Equal(t, authz.ReasonAuthenticated, authz.Reasons()[0])
}

func TestReasonOf(t *testing.T) {
	t.Parallel()
	refusal := authz.Refuse(authz.ReasonTokenExpired, "expired at %d", 5)
	require.EqualError(t, refusal, "token_expired: expired at 5")
	for name, tt := range map[string]struct {
		err  error
		want authz.Reason
	}{
		"itself":                 {refusal, authz.ReasonTokenExpired},
		"wrapped":                {fmt.Errorf("load: %w", fmt.Errorf("again: %w", refusal)), authz.ReasonTokenExpired},
		"joined":                 {errors.Join(io.EOF, refusal), authz.ReasonTokenExpired},
		"the outer of two":       {authz.Refuse(authz.ReasonStoreUnavailable, "wrapped: %w", refusal), authz.ReasonStoreUnavailable},
		"without a cause":        {&authz.Error{Reason: authz.ReasonRole}, authz.ReasonRole},
		"an error of no reason":  {io.EOF, authz.ReasonInternal},
		"wrapping none":          {fmt.Errorf("load: %w", io.EOF), authz.ReasonInternal},
		"a message like a cause": {errors.New("token_expired"), authz.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, authz.ReasonOf(tt.err))
		})
	}
	require.ErrorIs(t, authz.Refuse(authz.ReasonInternal, "read: %w", io.EOF), io.EOF)
	require.EqualError(t, &authz.Error{Reason: authz.ReasonRole}, "role")
}
