package config

import (
	"flag"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/broken.golden anew")

// hash is the hash of some key.
var hash = strings.Repeat("0a", 32)

// withLogin is two lines that logins need.
const withLogin = "server: {http: {public_url: 'https://gateway.example.com'}}\nsessions: {secrets: [0123456789abcdef]}\n"

// withSession is a line that sessions need.
const withSession = "sessions: {secrets: [0123456789abcdef]}\n"

// Each configuration has exactly the problems listed. A problem is
// "line:column key | fragment of the message"; "warning" in front makes it a
// warning.
var broken = []struct {
	name, text string
	want       []string
}{
	// Not YAML, or not the YAML of a configuration.
	{"unclosed list", "issuers: [a\nlog: {}\n", []string{"2:4  | not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that begins on line 1"}},
	{"tab", "log:\n\tlevel: info\n", []string{"2:1  | use spaces: YAML is not indented with tabs"}},
	{"bare variable in braces", "tokens: {issuer: ${ISSUER}}", []string{`1:19  | inside [ ] and { } write "${NAME}" in quotes`}},
	{"not UTF-8", "log: {}\nusers: \xff", []string{"2:8  | not UTF-8"}},
	{"UTF-16", "\xff\xfel\x00o\x00g\x00", []string{"1:1  | not UTF-8"}},
	{"control character", "log: {}\nusers: é\x01", []string{"2:9  | control character U+0001"}},
	{"unknown anchor", "log: *l", []string{"1:6  | refers to an anchor, and there is none of this name; put a value that is text in quotes"}},
	{"secret that looks like an alias", "sessions: {secrets: [*my-secret-api-key]}", []string{"1:22  | refers to an anchor"}},
	{"two documents", "log: {}\n---\nlog: {}\n", []string{"2:1  | a second document begins here"}},
	{"second document is not YAML", "log: {}\n---\nlog: [\n", []string{"4:1  | not valid YAML"}},
	{"top level is a list", "- a\n", []string{"1:1  | expected a mapping of keys to values, found a list"}},
	{"top level is text", "hello", []string{"1:1  | expected a mapping of keys to values, found text"}},
	{"tag", "default_policy: !!str x", []string{"1:17 default_policy | YAML tags are not used here"}},
	{"unspecific tag", "default_policy: ! x", []string{"1:17 default_policy | YAML tags are not used here"}},
	{"key is a list", "? [a]\n: b", []string{"1:3  | expected a name as the key"}},
	{"key is null", "log: {~: x}", []string{"1:7 log | expected a name as the key"}},
	{"second merge key", "log: {<<: {}, <<: {}}", []string{"1:15 log | a second merge key"}},
	{"merge of text", "log: {<<: x}", []string{"1:11 log | a merge key takes a mapping or a list of mappings, as in <<: *defaults; here is text"}},
	{"merge of texts", "log: {<<: [x]}", []string{"1:11 log | a merge key takes mappings, as in <<: [*a, *b]; here is text"}},
	{"mistake in a merged mapping", "server:\n  check: &l {lisen: ':1'}\n  ops:\n    <<: *l\n", []string{
		"2:14 server.check.lisen | did you mean listen?",
		"2:14 server.ops.lisen | did you mean listen?",
	}},

	// Keys.
	{"unknown key", "server: {}\nfoo: 1\n", []string{"2:1 foo | unknown key; expected server, redis, sessions"}},
	{"misspelt key", "sesions: {}\n", []string{"1:1 sesions | unknown key; did you mean sessions?"}},
	{"swapped letters", "log: {fromat: json}", []string{"1:7 log.fromat | did you mean format?"}},
	{"hyphen for underscore", "default-policy: x\nlog: {}", []string{"1:1 default-policy | did you mean default_policy?"}},
	{"unknown key far down", "issuers:\n  - issuer: a\n    jwks_file: jwks.json\n    audiences: [x]\n    claims: {sub: x}\n", []string{"5:14 issuers[0].claims.sub | unknown key; expected user_id, email, roles or org_id"}},
	{"key of no line", "\"a\\nb\": 1", []string{`1:1 a\nb | unknown key`}},
	{"key given twice", "log:\n  level: info\n  level: warn\n", []string{"3:3 log.level | given twice, first on line 2"}},
	{"policy given twice", "policies:\n  p: {anonymous: true}\n  p: {anonymous: true}\n", []string{"3:3 policies.p | given twice, first on line 2"}},
	{"misspelt section is not reported again by those who need it", "polices: {p: {anonymous: true}}\ndefault_policy: p\n", []string{"1:1 polices | did you mean policies?"}},
	{"broken secrets are not reported again by those who need them", "sessions: {secrets: 5}\npolicies: {p: {credentials: [session]}}\n", []string{"1:21 sessions.secrets | expected a list, as in [a, b], found a number"}},

	// Types.
	{"number for text", "default_policy: 12", []string{"1:17 default_policy | expected text, found a number; put it in quotes"}},
	{"boolean for text", "default_policy: true", []string{"1:17 default_policy | expected text, found true or false; put it in quotes"}},
	{"list for text", "default_policy: [a]", []string{"1:17 default_policy | expected text, found a list"}},
	{"number for a secret", "sessions: {secrets: [123456789]}", []string{"1:22 sessions.secrets[0] | expected text, found a number; put it in quotes"}},
	{"text for a mapping", "server: {check: '127.0.0.1:1'}", []string{"1:17 server.check | expected a mapping of keys to values, found text"}},
	{"list for a map", "policies: [a]", []string{"1:11 policies | expected a mapping of names to entries, found a list"}},
	{"text for a list", "sessions: {trusted_origins: https://a.example}", []string{"1:29 sessions.trusted_origins | expected a list, as in [a, b], found text"}},
	{"yes for true", "sessions: {rolling: yes}", []string{`1:21 sessions.rolling | expected true or false, found "yes"`}},
	{"list for a boolean", "sessions: {rolling: []}", []string{"1:21 sessions.rolling | expected true or false, found a list"}},
	{"text for a number", "server: {http: {trusted_hops: '1'}}", []string{`1:31 server.http.trusted_hops | expected a whole number in plain digits, found "1"`}},
	{"octal", "server: {http: {trusted_hops: 010}}", []string{`1:31 server.http.trusted_hops | expected a whole number in plain digits, found "010"`}},
	{"fraction", "server: {http: {trusted_hops: 1.5}}", []string{`1:31 server.http.trusted_hops | found "1.5"`}},
	{"variable for a number", `server: {http: {trusted_hops: "${ISSUER}"}}`, []string{`1:31 server.http.trusted_hops | ${…} is replaced in text only`}},
	{"huge number", "redis: {cache: {max_entries: 99999999999999999999}}", []string{"1:30 redis.cache.max_entries | expected a whole number"}},
	{"number too small", "server: {http: {trusted_hops: -1}}", []string{"1:31 server.http.trusted_hops | -1 is too little; expected at least 0"}},
	{"number too large", "redis: {confirm_replicas: 65}", []string{"1:27 redis.confirm_replicas | 65 is too much; expected at most 64"}},
	{"ratio above one", "log: {sample_allowed: 5}", []string{`1:23 log.sample_allowed | expected a share from 0 for none to 1 for all, such as 0.01 for one in a hundred, found "5"`}},
	{"ratio below zero", "log: {sample_allowed: -0.1}", []string{`1:23 log.sample_allowed | found "-0.1"`}},
	{"text for a ratio", "log: {sample_allowed: '0.5'}", []string{`1:23 log.sample_allowed | found "0.5"`}},
	{"odd number for a ratio", "log: {sample_allowed: .5}", []string{`1:23 log.sample_allowed | found ".5"`}},
	{"no number for a ratio", "log: {sample_allowed: .nan}", []string{`1:23 log.sample_allowed | found ".nan"`}},
	{"list for a ratio", "log: {sample_allowed: [1]}", []string{`1:23 log.sample_allowed | found a list`}},
	{"variable for a ratio", `log: {sample_allowed: "${ISSUER}"}`, []string{"1:23 log.sample_allowed | ${…} is replaced in text only"}},
	{"audit into a directory", "audit: {file: logs/}", []string{"1:15 audit.file | is a directory; expected a file, stdout or stderr"}},
	{"audit into a name with a line end", `audit: {file: "a\nb"}`, []string{"1:15 audit.file | control character"}},
	{"strict audit of nothing", "audit: {on_failure: refuse}", []string{"1:21 audit.on_failure | refuse is about audit.file, and there is none; name a file"}},
	{"duration without unit", "server: {drain: 20}", []string{`1:17 server.drain | expected a duration such as 500ms, 15m or 24h, found the number "20" without a unit`}},
	{"days", "sessions: {ttl: 7d}", []string{`1:17 sessions.ttl | found "7d"; the units are ms, s, m and h, and a day is 24h`}},
	{"words for a duration", "sessions: {ttl: 15 minutes}", []string{`1:17 sessions.ttl | found "15 minutes"`}},
	{"negative duration", "sessions: {ttl: -1h}", []string{`1:17 sessions.ttl | found "-1h"`}},
	{"overflowing duration", "sessions: {ttl: 9999999999h}", []string{`1:17 sessions.ttl | found "9999999999h"`}},
	{"list for a duration", "sessions: {ttl: [1h]}", []string{"1:17 sessions.ttl | expected a duration such as 500ms, 15m or 24h, found a list"}},
	{"variable for a duration", `sessions: {ttl: "${ISSUER}"}`, []string{"1:17 sessions.ttl | ${…} is replaced in text only"}},
	{"duration too short", "redis: {timeout: 0s}", []string{"1:18 redis.timeout | 0s is too little; expected at least 1ms"}},
	{"duration too long", "issuers: [{issuer: a, jwks_file: jwks.json, audiences: [a], leeway: 1h}]", []string{"1:69 issuers[0].leeway | 1h0m0s is too much; expected at most 5m0s"}},
	{"word of another list", "sessions: {cookie: {same_site: stirct}}", []string{`1:32 sessions.cookie.same_site | expected strict, lax or none, found "stirct"; did you mean strict?`}},
	{"word in capitals", "log: {level: INFO}", []string{`1:14 log.level | found "INFO"; did you mean info?`}},
	{"number for a word", "log: {level: 3}", []string{`1:14 log.level | expected debug, info, warn or error, found "3"`}},
	{"mapping for a word", "log: {level: {}}", []string{"1:14 log.level | expected debug, info, warn or error, found a mapping"}},
	{"variable for a word", `log: {level: "${ISSUER}"}`, []string{"1:14 log.level | ${…} is replaced in free text only"}},
	{"unknown credential kind", "policies: {p: {credentials: [sesion]}}", []string{`1:30 policies.p.credentials[0] | expected session, bearer or api_key, found "sesion"; did you mean session?`}},
	{"kind given twice", "sessions: {secrets: [0123456789abcdef]}\npolicies: {p: {credentials: [session, session]}}", []string{"2:39 policies.p.credentials[1] | the same as entry 0"}},
	{"null in a list", "policies: {p: {anonymous: true, credentials: [~]}}", []string{"1:47 policies.p.credentials[0] | an empty entry"}},
	{"list that is empty", "policies: {p: {anonymous: true}, q: {credentials: [session], roles: {any: []}}}\nsessions: {secrets: [0123456789abcdef]}", []string{"1:75 policies.q.roles.any | an empty list; name at least one, or take the key out"}},
	{"no such date", "api_keys: [{name: a, sha256: " + hash + ", auth_api: true, expires: 2027-02-30}]", []string{"1:121 api_keys[0].expires | expected a date such as 2027-01-31"}},
	{"time without zone", "api_keys: [{name: a, sha256: " + hash + ", auth_api: true, expires: '2027-01-01T00:00:00'}]", []string{"1:121 api_keys[0].expires | expected a date"}},
	{"required key is missing", "policies: {p: {anonymous: true}}\nroutes:\n  - path: /a\n", []string{"3:5 routes[0].policy | is required"}},
	{"required key is null", "api_keys: [{name: a, sha256: , auth_api: true}]", []string{"1:12 api_keys[0].sha256 | is required"}},
	{"entry without required keys", "rate_limits:\n  l:\n", []string{"2:3 rate_limits.l.limit | is required", "2:3 rate_limits.l.per | is required"}},
	{"alias of null without required keys", "default_policy: &n\nrate_limits: {l: *n}\n", []string{"2:15 rate_limits.l.limit | is required", "2:15 rate_limits.l.per | is required"}},
	{"name that looks like a key of another entry", "rate_limits: {l: {per: 1s}, l.limit: {limit: 1, per: 1s}}", []string{"1:15 rate_limits.l.limit | is required"}},
	{"key under a name with a dot", "policies: {a.b: {anonymous: true, condition: 'tru0', mod: x}}", []string{
		`1:46 policies["a.b"].condition | not a CEL condition`,
		`1:54 policies["a.b"].mod | did you mean mode?`,
	}},
	{"empty entry before another mistake", "policies: {p: {anonymous: true}}\nroutes: [~, {policy: pp}]", []string{
		"2:10 routes[0] | an empty entry; take it out",
		`2:22 routes[1].policy | "pp" is not in policies; did you mean p?`,
	}},
	{"name with a space", "policies: {'a b': {}}", []string{`1:12 policies | the name "a b": a name has up to 64 letters`}},

	// Variables and files.
	{"variable that is not set", "sessions: {secrets: ['${NO_SUCH}']}", []string{"1:22 sessions.secrets[0] | the environment variable NO_SUCH is not set; set it, or write $${"}},
	{"variable that is empty", "sessions: {secrets: ['${EMPTY}']}", []string{"1:22 sessions.secrets[0] | is empty, since ${EMPTY} is; set the variable to a value"}},
	{"malformed variable", "sessions: {secrets: ['${A-B}']}", []string{"1:22 sessions.secrets[0] | malformed ${…}"}},
	{"unclosed variable", "sessions: {secrets: ['${SESSION_SECRET']}", []string{"1:22 sessions.secrets[0] | malformed ${…}"}},
	{"empty secret", "sessions: {secrets: ['']}", []string{"1:22 sessions.secrets[0] | is empty; give a value"}},
	{"value of a variable is not shown", "issuers: [{issuer: x, audiences: [a], jwks_url: '${BAD_URL}'}]", []string{"1:49 issuers[0].jwks_url | expected a URL that begins with https://"}},
	{"missing file", "users: {file: nowhere.yaml}", []string{"1:15 users.file | dir/nowhere.yaml: no such file or directory; create the file or correct the path"}},
	{"path from a variable is not shown", "users: {file: '${SESSION_SECRET}'}", []string{"1:15 users.file | ${SESSION_SECRET}: no such file or directory"}},
	{"directory for a file", "users: {file: folder}", []string{"1:15 users.file | dir/folder: is a directory"}},
	{"unreadable file", "users: {file: forbidden}", []string{"1:15 users.file | dir/forbidden: permission denied; let the user that Gatehouse runs as read the file"}},
	{"empty secret file", "redis: {password_file: empty}", []string{"1:24 redis.password_file | the file is empty; put the secret in it"}},
	{"empty file of secrets is not reported again by those who need them", "sessions: {secrets_file: empty}\npolicies: {p: {credentials: [session]}}", []string{"1:26 sessions.secrets_file | the file is empty"}},
	{"file of secrets with none", "sessions: {secrets_file: blank}", []string{"1:26 sessions.secrets_file | the file has empty lines only"}},
	{"secret file too long", "redis: {password_file: long}", []string{"1:24 redis.password_file | cannot read the secret: file too large"}},

	// Server.
	{"address without port", "server: {check: {listen: localhost}}", []string{"1:26 server.check.listen | expected host:port"}},
	{"port too large", "server: {check: {listen: '127.0.0.1:65536'}}", []string{"1:26 server.check.listen | expected a port from 0 to 65535"}},
	{"named port", "server: {check: {listen: '127.0.0.1:http'}}", []string{"1:26 server.check.listen | expected a port from 0 to 65535"}},
	{"IPv6 without brackets", "server: {check: {listen: '::1:9001'}}", []string{"1:26 server.check.listen | IPv6 addresses stand in brackets"}},
	{"relative socket", "server: {check: {listen: unix://run/x.sock}}", []string{"1:26 server.check.listen | the absolute path of a socket"}},
	{"long socket", "server: {check: {listen: unix:///" + strings.Repeat("x", 107) + "}}", []string{"1:26 server.check.listen | at most 107 bytes"}},
	{"one address twice", "server:\n  check: {listen: 'localhost:9000'}\n  http: {listen: 'LOCALHOST:9000'}\n", []string{"3:18 server.http.listen | server.check.listen and server.http.listen would share an address"}},
	{"address of a default", "server: {http: {listen: '127.0.0.1:9090'}}", []string{"1:25 server.http.listen | server.http.listen and server.ops.listen would share an address"}},
	{"every address covers one", "server: {ops: {listen: ':9001'}}", []string{"1:24 server.ops.listen | server.check.listen and server.ops.listen would share an address"}},
	{"TLS without certificate", "server: {check: {tls: {}}}", []string{"1:18 server.check.tls | TLS without a certificate"}},
	{"authority without certificate", "server: {http: {tls: {client_ca_file: ca.pem}}}", []string{"1:17 server.http.tls | TLS without a certificate"}},
	{"certificate without key", "server: {check: {tls: {cert_file: cert.pem}}}", []string{"1:18 server.check.tls | cert_file without its key_file"}},
	{"key without certificate", "server: {check: {tls: {key_file: key.pem}}}", []string{"1:18 server.check.tls | key_file without its cert_file"}},
	{"public URL with a path", "server: {http: {public_url: 'https://a.example/b'}}", []string{"1:29 server.http.public_url | expected scheme and host only"}},
	{"public URL without scheme", "server: {http: {public_url: a.example}}", []string{"1:29 server.http.public_url | expected a URL that begins with https://"}},
	{"public URL without host", "server: {http: {public_url: 'https://'}}", []string{"1:29 server.http.public_url | expected a host name"}},

	// Redis.
	{"scheme of another store", "redis: {url: 'memcached://h'}", []string{"1:14 redis.url | expected redis://, rediss://, redis+sentinel://, redis+cluster://, unix:// or embedded://"}},
	{"socket without a path", "redis: {url: 'unix://h/x'}", []string{"1:14 redis.url | expected the absolute path of a socket"}},
	{"socket with a query", "redis: {url: 'unix:///x?a=b'}", []string{"1:14 redis.url | only db=number"}},
	{"user without password", "redis: {url: 'redis://app@h'}", []string{"1:14 redis.url | a user without a password; write user:password@, or user:@"}},
	{"no host", "redis: {url: 'redis://'}", []string{"1:14 redis.url | expected host or host:port"}},
	{"hosts without sentinel", "redis: {url: 'redis://a,b'}", []string{"1:14 redis.url | expected one host"}},
	{"sentinel without master", "redis: {url: 'redis+sentinel://a,b'}", []string{"1:14 redis.url | expected the master's name"}},
	{"cluster with a database", "redis: {url: 'redis+cluster://a,b/1'}", []string{"1:14 redis.url | only redis:// and redis+sentinel:// have the number of a database"}},
	{"database is no number", "redis: {url: 'redis://a/b'}", []string{"1:14 redis.url | expected the number of a database"}},
	{"query in the URL", "redis: {url: 'redis://a/0?timeout=1s'}", []string{"1:14 redis.url | expected no ? and no #"}},
	{"slash in a password", "redis: {url: 'redis://:a/b@h/0'}", []string{"1:14 redis.url | a slash before the @; write it %2F in a password"}},
	{"at in a password", "redis: {url: 'redis://:a@b@h/0'}", []string{"1:14 redis.url | percent-encode % and @"}},
	{"port of Redis", "redis: {url: 'redis://h:65536/0'}", []string{"1:14 redis.url | expected a port from 0 to 65535"}},
	{"something behind embedded", "redis: {url: 'embedded://x/0'}", []string{"1:14 redis.url | leave the part behind the hosts away"}},
	{"two passwords", "redis: {url: 'redis://:p@h/0', password_file: secret}", []string{"1:47 redis.password_file | redis.url has a password too"}},
	{"two users", "redis: {url: 'redis://a:p@h/0', username: b}", []string{"1:43 redis.username | redis.url has a user too; keep one of them"}},
	{"user without a password in a key", "redis: {username: app}", []string{"1:19 redis.username | a user without a password; give redis.password_file"}},
	{"user without a password in the URL", "redis: {url: 'redis://app:@h'}", []string{"1:14 redis.url | a user without a password; give redis.password_file"}},
	{"user with a space", "redis: {username: 'a b', password_file: secret}", []string{"1:19 redis.username | without spaces"}},
	{"login of Sentinels that are not there", "redis: {url: 'rediss+cluster://h', sentinel: {password: x}}", []string{"1:36 redis.sentinel | redis.url begins with rediss+cluster://, which has no Sentinels; take this out"}},
	{"two passwords of the Sentinels", "redis: {url: 'redis+sentinel://h,i,j/m', sentinel: {password: x, password_file: secret}}", []string{"1:81 redis.sentinel.password_file | redis.sentinel.password is there too; keep one of them"}},
	{"user of the Sentinels without a password", "redis: {url: 'redis+sentinel://h,i,j/m', sentinel: {username: app}}", []string{"1:63 redis.sentinel.username | a user without a password; give password_file or password"}},
	{"empty password of the Sentinels", "redis: {url: 'redis+sentinel://h,i,j/m', sentinel: {password_file: empty}}", []string{"1:68 redis.sentinel.password_file | the file is empty"}},
	{"one Sentinel", "redis: {url: 'redis+sentinel://:a,b,c@h/m'}", []string{"warning 1:14 redis.url | names 1 of the Sentinels"}},
	{"two Sentinels, one of them twice", "redis: {url: 'rediss+sentinel://h,i,h:26379/m/0'}", []string{"warning 1:14 redis.url | names 2 of the Sentinels"}},
	{"server name with a port", "redis: {url: 'rediss://h', tls: {server_name: 'redis:6379'}}", []string{"1:47 redis.tls.server_name | without a port"}},
	{"TLS on a plain connection", "redis: {url: 'redis+cluster://h', tls: {ca_file: ca.pem}}", []string{"1:35 redis.tls | write rediss+cluster://"}},
	{"certificate of the client alone", "redis: {url: 'rediss://h', tls: {cert_file: cert.pem}}", []string{"1:28 redis.tls | cert_file without its key_file"}},
	{"embedded with what needs a server", "redis: {url: 'embedded://', password_file: secret, confirm_replicas: 1, tls: {ca_file: ca.pem}}", []string{
		"warning 1:14 redis.url | not for production",
		"1:70 redis.confirm_replicas | embedded:// has no replicas",
		"1:73 redis.tls | redis.url begins with embedded://; take this out",
	}},

	// Sessions.
	{"short secret", "sessions: {secrets: [short]}", []string{"warning 1:22 sessions.secrets[0] | has only 5 bytes"}},
	{"short secret in a file", "sessions: {secrets_file: short}", []string{"warning 1:26 sessions.secrets_file | line 2 has only 5 bytes"}},
	{"touch interval not below ttl", "sessions: {ttl: 1m, touch_interval: 1m}", []string{"warning 1:37 sessions.touch_interval | 1m0s is not less than sessions.ttl"}},
	{"prefix of others", "sessions: {prefix: 'user:'}", []string{"1:20 sessions.prefix | not for session records"}},
	{"prefix below others", "sessions: {prefix: 'revoked:sess:'}", []string{"1:20 sessions.prefix | not for session records"}},
	{"prefix above others", "sessions: {prefix: 're'}", []string{"1:20 sessions.prefix | not for session records"}},
	{"cookie name with a space", "sessions: {cookie: {name: 'a b'}}", []string{"1:27 sessions.cookie.name | a cookie's name has letters"}},
	{"cookie name of the refresh token", "sessions: {cookie: {name: refreshToken}}", []string{"1:27 sessions.cookie.name | the refresh token has the cookie of this name"}},
	{"insecure cookie", "sessions: {cookie: {secure: false}}", []string{"warning 1:29 sessions.cookie.secure | INSECURE"}},
	{"host prefix without secure", "sessions: {cookie: {name: __host-sid, secure: false}}", []string{"1:27 sessions.cookie.name | without secure: true"}},
	{"same_site none without secure", "sessions: {cookie: {secure: false, same_site: none}}", []string{"1:47 sessions.cookie.same_site | without secure: true"}},
	{"secure cookie for plain HTTP", "server: {http: {public_url: 'http://a.example'}}", []string{"warning 1:29 server.http.public_url | browsers never send a secure cookie to an http:// address"}},
	{"two fields of one name", "sessions: {fields: {email: userId}}", []string{"1:28 sessions.fields.email | user_id and email have the same field"}},
	{"field of express-session", "sessions: {fields: {email: cookie}}", []string{"1:28 sessions.fields.email | belongs to express-session"}},
	{"origin of everybody", "sessions: {trusted_origins: ['*']}", []string{"1:30 sessions.trusted_origins[0] | expected a URL"}},
	{"origin twice, written differently", "sessions: {trusted_origins: ['https://a.example', 'https://A.example:443']}", []string{"1:51 sessions.trusted_origins[1] | the same as entry 0"}},

	// Tokens and issuers.
	{"issuer without keys", "tokens: {issuer: https://a.example}", []string{"warning 1:18 tokens.issuer | without tokens.signing_keys no tokens are issued"}},
	{"keys without issuer", "tokens: {signing_keys: [{file: keys/current.pem}], audiences: [a]}", []string{"1:10 tokens.signing_keys | signing keys without tokens.issuer"}},
	{"one key twice", "tokens: {audiences: [a], issuer: a, signing_keys: [{file: keys/current.pem}, {file: ./keys/current.pem}]}", []string{"1:85 tokens.signing_keys[1].file | the same file as entry 0"}},
	{"ttl of zero", "tokens: {access_ttl: 0s}", []string{"1:22 tokens.access_ttl | 0s is too little; expected at least 1s"}},
	{"no source of keys", "issuers: [{issuer: https://a.example, audiences: [a]}]", []string{"1:11 issuers[0] | no keys; give one of jwks_url, discovery: true, jwks_file and public_key_file"}},
	{"two sources of keys", "issuers: [{issuer: https://a.example, audiences: [a], jwks_file: jwks.json, discovery: true}]", []string{"1:66 issuers[0].jwks_file | the keys come from discovery already"}},
	{"discovery of a name", "issuers: [{issuer: accounts, audiences: [a], discovery: true}]", []string{"1:57 issuers[0].discovery | discovery needs an issuer that is an https:// URL"}},
	{"issuer twice", "issuers:\n  - {issuer: a, audiences: [a], jwks_file: jwks.json}\n  - {issuer: a, audiences: [a], jwks_file: jwks.json}\n", []string{"3:14 issuers[1].issuer | the same issuer as issuers[0].issuer on line 2"}},
	{"assertion for no service", "policies: {p: {credentials: [session], assertion: {}}}\nsessions: {secrets: [0123456789abcdef]}\n", []string{"1:40 policies.p.assertion | says for no service; give audience, the service's name, or from_route: true"}},
	{"assertion of nobody", "policies: {p: {anonymous: true, assertion: {audience: orders}}}\n", []string{"1:33 policies.p.assertion | this policy accepts no credential, so there is no identity to sign"}},
	{"assertion without a key", "policies: {p: {credentials: [session], assertion: {audience: orders}}}\nsessions: {secrets: [0123456789abcdef]}\n", []string{"1:40 policies.p.assertion | there is nothing to sign it; give identity.assertion.signing_keys"}},
	{"assertion without issuer", "identity: {assertion: {signing_keys: [{file: keys/current.pem}]}}\npolicies: {p: {credentials: [session], assertion: {from_route: true}}}\nsessions: {secrets: [0123456789abcdef]}\n", []string{"1:24 identity.assertion.signing_keys | signing keys without identity.assertion.issuer"}},
	{"assertion with a key of tokens", "identity: {assertion: {issuer: a, signing_keys: [{file: keys/current.pem}, {file: keys/previous.pem}, {file: keys/previous.pem}]}}\npolicies: {p: {credentials: [session], assertion: {from_route: true}}}\nsessions: {secrets: [0123456789abcdef]}\ntokens: {issuer: a, signing_keys: [{file: keys/current.pem}]}", []string{"1:57 identity.assertion.signing_keys[0].file | the same file as tokens.signing_keys[0]; give assertions keys of their own", "1:110 identity.assertion.signing_keys[2].file | the same file as identity.assertion.signing_keys[1]"}},
	{"assertion that nobody wants", "identity: {assertion: {issuer: a, signing_keys: [{file: keys/current.pem}]}}\npolicies: {p: {anonymous: true}}", []string{"warning 1:35 identity.assertion.signing_keys | no policy has the identity signed"}},
	{"assertion of long life", "identity: {assertion: {ttl: 1h}}", []string{"1:29 identity.assertion.ttl | 1h0m0s is too much; expected at most 5m0s"}},
	{"assertion as a type of tokens", "issuers: [{issuer: a, audiences: [a], jwks_file: jwks.json, types: [JWT, application/Gatehouse-Identity+JWT]}]", []string{"1:74 issuers[0].types[1] | no access token; take it out"}},
	{"issuer is our own", "tokens: {issuer: a, audiences: [a], signing_keys: [{file: keys/current.pem}]}\nissuers: [{issuer: a, audiences: [a], jwks_file: jwks.json}]\n", []string{"2:20 issuers[0].issuer | the same issuer as tokens.issuer on line 1"}},
	{"algorithm none", "issuers: [{issuer: a, audiences: [a], jwks_file: jwks.json, algorithms: [none]}]", []string{`1:74 issuers[0].algorithms[0] | found "none"`}},
	{"algorithm with a shared key", "issuers: [{issuer: a, audiences: [a], jwks_file: jwks.json, algorithms: [HS256]}]", []string{`1:74 issuers[0].algorithms[0] | found "HS256"; did you mean RS256?`}},
	{"no audiences", "issuers: [{issuer: a, jwks_file: jwks.json}]", []string{"warning 1:11 issuers[0] | no audiences"}},
	{"two issuers that speak for the same users", "issuers:\n  - {issuer: a, audiences: [a], jwks_file: jwks.json}\n  - {issuer: b, audiences: [a], jwks_file: jwks.json}\n  - {issuer: c, audiences: [a], jwks_file: jwks.json, user_id_prefix: 'c:'}\n", []string{"warning 3:5 issuers[1] | user ids have the same prefix as those of issuers[0]"}},
	{"keys over plain http", "issuers: [{issuer: a, audiences: [a], jwks_url: 'http://a.example/jwks'}]", []string{"warning 1:49 issuers[0].jwks_url | fetched over plain http"}},
	{"keys over plain HTTP, shouted", "issuers: [{issuer: a, audiences: [a], jwks_url: 'HTTP://a.example/jwks'}]", []string{"warning 1:49 issuers[0].jwks_url | fetched over plain http"}},
	{"keys over plain http on this machine", "issuers: [{issuer: a, audiences: [a], jwks_url: 'http://localhost:9000/jwks'}]", nil},
	{"discovery over plain http", "issuers: [{issuer: 'http://a.example', audiences: [a], discovery: true}]", []string{"warning 1:20 issuers[0].issuer | fetched over plain http"}},
	{"password in a URL", "issuers: [{issuer: a, audiences: [a], jwks_url: 'https://u:p@a.example/jwks'}]", []string{"1:49 issuers[0].jwks_url | a user name or password in this URL"}},
	{"malformed claim path", "issuers: [{issuer: a, audiences: [a], jwks_file: jwks.json, claims: {roles: a..b}}]", []string{"1:77 issuers[0].claims.roles | expected the path of a claim"}},
	{"no user id", "issuers: [{issuer: a, audiences: [a], jwks_file: jwks.json, claims: {user_id: ''}}]", []string{"1:79 issuers[0].claims.user_id | is empty"}},

	// Identity.
	{"header with underscore", "identity: {headers: {email: x_email}}", []string{"1:29 identity.headers.email | expected a header name of letters"}},
	{"header of a connection", "identity: {headers: {email: transfer-encoding}}", []string{"1:29 identity.headers.email | means something else already"}},
	{"header of the gateway", "identity: {headers: {email: x-forwarded-email}}", []string{"1:29 identity.headers.email | means something else already"}},
	{"header of the credential", "identity: {headers: {email: authorization}}", []string{"1:29 identity.headers.email | means something else already"}},
	{"pseudo-header", "identity: {headers: {email: ':path'}}", []string{"1:29 identity.headers.email | expected a header name"}},
	{"header with many spellings", "identity: {headers: {email: a-b-c-d-e-f-g-h}}", []string{"1:29 identity.headers.email | at most 6 hyphens"}},
	{"two headers of one name", "identity: {headers: {org_id: x-user-id}}", []string{"1:30 identity.headers.org_id | user_id and org_id have the same name"}},

	// Policies.
	{"session without secrets", "policies: {p: {credentials: [session]}}", []string{"1:30 policies.p.credentials[0] | session cookies can't be verified without sessions.secrets"}},
	{"bearer without issuers", "policies: {p: {credentials: [bearer]}}", []string{"warning 1:30 policies.p.credentials[0] | without issuers no token is valid"}},
	{"api_key without keys", "policies: {p: {credentials: [api_key]}}", []string{"warning 1:30 policies.p.credentials[0] | there are no api_keys"}},
	{"api_key that no key opens", "policies: {p: {credentials: [api_key]}}\napi_keys: [{name: a, sha256: " + hash + ", auth_api: true}]", []string{"warning 1:30 policies.p.credentials[0] | no entry of api_keys lists policy p"}},
	{"policy of nobody", "policies:\n  p:\n    mode: enforce\n", []string{"warning 2:3 policies.p | accepts no credential"}},
	{"anonymous with an identity", "policies: {p: {anonymous: true, roles: {any: [a]}, organizations: [o], max_auth_age: 1m, idle_timeout: 1m}}", []string{
		"1:33 policies.p.roles | asks for an identity, while anonymous: true",
		"1:52 policies.p.organizations | asks for an identity",
		"1:86 policies.p.max_auth_age | asks for an identity",
		"1:104 policies.p.idle_timeout | asks for an identity",
	}},
	{"conditions on kinds that are not accepted", "policies: {p: {credentials: [api_key], roles: {any: [a]}, idle_timeout: 1m, audiences: [a]}}\napi_keys: [{name: a, sha256: " + hash + ", policies: [p]}]", []string{
		"1:40 policies.p.roles | speaks of session or bearer credentials, which this policy does not accept",
		"1:73 policies.p.idle_timeout | speaks of session credentials",
		"1:77 policies.p.audiences | speaks of bearer credentials",
	}},
	{"other sites are let in", "sessions: {secrets: [0123456789abcdef]}\npolicies: {p: {credentials: [session], csrf: false}}", []string{"warning 2:46 policies.p.csrf | INSECURE"}},
	{"redirect to nowhere", "policies: {p: {anonymous: true, on_unauthenticated: redirect}}", []string{"1:53 policies.p.on_unauthenticated | redirect needs login_url"}},
	{"login_url without redirect", "policies: {p: {anonymous: true, login_url: /login}}", []string{"warning 1:44 policies.p.login_url | has no effect without on_unauthenticated: redirect"}},
	{"redirect to another host", "policies: {p: {anonymous: true, on_unauthenticated: redirect, login_url: //evil.example}}", []string{"1:74 policies.p.login_url | expected a path of the same origin"}},
	{"redirect by backslash", `policies: {p: {anonymous: true, on_unauthenticated: redirect, login_url: '/\evil.example'}}`, []string{"1:74 policies.p.login_url | without backslash"}},
	{"redirect by tab", `policies: {p: {anonymous: true, on_unauthenticated: redirect, login_url: "/\t/evil.example"}}`, []string{"1:74 policies.p.login_url | expected visible ASCII"}},
	{"redirect to a URL", "policies: {p: {anonymous: true, on_unauthenticated: redirect, login_url: 'https://a.example/'}}", []string{"1:74 policies.p.login_url | expected a path of the same origin"}},
	{"accept_bearer without bearer", "sessions: {secrets: [0123456789abcdef]}\npolicies: {p: {credentials: [session], on_store_outage: accept_bearer}}", []string{"2:57 policies.p.on_store_outage | accept_bearer speaks of bearer credentials"}},
	{"accept_bearer that is strict", "policies: {p: {credentials: [bearer], on_store_outage: accept_bearer, freshness: strict}}\nissuers: [{issuer: a, audiences: [a], jwks_file: jwks.json}]", []string{"1:56 policies.p.on_store_outage | accept_bearer contradicts freshness: strict"}},
	{"serve_stale without an age", "policies: {p: {anonymous: true, on_store_outage: serve_stale}}", []string{
		"1:50 policies.p.on_store_outage | serve_stale needs stale_for",
	}},
	{"serve_stale without a cache", "redis: {cache: {enabled: false}}\npolicies: {p: {anonymous: true, on_store_outage: serve_stale, stale_for: 1s}}", []string{
		"warning 2:50 policies.p.on_store_outage | it acts like deny",
	}},
	{"serve_stale that is strict", "policies: {p: {anonymous: true, on_store_outage: serve_stale, stale_for: 1s, freshness: strict}}", []string{
		"1:50 policies.p.on_store_outage | serve_stale contradicts freshness: strict",
	}},
	{"stale_for without serve_stale", "policies: {p: {anonymous: true, stale_for: 1s}}", []string{"warning 1:44 policies.p.stale_for | has no effect"}},
	{"condition with a misspelt field", "policies: {p: {anonymous: true, condition: 'request.metod == \"GET\"'}}", []string{"1:44 policies.p.condition | column 8: undefined field 'metod'"}},
	{"condition that is no bool", "policies: {p: {anonymous: true, condition: 'request.path'}}", []string{"1:44 policies.p.condition | must be true or false"}},
	{"rate limit", "policies: {p: {anonymous: true, rate_limit: lmit}}\nrate_limits: {limit: {limit: 1, per: 1s}}", []string{
		`1:45 policies.p.rate_limit | "lmit" is not in rate_limits; did you mean limit?`,
	}},
	{"rate limit by what nobody has", "sessions: {secrets: [0123456789abcdef]}\npolicies: {p: {credentials: [session], rate_limit: k}, q: {anonymous: true, rate_limit: u}, r: {credentials: [session], rate_limit: a}}\nrate_limits: {k: {by: api_key, limit: 1, per: 1s}, u: {by: user, limit: 1, per: 1s}, a: {limit: 1, per: 1s}}", []string{
		"warning 2:52 policies.p.rate_limit | counts by api_key, which no caller under this policy has, so all count by their address",
		"warning 2:89 policies.q.rate_limit | counts by user, which no caller",
	}},
	{"headers that mean something", withSession + "policies: {p: {credentials: [session], headers: {x-plan: session.a, Cookie: session.a, x-envoy-retry-on: session.a, x-gatehouse-status: session.a, retry-after: session.a, transfer-encoding: session.a, x-internal-api-key: session.a, x_plan: session.a, ':path': session.a}}}", []string{
		`2:69 policies.p.headers | the name "Cookie": this header means something else already; choose another name`,
		`2:88 policies.p.headers | the name "x-envoy-retry-on": this header means something else already`,
		`2:117 policies.p.headers | the name "x-gatehouse-status": this header means something else already`,
		`2:148 policies.p.headers | the name "retry-after": this header means something else already`,
		`2:172 policies.p.headers | the name "transfer-encoding": this header means something else already`,
		`2:202 policies.p.headers | the name "x-internal-api-key": this header means something else already`,
		`2:233 policies.p.headers | the name "x_plan": expected a header name of letters, digits and single hyphens`,
		`2:252 policies.p.headers | the name ":path": expected a header name`,
	}},
	{"header of the identity, under its other name", withSession + "identity: {headers: {email: x-mail}}\npolicies: {p: {credentials: [session], headers: {X-Mail: session.a, x-user-email: session.b}}}", []string{
		"3:50 policies.p.headers.x-mail | this is an identity header already",
	}},
	{"header twice", withSession + "policies: {p: {credentials: [session], headers: {x-plan: session.a, X-Plan: session.b}}}", []string{"2:69 policies.p.headers.x-plan | given twice, in another spelling; keep one"}},
	{"headers without values", withSession + "policies: {p: {credentials: [session], headers: {x-a: , x-b: '', x-c: 7, x-d: [a]}}}", []string{
		"2:50 policies.p.headers.x-a | has no value; give one, or take the name out",
		"2:62 policies.p.headers.x-b | is empty; give a value",
		"2:71 policies.p.headers.x-c | expected text, found a number; put it in quotes",
		"2:79 policies.p.headers.x-d | expected text, found a list",
	}},
	{"headers of nothing", withSession + "policies: {p: {credentials: [session], headers: {x-a: plan, x-b: identity.plan, x-c: session., x-d: session.gatehouse.device}}}", []string{
		"2:55 policies.p.headers.x-a | expected claims., session. or identity. and a name",
		"2:66 policies.p.headers.x-b | identity has id, email, roles, org and kind",
		"2:86 policies.p.headers.x-c | expected names joined by dots behind session",
		"2:101 policies.p.headers.x-d | is Gatehouse's own; name another",
	}},
	{"headers of another credential", withSession + "policies: {p: {credentials: [session], headers: {x-a: claims.plan}, metadata: {a: claims.plan}}}", []string{
		"2:50 policies.p.headers.x-a | speaks of bearer credentials, which this policy does not accept; add the kind to credentials, or take this out",
		"2:80 policies.p.metadata.a | speaks of bearer credentials",
	}},
	{"headers of nobody", "policies: {p: {anonymous: true, headers: {x-a: identity.id}, metadata: {a: identity.id}}}", []string{
		"1:33 policies.p.headers | this policy accepts no credential, so there is nobody to tell about; list credentials, or take this out",
		"1:62 policies.p.metadata | this policy accepts no credential",
	}},
	{"metadata that every decision has", withSession + "policies: {p: {credentials: [session], metadata: {user: session.a, plan: session.plan, 'a b': session.a}}}", []string{
		`2:51 policies.p.metadata | the name "user": every decision has a field of this name; choose another`,
		`2:88 policies.p.metadata | the name "a b": a field's name has up to 64 letters`,
	}},
	{"headers with many spellings", withSession + "policies: {p: {credentials: [session], headers: {a-b-c-d-e-f-a: identity.id, a-b-c-d-e-f-b: identity.id, a-b-c-d-e-f-c: identity.id}}, q: {credentials: [session], headers: {a-b-c-d-e-f-a: identity.id, a-b-c-d-e-f-d: identity.id, x-a: identity.id}}}", []string{
		"2:230 policies.q.headers.x-a | with this one the headers of all policies have more than 256 spellings",
	}},
	{"unknown issuer", "policies: {p: {credentials: [bearer], issuers: ['https://idp.exmple.com']}}\nissuers: [{issuer: https://idp.example.com, audiences: [a], jwks_file: jwks.json}]", []string{`1:49 policies.p.issuers[0] | "https://idp.exmple.com" is not in issuers; did you mean https://idp.example.com?`}},

	// References, routes, keys, providers.
	{"default policy is not there", "policies: {user: {anonymous: true}}\ndefault_policy: users\n", []string{`2:17 default_policy | "users" is not in policies; did you mean user?`}},
	{"policies are not there", "default_policy: user\n", []string{`warning 1:1  | no policies`, `1:17 default_policy | "user" is not in policies, which is empty`}},
	{"policy of a route is not there", "policies: {user: {anonymous: true}, admin: {anonymous: true}}\nroutes: [{policy: other}]\n", []string{`2:19 routes[0].policy | "other" is not in policies; define it there, or name user or admin`}},
	{"name from a variable is not shown", "policies: {user: {anonymous: true}}\ndefault_policy: '${SESSION_SECRET}'\n", []string{`2:17 default_policy | "${SESSION_SECRET}" is not in policies`}},
	{"many policies to choose from", "policies: {a: &a {anonymous: true}, b: *a, c: *a, d: *a, e: *a, f: *a, g: *a, h: *a, i: *a, j: *a, k: *a}\ndefault_policy: other\n", []string{`2:17 default_policy | "other" is not in policies; define it there, or name another`}},
	{"policy of a key is not there", "policies: {user: {anonymous: true}}\napi_keys: [{name: a, sha256: " + hash + ", policies: [usr]}]", []string{`2:107 api_keys[0].policies[0] | "usr" is not in policies; did you mean user?`}},
	{"relative path", "policies: {p: {anonymous: true}}\nroutes: [{path: admin/*, policy: p}]", []string{"2:17 routes[0].path | expected a path that starts with a slash"}},
	{"star inside a path", "policies: {p: {anonymous: true}}\nroutes: [{path: /a/*/b, policy: p}]", []string{"2:17 routes[0].path | a star may only be the last character"}},
	{"query in a path", "policies: {p: {anonymous: true}}\nroutes: [{path: '/a?b=c', policy: p}]", []string{"2:17 routes[0].path | a query plays no part"}},
	{"path that is not canonical", "policies: {p: {anonymous: true}}\nroutes: [{path: /a//b, policy: p}]", []string{"2:17 routes[0].path | no request gets through with such a path: empty segment"}},
	{"escaped slash in a path", "policies: {p: {anonymous: true}}\nroutes: [{path: /a%2Fb*, policy: p}]", []string{"2:17 routes[0].path | no request gets through with such a path: escaped byte 0x2f"}},
	{"parameter in a path", "policies: {p: {anonymous: true}}\nroutes: [{path: /a;b, policy: p}, {path: /a%3bb, policy: p}]", []string{
		"2:17 routes[0].path | requests with ; in the path are refused",
		"2:42 routes[1].path | requests with ; in the path are refused",
	}},
	{"host with port", "policies: {p: {anonymous: true}}\nroutes: [{host: 'a.example:80', policy: p}]", []string{"2:17 routes[0].host | expected a host name alone"}},
	{"star inside a host", "policies: {p: {anonymous: true}}\nroutes: [{host: 'a*.example', policy: p}]", []string{"2:17 routes[0].host | a star stands only for whole names"}},
	{"method of everybody", "policies: {p: {anonymous: true}}\nroutes: [{methods: ['*'], policy: p}]", []string{"2:21 routes[0].methods[0] | expected an HTTP method"}},
	{"route behind one that takes everything", "policies: {p: {anonymous: true}}\nroutes:\n  - {path: /*, policy: p}\n  - {path: /admin/*, policy: p}\n", []string{"warning 4:5 routes[1] | never matches: routes[0] on line 3 takes all of its requests"}},
	{"route behind two that share its requests", "policies: {p: {anonymous: true}, q: {anonymous: true}}\nroutes:\n  - {path: /a*, methods: [GET], policy: p}\n  - {methods: [POST], policy: q}\n  - {path: /a/b, methods: [POST, GET], policy: p}\n", []string{"warning 5:5 routes[2] | never matches: routes[0] on line 3 and routes[1] on line 4 take all of its requests"}},
	{"route that loses a method", "policies: {p: {anonymous: true}, q: {anonymous: true}}\nroutes:\n  - {path: /a/*, methods: [GET], policy: p}\n  - {path: /a/b, policy: q}\n", []string{"warning 4:5 routes[1] | matches in part: routes[0] on line 3 takes its GET requests; put this one first"}},
	{"routes that cross", "policies: {p: {anonymous: true}, q: {anonymous: true}}\nroutes:\n  - {path: /health/*, policy: p}\n  - {host: '*.example.com', policy: q}\n", []string{"warning 4:5 routes[1] | overlaps routes[0] on line 3, and neither is the narrower one: requests for host: *.example.com, path: /health/* get policy p; to say"}},
	{"one key under two names", "api_keys: [{name: a, sha256: " + hash + ", auth_api: true}, {name: b, sha256: " + strings.ToUpper(hash) + ", auth_api: true}]", []string{"1:131 api_keys[1].sha256 | the same key as entry 0"}},
	{"key that opens nothing", "api_keys: [{name: a, sha256: " + hash + "}]", []string{"warning 1:12 api_keys[0] | this key opens nothing"}},
	{"key for a policy that takes none", "policies: {p: {anonymous: true}}\napi_keys: [{name: a, sha256: " + hash + ", policies: [p]}]", []string{"warning 2:107 api_keys[0].policies[0] | policy p takes no api_key"}},
	{"key itself for its hash", "api_keys: [{name: a, sha256: my-secret-api-key, auth_api: true}]", []string{"1:30 api_keys[0].sha256 | expected the SHA-256 of the key as 64 hexadecimal digits"}},
	{"name that would not fit a header", "api_keys: [{name: 'a b', sha256: " + hash + ", auth_api: true}]", []string{"1:19 api_keys[0].name | a name has up to 64 letters"}},
	{"two client secrets", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, client_secret: b, client_secret_file: secret}}}", []string{"3:103 oidc.providers.p.client_secret_file | there is a client_secret too"}},
	{"provider that is no URL", withLogin + "oidc: {providers: {p: {issuer: a, client_id: a}}}", []string{"3:32 oidc.providers.p.issuer | expected a URL that begins with https://"}},
	{"provider with a query", withLogin + "oidc: {providers: {p: {issuer: 'https://a.example/?t=1', client_id: a}}}", []string{"3:32 oidc.providers.p.issuer | discovery needs an issuer without query"}},
	{"provider over plain http", withLogin + "oidc: {providers: {p: {issuer: 'http://a.example', client_id: a}}}", []string{"warning 3:32 oidc.providers.p.issuer | fetched over plain http"}},
	{"provider over plain http on this machine", withLogin + "oidc: {providers: {p: {issuer: 'http://127.0.0.1:9000', client_id: a}}}", nil},
	{"provider whose name would not fit a path", withLogin + "oidc: {providers: {a.b: {issuer: https://a.example, client_id: a}}}", []string{`3:20 oidc.providers | the name "a.b": a name that stands in a URL has up to 64 letters, digits, hyphens and underscores`}},
	{"provider that nobody can come back from", "oidc: {providers: {p: {issuer: https://a.example, client_id: a}}}", []string{
		"1:8 oidc.providers | server.http.public_url, which is not given; give it",
		"1:8 oidc.providers | a session, which can't be made without sessions.secrets; give them",
	}},
	{"broken secrets are not reported again by providers", "server: {http: {public_url: a}}\nsessions: {secrets_file: empty}\noidc: {providers: {p: {issuer: https://a.example, client_id: a}}}", []string{
		"1:29 server.http.public_url | expected a URL",
		"2:26 sessions.secrets_file | the file is empty",
	}},
	{"scopes without openid", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, scopes: [email]}}}", []string{"3:65 oidc.providers.p.scopes | without the scope openid there is no ID token"}},
	{"two scopes in one", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, scopes: [openid email]}}}", []string{"3:74 oidc.providers.p.scopes[0] | a scope has visible ASCII characters only"}},
	{"no scopes", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, scopes: []}}}", []string{"3:73 oidc.providers.p.scopes | an empty list"}},
	{"malformed claim path of a provider", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, claims: {roles: a..b}}}}", []string{"3:81 oidc.providers.p.claims.roles | expected the path of a claim"}},
	{"prefix with a space", withLogin + "oidc: {providers: {p: {issuer: https://a.example, client_id: a, user_id_prefix: 'a b'}}}", []string{"3:81 oidc.providers.p.user_id_prefix | expected visible ASCII characters"}},
	{"providers whose ids could collide", withLogin + `oidc:
  providers:
    a: {issuer: https://a.example, client_id: a}
    b: {issuer: https://b.example, client_id: b, user_id_prefix: 'b:'}
    c: {issuer: https://c.example, client_id: c}
    d: {issuer: https://d.example, client_id: d, user_id_prefix: 'b:'}
`, []string{
		"warning 7:5 oidc.providers.c | the same prefix as those of provider a",
		"warning 8:66 oidc.providers.d.user_id_prefix | the same prefix as those of provider b",
	}},

	// Users and what they log in to.
	{"guesses counted for the gateway", withLogin + "users: {file: users.yaml}", []string{"warning 3:15 users.file | wrong passwords are counted by the address of the peer"}},
	{"guesses counted for the gateway on purpose", "server: {http: {trusted_hops: 0}}\nsessions: {secrets: [0123456789abcdef]}\nusers: {file: users.yaml}", []string{"warning 1:31 server.http.trusted_hops | wrong passwords are counted by the address of the peer"}},
	{"users who get nothing", "server: {http: {trusted_hops: 1}}\nusers: {file: users.yaml}", []string{"warning 2:15 users.file | nobody can log in"}},
	{"users who get tokens", "server: {http: {trusted_hops: 1}}\nusers: {file: users.yaml}\ntokens: {issuer: https://a.example, signing_keys: [{file: keys/current.pem}]}", nil},
	{"access tokens that live too long", "tokens: {access_ttl: 168h}", []string{"1:22 tokens.access_ttl | access_ttl is 168h0m0s, refresh_ttl 168h0m0s; make access_ttl the shorter one"}},
	{"refresh tokens that live too short", "tokens: {refresh_ttl: 5s}", []string{
		"1:23 tokens.refresh_ttl | access_ttl is 15m0s, refresh_ttl 5s",
		"1:23 tokens.refresh_ttl | refresh_grace is 10s, refresh_ttl 5s; make refresh_grace some seconds",
	}},
	{"grace without end", "tokens: {refresh_grace: 168h}", []string{"1:25 tokens.refresh_grace | a used refresh token would be good for all of its life"}},
}

