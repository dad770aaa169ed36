// Package reasons says in words what each reason of a decision means, where it usually
// comes from, and what an operator does about it.
//
//	text := reasons.Of(decision.Reason)
//	fmt.Println(text.Meaning, text.Remedy)
//
// 'gatehouse explain' prints the texts, and docs/reference/reasons.md is made of them.
// They are for operators: a client learns none of it.
package reasons

import "github.com/gatehouse-auth/gatehouse/authz"

// Text is what there is to say about a reason. All of it is Markdown without links,
// which can be read as it is.
type Text struct {
	Meaning string   // a sentence
	Causes  []string // the likeliest first; none where the meaning says it
	Remedy  string   // sentences; "" where there is nothing to do
	Where   Where
}

// Where says who gives a reason.
type Where int

// The values of [Where].
const (
	Checks Where = iota // decisions about requests
	Calls               // the auth API
	Both
)

// Of returns the text of a reason; the zero Text for one that is none of
// [authz.Reasons].
func Of(reason authz.Reason) Text { return texts[reason] }

// A test has every reason in it.
var texts = map[authz.Reason]Text{
	authz.ReasonAuthenticated: {
		Meaning: "The credential is valid, and the policy permits whose it is.",
	},
	authz.ReasonAnonymous: {
		Meaning: "The request goes on without an identity, as the policy says.",
		Causes: []string{
			"`anonymous: true`, and no credential, or none that is valid",
			"`mode: observe`, and the policy would have refused the request: `would_deny` says why",
		},
	},

	authz.ReasonBadPath: {
		Meaning: "The path is one that two servers could read differently.",
		Causes: []string{
			"`//`, `/./`, `/../`, a backslash, a control byte or `#` in it, or an escaped slash, dot or backslash, which the gateway didn't take out",
			"a malformed escape, such as `%zz`",
			"a `;` where a route is chosen by its path",
			"somebody is trying what gets through",
		},
		Remedy: "Have the gateway normalise paths, as the shipped configurations do; `gatehouse envoy lint FILE` says what is missing. Clients that send such paths on purpose need other ones.",
		Where:  Both,
	},
	authz.ReasonBadHost: {
		Meaning: "The host is no host name and no address.",
		Causes:  []string{"a client that makes its own Host header", "a port that is no number, or an empty label, as in `api..example.com`"},
		Remedy:  "Nothing, as a rule. Where a proxy in front makes the host, mend it there.",
		Where:   Both,
	},
	authz.ReasonBadRequest: {
		Meaning: "What was asked makes no sense.",
		Causes: []string{
			"a check without an HTTP request in it: something other than Envoy asks",
			"forward-auth: the proxy doesn't say which request it means, by `x-forwarded-method`, `x-forwarded-host` and `x-forwarded-uri` or what it has instead",
			"the auth API: a body that is no JSON object, lacks a field, or is too long",
			"a callback of an OpenID login that doesn't fit what the browser kept, or comes more than ten minutes later",
		},
		Remedy: "The line in the log says which. For proxies take the shipped files in `deploy/forward-auth`.",
		Where:  Both,
	},

	authz.ReasonNoCredential: {
		Meaning: "The request shows no credential of a kind that the policy accepts.",
		Causes: []string{
			"nobody is logged in",
			"the browser doesn't send the cookie: `SameSite`, `Secure` on plain HTTP, another host or path",
			"the cookie has another name than `sessions.cookie.name`",
			"the credential is of a kind that the policy doesn't list in `credentials`",
			"the gateway doesn't hand the header on to the check: `cookie`, `authorization`, `x-internal-api-key`",
		},
		Remedy: "Have the client send one of the kinds in the policy's `credentials`, or add the kind that it sends to them.",
		Where:  Both,
	},
	authz.ReasonTokenInvalid: {
		Meaning: "The bearer token is none that is accepted here.",
		Causes: []string{
			"its `iss` or `aud` is another one than configured",
			"its algorithm is not among the issuer's `algorithms`, or its `typ` not among `types`",
			"it was signed with a key that the issuer doesn't publish any more, or by a key file that is another one here",
			"it is no JWT at all, is longer than 8 KiB, or not valid yet (`nbf`)",
		},
		Remedy: "`gatehouse tokens inspect -` reads the token from standard input, and says which part is wrong and what was expected.",
		Where:  Both,
	},
	authz.ReasonTokenExpired: {
		Meaning: "The token's time is over.",
		Causes:  []string{"the client doesn't renew it in time", "clocks differ by more than the issuer's `leeway`"},
		Remedy:  "The client gets a new token: by `POST /auth/refresh`, or from its issuer. Compare the clocks.",
		Where:   Both,
	},
	authz.ReasonTokenRevoked: {
		Meaning: "The token was revoked: by its `jti`, with its refresh family, or with all that the user held.",
		Causes:  []string{"a logout", "`POST /auth/revoke` or `/auth/revoke-all-sessions`, `gatehouse tokens revoke`, or `sessions revoke`", "its refresh token was used twice"},
		Remedy:  "The user logs in again. The audit log says who revoked it.",
		Where:   Both,
	},
	authz.ReasonTokenStale: {
		Meaning: "The user authenticated longer ago than the policy's `max_auth_age`.",
		Causes:  []string{"the route asks for a recent login", "the token has no `auth_time`, so its `iat` counts"},
		Remedy:  "The user logs in again. Where that is too often, give the policy a longer `max_auth_age`.",
	},
	authz.ReasonSessionForged: {
		Meaning: "The session cookie is signed by none of the secrets. Redis was not asked.",
		Causes: []string{
			"the application signs with another secret than `sessions.secrets` has",
			"a secret was taken out while cookies that it signed were still in use",
			"the cookie isn't signed at all, or is another application's of the same name",
			"somebody is guessing",
		},
		Remedy: "Compare the secrets, the last line end of their files included. A secret is rotated by putting the new one first, and keeping the old one until its sessions have ended.",
		Where:  Both,
	},
	authz.ReasonSessionUnknown: {
		Meaning: "There is no record of that session in Redis.",
		Causes: []string{
			"it has ended: by a logout, or since its time was over",
			"Gatehouse looks elsewhere than the application writes: another Redis, another database, another `sessions.prefix`",
			"Redis lost it: a restart without persistence, or an eviction",
		},
		Remedy: "`redis-cli --scan --pattern 'sess:*'` shows whether there are records where Gatehouse looks. Redis needs `maxmemory-policy noeviction`.",
		Where:  Both,
	},
	authz.ReasonSessionExpired: {
		Meaning: "The session's time to live is over.",
		Remedy:  "The user logs in again. `sessions.ttl` and `sessions.rolling` say how long a session lives.",
		Where:   Both,
	},
	authz.ReasonSessionRevoked: {
		Meaning: "The session was ended, or falls under the mark by which all that its user held was revoked.",
		Causes:  []string{"a logout, an administrator, or the provider's logout", "`POST /auth/revoke-all-sessions`", "an application saved the record again after that: it stays ended"},
		Remedy:  "The user logs in again. The audit log says who ended it.",
		Where:   Both,
	},
	authz.ReasonSessionMalformed: {
		Meaning: "The session's record can't be read.",
		Causes: []string{
			"the record is no JSON object, or its key is not of type string",
			"a field has another type than `sessions.fields` asks for: roles that are neither texts in a list nor one text, a user id that is an object",
		},
		Remedy: "`redis-cli GET sess:ID` shows what is there, and the line in the log says what is wrong with it. Mend what writes it.",
		Where:  Both,
	},
	authz.ReasonSessionAnonymous: {
		Meaning: "The session belongs to nobody: its record has no user id.",
		Causes: []string{
			"a visitor who isn't logged in, to whom the application gave a session",
			"the application keeps the user's id in another field",
		},
		Remedy: "Name the field in `sessions.fields.user_id`.",
		Where:  Both,
	},
	authz.ReasonSessionStale: {
		Meaning: "The user authenticated longer ago than the policy's `max_auth_age`, or the record doesn't say when.",
		Causes:  []string{"the route asks for a recent login", "the application writes no `authTime` into the record"},
		Remedy:  "The user logs in again. Applications of your own write the time of the login, in Unix seconds, into the field of `sessions.fields.auth_time`.",
	},
	authz.ReasonSessionIdle: {
		Meaning: "The session was not used for longer than the policy's `idle_timeout`.",
		Remedy:  "The user logs in again. Where that is too often, give the policy a longer `idle_timeout`.",
	},
	authz.ReasonUserDisabled: {
		Meaning: "The user is locked out: the profile says `disabled`.",
		Causes:  []string{"`gatehouse sessions set USER disabled=true`, the console, or `PATCH /auth/users/{id}/sessions`", "another program wrote `\"disabled\":true` into `user:ID`"},
		Remedy:  "`gatehouse sessions list USER` shows it, `gatehouse sessions set USER disabled=false` lets the user in again.",
		Where:   Both,
	},
	authz.ReasonCredentialInvalid: {
		Meaning: "A credential of a kind of your own was refused without another reason.",
		Remedy:  "The line in the log has the error of what checks it.",
	},

	authz.ReasonPasswordWrong: {
		Meaning: "There is no such user, the password is another one, or the user is locked out. Clients can't tell which.",
		Causes:  []string{"a typing error", "somebody is guessing: see `rate_limited`", "the profile says `disabled`"},
		Remedy:  "`gatehouse sessions list USER` says whether the user is locked out. `gatehouse password hash` makes a new hash for the users file.",
		Where:   Calls,
	},
	authz.ReasonLoginRefused: {
		Meaning: "The OpenID provider refused, or what it said proves nobody.",
		Causes: []string{
			"the user gave up, or the provider doesn't let them in here",
			"the ID token doesn't verify, or is for another client",
			"the claim of `claims.user_id` is missing",
			"the profile says `disabled`",
		},
		Remedy: "The line in the log has what the provider said. Compare `client_id`, `issuer` and the claims with the provider's settings.",
		Where:  Calls,
	},
	authz.ReasonRefreshInvalid: {
		Meaning: "The refresh token is none of ours, or has ended.",
		Causes: []string{
			"its time was over (`tokens.refresh_ttl`), or the user logged out",
			"it was made with keys that are not in `tokens.signing_keys` any more",
			"all that the user held was revoked, or the user is locked out",
		},
		Remedy: "The user logs in again. `gatehouse tokens inspect -` says which it is.",
		Where:  Calls,
	},
	authz.ReasonRefreshReused: {
		Meaning: "A refresh token was used a second time, later than `tokens.refresh_grace` allows. Its family, and the access tokens that came from it, are revoked now.",
		Causes: []string{
			"the client lost the answer with the new one, or kept an old one",
			"the token was stolen, and thief and owner both used it",
		},
		Remedy: "The user logs in again. Where it happens to many users of one client, its storage is at fault; else look at the address in the audit log (`refresh_token_reused`).",
		Where:  Calls,
	},

	authz.ReasonAPIKeyUnknown: {
		Meaning: "No entry of `api_keys` has the hash of this key, or there is no key where one is needed.",
		Causes:  []string{"another key, or one with a line end in it", "the entry was taken out while a caller still used it"},
		Remedy:  "`printf %s \"$KEY\" | sha256sum` prints the hash that `sha256` must have.",
		Where:   Both,
	},
	authz.ReasonAPIKeyExpired: {
		Meaning: "The key's `expires` is over.",
		Remedy:  "Add an entry of the same name with a new key, change the callers, and take the old entry out.",
		Where:   Both,
	},
	authz.ReasonAPIKeyPolicy: {
		Meaning: "The key is known, and may not be used here.",
		Causes:  []string{"the policy is not in the `policies` of its entry", "a call of the auth API, and the entry has no `auth_api: true`"},
		Remedy:  "Add the policy to the entry, or `auth_api: true`, if that caller is meant to.",
		Where:   Both,
	},
	authz.ReasonRole: {
		Meaning: "The caller has none, or not all, of the roles that the policy asks for.",
		Causes: []string{
			"the user hasn't got the role",
			"the roles are elsewhere: another claim (`claims.roles`), another field of the record",
			"a profile in `user:ID` has other roles than the token, and wins",
		},
		Remedy: "`gatehouse sessions set USER roles=a,b` gives the user these roles at once. Where the roles are in another claim or field, name that one.",
		Where:  Both,
	},
	authz.ReasonOrganization: {
		Meaning: "The caller's organization is none of those that the policy lists, or none that the user may switch to.",
		Causes:  []string{"the user works in another one now", "the session, the token or the profile names none"},
		Remedy:  "The user switches by `PATCH /auth/session`; `gatehouse sessions set USER organizationId=ID` does it for them.",
		Where:   Both,
	},
	authz.ReasonIssuer: {
		Meaning: "The token is valid, and of an issuer that the policy doesn't list.",
		Remedy:  "Add the issuer to the policy's `issuers`, if its users are meant to come here.",
	},
	authz.ReasonAudience: {
		Meaning: "The token is valid, and for none of the audiences that the policy lists.",
		Remedy:  "Have the client ask its issuer for a token of that audience, or add the one that it has to the policy's `audiences`.",
	},
	authz.ReasonNoAudience: {
		Meaning: "The policy has the identity signed for the service, and nothing says for which.",
		Causes: []string{
			"`assertion: {from_route: true}`, and the gateway's route has no context extension `assertion_audience`",
			"what the route names is empty, longer than 255 bytes, or not visible ASCII",
			"the request came by forward-auth, where no route can name a service",
		},
		Remedy: "Give the route `assertion_audience`, or the policy `assertion: {audience: NAME}`.",
	},
	authz.ReasonCondition: {
		Meaning: "The policy's `condition` is false for this request, or failed.",
		Causes:  []string{"a part of it is false", "it reads a claim or a field that isn't there, without `has()`", "a claim has another type than the expression expects"},
		Remedy:  "Mend the part of the expression that is false, or what it reads. `has(claims.plan)` asks whether a claim is there.",
	},
	authz.ReasonCrossSite: {
		Meaning: "A page of another site had the browser send a state-changing request, or open a WebSocket, with the session cookie.",
		Causes: []string{
			"the application's pages are served from another origin than its API",
			"the gateway changes the Host header, so that the origin looks like another one",
			"an attack",
		},
		Remedy: "List origins of your own in `sessions.trusted_origins`, and give `server.http.public_url`.",
		Where:  Both,
	},
	authz.ReasonIdentityTooLong: {
		Meaning: "The identity headers, with those that the policy adds, would be longer than `identity.max_header_bytes`.",
		Causes:  []string{"a user with very many roles", "a policy that hands a long claim on"},
		Remedy:  "Give the user fewer roles, or raise the limit together with the services' own limit for headers.",
	},
	authz.ReasonNoPolicy: {
		Meaning: "No route matches, and there is no `default_policy`.",
		Causes:  []string{"a path that nobody thought of", "the gateway's route names no policy (`context_extensions`), and `routes` has none for it"},
		Remedy:  "Name a policy in the gateway's route, add an entry to `routes`, or give a `default_policy`.",
	},
	authz.ReasonPolicyUnknown: {
		Meaning: "The gateway names a policy that the configuration doesn't have.",
		Causes:  []string{"a typing error in `context_extensions`", "the policy was renamed or taken out here and not there, or this replica hasn't got the new file yet"},
		Remedy:  "Add the policy here before the gateway names it, and take it out after.",
	},

	authz.ReasonRateLimited: {
		Meaning: "More requests, or tries at a password, than the limit allows.",
		Causes:  []string{"the policy's `rate_limit` is used up", "wrong passwords for one account, or from one address: with `server.http.trusted_hops: 0` behind a gateway, everybody's address is the gateway's"},
		Remedy:  "`retry-after` says when the next one counts. Raise the limit, or set `trusted_hops`.",
		Where:   Both,
	},

	authz.ReasonStoreUnavailable: {
		Meaning: "Redis didn't answer, or not in time (`redis.timeout`). Whether the credential is good is not known.",
		Causes:  []string{"Redis is down, fails over, or is cut off by the network", "the password or the rights of the Redis user are wrong", "Redis is busy with something long, such as `KEYS`"},
		Remedy:  "The line in the log has the error, `/readyz` the state of the store. Until Redis is back, `on_store_outage` says what a policy does.",
		Where:   Both,
	},
	authz.ReasonIssuerUnavailable: {
		Meaning: "The issuer's keys are not known here, or a provider can't be asked, since it is out of reach.",
		Causes:  []string{"the URL is wrong, or no way leads there from here: DNS, a firewall, a certificate", "the provider doesn't take us for its client: another `client_secret`"},
		Remedy:  "The line in the log has the error. `jwks_file` needs no network.",
		Where:   Both,
	},
	authz.ReasonProfileMalformed: {
		Meaning: "The user's profile, `user:ID` in Redis, can't be read. It may say that the user is locked out, so nobody gets in by guessing that it doesn't.",
		Causes:  []string{"another program wrote something that is no JSON object, or fields of another type"},
		Remedy:  "`redis-cli GET user:ID` shows it. Mend it. To delete it lets the user in even where it said `disabled`.",
		Where:   Both,
	},
	authz.ReasonOverloaded: {
		Meaning: "More came than can be answered in time, so this was refused before any work was done.",
		Causes:  []string{"too few replicas or processors", "Redis is slow, and too many wait for it", "a flood"},
		Remedy:  "`gatehouse_checks_shed_total` says why checks were shed. What to set is in docs/overload.md.",
		Where:   Both,
	},
	authz.ReasonInternal: {
		Meaning: "A bug in Gatehouse, or in an extension: an error that nobody foresaw.",
		Causes:  []string{"replicas with different `tokens.signing_keys`, when a refresh fails with it"},
		Remedy:  "Report it with the line in the log. It holds no credential.",
		Where:   Both,
	},
	authz.ReasonNotConfirmed: {
		Meaning: "The change was made, and fewer replicas of Redis hold it than `redis.confirm_replicas` asks for.",
		Causes:  []string{"a replica is away, or far behind", "`confirm_replicas` is more than the master has"},
		Remedy:  "Repeat the call: it is confirmed as soon as the replicas have caught up. `INFO replication` shows them.",
		Where:   Calls,
	},
	authz.ReasonAuditUnavailable: {
		Meaning: "The audit log can't be written, and `audit.on_failure: refuse` lets nothing be changed without it.",
		Causes:  []string{"the disk is full", "the file belongs to another user"},
		Remedy:  "Make room, or mend the rights of `audit.file`. SIGHUP opens it again.",
		Where:   Calls,
	},
}
