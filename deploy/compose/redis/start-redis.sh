#!/bin/sh
# Starts a Redis of the compose stack.
#
#   NODE            the name by which the others know it
#   REPLICA_OF      "HOST PORT" of the first master; nothing for that one itself
#   REDIS_PASSWORD  asked of clients, and shown to the master
#
# The settings are those of redis.conf, at every start. The role is the one
# that the node had last: a failover makes Redis rewrite its configuration in
# /data, and a stack that comes back after it must not make a master again of
# the node that fell behind, for the other one would then throw its data away.
set -eu
umask 077

template=${TEMPLATE:-/etc/redis/redis.conf}
conf=${DATA:-/data}/redis.conf

case ${REDIS_PASSWORD:?} in
*[!0-9A-Za-z]*)
	echo "start-redis.sh: REDIS_PASSWORD has other characters than letters and digits; make one with: openssl rand -hex 32" >&2
	exit 1
	;;
esac

if [ -s "$conf" ]; then
	role=$(grep '^replicaof ' "$conf" || true)
else
	role=${REPLICA_OF:+replicaof $REPLICA_OF}
fi
# printf is part of the shell: the password is on no command line.
{
	cat "$template"
	printf '\nreplica-announce-ip %s\nreplica-announce-port 6379\n' "${NODE:?}"
	printf 'requirepass %s\nmasterauth %s\n' "$REDIS_PASSWORD" "$REDIS_PASSWORD"
	printf '%s\n' "$role"
} >"$conf.new"
mv "$conf.new" "$conf"

exec redis-server "$conf"
