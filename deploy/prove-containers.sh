#!/usr/bin/env bash
# Proves docker-compose.yml with real containers on a machine that has neither
# Docker nor a registry, only Debian's podman and the programs themselves:
#
#   apt-get install -y --no-install-recommends podman buildah runc netavark \
#     aardvark-dns containernetworking-plugins docker-compose iptables \
#     busybox-static redis-server redis-sentinel curl openssl
#   sudo deploy/prove-containers.sh
#
# Go and an Envoy (as scripts/tools.sh installs it, in PATH or named by
# GATEHOUSE_ENVOY) must be there too. In place of the images that a registry would
# give, it makes images of the same names from these programs; everything else
# is what users get: the same Dockerfile, the same compose file, the same
# settings. Then it tries what README.md claims, says what it saw, and exits 0
# only if all of that was as claimed. KEEP=1 leaves the stack running.
#
# It takes about eight minutes, stops itself after LIMIT seconds, and removes
# what it made: its images, containers and networks live in a directory of
# their own, apart from other containers of the machine. (Empty iptables chains
# named NETAVARK… stay behind, as after any container.)
set -euo pipefail
LIMIT=${LIMIT:-1800}
if [ -z "${GATEHOUSE_PROOF:-}" ]; then
	GATEHOUSE_PROOF=1 exec timeout --foreground --kill-after 120 "$LIMIT" "$0" "$@"
fi
cd "$(dirname "$0")/.."

PORT=${GATEWAY_PORT:-18080}
project=gatehouse-proof

say() { printf '\n== %s\n' "$*"; }
seen() { printf '   ok  %s\n' "$*"; }
fail() {
	printf '   NOT %s\n' "$*" >&2
	exit 1
}

# ---- What is needed, and a place for it.

[ "$(id -u)" = 0 ] || fail "started as root, which is needed here to make networks and cgroups"
for program in podman buildah runc docker-compose redis-server redis-sentinel redis-cli busybox curl openssl go ldd timeout; do
	command -v "$program" >/dev/null || fail "$program installed; the head of this file has the line for apt-get"
done
envoy=${GATEHOUSE_ENVOY:-$(command -v envoy || ls .tools/envoy*/bin/envoy 2>/dev/null | head -1)}
[ -n "$envoy" ] || fail "an Envoy: run scripts/tools.sh envoy, or set GATEHOUSE_ENVOY"
if [ "$(head -c 2 "$envoy")" = '#!' ]; then # the script of a Python package
	envoy=$(ls "$(dirname "$envoy")"/../lib/python3*/site-packages/envoy/_bin/envoy)
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/gatehouse-proof.XXXXXX")
service_pid='' health_pid='' client_pid=''

clean_up() {
	code=$?
	trap - EXIT
	set +e
	if [ "$code" != 0 ] && [ -n "$service_pid" ]; then
		say "the last words of the containers"
		compose ps
		compose logs --tail=15 --no-color 2>&1 | cut -c -300
	fi
	if [ -n "$client_pid" ]; then
		kill "$client_pid" 2>/dev/null
	fi
	if [ -n "${KEEP:-}" ]; then
		echo "kept: DOCKER_HOST=${DOCKER_HOST:-} docker-compose -p $project --env-file $work/env ps; pids of the podman service and the health checks: $service_pid $health_pid"
		exit "$code"
	fi
	if [ -n "$health_pid" ]; then
		kill "$health_pid" 2>/dev/null
		wait "$health_pid" 2>/dev/null
	fi
	if [ -n "$service_pid" ]; then
		compose down --volumes --timeout 5 >/dev/null 2>&1
		kill "$service_pid" 2>/dev/null
		wait "$service_pid" 2>/dev/null
	fi
	pod rm --all --force --time 1 >/dev/null 2>&1
	umount "$work/storage/overlay" 2>/dev/null
	rm -rf "$work"
	exit "$code"
}
trap clean_up EXIT
trap 'echo "   NOT done: stopped" >&2; exit 130' INT TERM

# Nothing of the machine's own podman is used. The ulimits are what a sandbox
# allows; where more is allowed, this is no harm.
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_REGISTRIES_CONF=$work/registries.conf TMPDIR=$work/tmp
mkdir "$TMPDIR"
cat >"$CONTAINERS_CONF" <<EOF
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$work/networks"
EOF
cat >"$CONTAINERS_REGISTRIES_CONF" <<EOF
unqualified-search-registries = ["docker.io"]
EOF
storage=(--root "$work/storage" --runroot "$work/run")
podman=(podman "${storage[@]}" --tmpdir "$work/libpod" --log-level error)
pod() { "${podman[@]}" "$@" 2> >(grep -v systemd >&2); } # of which it misses the timers
compose() { GATEWAY_PORT=$PORT timeout 900 docker-compose -p "$project" --env-file "$work/env" "$@"; }

