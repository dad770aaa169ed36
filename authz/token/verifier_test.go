package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func TestVerifyEveryAlgorithm(t *testing.T) {
	for alg, private := range map[string]func() crypto.Signer{
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey,
		"PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
		"ES256": p256Key, "ES384": p384Key, "ES512": p521Key,
		"EdDSA": edKey,
	} {
		t.Run(alg, func(t *testing.T) {
			o := token.IssuerOptions{Issuer: idp, Keys: token.StaticKeys{key(t, private(), "k", "")}, Algorithms: []string{alg}}
			raw := compact(private(), alg, goodHeader.with(object{"alg": `"` + alg + `"`, "kid": `"k"`}), goodClaims.with(nil))
			require.Equal(t, "user-1", accepted(t, verifier(t, o), raw).ID)

			o.Algorithms = nil // the default
			if alg == "RS256" {
				accepted(t, verifier(t, o), raw)
			} else {
				refused(t, verifier(t, o), raw, authz.ReasonTokenInvalid, `alg "`+alg+`" is not one of [RS256]`)
			}
		})
	}
}

// TestVerifyRefuses goes through RFC 8725 and what verifiers were broken with.
// Every token would be accepted but for the one thing that its name says.
func TestVerifyRefuses(t *testing.T) {
	v := verifier(t, everything(t)...)
	accepted(t, v, rs256(nil, nil))

	h := func(changes object) string { return rs256(changes, nil) }
	c := func(changes object) string { return rs256(nil, changes) }
	es256 := func(private crypto.Signer, changes object) string {
		return compact(private, "ES256", object{"alg": `"ES256"`, "kid": `"e1"`}.with(changes), goodClaims.with(nil))
	}
	es256Signature := func(sig []byte) string {
		parts := strings.Split(es256(p256Key(), nil), ".")
		return parts[0] + "." + parts[1] + "." + b64(sig)
	}
	hmacWith := func(secret []byte) string {
		input := b64([]byte(goodHeader.with(object{"alg": `"HS256"`}))) + "." + b64([]byte(goodClaims.with(nil)))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	payload := func(s string) string { return compact(rsaKey(), "RS256", goodHeader.with(nil), s) }
	header := func(s string) string { return compact(rsaKey(), "RS256", s, goodClaims.with(nil)) }
	good := strings.Split(rs256(nil, nil), ".")
	sig := must(base64.RawURLEncoding.DecodeString(good[2]))
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	withoutBrace := func(s string) string { return strings.TrimSuffix(s, "}") }
	order := p256Key().Public().(*ecdsa.PublicKey).Params().N

	for name, test := range map[string]struct {
		raw     string
		message string
	}{
		// RFC 8725 section 2.1: the algorithm
		"alg none":                       {join(b64([]byte(goodHeader.with(object{"alg": `"none"`}))), good[1], ""), "three parts"},
		"alg none, signature kept":       {h(object{"alg": `"none"`}), `alg "none"`},
		"alg None":                       {h(object{"alg": `"None"`}), `alg "None"`},
		"alg NONE":                       {h(object{"alg": `"NONE"`}), `alg "NONE"`},
		"alg nOnE":                       {h(object{"alg": `"nOnE"`}), `alg "nOnE"`},
		"alg missing":                    {h(object{"alg": ""}), `alg ""`},
		"alg null":                       {h(object{"alg": `null`}), "alg is not a string"},
		"alg a list":                     {h(object{"alg": `["RS256"]`}), "alg is not a string"},
		"alg in lower case":              {h(object{"alg": `"rs256"`}), `alg "rs256"`},
		"alg with a space":               {h(object{"alg": `"RS256 "`}), `alg "RS256 "`},
		"alg not of this issuer":         {compact(rsaKey(), "RS384", goodHeader.with(object{"alg": `"RS384"`}), goodClaims.with(nil)), `alg "RS384"`},
		"HS256 with the public key, PEM": {hmacWith(publicPEM(rsaKey())), `alg "HS256"`},
		"HS256 with the public key, PEM without newline": {hmacWith([]byte(strings.TrimSpace(string(publicPEM(rsaKey()))))), `alg "HS256"`},
		"HS256 with the public key, DER":                 {hmacWith(must(x509.MarshalPKIXPublicKey(rsaKey().Public()))), `alg "HS256"`},
		"HS256 with the public key, JWK":                 {hmacWith([]byte(jwk(rsaKey(), nil))), `alg "HS256"`},
		"ES256 in the header of an RSA signature":        {h(object{"alg": `"ES256"`}), "no key for kid"},
		"ES256 with a P-384 key's kid":                   {es256(p256Key(), object{"kid": `"e384"`}), "no key for kid"},
		"EdDSA with an EC key's kid":                     {compact(edKey(), "EdDSA", `{"alg":"EdDSA","kid":"e1"}`, goodClaims.with(nil)), "no key for kid"},
		"RS256 with a key that is for RS512":             {compact(otherRSAKey(), "RS256", goodHeader.with(object{"kid": `"rs512only"`}), goodClaims.with(nil)), "no key for kid"},
		"PS256 in the header of an RS256 signature":      {h(object{"alg": `"PS256"`}), "does not verify"},
		"RS256 in the header of a PS256 signature":       {compact(rsaKey(), "PS256", goodHeader.with(nil), goodClaims.with(nil)), "does not verify"},

		// sections 2.2 and 3.1: keys that the token brings along
		"embedded jwk":     {compact(otherRSAKey(), "RS256", goodHeader.with(object{"jwk": jwk(otherRSAKey(), nil)}), goodClaims.with(nil)), "jwk is not accepted"},
		"the own jwk":      {h(object{"jwk": jwk(rsaKey(), nil)}), "jwk is not accepted"},
		"jku":              {h(object{"jku": `"https://evil.example/jwks"`}), "jku is not accepted"},
		"jku, the own":     {h(object{"jku": `"` + idp + `/jwks"`}), "jku is not accepted"},
		"x5u":              {h(object{"x5u": `"https://evil.example/cert"`}), "x5u is not accepted"},
		"x5c":              {h(object{"x5c": `["MIIB"]`}), "x5c is not accepted"},
		"x5c, empty":       {h(object{"x5c": `null`}), "x5c is not accepted"},
		"crit":             {h(object{"crit": `["exp"]`, "exp": at(time.Hour)}), "crit is not accepted"},
		"crit, empty":      {h(object{"crit": `[]`}), "crit is not accepted"},
		"crit, null":       {h(object{"crit": `null`}), "crit is not accepted"},
		"b64 false":        {h(object{"b64": `false`, "crit": `["b64"]`}), "not accepted"},
		"b64 without crit": {h(object{"b64": `false`}), "b64 is not accepted"},
		"b64 true":         {h(object{"b64": `true`}), "b64 is not accepted"},
		"compressed":       {h(object{"zip": `"DEF"`}), "zip is not accepted"},
		"enc in a JWS":     {h(object{"enc": `"A256GCM"`}), "enc is not accepted"},

		// sections 2.8, 3.9 and 3.10: one kind of JWT for another, one issuer for another
		"typ logout+jwt":                    {h(object{"typ": `"logout+jwt"`}), `typ "logout+jwt"`},
		"typ dpop+jwt":                      {h(object{"typ": `"dpop+jwt"`}), `typ "dpop+jwt"`},
		"typ secevent+jwt":                  {h(object{"typ": `"application/secevent+jwt"`}), `typ "secevent+jwt"`},
		"typ application/application/":      {h(object{"typ": `"application/application/jwt"`}), `typ "application/jwt"`},
		"typ empty":                         {h(object{"typ": `""`}), "typ is empty"},
		"typ application/ and no more":      {h(object{"typ": `"application/"`}), "typ is empty"},
		"typ null":                          {h(object{"typ": `null`}), "typ is not a string"},
		"typ a number":                      {h(object{"typ": `1`}), "typ is not a string"},
		"nested token":                      {h(object{"cty": `"JWT"`}), "nested"},
		"nested token, long spelling":       {h(object{"cty": `"application/jwt"`}), "nested"},
		"nested token as the payload":       {compact(rsaKey(), "RS256", goodHeader.with(nil), rs256(nil, nil)), "payload"},
		"other issuer, own key, same kid":   {c(object{"iss": `"` + other + `"`}), "does not verify"},
		"own issuer, other's key, same kid": {compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(nil)), "does not verify"},
		"iss missing":                       {c(object{"iss": ""}), "iss is missing or not a string"},
		"iss null":                          {c(object{"iss": `null`}), "iss is missing or not a string"},
		"iss a list":                        {c(object{"iss": `["` + idp + `"]`}), "iss is missing or not a string"},
		"iss unknown":                       {c(object{"iss": `"https://evil.example"`}), `issuer "https://evil.example" is not known`},
		"iss with a trailing slash":         {c(object{"iss": `"` + idp + `/"`}), "is not known"},
		"iss in another case":               {c(object{"iss": `"https://IDP.example.com"`}), "is not known"},
		"iss empty":                         {c(object{"iss": `""`}), `issuer "" is not known`},
		"iss endless":                       {c(object{"iss": `"` + strings.Repeat("é\\n", 1000) + `"`}), "is not known"},
		"aud missing":                       {c(object{"aud": ""}), "aud names none"},
		"aud other":                         {c(object{"aud": `"web"`}), "aud names none"},
		"aud a prefix":                      {c(object{"aud": `"ap"`}), "aud names none"},
		"aud in another case":               {c(object{"aud": `"API"`}), "aud names none"},
		"aud a joined list":                 {c(object{"aud": `"api admin"`}), "aud names none"},
		"aud an empty array":                {c(object{"aud": `[]`}), "aud names none"},
		"aud others":                        {c(object{"aud": `["web","mobile"]`}), "aud names none"},
		"aud of mixed types":                {c(object{"aud": `["api",1]`}), "aud is neither"},
		"aud a number":                      {c(object{"aud": `1`}), "aud is neither"},
		"aud an object":                     {c(object{"aud": `{"api":true}`}), "aud is neither"},
		"aud null":                          {c(object{"aud": `null`}), "aud is neither"},
		"aud a nested array":                {c(object{"aud": `[["api"]]`}), "aud is neither"},

		// section 2.7: kid as an injection
		"kid a path":        {h(object{"kid": `"../../../../dev/null"`}), "no key for kid"},
		"kid a query":       {h(object{"kid": `"x' UNION SELECT 'key' --"`}), "no key for kid"},
		"kid a command":     {h(object{"kid": `"r1|/usr/bin/id"`}), "no key for kid"},
		"kid with NUL":      {h(object{"kid": `"r1\u0000"`}), "no key for kid"},
		"kid endless":       {h(object{"kid": `"` + strings.Repeat(`\n`, 2000) + `"`}), "no key for kid"},
		"kid other":         {h(object{"kid": `"r2"`}), "no key for kid"},
		"kid in upper case": {h(object{"kid": `"R1"`}), "no key for kid"},
		"kid a number":      {h(object{"kid": `1`}), "kid is not a string"},
		"kid null":          {h(object{"kid": `null`}), "kid is not a string"},
		"kid an object":     {h(object{"kid": `{}`}), "kid is not a string"},

		// signatures
		"signature of another key":        {compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(nil)), "does not verify"},
		"ES256 signature of another key":  {es256(otherP256(), nil), "does not verify"},
		"signature of another token":      {join(good[0], good[1], strings.Split(c(object{"sub": `"user-2"`}), ".")[2]), "does not verify"},
		"signature truncated":             {join(good[0], good[1], b64(sig[:len(sig)-1])), "does not verify"},
		"signature extended":              {join(good[0], good[1], b64(append(slices.Clip(sig), 0))), "does not verify"},
		"signature with a leading zero":   {join(good[0], good[1], b64(append([]byte{0}, sig...))), "does not verify"},
		"signature missing":               {join(good[0], good[1], ""), "three parts"},
		"signature of zeros":              {join(good[0], good[1], b64(make([]byte, 256))), "does not verify"},
		"payload modified":                {join(good[0], b64([]byte(goodClaims.with(object{"sub": `"admin"`}))), good[2]), "does not verify"},
		"header modified":                 {join(b64([]byte(goodHeader.with(object{"x": `1`}))), good[1], good[2]), "does not verify"},
		"psychic signature (r = s = 0)":   {es256Signature(make([]byte, 64)), "does not verify"},
		"r = 0":                           {es256Signature(append(make([]byte, 32), signature(p256Key(), "ES256", "x")[32:]...)), "does not verify"},
		"r = s = n":                       {es256Signature(append(order.FillBytes(make([]byte, 32)), order.FillBytes(make([]byte, 32))...)), "does not verify"},
		"r = s = 1":                       {es256Signature(append(big.NewInt(1).FillBytes(make([]byte, 32)), big.NewInt(1).FillBytes(make([]byte, 32))...)), "does not verify"},
		"ES256 signature in DER":          {es256Signature(must(p256Key().Sign(nil, make([]byte, 32), crypto.SHA256))), "does not verify"},
		"ES256 signature too short":       {es256Signature(make([]byte, 63)), "does not verify"},
		"ES256 signature of P-384's size": {es256Signature(make([]byte, 96)), "does not verify"},
		"ES256 signed on P-384":           {compact(p384Key(), "ES256", `{"alg":"ES256","kid":"e1"}`, goodClaims.with(nil)), "does not verify"},
		"Ed25519 signature of zeros":      {join(b64([]byte(`{"alg":"EdDSA","kid":"o1"}`)), good[1], b64(make([]byte, 64))), "does not verify"},
		"Ed25519 signature truncated":     {join(b64([]byte(`{"alg":"EdDSA","kid":"o1"}`)), good[1], b64(make([]byte, 63))), "does not verify"},

		// section 2.6: one token, two readings
		"header member twice":                  {header(`{"alg":"RS256","alg":"RS256","kid":"r1"}`), `member "alg" twice`},
		"header member twice, escaped":         {header(`{"alg":"RS256","\u0061lg":"none","kid":"r1"}`), `member "alg" twice`},
		"header member twice, nested":          {header(`{"alg":"RS256","kid":"r1","x":[{"y":{"z":1,"z":2}}]}`), `member "z" twice`},
		"payload member twice":                 {payload(withoutBrace(goodClaims.with(nil)) + `,"sub":"admin"}`), `member "sub" twice`},
		"payload member twice, the same value": {payload(withoutBrace(goodClaims.with(nil)) + `,"sub":"user-1"}`), `member "sub" twice`},
		"payload member twice, escaped":        {payload(withoutBrace(goodClaims.with(nil)) + `,"\u0073ub":"admin"}`), `member "sub" twice`},
		"payload member twice, nested":         {payload(withoutBrace(goodClaims.with(nil)) + `,"realm_access":{"roles":[],"r\u006fles":["admin"]}}`), `member "roles" twice`},
		"payload member twice, in an array":    {payload(withoutBrace(goodClaims.with(nil)) + `,"x":[1,{"y":1,"y":1}]}`), `member "y" twice`},
		"payload member twice, endless":        {payload(withoutBrace(goodClaims.with(nil)) + strings.Repeat(`,"`+strings.Repeat("y", 1000)+`":1`, 2) + `}`), "twice"},
		"half a surrogate pair":                {payload(goodClaims.with(object{"sub": `"user-\ud800"`})), "surrogate"},
		"half a surrogate pair, the low one":   {payload(goodClaims.with(object{"sub": `"user-\uDC00x"`})), "surrogate"},
		"surrogates in the wrong order":        {payload(goodClaims.with(object{"sub": `"\udc00\ud800"`})), "surrogate"},
		"invalid UTF-8 in the payload":         {payload(goodClaims.with(object{"sub": "\"user\xff\""})), "UTF-8"},
		"overlong UTF-8 in the payload":        {payload(goodClaims.with(object{"sub": "\"user\xc0\xaf\""})), "UTF-8"},
		"invalid UTF-8 in the header":          {header(goodHeader.with(object{"x": "\"\xff\""})), "UTF-8"},
		"trailing data in the payload":         {payload(goodClaims.with(nil) + `{}`), "behind the JSON object"},
		"trailing letter in the payload":       {payload(goodClaims.with(nil) + `x`), "behind the JSON object"},
		"trailing data in the header":          {header(goodHeader.with(nil) + `1`), "behind the JSON object"},
		"payload an array":                     {payload(`[` + goodClaims.with(nil) + `]`), "not a JSON object"},
		"payload a string":                     {payload(`"x"`), "not a JSON object"},
		"payload null":                         {payload(`null`), "not a JSON object"},
		"payload empty":                        {payload(``), "unexpected EOF"},
		"payload cut off":                      {payload(withoutBrace(goodClaims.with(nil))), "unexpected EOF"},
		"payload cut off in a value":           {payload(`{"x":[1,`), "unexpected EOF"},
		"payload with a comment":               {payload(`/**/` + goodClaims.with(nil)), "invalid character"},
		"payload with a byte order mark":       {payload("\ufeff" + goodClaims.with(nil)), "invalid character"},
		"payload with a trailing comma":        {payload(withoutBrace(goodClaims.with(nil)) + `,}`), "invalid character"},
		"header an array":                      {header(`["RS256"]`), "not a JSON object"},
		"header empty":                         {header(``), "unexpected EOF"},
		"nested too deep":                      {payload(withoutBrace(goodClaims.with(nil)) + `,"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`), "nested deeper"},
		"nested as deep as it gets":            {payload(strings.Repeat(`{"a":`, 900) + `1` + strings.Repeat(`}`, 900)), "nested deeper"},

		// the form
		"empty":                       {"", "three parts"},
		"one part":                    {good[0], "three parts"},
		"two parts":                   {join(good[0], good[1]), "three parts"},
		"four parts":                  {join(good[0], good[1], good[2], good[2]), "three parts"},
		"a JWE":                       {join("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ", "a2V5", "aXY", "Y2lwaGVy", "dGFn"), "three parts"},
		"dots":                        {"..", "three parts"},
		"JSON serialization":          {`{"payload":"` + good[1] + `","protected":"` + good[0] + `","signature":"` + good[2] + `"}`, "three parts"},
		"JSON serialization, general": {`{"payload":"` + good[1] + `","signatures":[{"protected":"` + good[0] + `","signature":"` + good[2] + `"}]}`, "three parts"},
		"space in front":              {" " + join(good...), "illegal base64"},
		"space behind":                {join(good...) + " ", "illegal base64"},
		"newline behind":              {join(good...) + "\n", "line break"},
		"newline in the header":       {join(good[0][:4]+"\n"+good[0][4:], good[1], good[2]), "line break"},
		"newline in the payload":      {join(good[0], good[1][:4]+"\r\n"+good[1][4:], good[2]), "line break"},
		"newline in the signature":    {join(good[0], good[1], good[2][:4]+"\n"+good[2][4:]), "line break"},
		"tab":                         {join(good[0], good[1][:4]+"\t"+good[1][4:], good[2]), "illegal base64"},
		"NUL":                         {join(good[0], good[1], good[2]+"\x00"), "illegal base64"},
		"padding":                     {join(good[0], good[1], good[2]+"=="), "illegal base64"},
		"padding, escaped":            {join(good[0], good[1], good[2]+"%3D%3D"), "illegal base64"},
		"standard base64":             {join(good[0], good[1], strings.Repeat("+/", 171)), "illegal base64"},
		"stray bits at the end":       {join(good[0], good[1], good[2][:len(good[2])-1]+nextLetter(good[2][len(good[2])-1])), "illegal base64"},
		"a second Bearer":             {"Bearer " + join(good...), "illegal base64"},
		"8193 bytes":                  {tokenOf(t, 8193), "8193 bytes long"},
		"a megabyte":                  {strings.Repeat("a.", 1<<19), "bytes long"},

		// claims
		"exp missing":              {c(object{"exp": ""}), "no exp"},
		"exp null":                 {c(object{"exp": `null`}), "exp is not a number"},
		"exp a string":             {c(object{"exp": `"` + at(time.Minute) + `"`}), "exp is not a number"},
		"exp a list":               {c(object{"exp": `[` + at(time.Minute) + `]`}), "exp is not a number"},
		"exp true":                 {c(object{"exp": `true`}), "exp is not a number"},
		"exp negative":             {c(object{"exp": `-1`}), "exp is not a date"},
		"exp in milliseconds":      {c(object{"exp": at(time.Minute) + `000`}), "exp is not a date"},
		"exp 1e400":                {c(object{"exp": `1e400`}), "exp is not a date"},
		"exp beyond int64":         {c(object{"exp": `9223372036854775808`}), "exp is not a date"},
		"exp of a thousand digits": {c(object{"exp": strings.Repeat("9", 1000)}), "exp is not a date"},
		"exp NaN":                  {c(object{"exp": `NaN`}), "invalid character"},
		"exp Infinity":             {c(object{"exp": `Infinity`}), "invalid character"},
		"exp in hexadecimal":       {c(object{"exp": `0x7fffffff`}), "invalid character"},
		"exp with a leading zero":  {c(object{"exp": `0` + at(time.Minute)}), "invalid character"},
		"exp in another case":      {c(object{"exp": "", "EXP": at(time.Minute)}), "no exp"},
		"nbf ahead":                {c(object{"nbf": at(31 * time.Second)}), "nbf lies 31s ahead"},
		"nbf a string":             {c(object{"nbf": `"0"`}), "nbf is not a number"},
		"nbf null":                 {c(object{"nbf": `null`}), "nbf is not a number"},
		"iat ahead":                {c(object{"iat": at(31 * time.Second)}), "iat lies 31s ahead"},
		"iat a string":             {c(object{"iat": `"0"`}), "iat is not a number"},
		"iat huge":                 {c(object{"iat": `1e300`}), "iat is not a date"},
		"auth_time ahead":          {c(object{"auth_time": at(time.Hour)}), "auth_time lies 1h0m0s ahead"},
		"auth_time a string":       {c(object{"auth_time": `"0"`}), "auth_time is not a number"},
		"sub missing":              {c(object{"sub": ""}), "missing or empty"},
		"sub empty":                {c(object{"sub": `""`}), "missing or empty"},
		"sub null":                 {c(object{"sub": `null`}), "missing or empty"},
		"sub a number":             {c(object{"sub": `1`}), `claim "sub" is not a string`},
		"sub a list":               {c(object{"sub": `["user-1"]`}), `claim "sub" is not a string`},
		"sub an object":            {c(object{"sub": `{}`}), `claim "sub" is not a string`},
		"sub in another case":      {c(object{"sub": "", "Sub": `"user-1"`}), "missing or empty"},
		"jti a number":             {c(object{"jti": `1`}), "jti is not a string"},
		"jti null":                 {c(object{"jti": `null`}), "jti is not a string"},
		"email a list":             {c(object{"email": `["a@example.com"]`}), `claim "email" is not a string`},
		"email a number":           {c(object{"email": `1`}), `claim "email" is not a string`},
		"roles a number":           {c(object{"roles": `1`}), `claim "roles" is neither`},
		"roles an object":          {c(object{"roles": `{"admin":true}`}), `claim "roles" is neither`},
		"roles of mixed types":     {c(object{"roles": `["user",{}]`}), `claim "roles" is neither`},
		"organization a list":      {c(object{"org_id": `["org-1"]`}), `claim "org_id" is not a string`},
		"organization a fraction":  {c(object{"org_id": `1.5`}), "not an integer"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, test.raw, authz.ReasonTokenInvalid, test.message)
		})
	}
}

