package attack

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func verifyES256(key *ecdsa.PublicKey, input string, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	sum := sha256.Sum256([]byte(input))
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

var update = flag.Bool("update", false, "write testdata/weaknesses.txt and docs/attacks.md")

// weaknesses are gates that each have something wrong with them.
var weaknesses = [][]string{
	{"no check"},
	{"any header will do"},
	{"trusted callers"},
	{"trusts identity", "keeps identity"},
	{"keeps identity"},
	{"keeps identity of nobody"},
	{"names in lower case"},
	{"takes out the first"},
	{"exact names"},
	{"lenient syntax", "exact names"},
	{"writes the path decoded", "path as it stands"},
	{"trailers"},
	{"drops what Connection names"},
	{"passes on what the client says"},
	{"checks what the client says"},
	{"upgrades"},
	{"path as it stands"},
	{"exact paths"},
	{"resolved path"},
	{"patterns"},
	{"one method"},
	{"unsigned cookies"},
	{"uses the first cookie"},
	{"uses the last cookie"},
	{"no cross-site check"},
	{"sessions as tokens"},
	{"checks one, uses another"},
	{"unverified tokens"},
	{"algorithm none"},
	{"no signature"},
	{"psychic signatures"},
	{"HMAC"},
	{"keys of the token's"},
	{"JSON tokens"},
	{"encrypted tokens"},
	{"tokens in queries"},
	{"claims unread"},
	{"lenient framing"},
	{"lenient syntax", "keeps identity"},
	{"lenient HTTP/2", "exact names"},
	{"lenient HTTP/2", "names in lower case"},
	{"lenient HTTP/2", "drops what Connection names"},
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	return report
}

func (r *Report) ids(v Verdict) []string {
	ids := []string{}
	for _, result := range r.Results {
		if result.Verdict == v {
			ids = append(ids, result.Case.ID)
		}
	}
	return ids
}

// Nothing is broken, skipped or inconclusive where nothing is wrong.
func TestStrictGateHoldsAll(t *testing.T) {
	t.Parallel()
	report := run(t, startGate(t).options())
	for _, r := range report.Results {
		require.Equal(t, Held, r.Verdict, "%s: %s", r.Line(), r.Reason)
	}
	require.Empty(t, report.Notes)
	require.Len(t, report.Results, len(List()))
}

const weaknessesFile = "testdata/weaknesses.txt"

// What is broken by each weakness stands in a file, for people to judge; and each
// case of the list is broken by one of them, so that none of them can't fail.
func TestEveryCaseCanFail(t *testing.T) {
	t.Parallel()
	texts := make([]string, len(weaknesses))
	broken := make([][]string, len(weaknesses))
	t.Run("gates", func(t *testing.T) {
		for i, weakness := range weaknesses {
			t.Run(strings.Join(weakness, ", "), func(t *testing.T) {
				t.Parallel()
				report := run(t, startGate(t, weakness...).options())
				broken[i] = report.ids(Broken)
				texts[i] = fmt.Sprintf("%s\n  %s\n", strings.Join(weakness, ", "), strings.Join(broken[i], "\n  "))
				require.NotEmpty(t, broken[i])
			})
		}
	})
	text := "# What is broken by each weakness of the gates in weak_test.go. Written by\n# go test -run TestEveryCaseCanFail -update\n\n" + strings.Join(texts, "\n")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(weaknessesFile, []byte(text), 0o644))
	}
	want, err := os.ReadFile(weaknessesFile)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
	var never []string
	for _, c := range List() {
		if !slices.ContainsFunc(broken, func(ids []string) bool { return slices.Contains(ids, c.ID) }) {
			never = append(never, c.ID)
		}
	}
	require.Empty(t, never, "no weak gate breaks these: they can't fail")
}
