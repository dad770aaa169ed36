#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/third-party-api/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "Acme's program gets a token for the orders API, to read"
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -d scope=orders:read -o acme.json
expect 200
TOKEN=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' acme.json)

step "it reads; the service hears who it is, and sees no token"
curl "$GATEWAY/orders" -H "Authorization: Bearer $TOKEN"
expect 200 '"userId":"partner:acme"'
curl "$GATEWAY/orders/echo" -H "Authorization: Bearer $TOKEN" -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["partner:acme"]' '"x-user-roles":["[]"]' '!root' '!"authorization"'

step "it does not write"
curl "$GATEWAY/orders/echo" -X POST -H "Authorization: Bearer $TOKEN"
expect 403 '{"error":"Forbidden"}' 'www-authenticate: Bearer error="insufficient_scope"'

step "with the other scope it does"
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -d scope='orders:read orders:write' -o writer.json
expect 200
WRITER=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' writer.json)
curl "$GATEWAY/orders/echo" -X POST -H "Authorization: Bearer $WRITER"
expect 200 '"method":"POST"'

step "who may only write does not read, and who may do nothing does nothing"
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -d scope=orders:write -o blind.json
expect 200
BLIND=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' blind.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $BLIND"
expect 403 '{"error":"Forbidden"}'
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -o nothing.json
expect 200 '!"scope"'
NOTHING=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' nothing.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $NOTHING"
expect 403 '{"error":"Forbidden"}'

step "a token for another API of ours opens this one not, though it has a scope of the same name, and the other way round"
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/users -d scope='users:read orders:read' -o users.json
expect 200
USERS=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' users.json)
curl "$GATEWAY/users/me" -H "Authorization: Bearer $USERS"
expect 200 '"userId":"partner:acme"'
curl "$GATEWAY/orders" -H "Authorization: Bearer $USERS"
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/me" -H "Authorization: Bearer $TOKEN"
expect 403 '{"error":"Forbidden"}'

step "a token that Acme got for somebody else's API is none here"
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://elsewhere.example.com -d scope=orders:read -o elsewhere.json
expect 200
ELSEWHERE=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' elsewhere.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $ELSEWHERE"
expect 401 '{"error":"Invalid token"}' 'www-authenticate: Bearer error="invalid_token"'

step "nor is one without a signature, of another issuer, or changed on its way"
NONE="$(printf '{"alg":"none"}' | base64 | tr -d '=\n').$(cut -d. -f2 <<<"$TOKEN")."
curl "$GATEWAY/orders" -H "Authorization: Bearer $NONE"
expect 401 '{"error":"Invalid token"}'
STRANGER="$(cut -d. -f1 <<<"$TOKEN").$(printf '{"iss":"https://evil.example","aud":"https://api.example.com/orders","exp":9999999999,"client_id":"acme","scope":"orders:read"}' | base64 | tr -d '=\n').$(cut -d. -f3 <<<"$TOKEN")"
curl "$GATEWAY/orders" -H "Authorization: Bearer $STRANGER"
expect 401 '{"error":"Invalid token"}'
CHANGED="$(cut -d. -f1,2 <<<"$WRITER").$(cut -d. -f3 <<<"$TOKEN")"
curl "$GATEWAY/orders" -H "Authorization: Bearer $CHANGED"
expect 401 '{"error":"Invalid token"}'

step "no token at all, a cookie, a key"
curl "$GATEWAY/orders"
expect 401 '{"error":"No token provided"}' 'www-authenticate: Bearer'
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' -H "x-internal-api-key: $BACKOFFICE_KEY"
expect 401 '{"error":"No token provided"}'

step "Acme reports a leak: that token is dead at the next request, the others live"
curl "$GATEWAY/auth/revoke" -d "token=$TOKEN"
expect 200
curl "$GATEWAY/orders" -H "Authorization: Bearer $TOKEN"
expect 401 '{"error":"Invalid token"}'
curl "$GATEWAY/orders" -H "Authorization: Bearer $WRITER"
expect 200 '"userId":"partner:acme"'

step "Globex asks too often, and is told when to come back; Acme is served"
curl "$PARTNERS_URL/token" -u "globex:$GLOBEX_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -d scope=orders:read -o globex.json
expect 200
GLOBEX=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' globex.json)
for i in {1..26}; do curl "$GATEWAY/orders" -H "Authorization: Bearer $GLOBEX"; done
expect 429 '{"error":"Too many requests"}' retry-after
curl "$GATEWAY/orders" -H "Authorization: Bearer $WRITER"
expect 200 '"userId":"partner:acme"'

step "Acme does not pay: locked out, new tokens included, and let in again"
curl "$GATEWAY/auth/users/partner:acme/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":true}'
expect 200 '"changed":'
curl "$GATEWAY/orders" -H "Authorization: Bearer $WRITER"
expect 401 '{"error":"Invalid token"}'
curl "$PARTNERS_URL/token" -u "acme:$ACME_SECRET" -d grant_type=client_credentials -d resource=https://api.example.com/orders -d scope=orders:read -o again.json
AGAIN=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' again.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $AGAIN"
expect 401 '{"error":"Invalid token"}'
curl "$GATEWAY/auth/users/partner:acme/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":false}'
expect 200 '"changed":'
curl "$GATEWAY/orders" -H "Authorization: Bearer $AGAIN"
expect 200 '"userId":"partner:acme"'

step "Redis hangs: 503, and no token is called invalid, but forged ones are"
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -H "Authorization: Bearer $AGAIN"
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after
curl "$GATEWAY/orders" -H "Authorization: Bearer $CHANGED"
expect 401 '{"error":"Invalid token"}'
kill -CONT "$REDIS_PID"
curl "$GATEWAY/orders" -H "Authorization: Bearer $AGAIN"
expect_soon 200 '"userId":"partner:acme"'