# ---- Images of the names that the stack asks for, made from local programs.

# with_libraries DIR PROGRAM… copies programs and what they are linked with.
with_libraries() {
	local dir=$1 program
	shift
	for program in "$@"; do
		{ ldd "$program" 2>/dev/null || true; } | grep -oE '/[^ ]+' | while read -r library; do
			mkdir -p "$dir$(dirname "$library")"
			cp -Ln "$library" "$dir$library"
		done
	done
}

# with_shell DIR puts a shell and the usual programs there.
with_shell() {
	mkdir -p "$1/bin" "$1/tmp"
	chmod 1777 "$1/tmp"
	cp "$(command -v busybox)" "$1/bin/busybox"
	local program
	for program in sh cat cp grep id ls mkdir mv rm sed; do
		ln -sf busybox "$1/bin/$program"
	done
}

# image NAME DIR makes an image of a directory, with the Dockerfile lines of stdin.
image() {
	{ printf 'FROM scratch\nCOPY root/ /\n' && cat; } >"$2/Dockerfile"
	buildah "${storage[@]}" bud --quiet --isolation chroot -t "$1" "$2" >/dev/null 2>"$work/buildah.log" ||
		{ cat "$work/buildah.log" >&2 && fail "$1 built"; }
	rm -rf "$2"
	echo "   $1"
}

version() { sed -n "s/^ARG $1=//p" deploy/Dockerfile; }

say "stand-ins for what a registry would give"
redis_image=$(sed -n 's/^ *image: \(redis:.*\)/\1/p' docker-compose.yml | sort -u)
root=$work/redis/root
mkdir -p "$root/usr/local/bin" "$root/data" "$root/etc"
with_shell "$root"
with_libraries "$root" "$(command -v redis-server)" "$(command -v redis-cli)"
cp -L "$(command -v redis-server)" "$root/usr/local/bin/redis-server"
cp -L "$(command -v redis-cli)" "$root/usr/local/bin/redis-cli"
ln -s redis-server "$root/usr/local/bin/redis-sentinel"
echo 'redis:x:999:1000::/data:/bin/sh' >"$root/etc/passwd"
image "docker.io/library/$redis_image" "$work/redis" <<'EOF'
RUN ["/bin/busybox", "chown", "999:1000", "/data"]
ENV PATH=/usr/local/bin:/bin
VOLUME /data
WORKDIR /data
ENTRYPOINT ["redis-server"]
EOF

root=$work/envoy/root
mkdir -p "$root/usr/local/bin" "$root/etc/envoy" "$root/tmp"
chmod 1777 "$root/tmp"
with_libraries "$root" "$envoy"
cp "$envoy" "$root/usr/local/bin/envoy"
image "docker.io/envoyproxy/envoy:distroless-v$(version ENVOY_VERSION)" "$work/envoy" <<'EOF'
USER 65532
ENTRYPOINT ["/usr/local/bin/envoy"]
EOF

# The builder: the toolchain, and the modules that go.mod names.
go mod download
root=$work/go/root
mkdir -p "$root/usr/local" "$root/etc/ssl/certs" "$root/root"
with_shell "$root"
cp -R "$(go env GOROOT)" "$root/usr/local/go"
rm -rf "$root/usr/local/go/test"
cp -R "$(go env GOMODCACHE)/cache/download" "$root/goproxy"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
image "docker.io/library/golang:$(version GO_VERSION)-bookworm" "$work/go" <<'EOF'
ENV PATH=/usr/local/go/bin:/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local GOPROXY=file:///goproxy GOSUMDB=off
EOF

# ---- The stack, as a user would start it.

"${podman[@]}" system service --time=0 "unix://$work/podman.sock" 2>"$work/service.log" &
service_pid=$!
export DOCKER_HOST=unix://$work/podman.sock
until [ -S "$work/podman.sock" ]; do
	kill -0 "$service_pid" || fail "podman's service running"
	sleep 0.1
done

# Podman leaves health checks to timers of systemd. Where there is no systemd,
# nobody runs them but this loop.
run_health_checks() {
	local name
	while sleep 1; do
		for name in $(pod ps --format '{{.Names}}'); do
			timeout 10 "${podman[@]}" healthcheck run "$name" || true
		done
	done
}
run_health_checks >/dev/null 2>&1 &
health_pid=$!

