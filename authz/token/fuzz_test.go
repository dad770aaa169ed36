package token

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzVerify states that Verify never panics, and that it accepts nothing but
// what the holder of a key has signed: the header and the payload of the RFC's
// two tokens, byte for byte.
func FuzzVerify(f *testing.F) {
	for _, raw := range []string{
		rfc7515A2, rfc7515A3, rfc7515A4, rfc7515A5, rfc8037A4, "", "..", rfc7515A2 + "\n", rfc7515A3 + "=", " " + rfc7515A3,
		strings.Replace(rfc7515A3, "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJFUzI1NiIsImNyaXQiOltdfQ", 1),
		`{"payload":"` + rfc7515Payload + `","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"x"}`,
	} {
		f.Add(raw)
	}
	v := joe(f)
	signed := map[string]bool{}
	for _, raw := range []string{rfc7515A2, rfc7515A3} {
		signed[raw[:strings.LastIndexByte(raw, '.')]] = true
	}
	f.Fuzz(func(t *testing.T, raw string) {
		found, err := v.Verify(t.Context(), raw)
		if err != nil {
			require.Nil(t, found)
			require.Less(t, len(err.Error()), 400)
			return
		}
		require.True(t, signed[raw[:strings.LastIndexByte(raw, '.')]], "accepted %q", raw)
		require.Equal(t, "joe", found.ID)
	})
}

// FuzzDecodeObject states that whatever decodeObject takes is JSON, and means
// the same to encoding/json.
func FuzzDecodeObject(f *testing.F) {
	for _, data := range []string{
		`{}`, `{"a":[1,-0.5e+10,null,true,{"b":"\u0061\ud83d\ude00\\"}],"":""}`, `{"a":1,"\u0061":2}`, `{"a":1}{}`, `[{}]`,
		`{"a":"\ud800"}`, `{"a":"\\\ud800"}`, `{"a":1,}`, `{"a" 1}`, `{"a":[1 2]}`, `{"a":[1,]}`, `{,}`, `{"a":}`, `{a:1}`, `{"a":01}`, " {} \n", "\xff",
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := decodeObject(data)
		if err != nil {
			require.Nil(t, found)
			return
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var want map[string]any
		require.True(t, json.Valid(data))
		require.NoError(t, d.Decode(&want))
		require.Equal(t, want, found)
	})
}