// nextLetter returns the base64url letter whose value is one more: where the
// last letter carries unused bits, it decodes to the same.
func nextLetter(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)+1])
}

// tokenOf returns a good token of so many bytes.
func tokenOf(t *testing.T, length int) string {
	t.Helper()
	filler := func(n int) object { return object{"x": `"` + strings.Repeat("x", n) + `"`} }
	for n := length; n > 0; n-- {
		for inHeader := range 3 { // base64 has no part of 4n+1 letters
			header, claims := goodHeader.with(filler(inHeader)), goodClaims.with(filler(n))
			if len(b64([]byte(header)))+len(b64([]byte(claims)))+base64.RawURLEncoding.EncodedLen(256)+2 == length {
				return compact(rsaKey(), "RS256", header, claims)
			}
		}
	}
	t.Fatalf("no token of %d bytes", length)
	return ""
}

func TestVerifyAccepts(t *testing.T) {
	v := verifier(t, everything(t)...)
	for name, raw := range map[string]string{
		"a token of another kid":              compact(p256Key(), "ES256", `{"alg":"ES256","kid":"e1"}`, goodClaims.with(nil)),
		"the other issuer, with the same kid": compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(object{"iss": `"` + other + `"`})),
		"no kid, one key for the algorithm":   compact(edKey(), "EdDSA", `{"alg":"EdDSA"}`, goodClaims.with(nil)),
		"an empty kid":                        compact(edKey(), "EdDSA", `{"alg":"EdDSA","kid":""}`, goodClaims.with(nil)),
		"no typ":                              rs256(object{"typ": ""}, nil),
		"typ JWT":                             rs256(object{"typ": `"JWT"`}, nil),
		"typ jwt":                             rs256(object{"typ": `"jwt"`}, nil),
		"typ application/at+jwt":              rs256(object{"typ": `"Application/AT+JWT"`}, nil),
		"cty of something else":               rs256(object{"cty": `"json"`}, nil),
		"x5t, which only names a key":         rs256(object{"x5t": `"NzbLsXh8uDCcd-6MNwXF4W_7noU"`, "x5t#S256": `"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"`}, nil),
		"an unknown header":                   rs256(object{"https://example.com/x": `{"y":[null]}`}, nil),
		"spaces in the JSON":                  compact(rsaKey(), "RS256", " { \"alg\" : \"RS256\" ,\n\"kid\":\"r1\"} ", "\t"+goodClaims.with(nil)+"\r\n"),
		"an escaped name":                     compact(rsaKey(), "RS256", `{"\u0061lg":"RS256","k\u0069d":"r1"}`, goodClaims.with(nil)),
		"aud in an array":                     rs256(nil, object{"aud": `["web","admin"]`}),
		"no jti, iat or nbf":                  rs256(nil, object{"jti": "", "iat": ""}),
		"nbf in the past":                     rs256(nil, object{"nbf": at(-time.Hour)}),
		"nbf within the leeway":               rs256(nil, object{"nbf": at(30 * time.Second)}),
		"iat within the leeway":               rs256(nil, object{"iat": at(30 * time.Second)}),
		"exp with a fraction":                 rs256(nil, object{"exp": at(0) + ".5"}),
		"exp with an exponent":                rs256(nil, object{"exp": "2.1e9"}),
		"exp within the leeway":               rs256(nil, object{"exp": at(-29 * time.Second)}),
		"sid of another issuer, any type":     rs256(nil, object{"sid": `1`}),
		"identity claims that are null":       rs256(nil, object{"email": `null`, "roles": `null`, "org_id": `null`}),
		"a surrogate pair":                    rs256(nil, object{"name": `"\ud83d\ude00 \\ud800"`}),
		"as deep as allowed":                  rs256(nil, object{"x": strings.Repeat("[", 31) + strings.Repeat("]", 31)}),
		"8192 bytes":                          tokenOf(t, 8192),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "user-1", accepted(t, v, raw).ID)
		})
	}
}