func TestBrokenConfigurations(t *testing.T) {
	for _, tt := range broken {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings, err := parseTest(tt.text)
			var got []Problem
			if err != nil {
				require.ErrorAs(t, err, new(Problems))
				got = err.(Problems) //nolint:errorlint // ErrorAs has just seen that it is one
			}
			var isWarning []bool
			for range got {
				isWarning = append(isWarning, false)
			}
			for _, w := range warnings {
				// Tests that are not about policies don't have any.
				if !strings.Contains(w.Message, "there are no policies") || strings.Contains(strings.Join(tt.want, ""), "no policies") {
					got, isWarning = append(got, Problem(w)), append(isWarning, true)
				}
			}
			for _, want := range tt.want {
				at := -1
				for i, p := range got {
					if matchesProblem(want, p, isWarning[i]) {
						at = i
					}
				}
				require.GreaterOrEqual(t, at, 0, "no problem is %s\nbut these: %v", want, got)
				got = append(got[:at:at], got[at+1:]...)
				isWarning = append(isWarning[:at:at], isWarning[at+1:]...)
			}
			require.Empty(t, got, "more than was expected")
		})
	}
}

func matchesProblem(want string, p Problem, isWarning bool) bool {
	where, message, _ := strings.Cut(want, " | ")
	where, warning := strings.CutPrefix(where, "warning ")
	place := strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column) + " " + p.Key
	return warning == isWarning && where == place && strings.Contains(p.Message, message) && p.File == "dir/gatehouse.yaml"
}

