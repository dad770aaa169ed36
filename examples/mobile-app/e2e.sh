#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/mobile-app/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "Bob logs in on his phone; the app gets both tokens in the body, and no cookie"
curl "$GATEWAY/auth/token" --json '{"email":"bob@example.com","password":"demo-bob","client":"mobile"}' -o phone.json
expect 200 '"accessToken":' '"refreshToken":' '"expiresIn":900' '!set-cookie'
ACCESS=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' phone.json)
FIRST=$(sed -E 's/.*"refreshToken":"([^"]+)".*/\1/' phone.json)

step "he pays at once, which wants a login of late"
curl "$GATEWAY/banking" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"bob"'

step "the services hear who it is, and nothing that the app makes up"
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"bob"' '"organizationId":"org-2"'
curl "$GATEWAY/orders/echo" -H "Authorization: Bearer $ACCESS" -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["bob"]' '"x-user-roles":["[\"member\"]"]' '!root' '!"authorization"'

step "the access token says nothing about Bob but his id"
cut -d. -f2 <<<"$ACCESS" | tr '_-' '/+' | base64 -d 2>/dev/null >claims.json || true
if ! grep -q '"sub":"bob"' claims.json || grep -q 'example.com\|member\|org-2' claims.json; then
	echo "  NOT OK  the claims are others" >&2
	exit 1
fi

step "he becomes an administrator; the token that he has counts for it at the next request"
curl "$GATEWAY/users/admin/stats" -H "Authorization: Bearer $ACCESS"
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/admin/no-such-page" -H "Authorization: Bearer $ACCESS"
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/auth/users/bob/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"roles":["member","admin"]}'
expect 200 '"changed":'
curl "$GATEWAY/users/admin/stats" -H "Authorization: Bearer $ACCESS"
expect 200 '"usersByOrganization"'

step "the app renews its tokens"
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$FIRST\"}" -o renewed.json
expect 200 '"accessToken":' '"refreshToken":'
ACCESS=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' renewed.json)
SECOND=$(sed -E 's/.*"refreshToken":"([^"]+)".*/\1/' renewed.json)

step "the answer got lost; asked again at once, it is the same one"
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$FIRST\"}"
expect 200 "\"refreshToken\":\"$SECOND\""
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"bob"'

step "to renew is not to log in: what wants a login of late refuses"
sleep 5
curl "$GATEWAY/banking" -H "Authorization: Bearer $ACCESS"
expect 401 '{"error":"Invalid token"}'
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"bob"'

step "somebody copied the first refresh token and uses it later: all of that login is revoked"
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$FIRST\"}"
expect 401 '{"error":"Invalid refresh token"}'
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$SECOND\"}"
expect 401 '{"error":"Invalid refresh token"}'
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 401 '{"error":"Invalid token"}' 'www-authenticate: Bearer error="invalid_token"'

step "a refresh token that nobody gave out, and none"
curl "$GATEWAY/auth/refresh" --json '{"refreshToken":"guessed.0.AAAA.AAAA"}'
expect 401 '{"error":"Invalid refresh token"}'
curl "$GATEWAY/auth/refresh" -X POST
expect 401 '{"error":"No refresh token"}'

step "Bob logs in again, and out: both tokens are dead at once"
curl "$GATEWAY/auth/token" --json '{"email":"bob@example.com","password":"demo-bob","client":"mobile"}' -o phone.json
expect 200
ACCESS=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' phone.json)
REFRESH=$(sed -E 's/.*"refreshToken":"([^"]+)".*/\1/' phone.json)
curl "$GATEWAY/auth/logout" -H "Authorization: Bearer $ACCESS" --json "{\"refreshToken\":\"$REFRESH\"}"
expect 200 '{"message":"Logged out successfully"}'
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 401 '{"error":"Invalid token"}'
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$REFRESH\"}"
expect 401 '{"error":"Invalid refresh token"}'

step "a lost phone: everything of Carol's is revoked from elsewhere"
curl "$GATEWAY/auth/token" --json '{"email":"carol@example.com","password":"demo-carol","client":"mobile"}' -o carol.json
expect 200
CAROL=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' carol.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $CAROL"
expect 200 '"userId":"carol"'
curl "$GATEWAY/auth/revoke-all-sessions" -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"userId":"carol"}'
expect 200 '"message":"Revoked'
curl "$GATEWAY/orders" -H "Authorization: Bearer $CAROL"
expect 401 '{"error":"Invalid token"}'

step "locked out, she gets no new tokens"
curl "$GATEWAY/auth/users/carol/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":true}'
expect 200
curl "$GATEWAY/auth/token" --json '{"email":"carol@example.com","password":"demo-carol","client":"mobile"}'
expect 401 '{"error":"Invalid credentials"}'

step "a changed token"
curl "$GATEWAY/orders" -H "Authorization: Bearer ${ACCESS%?????}AAAAA"
expect 401 '{"error":"Invalid token"}'

step "Redis hangs: 503, and the app keeps its tokens"
curl "$GATEWAY/auth/token" --json '{"email":"alice@example.com","password":"demo-alice","client":"mobile"}' -o alice.json
expect 200
ALICE=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' alice.json)
REFRESH=$(sed -E 's/.*"refreshToken":"([^"]+)".*/\1/' alice.json)
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -H "Authorization: Bearer $ALICE"
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$REFRESH\"}"
expect 503 '{"error":"Authentication unavailable"}'
kill -CONT "$REDIS_PID"
curl "$GATEWAY/auth/refresh" --json "{\"refreshToken\":\"$REFRESH\"}"
expect_soon 200 '"refreshToken":'
curl "$GATEWAY/orders" -H "Authorization: Bearer $ALICE"
expect_soon 200 '"userId":"alice"'
