#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/internal-services/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "Bob logs in once, for every service"
curl "$GATEWAY/auth/login" -c bob.txt --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 200 '"userId":"bob"' HttpOnly SameSite=Strict

step "the user service learns who it is"
curl "$GATEWAY/users/me" -b bob.txt
expect 200 '"userId":"bob"'

step "the order service does, too"
curl "$GATEWAY/orders" -b bob.txt
expect 200 '"organizationId":"org-2"' ord-2001

step "nobody is refused, but where a page is public"
curl "$GATEWAY/orders"
expect 401 '{"error":"No token provided"}'
curl "$GATEWAY/public/hello"
expect 200 '"user":null'

step "a forged cookie never reaches Redis"
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
expect 401 '{"error":"Invalid session"}'

step "Bob says that he is root; services hear what the gate knows, and see no cookie"
curl "$GATEWAY/users/echo" -b bob.txt -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["bob"]' '"x-user-roles":["[\"member\"]"]' '!root' '!"cookie"'

step "another spelling is refused by the gateway"
curl "$GATEWAY/users/echo" -b bob.txt -H 'x_user_id: root'
expect 400

step "Bob is no administrator, and does not learn which pages those have: the gate refuses, not the service"
curl "$GATEWAY/users/admin/stats" -b bob.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/admin/no-such-page" -b bob.txt
expect 403 '{"error":"Forbidden"}'

step "he becomes one; the same cookie counts for it at the next request"
curl "$GATEWAY/auth/users/bob/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"roles":["member","admin"]}'
expect 200 '"changed":'
curl "$GATEWAY/users/admin/stats" -b bob.txt
expect 200 '"usersByOrganization"'
curl "$GATEWAY/users/admin/no-such-page" -b bob.txt
expect 404 '{"error":"Not found"}'

step "no other spelling of the path leads around it"
curl "$GATEWAY/users/admin/stats" -c carol.txt
expect 401 '{"error":"No token provided"}'
curl "$GATEWAY/auth/login" -c carol.txt --json '{"email":"carol@example.com","password":"demo-carol"}'
expect 200 '"userId":"carol"'
for path in /users/admin/no-such-page /users/%61dmin/no-such-page /public/../users/admin/no-such-page //users/admin/no-such-page; do
	curl "$GATEWAY$path" -b carol.txt --path-as-is
	expect 403 '{"error":"Forbidden"}'
done
curl "$GATEWAY/users/ADMIN/stats" -b carol.txt
expect 404 '{"error":"Not found"}'
curl "$GATEWAY/users/admin%2fstats" -b carol.txt
expect 400 '{"error":"Bad request"}'

step "Bob works in his other organization"
curl "$GATEWAY/auth/session" -X PATCH -b bob.txt --json '{"organizationId":"org-1"}'
expect 200 '"organizationId":"org-1"'
curl "$GATEWAY/orders" -b bob.txt
expect 200 ord-1001 '!ord-2001'

step "a program inside calls with its key, which the service does not see"
curl "$GATEWAY/orders" -H "x-internal-api-key: $BILLING_KEY"
expect 200 '"userId":"service:billing"'
curl "$GATEWAY/orders/echo" -H "x-internal-api-key: $BILLING_KEY"
expect 200 '"x-user-roles":["[]"]' '!x-internal-api-key'

step "a wrong key, and one that is not for this, which another one is"
curl "$GATEWAY/orders" -H 'x-internal-api-key: guessed'
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/internal/no/such/page" -H "x-internal-api-key: $BILLING_KEY"
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/internal/no/such/page" -H "x-internal-api-key: $BACKOFFICE_KEY"
expect 404 '{"error":"Not found"}'

step "a user's cookie opens nothing that is for keys"
curl "$GATEWAY/users/internal/bob" -b bob.txt
expect 401 '{"error":"No token provided"}'

step "a key opens nothing that is for people"
curl "$GATEWAY/users/me" -H "x-internal-api-key: $BILLING_KEY"
expect 401 '{"error":"No token provided"}'

step "everything of Bob's is revoked, and the next request is refused"
curl "$GATEWAY/auth/revoke-all-sessions" -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"userId":"bob"}'
expect 200 '{"message":"Revoked 1 sessions"}'
curl "$GATEWAY/orders" -b bob.txt
expect 401 '{"error":"Invalid session"}'

step "Redis hangs: nobody is told to log in again"
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -b carol.txt
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after '!set-cookie'

step "keys and public pages need no Redis"
curl "$GATEWAY/orders" -H "x-internal-api-key: $BILLING_KEY"
expect 200 '"userId":"service:billing"'
curl "$GATEWAY/public/hello"
expect 200 '"user":null'

step "Redis is back, and so is Carol's session"
kill -CONT "$REDIS_PID"
curl "$GATEWAY/orders" -b carol.txt
expect_soon 200 '"userId":"carol"'