// saysWhatToDo is how a message says what to do: what is expected, by an example, by the
// name that was meant, or in an imperative behind the semicolon.
var saysWhatToDo = regexp.MustCompile(`expected |, as in | such as |did you mean |` +
	`\b(a name|a scope|a cookie's name|a field's name|a name that stands in a URL) has .*\b(letters|characters)|` +
	`; (accept|add|choose|correct|create|define|enable|end|extend|give|keep|leave|let|list|make|merge|name|openssl rand|percent-encode|printf|put|save|say|serve|set|spell|take|to say that|use|write) `)

// Each message says what to do, those of warnings too.
func TestMessagesNameARemedy(t *testing.T) {
	problems := 0
	for _, tt := range broken {
		_, warnings, err := parseTest(tt.text)
		var messages []string
		if all, ok := err.(Problems); ok { //nolint:errorlint // nothing wraps it
			for _, p := range all {
				require.Positive(t, p.Line, "%s: %s", tt.name, p.Message)
				messages = append(messages, p.Message)
			}
			problems++
		}
		for _, w := range warnings {
			messages = append(messages, w.Message)
		}
		for _, message := range messages {
			require.Regexp(t, saysWhatToDo, message+" ", tt.name)
		}
	}
	require.Greater(t, problems, 200, "configurations that are refused")
}

