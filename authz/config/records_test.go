package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// What a configuration says of its records counts, whatever else is wrong with it; and
// what may be meant to say something of them is not passed over.
func TestRecords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text, problem string
	}{
		"all is well":           {text: "audit: {file: changes.log, on_failure: refuse}\nlog: {format: text}\n"},
		"a key is not made yet": {text: "audit: {file: changes.log, on_failure: refuse}\nlog: {format: text}\ntokens: {issuer: https://example.com, signing_keys: [{file: not-there.pem}]}\n"},
		"a secret is missing":   {text: "audit: {file: changes.log, on_failure: refuse}\nlog: {format: text}\nsessions: {secrets: [\"${NOT_SET}\"]}\nredis: {url: \"${NOT_SET}\"}\n"},
		"another key is wrong":  {text: "audit: {file: changes.log, on_failure: refuse}\nlog: {format: text}\nserver: {check: {max_concurent: 1}}\npolicies: [x]\n"},

		"audit is wrong":     {text: "audit: {on_failure: never}\n", problem: "audit.on_failure"},
		"audit has a typo":   {text: "audit: {fil: changes.log}\n", problem: "did you mean file?"},
		"audit is no folder": {text: "audit: {file: ''}\n", problem: "audit.file"},
		"log is wrong":       {text: "log: {format: xml}\n", problem: "log.format"},
		"a section's typo":   {text: "audti: {file: changes.log}\n", problem: "did you mean audit?"},
		"no section at all":  {text: "records: {file: changes.log}\n", problem: "records: unknown key"},
		"not YAML":           {text: "audit: [\n", problem: "gatehouse.yaml"},
		"no mapping":         {text: "audit\n", problem: "expected a mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "gatehouse.yaml")
			require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o600))
			audit, log, err := config.Records(path, func(string) (string, bool) { return "", false })
			if tt.problem != "" {
				require.ErrorContains(t, err, tt.problem)
				require.Equal(t, []any{config.Audit{}, config.Log{}}, []any{audit, log})
				return
			}
			require.NoError(t, err)
			require.Equal(t, config.Audit{File: filepath.Join(dir, "changes.log"), OnFailure: "refuse"}, audit)
			require.Equal(t, "text", string(log.Format))
		})
	}

	_, _, err := config.Records(filepath.Join(t.TempDir(), "none.yaml"), nil)
	require.ErrorContains(t, err, "correct the path or create the file")
}