scripts/compose-env.sh "$work/env" "$work/secrets/signing-key.pem" >/dev/null
# shellcheck source=/dev/null
. "$work/env"

say "docker-compose config"
compose config -q
seen "the file is valid"
say "docker-compose build"
compose build >"$work/build.log" 2>&1 || { tail -40 "$work/build.log" >&2 && fail "the images built"; }
pod images --format '   {{.Size}} {{.Repository}}' | grep "$project" | sort -k 2
say "docker-compose up"
up() {
	local start=$SECONDS
	compose up -d >"$work/up.log" 2>&1 || { tail -20 "$work/up.log" >&2 && fail "the stack up"; }
	wait_for "Envoy healthy" 60 is_healthy envoy
	seen "all $(pod ps -q | wc -l) containers are up, each after those that it depends on were healthy ($((SECONDS - start)) s)"
}
is_healthy() { [ "$(pod inspect --format '{{.State.Healthcheck.Status}}' "${project}_${1}_1")" = healthy ]; }

# wait_for WHAT SECONDS COMMAND… tries the command until it succeeds.
wait_for() {
	local what=$1 until=$((SECONDS + $2))
	shift 2
	until "$@"; do
		[ "$SECONDS" -lt "$until" ] || fail "$what"
		sleep 0.2
	done
}
up

# ---- What it answers.

gateway=http://127.0.0.1:$PORT

# ask STATUS TEXT WHAT CURL_ARGUMENTS… expects an answer that holds the text.
ask() {
	local status=$1 text=$2 what=$3 got
	shift 3
	got=$(curl -s --max-time 5 -o "$work/body" -w '%{http_code}' "$@") || true
	[ "$got" = "$status" ] && { [ -z "$text" ] || grep -qF "$text" "$work/body"; } ||
		fail "$what: wanted $status with $text, got $got: $(head -c 300 "$work/body")"
	seen "$what: $got $(head -c 110 "$work/body" | tr '\n' ' ')"
}

in_container() { # SERVICE COMMAND…
	local service=$1
	shift
	pod exec "${project}_${service}_1" "$@"
}

# new_session USER writes a session as an express application would, with
# redis-cli on the master, and says its signed cookie.
new_session() {
	local id signature
	id=$(openssl rand -hex 16)
	in_container "$master" redis-cli set "sess:$id" \
		'{"cookie":{"originalMaxAge":86400000,"httpOnly":true,"path":"/"},"userId":"'"$1"'","email":"'"$1"'@example.com","roles":["user"],"organizationId":"org-1"}' \
		EX 86400 >"$work/set"
	grep -qx OK "$work/set" || fail "a session written on $master: $(cat "$work/set")"
	signature=$(printf %s "$id" | openssl dgst -sha256 -hmac "$SESSION_SECRET" -binary | openssl base64 | tr -d '=\n' | sed 's/+/%2B/g; s,/,%2F,g')
	echo "$id sessionId=s%3A$id.$signature"
}

say "the gateway"
master=redis-1
ask 401 '{"error":"No token provided"}' "nobody" "$gateway/users/me"
ask 200 '<title>' "the page" "$gateway/"
read -r erin_id erin <<<"$(new_session erin)"
ask 200 '"userId":"erin"' "a session written on the Redis master" -H "Cookie: $erin" "$gateway/users/me"
ask 200 '"displayName"' "the same, for order-service, which asks user-service with the internal key" -H "Cookie: $erin" "$gateway/orders"
ask 401 '{"error":"Invalid session"}' "a forged cookie" -H "Cookie: ${erin%????}AAAA" "$gateway/users/me"
ask 403 '{"error":"Forbidden"}' "erin is no administrator" -H "Cookie: $erin" "$gateway/users/admin/stats"
ask 403 '{"error":"Forbidden"}' "an internal route, with a wrong key" -H "x-internal-api-key: wrong" "$gateway/users/internal/bob"
ask 200 '"keys"' "the public keys" "$gateway/.well-known/jwks.json"
ask 200 '"demo-bob"' "whom the page lets one be" "$gateway/demo/state"
ask 200 '<title>' "the console" "$gateway/auth/console"