func TestVerifyExpired(t *testing.T) {
	v := verifier(t, everything(t)...)
	refused(t, v, rs256(nil, object{"exp": at(-30 * time.Second)}), authz.ReasonTokenExpired, "expired at 2026-11-21 11:59:30")
	refused(t, v, rs256(nil, object{"exp": `0`}), authz.ReasonTokenExpired, "expired at 1970")
	got, err := v.VerifyExpired(t.Context(), rs256(nil, object{"exp": at(-30 * time.Second)}))
	require.NoError(t, err)
	require.Equal(t, "user-1", got.ID)
	_, err = v.VerifyExpired(t.Context(), compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(object{"exp": at(-time.Hour)})))
	require.Equal(t, authz.ReasonTokenInvalid, authz.ReasonOf(err))

	t.Run("only of a token that is right in all else", func(t *testing.T) {
		forged := compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(object{"exp": at(-time.Hour)}))
		refused(t, v, forged, authz.ReasonTokenInvalid, "does not verify")
		refused(t, v, rs256(nil, object{"exp": at(-time.Hour), "aud": `"web"`}), authz.ReasonTokenInvalid, "aud")
		refused(t, v, rs256(nil, object{"exp": at(-time.Hour), "sub": ""}), authz.ReasonTokenInvalid, "sub")
	})
}

