#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/single-page-app/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "a link is opened in a browser: the login page, and back from there"
curl "$GATEWAY/orders?page=2" -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Dest: document' -H 'Accept: text/html'
expect 302 'location: /?return_to=%2Forders%3Fpage%3D2'

step "a script fetches the same, or sends something: JSON"
curl "$GATEWAY/orders" -H 'Sec-Fetch-Mode: cors' -H 'Sec-Fetch-Dest: empty' -H 'Sec-Fetch-Site: same-origin'
expect 401 '{"error":"No token provided"}' '!location'
curl "$GATEWAY/orders/echo" -X POST -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Dest: document' -H 'Accept: text/html'
expect 401 '{"error":"No token provided"}' '!location'

step "with a cookie: Bob logs in"
curl "$GATEWAY/auth/login" -c bob.txt -H "Origin: $GATEWAY" -H 'Sec-Fetch-Site: same-origin' --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 200 '"userId":"bob"' HttpOnly Secure SameSite=Strict

step "his page reads and writes"
curl "$GATEWAY/orders" -b bob.txt
expect 200 '"userId":"bob"'
curl "$GATEWAY/orders/echo" -X POST -b bob.txt -H "Origin: $GATEWAY" -H 'Sec-Fetch-Site: same-origin'
expect 200 '"method":"POST"' '"x-user-id":["bob"]'

step "another site's page sends the same with his cookie"
curl "$GATEWAY/orders/echo" -X POST -b bob.txt -H 'Origin: https://evil.example' -H 'Sec-Fetch-Site: cross-site'
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/orders/echo" -X POST -b bob.txt -H 'Origin: https://evil.example'
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/auth/logout" -X POST -b bob.txt -H 'Origin: https://evil.example' -H 'Sec-Fetch-Site: cross-site'
expect 403 '{"error":"Forbidden"}'

step "the services hear nothing that the page makes up, and see no cookie of the gate's"
curl "$GATEWAY/orders/echo" -b bob.txt -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["bob"]' '"x-user-roles":["[\"member\"]"]' '!root' '!"cookie"'

step "a forged cookie, by a script and in the address bar"
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
expect 401 '{"error":"Invalid session"}'
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Dest: document'
expect 302 'location: /?return_to=%2Forders'

step "Bob becomes an administrator; his page notices at the next request"
curl "$GATEWAY/users/admin/stats" -b bob.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/admin/no-such-page" -b bob.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/auth/users/bob/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"roles":["member","admin"]}'
expect 200 '"changed":'
curl "$GATEWAY/users/admin/stats" -b bob.txt
expect 200 '"usersByOrganization"'

step "without a cookie: Carol's page keeps the access token in its memory, the refresh token is where no script reads it"
curl "$GATEWAY/auth/token" -c carol.txt -H "Origin: $GATEWAY" -H 'Sec-Fetch-Site: same-origin' --json '{"email":"carol@example.com","password":"demo-carol"}' -o carol.json
expect 200 '"accessToken":' '!"refreshToken"' 'refreshToken=' 'Path=/auth' HttpOnly SameSite=Strict
ACCESS=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' carol.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"carol"'

step "the page is loaded again, its memory is empty"
curl "$GATEWAY/auth/refresh" -X POST -b carol.txt -c carol.txt -H "Origin: $GATEWAY" -H 'Sec-Fetch-Site: same-origin' -o carol.json
expect 200 '"accessToken":'
ACCESS=$(sed -E 's/.*"accessToken":"([^"]+)".*/\1/' carol.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"carol"'

step "another site's page does not get one"
curl "$GATEWAY/auth/refresh" -X POST -b carol.txt -H 'Origin: https://evil.example' -H 'Sec-Fetch-Site: cross-site'
expect 403 '{"error":"Forbidden"}'

step "with both, the cookie decides: it stands first in the policy"
curl "$GATEWAY/orders" -b bob.txt -H "Authorization: Bearer $ACCESS"
expect 200 '"userId":"bob"'
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' -H "Authorization: Bearer $ACCESS"
expect 401 '{"error":"Invalid session"}'

step "Carol logs out: both of her tokens are dead, and the cookie is gone"
curl "$GATEWAY/auth/logout" -X POST -b carol.txt -c carol.txt -H "Authorization: Bearer $ACCESS" -H "Origin: $GATEWAY" -H 'Sec-Fetch-Site: same-origin'
expect 200 '{"message":"Logged out successfully"}' 'refreshToken=;'
curl "$GATEWAY/orders" -H "Authorization: Bearer $ACCESS"
expect 401 '{"error":"Invalid token"}'
curl "$GATEWAY/auth/refresh" -X POST -b carol.txt
expect 401 '{"error":"No refresh token"}'

step "Redis hangs: 503 for scripts and in the address bar, and Bob stays logged in"
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -b bob.txt
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after '!set-cookie'
curl "$GATEWAY/orders" -b bob.txt -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Dest: document'
expect 503 '{"error":"Authentication unavailable"}' '!location'
kill -CONT "$REDIS_PID"
curl "$GATEWAY/orders" -b bob.txt
expect_soon 200 '"userId":"bob"'

step "Bob is locked out while he works"
curl "$GATEWAY/auth/users/bob/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":true}'
expect_soon 200 '"changed":'
curl "$GATEWAY/orders" -b bob.txt
expect 401 '{"error":"Invalid session"}'
curl "$GATEWAY/auth/login" --json '{"email":"bob@example.com","password":"demo-bob"}'
expect 401 '{"error":"Invalid credentials"}'
