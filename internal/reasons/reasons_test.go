package reasons_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/reasons"
)

func TestEveryReasonHasItsText(t *testing.T) {
	t.Parallel()
	sentences := regexp.MustCompile("^[A-Z`“][^\n]*\\.$")
	for _, r := range authz.Reasons() {
		text := reasons.Of(r)
		require.Regexp(t, sentences, text.Meaning, r)
		for _, c := range text.Causes {
			require.NotEmpty(t, c, r)
			require.False(t, strings.HasSuffix(c, "."), "%s: a cause is no sentence: %s", r, c)
		}
		if r == authz.ReasonAuthenticated || r == authz.ReasonAnonymous {
			require.Empty(t, text.Remedy, r)
			continue
		}
		require.Regexp(t, sentences, text.Remedy, "%s: what is to be done?", r)
		require.NotContains(t, text.Remedy, "gatehouse explain", "%s: that is what prints it", r)
	}
	require.Zero(t, reasons.Of("no_such_reason"))
}
