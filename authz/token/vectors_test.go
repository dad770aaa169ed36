package token

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The examples of RFC 7515 appendix A and RFC 8037 appendix A: keys and tokens
// that neither we nor go-jose made.
const (
	rfc7515RSA = `{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-` +
		`Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-` +
		`bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_` +
		`I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`
	rfc7515P256 = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",` +
		`"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	rfc7515P521 = `{"kty":"EC","crv":"P-521",` +
		`"x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",` +
		`"y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`
	rfc8037Ed25519 = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

	// {"iss":"joe","exp":1300819380,"http://example.com/is_root":true}
	rfc7515Payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

	rfc7515A2 = "eyJhbGciOiJSUzI1NiJ9." + rfc7515Payload + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7" +
		"AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6x" +
		"BArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv" +
		"Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	rfc7515A3 = "eyJhbGciOiJFUzI1NiJ9." + rfc7515Payload +
		".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	rfc7515A4 = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZq" +
		"wqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
	rfc7515A5 = "eyJhbGciOiJub25lIn0." + rfc7515Payload + "."
	rfc8037A4 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc." +
		"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

// joe is the verifier of the RFC's tokens, shortly before they expire.
func joe(tb testing.TB) *Verifier {
	tb.Helper()
	keys, err := ParseJWKS([]byte(`{"keys":[` + rfc7515RSA + "," + rfc7515P256 + "," + rfc7515P521 + "," + rfc8037Ed25519 + `]}`))
	require.NoError(tb, err)
	require.Len(tb, keys, 4)
	v, err := NewVerifier([]IssuerOptions{{
		Issuer: "joe", Keys: keys, Algorithms: []string{"RS256", "ES256", "ES512", "EdDSA"}, Claims: ClaimNames{UserID: "iss"},
	}}, VerifierOptions{Now: func() time.Time { return time.Unix(1300819379, 0) }})
	require.NoError(tb, err)
	return v
}

func TestRFC7515Tokens(t *testing.T) {
	v := joe(t)
	for name, raw := range map[string]string{"A.2": rfc7515A2, "A.3": rfc7515A3} {
		t.Run(name, func(t *testing.T) {
			found, err := v.Verify(t.Context(), raw)
			require.NoError(t, err)
			require.Equal(t, "joe", found.ID)
			require.Equal(t, true, found.Claims["http://example.com/is_root"])
			require.Equal(t, time.Unix(1300819380, 0).UTC(), found.Expires)
		})
	}
	_, err := v.Verify(t.Context(), rfc7515A5) // alg none
	require.ErrorContains(t, err, "token_invalid")
}

// The payloads of these are no JWT claims, so only their signatures can be
// checked.
func TestRFCSignatures(t *testing.T) {
	for name, test := range map[string]struct{ alg, key, raw string }{
		"RFC 7515 A.4": {"ES512", rfc7515P521, rfc7515A4},
		"RFC 8037 A.4": {"EdDSA", rfc8037Ed25519, rfc8037A4},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ParseJWKS([]byte(`{"keys":[` + test.key + `]}`))
			require.NoError(t, err)
			payload, err := base64.RawURLEncoding.DecodeString(strings.Split(test.raw, ".")[1])
			require.NoError(t, err)
			found, err := verifySignature(test.raw, &unverified{alg: test.alg, payload: payload}, keys)
			require.NoError(t, err)
			require.Same(t, keys[0], found)

			_, err = verifySignature(test.raw, &unverified{alg: test.alg, payload: []byte("other")}, keys)
			require.ErrorContains(t, err, "does not verify")
		})
	}
}