func TestVerifyLeeway(t *testing.T) {
	for name, test := range map[string]struct {
		leeway  time.Duration
		inside  time.Duration
		outside time.Duration
	}{
		"default":      {0, 30 * time.Second, 31 * time.Second},
		"five minutes": {5 * time.Minute, 300 * time.Second, 301 * time.Second},
		"none":         {-1, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			o := everything(t)[0]
			o.Leeway = test.leeway
			v := verifier(t, o)
			accepted(t, v, rs256(nil, object{"nbf": at(test.inside)}))
			refused(t, v, rs256(nil, object{"nbf": at(test.outside)}), authz.ReasonTokenInvalid, "nbf")
			late := rs256(nil, object{"exp": at(time.Second - test.inside)})
			accepted(t, v, late)
			trace := &authz.Trace{}
			_, err := v.Verify(authz.WithTrace(t.Context(), trace), late)
			require.NoError(t, err)
			told := trace.Steps[len(trace.Steps)-1]
			require.Equal(t, "exp", told.Name)
			require.Equal(t, test.inside > 0, strings.Contains(told.Detail, ", which has passed, and for "+test.inside.String()+" more doesn't count"), told.Detail)
			refused(t, v, rs256(nil, object{"exp": at(-test.inside)}), authz.ReasonTokenExpired, "expired")
		})
	}
}