say "the auth API"
log_in() { # USER
	ask 200 "\"userId\":\"$1\"" "$1 logs in" -c "$work/$1" --json "{\"email\":\"$1@example.com\",\"password\":\"demo-$1\"}" "$gateway/auth/login"
}
ask 401 '{"error":"Invalid credentials"}' "a wrong password" --json '{"email":"alice@example.com","password":"guess"}' "$gateway/auth/login"
log_in alice
ask 200 '"userId":"alice"' "her session" -b "$work/alice" "$gateway/users/me"
ask 200 '' "alice is an administrator" -b "$work/alice" "$gateway/users/admin/stats"
ask 200 '"accessToken"' "bob gets a token" --json '{"email":"bob@example.com","password":"demo-bob","client":"mobile"}' "$gateway/auth/token"
token=$(sed 's/.*"accessToken":"\([^"]*\)".*/\1/' "$work/body")
ask 200 '"userId":"bob"' "the token" -H "Authorization: Bearer $token" "$gateway/users/me"
ask 200 '' "it is revoked, and the replica has it" -d "token=$token" "$gateway/auth/revoke"
for _ in 1 2 3 4 5 6; do # both replicas of Gatehouse
	ask 401 '{"error":"Invalid token"}' "the token, not yet expired" -H "Authorization: Bearer $token" "$gateway/users/me"
done
log_in carol
ask 200 '{"message":"Revoked 1 sessions"}' "alice revokes everything of carol's" -b "$work/alice" --json '{"userId":"carol"}' "$gateway/auth/revoke-all-sessions"
ask 401 '{"error":"Invalid session"}' "carol's session" -b "$work/carol" "$gateway/users/me"

say "revocation"
in_container "$master" redis-cli del "sess:$erin_id" >/dev/null
for _ in 1 2 3 4 5 6; do # both replicas
	ask 401 '{"error":"Invalid session"}' "a session that redis-cli deleted" -H "Cookie: $erin" "$gateway/users/me"
done

# ---- What keeps it together, and apart.

say "hardening"
for name in $(pod ps --format '{{.Names}}'); do
	pid=$(pod inspect --format '{{.State.Pid}}' "$name")
	status=$(cat "/proc/$pid/status")
	for want in 'NoNewPrivs:	1' 'CapEff:	0000000000000000' 'CapPrm:	0000000000000000' 'CapBnd:	0000000000000000' 'Seccomp:	2'; do
		grep -qxF "$want" <<<"$status" || fail "$name: $want"
	done
	! grep -qE '^Uid:	0|^Gid:	0' <<<"$status" || fail "$name runs as a user of its own"
	[ "$(pod inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$name")" = true ] || fail "$name has a read-only root"
	[ "$(pod inspect --format '{{.HostConfig.Memory}}' "$name")" -gt 0 ] || fail "$name has a memory limit"
done
seen "every process: no root, no capability, no new privileges, seccomp, read-only root, memory limit"
published=$(pod ps --format '{{.Ports}}' | grep -v '^$' || true)
[ "$published" = "127.0.0.1:$PORT->8080/tcp" ] || fail "only the gateway is published, but there is: $published"
seen "the only published port: $published"

# can SERVICE URL: whether a container gets any answer from there.
can() { in_container "$1" /probe "$2" >/dev/null 2>&1; }
store=$(sed -n 's/^.*STORE_NET:-\([0-9.]*\)}.*/\1/p' docker-compose.yml | head -1)
can order-service http://user-service:8101/healthz || fail "the service network works (the control of the next lines)"
! can demo-page http://envoy:9901/ready || fail "Envoy's admin interface is its own"
for service in user-service order-service demo-page; do
	! can "$service" http://gatehouse:9090/healthz || fail "$service can't reach Gatehouse"
	! in_container "$service" /probe "http://$store.11:6379/" >"$work/probe-$service" 2>&1 || fail "$service can't reach Redis"
	# What it says may come a moment after its end.
	wait_for "$service says that there is no way to Redis" 5 \
		grep -qE 'network is unreachable|no route|deadline exceeded|i/o timeout' "$work/probe-$service"
done
seen "services reach neither Redis nor Gatehouse, and nobody Envoy's admin interface"

# ---- Redis's master dies.

# client COOKIE asks without a pause and writes down what it gets.
client() {
	: >"$work/answers"
	while :; do
		echo "$(date +%s.%N) $(curl -s --max-time 5 -o /dev/null -w '%{http_code}' -H "Cookie: $1" "$gateway/users/me")" >>"$work/answers"
		sleep 0.05
	done
}
answered() { tail -n 1 "$work/answers" | grep -q " $1\$"; }
started() { pod ps --format '{{.Names}}' | grep -E '_(gatehouse|envoy)_' | sort | xargs "${podman[@]}" inspect --format '{{.Name}} {{.State.StartedAt}}'; }
master_is() { [ "$(in_container sentinel-1 redis-cli -p 26379 sentinel get-master-addr-by-name mymaster 2>/dev/null | head -1 | tr -d '\r')" = "$1" ]; }
replicates_from() { # NODE MASTER
	in_container "$1" redis-cli info replication 2>/dev/null | tr -d '\r' >"$work/replication"
	grep -qx "role:slave" "$work/replication" && grep -qx "master_host:$2" "$work/replication" && grep -qx "master_link_status:up" "$work/replication"
}

