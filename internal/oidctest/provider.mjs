// An OpenID provider: npm's oidc-provider, with its development pages to log in
// (any name, any password) and to consent. It prints its issuer when it listens.
//
// CLIENTS are its clients, as in dynamic registration; ACCOUNTS are the claims of
// its users by name; CLAIMS_IN_ID_TOKEN puts them into ID tokens, too, which the
// specification leaves to the userinfo endpoint; PORT is where it listens.
// RESOURCES are APIs, by their identifiers (RFC 8707), with the scopes that each
// knows: for them, and for nothing else, clients with the client_credentials grant
// get access tokens that are JWTs. TOKEN_CLAIMS are further claims of those by
// client.
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const modules = createRequire(process.env.GATEHOUSE_NODE_MODULES + '/')
const { Provider, errors } = await import(pathToFileURL(modules.resolve('oidc-provider')))

const accounts = JSON.parse(process.env.ACCOUNTS ?? '{}')
const resources = JSON.parse(process.env.RESOURCES ?? '{}')
const tokenClaims = JSON.parse(process.env.TOKEN_CLAIMS ?? '{}')
const jwk = (kid, type, options) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, use: 'sig' })

const server = createServer()
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: JSON.parse(process.env.CLIENTS ?? '[]'),
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
    claims: { profile: ['name', 'groups', 'org_id', 'organizations'], email: ['email', 'email_verified'] },
    conformIdTokenClaims: !process.env.CLAIMS_IN_ID_TOKEN,
    pkce: { required: () => true },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: true },
      ...(process.env.RESOURCES && {
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (_, resource) => {
            if (!(resource in resources)) throw new errors.InvalidTarget()
            return { scope: resources[resource], audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } } }
          },
        },
      }),
    },
    extraTokenClaims: (_, token) => tokenClaims[token.clientId],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    jwks: { keys: [
      jwk('rsa', 'rsa', { modulusLength: 2048 }),
      jwk('ec', 'ec', { namedCurve: 'P-256' }),
      jwk('ed', 'ed25519'),
    ] },
    cookies: { keys: ['a key of tests'] },
    // Its own fetch refuses loopback addresses, where our logout endpoint is.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  })
  for (const event of ['server_error', 'authorization.error', 'grant.error', 'backchannel.error']) {
    provider.on(event, (_, err) => console.error(event, err.message, err.error_description ?? ''))
  }
  server.on('request', provider.callback())
  console.log(`listening on ${issuer}`)
})
