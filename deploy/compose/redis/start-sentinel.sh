#!/bin/sh
# Starts a Sentinel of the compose stack.
#
#   NODE            the name by which the others know it
#   REDIS_PASSWORD  of the Redises; the Sentinels themselves ask for none, but
#                   their network is open to Gatehouse and Redis only
#
# Sentinel writes what it knows (its id, the epoch, who is master) into its
# configuration, so that is kept in /data. Only the password is taken from the
# environment at every start.
set -eu
umask 077

template=${TEMPLATE:-/etc/redis/sentinel.conf}
conf=${DATA:-/data}/sentinel.conf

case ${REDIS_PASSWORD:?} in
*[!0-9A-Za-z]*)
	echo "start-sentinel.sh: REDIS_PASSWORD has other characters than letters and digits; make one with: openssl rand -hex 32" >&2
	exit 1
	;;
esac

source=$template
if [ -s "$conf" ]; then
	source=$conf
fi
# printf is part of the shell: the password is on no command line.
{
	grep -vE '^sentinel (auth-pass|announce-ip|announce-port) ' "$source"
	printf '\nsentinel announce-ip %s\nsentinel announce-port 26379\n' "${NODE:?}"
	printf 'sentinel auth-pass mymaster %s\n' "$REDIS_PASSWORD"
} >"$conf.new"
mv "$conf.new" "$conf"

exec redis-sentinel "$conf"