# fail_over FROM TO kills the master while a client goes on asking.
fail_over() {
	local from=$1 to=$2 before killed elected
	before=$(started)
	client "$dave" &
	client_pid=$!
	wait_for "dave's session good" 10 answered 200
	killed=$(date +%s.%N)
	pod stop --time 0 "${project}_${from}_1" >/dev/null # SIGKILL, and no restart
	wait_for "$to elected" 60 master_is "$to"
	elected=$(date +%s.%N)
	wait_for "dave's session good again" 60 answered 200
	sleep 5
	kill "$client_pid" && client_pid=
	awk -v killed="$killed" -v elected="$elected" '
		{ n[$2]++; if ($2 != 200) { if (!first) first = $1; last = $1 } }
		END {
			printf "   Sentinel elected %.1f s after the kill\n", elected - killed
			if (first) printf "   dave got 503 from %.1f s to %.1f s after the kill\n", first - killed, last - killed
			for (s in n) printf "   %d answers were %s\n", n[s], s
		}' "$work/answers"
	! grep -qvE ' (200|503)$' "$work/answers" || fail "a good session gets 200, or 503 while nobody knows; there were $(tally)"
	[ "$(started)" = "$before" ] || fail "no Gatehouse and no Envoy was restarted"
	master=$to
	seen "dave was never told that his session is invalid, and nothing was restarted"
	ask 200 '"userId":"dave"' "dave's session, from the new master" -H "Cookie: $dave" "$gateway/users/me"
	log_in bob
	ask 200 '"userId":"bob"' "bob's new session, on the new master" -b "$work/bob" "$gateway/users/me"
	# The other Redis is gone: what only one has is not acknowledged.
	log_in carol
	ask 500 '{"error":"Logout failed"}' "a logout that no replica has" -b "$work/carol" -X POST "$gateway/auth/logout"
}
tally() { cut -d ' ' -f 2 "$work/answers" | sort | uniq -c | tr '\n' ' '; }

come_back() { # FROM TO, as for fail_over
	local start=$SECONDS
	pod start "${project}_${1}_1" >/dev/null
	wait_for "$1 follows $2" 60 replicates_from "$1" "$2"
	[ "$(in_container "$1" redis-cli exists "sess:$dave_id" | tr -d '\r')" = 1 ] || fail "$1 has dave's session"
	seen "$1 follows $2 ($((SECONDS - start)) s after its start) and has what it missed"
	log_in carol
	ask 200 '{"message":"Logged out successfully"}' "a logout that the replica has" -b "$work/carol" -X POST "$gateway/auth/logout"
}

say "the master is killed"
read -r dave_id dave <<<"$(new_session dave)"
[ "$(in_container redis-1 redis-cli wait 1 5000 | tr -d '\r')" = 1 ] || fail "the replica has dave's session"
fail_over redis-1 redis-2
come_back redis-1 redis-2

say "the new master is killed, too"
fail_over redis-2 redis-1
come_back redis-2 redis-1
fail_over redis-1 redis-2

say "the stack goes down and comes up again, with its volumes"
compose down --timeout 30 >"$work/down.log" 2>&1 || { tail -20 "$work/down.log" >&2 && fail "the stack down"; }
up
wait_for "redis-2 still master" 30 master_is redis-2
wait_for "redis-1, which was master when it died, follows" 60 replicates_from redis-1 redis-2
seen "redis-1, killed as a master and never told, follows redis-2"
ask 200 '"userId":"bob"' "bob's session, from before" -b "$work/bob" "$gateway/users/me"

say "Gatehouse is restarted, one replica after the other"
client "$dave" &
client_pid=$!
for replica in 1 2; do
	pod stop --time 30 "${project}_gatehouse_$replica" >/dev/null
	pod start "${project}_gatehouse_$replica" >/dev/null
	wait_for "replica $replica ready" 60 pod exec "${project}_gatehouse_$replica" /gatehouse ready >/dev/null
	sleep 5 # until Envoy has seen it
done
kill "$client_pid" && client_pid=
echo "   $(wc -l <"$work/answers") requests during both restarts"
! grep -qv ' 200$' "$work/answers" || fail "every request answered 200; there were $(tally)"
seen "not one of them failed"

say "proven"
