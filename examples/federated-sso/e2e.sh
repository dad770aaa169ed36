#!/usr/bin/env bash
# Tries the policy of this directory as README.md tells it:
#
#   examples/federated-sso/e2e.sh
source "$(dirname "$0")/../lib.sh"

step "Dora opens a link, and is sent to her company's provider to log in"
curl "$GATEWAY/orders" -H 'Sec-Fetch-Mode: navigate' -H 'Sec-Fetch-Dest: document'
expect 302 'location: /auth/oidc/corp/login?return_to=%2Forders'
curl "$GATEWAY/auth/oidc/corp/login?return_to=/orders" -L -c dora.txt -b dora.txt -o login.html
expect 200 "action=\"$CORP_URL/interaction/"

step "she types name and password there, agrees, and is back at the link"
curl "$(sed -nE 's/.*action="([^"]+)".*/\1/p' login.html)" -L -c dora.txt -b dora.txt -d prompt=login -d login=dora -d password=any -o consent.html
expect 200 'name="prompt" value="consent"'
curl "$(sed -nE 's/.*action="([^"]+)".*/\1/p' consent.html)" -L -c dora.txt -b dora.txt -d prompt=consent -o orders.json
expect 200 '"userId":"corp:dora"' '"organizationId":"org-1"' HttpOnly SameSite=Strict

step "her session is one like any other: services hear who it is, and nothing that she makes up"
curl "$GATEWAY/users/echo" -b dora.txt -H 'x-user-id: root' -H 'x-user-roles: ["admin"]'
expect 200 '"x-user-id":["corp:dora"]' '"x-user-email":["dora@example.com"]' '"x-user-roles":["[\"member\"]"]' '!root'

step "she works in her other organization"
curl "$GATEWAY/auth/session" -X PATCH -b dora.txt --json '{"organizationId":"org-2"}'
expect 200 '"organizationId":"org-2"'
curl "$GATEWAY/orders" -b dora.txt
expect 200 ord-2001

step "she becomes an administrator here, whatever the provider says; it counts at the next request"
curl "$GATEWAY/users/admin/stats" -b dora.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/users/admin/no-such-page" -b dora.txt
expect 403 '{"error":"Forbidden"}'
curl "$GATEWAY/auth/users/corp:dora/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"roles":["member","admin"]}'
expect 200 '"changed":'
curl "$GATEWAY/users/admin/stats" -b dora.txt
expect 200 '"usersByOrganization"'

step "a callback that nobody began, and a link that would lead elsewhere"
curl "$GATEWAY/auth/oidc/corp/callback?code=guessed&state=guessed"
expect 400 '{"error":"Bad request"}'
curl "$GATEWAY/auth/oidc/corp/login?return_to=//evil.example"
expect 400 '{"error":"Bad request"}'

step "a program of the same company comes with a token of its provider"
curl "$CORP_URL/token" -u "reports:$REPORTS_SECRET" -d grant_type=client_credentials -d resource=https://gateway.example.com -o reports.json
expect 200
REPORTS=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' reports.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $REPORTS"
expect 200 '"userId":"corp:reports"' '"roles":["admin"]' '"organizationId":"org-1"'
curl "$GATEWAY/users/admin/stats" -H "Authorization: Bearer $REPORTS"
expect 200 '"usersByOrganization"'

step "the subsidiary's tokens have their roles elsewhere, and are read all the same"
curl "$SUBSIDIARY_URL/token" -u "stock:$STOCK_SECRET" -d grant_type=client_credentials -d resource=https://gateway.example.com -o stock.json
expect 200
STOCK=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' stock.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $STOCK"
expect 200 '"userId":"subsidiary:stock"' '"roles":["admin"]' '"organizationId":"org-2"'

step "an administrator by the subsidiary's word is none here"
curl "$GATEWAY/users/admin/stats" -H "Authorization: Bearer $STOCK"
expect 403 '{"error":"Forbidden"}'

step "the subsidiary names one of its programs like Dora: it is not Dora"
curl "$SUBSIDIARY_URL/token" -d client_id=corp:dora -d "client_secret=$STOCK_SECRET" -d grant_type=client_credentials -d resource=https://gateway.example.com -o twin.json
expect 200
TWIN=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' twin.json)
curl "$GATEWAY/users/me" -H "Authorization: Bearer $TWIN"
expect 200 '"userId":"subsidiary:corp:dora"' '"roles":[]'

step "a token that the company's provider made for somebody else"
curl "$CORP_URL/token" -u "reports:$REPORTS_SECRET" -d grant_type=client_credentials -d resource=https://elsewhere.example.com -o elsewhere.json
expect 200
ELSEWHERE=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' elsewhere.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $ELSEWHERE"
expect 401 '{"error":"Invalid token"}' 'www-authenticate: Bearer error="invalid_token"'

step "a token of a provider that nobody here knows"
curl "$STRANGER_URL/token" -u "reports:$STRANGER_SECRET" -d grant_type=client_credentials -d resource=https://gateway.example.com -o stranger.json
expect 200
STRANGER=$(sed -E 's/.*"access_token":"([^"]+)".*/\1/' stranger.json)
curl "$GATEWAY/orders" -H "Authorization: Bearer $STRANGER"
expect 401 '{"error":"Invalid token"}'

step "a program is locked out here, though its provider goes on giving it tokens"
curl "$GATEWAY/auth/users/corp:reports/sessions" -X PATCH -H "x-internal-api-key: $BACKOFFICE_KEY" --json '{"disabled":true}'
expect 200
curl "$GATEWAY/orders" -H "Authorization: Bearer $REPORTS"
expect 401 '{"error":"Invalid token"}'

step "Redis hangs: 503, nobody is sent to log in, and forged cookies are forged"
kill -STOP "$REDIS_PID"
curl "$GATEWAY/orders" -b dora.txt
expect_soon 503 '{"error":"Authentication unavailable"}' retry-after '!set-cookie'
curl "$GATEWAY/orders" -H "Authorization: Bearer $STOCK"
expect 503 '{"error":"Authentication unavailable"}'
curl "$GATEWAY/orders" -H 'Cookie: sessionId=s%3Aguessed.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
expect 401 '{"error":"Invalid session"}'
kill -CONT "$REDIS_PID"
curl "$GATEWAY/orders" -b dora.txt
expect_soon 200 '"userId":"corp:dora"'

step "Dora logs out at her company, and is out here"
curl "$CORP_URL/session/end" -b dora.txt -c dora.txt -o end.html
expect 200 'name="xsrf"'
curl "$CORP_URL/session/end/confirm" -b dora.txt -c dora.txt -d "xsrf=$(sed -nE 's/.*name="xsrf" value="([^"]+)".*/\1/p' end.html)" -d logout=yes
curl "$GATEWAY/orders" -b dora.txt
expect_soon 401 '{"error":"Invalid session"}'
