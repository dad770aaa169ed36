#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/high-security/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "Bob logs in and transfers"
curl "$GATEWAY/auth/login" -c bob.txt --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 200 'set-cookie: __Host-sessionId=' Secure HttpOnly SameSite=Strict Path=/
curl "$GATEWAY/banking" -b bob.txt
expect 200 '"userId":"bob"'

step "six seconds later his login is no longer of late: the same cookie reads, and transfers nothing"
for i in 1 2 3 4; do sleep 2; curl "$GATEWAY/orders" -b bob.txt; done
expect 200 '"userId":"bob"'
curl "$GATEWAY/banking" -b bob.txt
expect 401 '{"error":"Invalid session"}'

step "he logs in again and may; the session that he had is gone"
cp bob.txt old.txt
curl "$GATEWAY/auth/login" -b bob.txt -c bob.txt --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 200
curl "$GATEWAY/banking" -b bob.txt
expect 200 '"userId":"bob"'
curl "$GATEWAY/orders" -b old.txt
expect 401 '{"error":"Invalid session"}'

step "a token opens nothing here, nor a key, nor a forged cookie"
curl "$GATEWAY/orders" -H 'Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.'
expect 401 '{"error":"No token provided"}'
curl "$GATEWAY/orders" -H "x-internal-api-key: $BACKOFFICE_KEY"
expect 401 '{"error":"No token provided"}'
curl "$GATEWAY/orders" -H 'Cookie: __Host-sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
expect 401 '{"error":"Invalid session"}'

step "the services hear nothing that the browser makes up, and see no cookie of the gate's"
curl "$GATEWAY/orders/echo" -b bob.txt -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["bob"]' '"x-user-roles":["[\"member\"]"]' '!root' '!"cookie"'

step "another site's page transfers nothing"
curl "$GATEWAY/banking" -X POST -b bob.txt -H 'Origin: https://evil.example' -H 'Sec-Fetch-Site: cross-site'
expect 403 '{"error":"Forbidden"}'

step "transfers are counted"
curl "$GATEWAY/auth/login" -c carol.txt --json '{"email":"carol@example.com","password":"demo-carol"}'
expect 200
for i in {1..6}; do curl "$GATEWAY/banking" -b carol.txt; done
expect 429 '{"error":"Too many requests"}' retry-after

step "Carol's rights change while she works"
curl "$GATEWAY/users/admin/stats" -b carol.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/admin/no-such-page" -b carol.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/auth/users/carol/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"roles":["admin"]}'
expect 200 '"changed":'
curl "$GATEWAY/users/admin/stats" -b carol.txt
expect 200 '"usersByOrganization"'

step "she is locked out at once, wherever she is logged in"
curl "$GATEWAY/auth/users/carol/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":true}'
expect 200 '"changed":'
curl "$GATEWAY/orders" -b carol.txt
expect 401 '{"error":"Invalid session"}'
curl "$GATEWAY/auth/login" --json '{"email":"carol@example.com","password":"demo-carol"}'
expect 401 '{"error":"Invalid credentials"}'

step "Bob gets himself a coffee: the session is over, for every policy"
sleep 6
curl "$GATEWAY/orders" -b bob.txt
expect 401 '{"error":"Invalid session"}'

step "his account is taken over; the replica of Redis hangs while all of his is revoked: it counts, and nobody says that it is safe"
curl "$GATEWAY/auth/login" -c bob.txt --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 200
kill -STOP "$REPLICA_PID"
curl "$GATEWAY/auth/revoke-all-sessions" -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"userId":"bob"}'
expect 503 '{"error":"Not confirmed"}'
curl "$GATEWAY/orders" -b bob.txt
expect 401 '{"error":"Invalid session"}'
kill -CONT "$REPLICA_PID"
curl "$GATEWAY/auth/revoke-all-sessions" -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"userId":"bob"}'
expect_soon 200 '"message":"Revoked'

step "Redis hangs: nothing is served from memory, nobody is told to log in again"
curl "$GATEWAY/auth/login" -c alice.txt --json '{"email":"alice@example.com","password":"demo-alice"}'
expect 200
curl "$GATEWAY/orders" -b alice.txt
expect 200 '"userId":"alice"'
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -b alice.txt
expect 503 '{"error":"Authentication unavailable"}' retry-after '!set-cookie'
kill -CONT "$REDIS_PID"
curl "$GATEWAY/orders" -b alice.txt
expect_soon 200 '"userId":"alice"'

step "Redis is gone for good"
kill -KILL "$REDIS_PID"
curl "$GATEWAY/banking" -b alice.txt
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after '!set-cookie'
curl "$GATEWAY/auth/login" --json '{"email":"alice@example.com","password":"demo-alice"}'
expect 503 '{"error":"Authentication unavailable"}'