// No message shows what a variable holds, or a text where a secret belongs.
func TestMessagesShowNoSecrets(t *testing.T) {
	for _, tt := range broken {
		_, warnings, err := parseTest(tt.text)
		text := ""
		if err != nil {
			text = err.Error()
		}
		for _, w := range warnings {
			text += w.String()
		}
		for _, secret := range []string{"env-", "file-secret-value", "my-secret-api-key", "123456789]", ":p@"} {
			require.NotContains(t, text, secret, tt.name)
		}
	}
}

// All problems at once, in the order of the file, in the form that operators
// and editors read.
func TestErrorOutput(t *testing.T) {
	text, err := os.ReadFile("testdata/broken.yaml")
	require.NoError(t, err)
	_, warnings, err := parse("gatehouse.yaml", text, environment(nil), memFiles{})
	require.Error(t, err)
	got := err.Error() + "\n"
	for _, w := range warnings {
		got += "warning: " + w.String() + "\n"
	}
	if *update {
		require.NoError(t, os.WriteFile("testdata/broken.golden", []byte(got), 0o600))
	}
	want, err := os.ReadFile("testdata/broken.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestDidYouMean(t *testing.T) {
	candidates := []string{"check", "http", "ops", "drain", "on_store_outage"}
	for name, want := range map[string]string{
		"chek": "check", "hcekc": "", "checks": "check", "HTTP": "http", "htpt": "http", "op": "ops",
		"on-store-outage": "on_store_outage", "onStoreOutage": "on_store_outage", "outage": "", "": "", "x": "",
		strings.Repeat("check", 1000): "",
	} {
		require.Equal(t, want, didYouMean(name, candidates), name)
	}
}

func TestTooManyRoutes(t *testing.T) {
	_, _, err := parseTest("policies: {p: {anonymous: true}}\nroutes: [" + strings.Repeat("{policy: p},", mostRoutes+1) + "]")
	require.ErrorContains(t, err, "10001 routes; at most 10000 are possible")
}
