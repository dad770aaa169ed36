package proc

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	const after = " S 1 2 2 0 -1 4194560 900 0 0 0 100 20 3 4 20 0 1 0 12345 0 0"
	for name, tc := range map[string]struct {
		stat string
		want time.Duration
		bad  bool
	}{
		"plain":                      {"42 (envoy)" + after, 1270 * time.Millisecond, false},
		"a name with everything":     {"42 (a) b) (1 2 3 4)" + after, 1270 * time.Millisecond, false},
		"no name":                    {"42 envoy" + after, 0, true},
		"cut short":                  {"42 (envoy) S 1 2 3", 0, true},
		"no number where one should": {"42 (envoy) S 1 2 2 0 -1 4194560 900 0 0 0 x 20 3 4", 0, true},
		"empty":                      {"", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tc.stat))
			if tc.bad {
				require.ErrorContains(t, err, "unexpected form of /proc/PID/stat")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}
