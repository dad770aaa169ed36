package claim_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// FuzzDate states that a date is the second that exact arithmetic finds, or none:
// nothing overflows into another century, and no year lies beyond 9999.
func FuzzDate(f *testing.F) {
	for _, seed := range []string{"0", "1795867200", "1795867200.5", "1e9", "1e400", "-0", "-1", "253402300799", "253402300800", "1795867200000", "1e-400", "0.9999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		claims, err := claim.Decode([]byte(`{"exp":` + number + `}`))
		if err != nil || len(claims) != 1 {
			return
		}
		got, err := claim.Date(claims, "exp")
		if err != nil {
			require.Zero(t, got)
			return
		}
		require.False(t, got.Before(time.Unix(0, 0)) || got.Year() > 9999, got)
		n, isNumber := claims["exp"].(json.Number)
		require.True(t, isNumber)
		seconds, err := n.Float64()
		require.NoError(t, err)
		if exact, _, err := big.ParseFloat(string(n), 10, 200, big.ToZero); err == nil { // not where the exponent is beyond its reach
			seconds, _ = exact.Float64()
		}
		require.LessOrEqual(t, math.Abs(seconds-float64(got.Unix())-float64(got.Nanosecond())/1e9), 1e-4, "%s is %v", n, got)
	})
}

// FuzzPath states that every way of reading a claim agrees on whether it is there,
// and that what is not of the wanted type is never taken for what is missing.
func FuzzPath(f *testing.F) {
	f.Add(`{"a":{"b":"c"},"a.b":["d"]}`, "a.b")
	f.Add(`{"realm_access":{"roles":["x",1]}}`, "realm_access.roles")
	f.Add(`{"":{"":"x"}}`, ".")
	f.Add(`{"sub":12345678901234567890}`, "sub")
	f.Add(`{"n":-0,"m":1e3}`, "n")
	f.Fuzz(func(t *testing.T, text, name string) {
		claims, err := claim.Decode([]byte(text))
		if err != nil {
			return
		}
		p := claim.NewPath(name)
		v := p.In(claims)
		id, errID := p.ID(claims)
		word, errText := p.Text(claims)
		list, errList := p.List(claims)
		switch v := v.(type) {
		case nil:
			require.NoError(t, errID)
			require.NoError(t, errText)
			require.NoError(t, errList)
			require.Empty(t, id+word)
			require.Empty(t, list)
		case string:
			require.Equal(t, v, id)
			require.Equal(t, v, word)
			if v != "" {
				require.Equal(t, []string{v}, list)
			}
		case json.Number:
			require.Error(t, errText)
			require.Error(t, errList)
			if errID == nil {
				n, ok := new(big.Int).SetString(id, 10)
				require.True(t, ok)
				require.Equal(t, n.String(), id, "one user has two ids")
			}
		case []any:
			require.Error(t, errID)
			require.Error(t, errText)
			require.Equal(t, errList == nil, len(list) == len(v) && (len(v) > 0 || list != nil))
		default:
			require.Error(t, errID)
			require.Error(t, errText)
			require.Error(t, errList)
		}
	})
}