func TestVerifyTypes(t *testing.T) {
	o := everything(t)[0]
	o.Types = []string{"Application/AT+JWT"}
	v := verifier(t, o)
	accepted(t, v, rs256(object{"typ": `"at+jwt"`}, nil))
	refused(t, v, rs256(object{"typ": `"JWT"`}, nil), authz.ReasonTokenInvalid, `typ "jwt"`)
	refused(t, v, rs256(object{"typ": ""}, nil), authz.ReasonTokenInvalid, `typ ""`)
}

func TestVerifyWithoutAudiences(t *testing.T) {
	o := everything(t)[0]
	o.Audiences = nil
	v := verifier(t, o)
	require.Empty(t, accepted(t, v, rs256(nil, object{"aud": ""})).Audiences)
	require.Equal(t, []string{"web"}, accepted(t, v, rs256(nil, object{"aud": `"web"`})).Audiences)
	refused(t, v, rs256(nil, object{"aud": `7`}), authz.ReasonTokenInvalid, "aud is neither")
}

func TestVerifyFindsKeys(t *testing.T) {
	first, second := key(t, rsaKey(), "", ""), key(t, otherRSAKey(), "", "")
	named := func(kid string) token.StaticKeys {
		return token.StaticKeys{key(t, otherRSAKey(), kid, ""), key(t, rsaKey(), kid, "")}
	}
	onePEM := token.StaticKeys{must(token.ParsePEM(publicPEM(rsaKey()), ""))}
	namedPEM := token.StaticKeys{must(token.ParsePEM(publicPEM(rsaKey()), "r1"))}
	mixed := append(token.StaticKeys{key(t, otherRSAKey(), "r2", "")}, onePEM...)
	for name, test := range map[string]struct {
		keys    token.StaticKeys
		kid     string
		message string // "": accepted
	}{
		"two keys of one kid":                    {named("r1"), `"r1"`, ""},
		"no kid, two keys for the algorithm":     {named("r1"), ``, "2 keys for alg RS256"},
		"a kid, one key without":                 {token.StaticKeys{first}, `"r1"`, "no key for kid"},
		"no kid, one key without":                {token.StaticKeys{first}, ``, ""},
		"no kid, one key with":                   {token.StaticKeys{key(t, rsaKey(), "r1", "")}, ``, ""},
		"no kid, two keys without":               {token.StaticKeys{first, second}, ``, "2 keys for alg RS256"},
		"no kid, a second key for another alg":   {token.StaticKeys{first, key(t, otherRSAKey(), "", "PS256")}, ``, ""},
		"any kid, one PEM key":                   {onePEM, `"whatever"`, ""},
		"a kid, one PEM key of another":          {namedPEM, `"r2"`, "no key for kid"},
		"the kid of a PEM key":                   {namedPEM, `"r1"`, ""},
		"any kid, several PEM keys":              {append(onePEM[:1:1], must(token.ParsePEM(publicPEM(otherRSAKey()), ""))), `"r1"`, "no key for kid"},
		"any kid, PEM keys of several types":     {append(onePEM[:1:1], must(token.ParsePEM(publicPEM(p256Key()), ""))), `"r1"`, ""},
		"a kid that another key has, a PEM key":  {mixed, `"r2"`, "does not verify"},
		"a kid that no other key has, a PEM key": {mixed, `"r3"`, ""},
		"no keys at all":                         {nil, `"r1"`, "no key for kid"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, token.IssuerOptions{Issuer: idp, Keys: test.keys})
			raw := rs256(object{"kid": test.kid}, nil)
			if test.message == "" {
				accepted(t, v, raw)
				return
			}
			refused(t, v, raw, authz.ReasonTokenInvalid, test.message)
		})
	}
}

