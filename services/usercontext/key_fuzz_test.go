package usercontext_test

import (
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// FuzzParseKey states that a key is the very hash that was written, that its date
// comes back, and that an error repeats neither.
func FuzzParseKey(f *testing.F) {
	hash := strings.Repeat("0a", 32)
	for _, seed := range []string{hash, hash + "@2027-01-01", hash + "@2027-01-01T12:00:00+01:00", hash + "@", hash[1:], strings.ToUpper(hash), hash + "@0001-01-01", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := usercontext.ParseKey(text)
		if err != nil {
			require.Equal(t, usercontext.Key{}, key)
			if len(text) > 20 {
				require.NotContains(t, err.Error(), text)
			}
			return
		}
		require.NotEqual(t, usercontext.HashKey(""), key)
		digits, expires, limited := strings.Cut(text, "@")
		require.True(t, strings.EqualFold(digits, hex.EncodeToString(key.SHA256[:])))
		require.Equal(t, limited, !key.Expires.IsZero(), "a limit that is none")
		if limited {
			date, moment, _ := strings.Cut(expires, "T")
			require.Equal(t, date, key.Expires.Format(time.DateOnly))
			clock, zone := "00:00:00", "Z"
			if moment != "" {
				if moment[1] == ':' { // which time.Parse takes, too
					moment = "0" + moment
				}
				clock, zone = moment[:len(clock)], moment[strings.IndexAny(moment, "Z+-"):]
			}
			require.Equal(t, clock, key.Expires.Format(time.TimeOnly))
			require.Contains(t, []string{zone, strings.Replace(zone, "Z", "+00:00", 1), strings.Replace(zone, "Z", "-00:00", 1)}, key.Expires.Format("-07:00"), zone)
		}
	})
}

// FuzzCheckInternalKey states that nothing is the internal key but the one header of
// that name with the key in it: no other spelling, no second one beside it.
func FuzzCheckInternalKey(f *testing.F) {
	const good = "the-internal-key"
	f.Add("X-Internal-Api-Key", good, "Accept", "*/*")
	f.Add("x-internal-api-key", good, "X-Internal-Api-Key", "other")
	f.Add("X_Internal_Api_Key", good, "X-Internal-Api-Key", good)
	f.Add("X-Internal-Api-Key", good+"\x00", "", "")
	f.Add("X-Internal-Api-Key", good+","+good, "x-internal-api.key", good)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := http.Header{}
		h[name1] = append(h[name1], value1)
		h[name2] = append(h[name2], value2)
		err := usercontext.CheckInternalKey(h, usercontext.HashKey("another"), usercontext.HashKey(good))
		shown := 0
		for _, one := range [][2]string{{name1, value1}, {name2, value2}} {
			if strings.EqualFold(one[0], "x-internal-api-key") {
				shown++
				if one[1] != good {
					shown = 2 // too many
				}
			}
		}
		if err == nil {
			require.Equal(t, 1, shown)
			return
		}
		require.ErrorIs(t, err, usercontext.ErrForbidden)
		require.NotContains(t, err.Error(), good)
	})
}
