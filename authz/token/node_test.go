package token_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// joseScript signs one token per algorithm with the jose module of npm, and
// has it verify the tokens that it reads.
const joseScript = `
const path = require('node:path'), fs = require('node:fs'), url = require('node:url');
(async () => {
  const jose = await import(url.pathToFileURL(path.join(process.argv[1], 'jose/dist/webapi/index.js')));
  const input = JSON.parse(fs.readFileSync(0));
  const out = {jwks: {keys: []}, tokens: {}, verified: []};
  for (const alg of input.algorithms) {
    const {publicKey, privateKey} = await jose.generateKeyPair(alg, {extractable: true});
    out.jwks.keys.push({...await jose.exportJWK(publicKey), kid: 'k-' + alg, alg, use: 'sig'});
    out.tokens[alg] = await new jose.SignJWT({email: 'ä@example.com', roles: ['admin']})
      .setProtectedHeader({alg, kid: 'k-' + alg, typ: 'at+jwt'})
      .setIssuer(input.issuer).setSubject('user-1').setAudience('api').setJti('t-1')
      .setIssuedAt(input.now).setExpirationTime(input.now + 60).sign(privateKey);
  }
  const ours = jose.createLocalJWKSet(input.jwks);
  for (const token of input.tokens) {
    const {payload} = await jose.jwtVerify(token, ours, {
      issuer: input.issuer, audience: 'api', typ: 'at+jwt', currentDate: new Date(input.now * 1000),
    });
    out.verified.push(payload.sub);
  }
  process.stdout.write(JSON.stringify(out));
})().catch((err) => { console.error(err); process.exit(1); });
`

// TestAgreesWithJose has another implementation sign what we verify, and
// verify what we mint.
func TestAgreesWithJose(t *testing.T) {
	modules := os.Getenv("GATEHOUSE_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(modules, "jose", "dist", "webapi", "index.js")); modules == "" || err != nil {
		t.Skip("needs the npm module jose 6; set GATEHOUSE_NODE_MODULES to the node_modules directory that has it")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node in PATH")
	}

	algorithms := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	var minted []string
	var keys []*token.SigningKey
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		k, err := token.ParseSigningKey(must(token.GenerateKey(alg)), "")
		require.NoError(t, err)
		raw, _, err := ours(t, k).Mint(token.Claims{Subject: "user-" + alg, Family: "f", AuthTime: now})
		require.NoError(t, err)
		minted, keys = append(minted, raw), append(keys, k)
	}
	input, err := json.Marshal(map[string]any{
		"algorithms": algorithms, "issuer": gateway, "now": now.Unix(),
		"tokens": minted, "jwks": json.RawMessage(ours(t, keys...).PublicJWKS()),
	})
	require.NoError(t, err)

	cmd := exec.CommandContext(t.Context(), node, "-e", joseScript, modules)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	go func() {
		_, _ = stdin.Write(input)
		_ = stdin.Close()
	}()
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	require.NoError(t, err)

	var out struct {
		JWKS     json.RawMessage
		Tokens   map[string]string
		Verified []string
	}
	require.NoError(t, json.Unmarshal(output, &out))
	require.Equal(t, []string{"user-RS256", "user-ES256", "user-ES384", "user-ES512", "user-EdDSA"}, out.Verified)

	published, err := token.ParseJWKS(out.JWKS)
	require.NoError(t, err)
	require.Len(t, published, len(algorithms))
	v := verifier(t, token.IssuerOptions{Issuer: gateway, Keys: published, Audiences: []string{"api"}, Algorithms: algorithms})
	require.Len(t, out.Tokens, len(algorithms))
	for alg, raw := range out.Tokens {
		found := accepted(t, v, raw)
		require.Equal(t, "user-1", found.ID, alg)
		require.Equal(t, "ä@example.com", found.Email)
		require.Equal(t, []string{"admin"}, found.Roles)
	}
}