// keySetFunc is a key set of somebody else's.
type keySetFunc func(ctx context.Context, kid, alg string) ([]*token.Key, error)

func (f keySetFunc) Keys(ctx context.Context, kid, alg string) ([]*token.Key, error) {
	return f(ctx, kid, alg)
}

func TestVerifyIssuerUnavailable(t *testing.T) {
	down := errors.New("connection refused")
	v := verifier(t, token.IssuerOptions{Issuer: idp, Keys: keySetFunc(func(context.Context, string, string) ([]*token.Key, error) {
		return nil, down
	})})
	refused(t, v, rs256(nil, nil), authz.ReasonIssuerUnavailable, "connection refused")
	_, err := v.Verify(t.Context(), rs256(nil, nil))
	require.ErrorIs(t, err, down)
}

// A key set that hands out what was not asked for must not widen what its
// issuer may sign with.
func TestVerifyCarelessKeySet(t *testing.T) {
	v := verifier(t, token.IssuerOptions{Issuer: idp, Keys: keySetFunc(func(context.Context, string, string) ([]*token.Key, error) {
		return []*token.Key{key(t, rsaKey(), "r1", "PS256")}, nil
	})})
	refused(t, v, rs256(nil, nil), authz.ReasonTokenInvalid, "does not verify")
}

func TestVerifyWithoutIssuers(t *testing.T) {
	refused(t, verifier(t), rs256(nil, nil), authz.ReasonTokenInvalid, "is not known")
}

func TestNewVerifierNamesAllProblems(t *testing.T) {
	keys := token.StaticKeys{key(t, edKey(), "", "")}
	v, err := token.NewVerifier([]token.IssuerOptions{
		{Keys: keys},
		{Issuer: "a"},
		{Issuer: "b", Keys: keys, Algorithms: []string{"RS256", "HS256"}},
		{Issuer: "c", Keys: keys, Algorithms: []string{"none"}},
		{Issuer: "d", Keys: keys, Algorithms: []string{"es256"}},
		{Issuer: "e", Keys: keys},
		{Issuer: "e", Keys: keys},
		{Issuer: "f", Keys: keys, Algorithms: []string{""}},
	}, token.VerifierOptions{})
	require.Nil(t, v)
	for _, message := range []string{
		`issuer "": has no name`, `issuer "a": has no keys`, `issuer "b": algorithm "HS256"`,
		`issuer "c": algorithm "none"`, `issuer "d": algorithm "es256"`, `issuer "e": is listed twice`, `issuer "f": algorithm ""`,
	} {
		require.ErrorContains(t, err, message)
	}
}

func TestVerifyReadsClaims(t *testing.T) {
	o := everything(t)[0]
	found := accepted(t, verifier(t, o), rs256(nil, object{
		"aud": `["api","web"]`, "email": `"a@example.com"`, "roles": `["user","admin"]`, "org_id": `"org-1"`,
		"iat": at(-time.Minute) + ".25", "sid": `"theirs"`, "big": `12345678901234567890123`,
	}))
	require.Equal(t, &authz.Token{
		Identity: authz.Identity{ID: "user-1", Email: "a@example.com", Roles: []string{"user", "admin"}, Organization: "org-1"},
		TokenID:  "token-1", Issuer: idp, Audiences: []string{"api", "web"},
		IssuedAt: now.Add(-time.Minute + 250*time.Millisecond), AuthTime: now.Add(-time.Minute + 250*time.Millisecond),
		Expires: now.Add(time.Minute),
		Claims: map[string]any{
			"iss": idp, "sub": "user-1", "aud": []any{"api", "web"}, "jti": "token-1",
			"email": "a@example.com", "roles": []any{"user", "admin"}, "org_id": "org-1", "sid": "theirs",
			"iat": json.Number(at(-time.Minute) + ".25"), "exp": json.Number(at(time.Minute)), "big": json.Number("12345678901234567890123"),
		},
	}, found)
}

// An issuer with a prefix speaks for its own users and nobody else's.
func TestVerifyPrefixesUserIDs(t *testing.T) {
	o := everything(t)[0]
	o.UserIDPrefix = "partner:"
	v := verifier(t, o)
	for range 2 { // the second time it is remembered
		require.Equal(t, "partner:alice", accepted(t, v, rs256(nil, object{"sub": `"alice"`})).ID)
	}
	require.Equal(t, "partner:partner:alice", accepted(t, v, rs256(nil, object{"sub": `"partner:alice"`})).ID)
	refused(t, v, rs256(nil, object{"sub": `""`}), authz.ReasonTokenInvalid, "the user's id, is missing or empty")
}

func TestVerifyOwnTokens(t *testing.T) {
	o := everything(t)[0]
	o.OwnTokens = true
	v := verifier(t, o)
	found := accepted(t, v, rs256(nil, object{"sid": `"family-1"`, "auth_time": at(-time.Hour)}))
	require.Equal(t, "family-1", found.Family)
	require.Equal(t, now.Add(-time.Hour), found.AuthTime)
	require.Empty(t, accepted(t, v, rs256(nil, nil)).Family)
	refused(t, v, rs256(nil, object{"sid": `1`}), authz.ReasonTokenInvalid, "sid is not a string")
	refused(t, v, rs256(nil, object{"jti": `""`}), authz.ReasonTokenInvalid, "jti is missing or empty")
}

func TestVerifyMapsClaims(t *testing.T) {
	type claims = token.ClaimNames
	for name, test := range map[string]struct {
		names   claims
		claims  object
		want    authz.Identity
		message string // "": accepted
	}{
		"defaults, nothing but sub": {want: authz.Identity{ID: "user-1"}},
		"dotted path": {
			names: claims{Roles: "realm_access.roles"}, claims: object{"realm_access": `{"roles":["a","b"]}`},
			want: authz.Identity{ID: "user-1", Roles: []string{"a", "b"}},
		},
		"long dotted path": {
			names: claims{Organization: "a.b.c"}, claims: object{"a": `{"b":{"c":"org-1"}}`},
			want: authz.Identity{ID: "user-1", Organization: "org-1"},
		},
		"a name with dots in it": {
			names: claims{Roles: "https://x.example/roles"}, claims: object{"https://x.example/roles": `["a"]`},
			want: authz.Identity{ID: "user-1", Roles: []string{"a"}},
		},
		"the whole name goes first": {
			names: claims{Email: "x.email"}, claims: object{"x.email": `"whole@example.com"`, "x": `{"email":"path@example.com"}`},
			want: authz.Identity{ID: "user-1", Email: "whole@example.com"},
		},
		"the whole name, null": {
			names: claims{Email: "x.email"}, claims: object{"x.email": `null`, "x": `{"email":"path@example.com"}`},
			want: authz.Identity{ID: "user-1"},
		},
		"path through nothing":        {names: claims{Roles: "realm_access.roles"}, want: authz.Identity{ID: "user-1"}},
		"path through a string":       {names: claims{Roles: "x.roles"}, claims: object{"x": `"roles"`}, want: authz.Identity{ID: "user-1"}},
		"path through an array":       {names: claims{Roles: "x.0"}, claims: object{"x": `["admin"]`}, want: authz.Identity{ID: "user-1"}},
		"one role":                    {claims: object{"roles": `"admin"`}, want: authz.Identity{ID: "user-1", Roles: []string{"admin"}}},
		"one role, with a space":      {claims: object{"roles": `"read write"`}, want: authz.Identity{ID: "user-1", Roles: []string{"read write"}}},
		"no role":                     {claims: object{"roles": `""`}, want: authz.Identity{ID: "user-1"}},
		"an empty list":               {claims: object{"roles": `[]`}, want: authz.Identity{ID: "user-1", Roles: []string{}}},
		"numeric user id":             {names: claims{UserID: "uid"}, claims: object{"uid": `42`}, want: authz.Identity{ID: "42"}},
		"huge numeric user id":        {names: claims{UserID: "uid"}, claims: object{"uid": `12345678901234567890123`}, want: authz.Identity{ID: "12345678901234567890123"}},
		"user id elsewhere, no sub":   {names: claims{UserID: "uid"}, claims: object{"uid": `"u"`, "sub": ""}, want: authz.Identity{ID: "u"}},
		"nested user id":              {names: claims{UserID: "user.id"}, claims: object{"user": `{"id":7}`}, want: authz.Identity{ID: "7"}},
		"numeric organization":        {claims: object{"org_id": `7`}, want: authz.Identity{ID: "user-1", Organization: "7"}},
		"user id a fraction":          {names: claims{UserID: "uid"}, claims: object{"uid": `1.0`}, message: "not an integer"},
		"user id with an exponent":    {names: claims{UserID: "uid"}, claims: object{"uid": `1e3`}, message: "not an integer"},
		"user id minus zero":          {names: claims{UserID: "uid"}, claims: object{"uid": `-0`}, message: "not an integer"},
		"user id missing":             {names: claims{UserID: "uid"}, message: "missing or empty"},
		"user id empty":               {names: claims{UserID: "uid"}, claims: object{"uid": `""`}, message: "missing or empty"},
		"user id a boolean":           {names: claims{UserID: "uid"}, claims: object{"uid": `true`}, message: "not a string"},
		"sub doesn't stand in for it": {names: claims{UserID: "user.id"}, claims: object{"user": `"id"`}, message: "missing or empty"},
	} {
		t.Run(name, func(t *testing.T) {
			o := everything(t)[0]
			o.Claims = test.names
			if test.message != "" {
				refused(t, verifier(t, o), rs256(nil, test.claims), authz.ReasonTokenInvalid, test.message)
				return
			}
			require.Equal(t, test.want, accepted(t, verifier(t, o), rs256(nil, test.claims)).Identity)
		})
	}
}

// changingKeys can change at any time.
type changingKeys struct {
	mu   sync.Mutex
	keys token.StaticKeys
	err  error
}

func (c *changingKeys) Keys(ctx context.Context, kid, alg string) ([]*token.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	return c.keys.Keys(ctx, kid, alg)
}

func (c *changingKeys) set(err error, keys ...*token.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys, c.err = keys, err
}

func TestCacheForgetsWithTheKey(t *testing.T) {
	keys := &changingKeys{keys: token.StaticKeys{key(t, rsaKey(), "r1", "")}}
	at := now
	v, err := token.NewVerifier(
		[]token.IssuerOptions{{Issuer: idp, Keys: keys}},
		token.VerifierOptions{Now: func() time.Time { return at }, CacheEntries: 2},
	)
	require.NoError(t, err)
	raw, kidless := rs256(nil, nil), rs256(object{"kid": ""}, nil)

	first := accepted(t, v, raw)
	again := accepted(t, v, raw)
	require.Equal(t, first, again)
	require.NotSame(t, first, again)
	accepted(t, v, kidless)

	keys.set(nil, key(t, otherRSAKey(), "r1", ""))
	refused(t, v, raw, authz.ReasonTokenInvalid, "does not verify")
	keys.set(errors.New("down"))
	refused(t, v, raw, authz.ReasonIssuerUnavailable, "down")
	same := key(t, rsaKey(), "r1", "")
	keys.set(nil, same)
	accepted(t, v, raw)
	accepted(t, v, kidless)
	keys.set(nil, same, key(t, otherRSAKey(), "r2", ""))
	accepted(t, v, raw)
	refused(t, v, kidless, authz.ReasonTokenInvalid, "2 keys")
	require.Equal(t, 2, token.CacheLen(v))

	at = now.Add(time.Hour)
	refused(t, v, raw, authz.ReasonTokenExpired, "expired")
}

func TestCacheIsBounded(t *testing.T) {
	v, err := token.NewVerifier(everything(t), token.VerifierOptions{Now: clock, CacheEntries: 2})
	require.NoError(t, err)
	var raws []string
	for range 5 {
		raws = append(raws, compact(p256Key(), "ES256", `{"alg":"ES256","kid":"e1"}`, goodClaims.with(nil)))
	}
	for range 3 {
		for _, raw := range raws {
			accepted(t, v, raw)
		}
	}
	require.Equal(t, 2, token.CacheLen(v))
}

func TestVerifyConcurrently(t *testing.T) {
	v, err := token.NewVerifier(everything(t), token.VerifierOptions{Now: clock, CacheEntries: 1})
	require.NoError(t, err)
	good, bad := []string{rs256(nil, nil), rs256(nil, object{"sub": `"user-2"`})}, rs256(nil, object{"aud": `"web"`})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 20 {
				if _, err := v.Verify(context.Background(), good[n%2]); err != nil {
					t.Error(err)
				}
				if _, err := v.Verify(context.Background(), bad); err == nil {
					t.Error("accepted")
				}
			}
		})
	}
	wg.Wait()
}

// A wrong signature is remembered as long as the keys are the same, and no flood
// of them pushes out what is good.
func TestWrongSignaturesAreRemembered(t *testing.T) {
	keys := &changingKeys{keys: token.StaticKeys{key(t, otherRSAKey(), "r1", "")}}
	v, err := token.NewVerifier([]token.IssuerOptions{{Issuer: idp, Keys: keys}}, token.VerifierOptions{Now: clock, CacheEntries: 20})
	require.NoError(t, err)
	raw := rs256(nil, nil)
	for range 3 {
		refused(t, v, raw, authz.ReasonTokenInvalid, "does not verify")
		_, ok := v.Remembered(raw)
		require.False(t, ok)
	}
	_, first := v.Verify(t.Context(), raw)
	_, again := v.Verify(t.Context(), raw)
	require.Same(t, first, again, "it is remembered, not found out again")
	require.Equal(t, 1, token.RefusedLen(v))
	require.Zero(t, token.CacheLen(v))
	keys.set(nil, key(t, rsaKey(), "r1", ""))
	accepted(t, v, raw)
	got, ok := v.Remembered(raw)
	require.True(t, ok)
	require.Equal(t, "user-1", got.ID)
	good, parts := raw, strings.Split(raw, ".")
	for i := range 10 {
		refused(t, v, parts[0]+"."+parts[1]+"."+strings.Repeat(string(rune('A'+i)), 340)+"AA", authz.ReasonTokenInvalid, "")
	}
	require.Equal(t, 2, token.RefusedLen(v))
	_, ok = v.Remembered(good)
	require.True(t, ok)
}
