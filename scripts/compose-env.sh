#!/usr/bin/env bash
# Writes the secrets that docker-compose.yml needs: an env file, and the key
# that signs tokens. An existing file is never touched: that would log everybody
# out, and lock the stack out of its own Redis.
#
#   scripts/compose-env.sh [ENV_FILE [SIGNING_KEY_FILE]]
#
# Relative paths count from the repository's root, as they do for compose.
set -euo pipefail
umask 077
cd "$(dirname "$0")/.."

env_file=${1:-.env}
key_file=${2:-deploy/compose/secrets/signing-key.pem}

fail() {
	echo "compose-env: $*" >&2
	exit 1
}

# 256 random bits in hexadecimal: fits into URLs, Redis and YAML as it is.
secret() { od -An -N32 -vtx1 /dev/urandom | tr -d ' \n'; }

sha256() {
	if command -v sha256sum >/dev/null; then
		sha256sum
	else
		shasum -a 256
	fi | cut -d ' ' -f 1
}

# publish moves a finished file to where it belongs, unless something is there
# already: ln, unlike mv, refuses, even if two of us run at once.
publish() {
	ln "$1" "$2" 2>/dev/null || fail "$2 exists and stays as it is; remove it yourself if you want new secrets"
	rm -f "$1"
}

[ ! -e "$env_file" ] || fail "$env_file exists and stays as it is; remove it yourself if you want new secrets"
command -v openssl >/dev/null || fail "openssl makes the signing key: please install it"
case $key_file in
/*) ;;
*) key_file=./$key_file ;;
esac

work=$(mktemp -d "$(dirname "$env_file")/.compose-env.XXXXXX")
trap 'rm -rf "$work"' EXIT

if [ ! -e "$key_file" ]; then
	mkdir -p "$(dirname "$key_file")"
	key_work=$(mktemp "$(dirname "$key_file")/.signing-key.XXXXXX")
	trap 'rm -rf "$work" "$key_work"' EXIT
	openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$key_work" 2>/dev/null ||
		openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$key_work" 2>/dev/null ||
		fail "openssl could not make an RSA key"
	# The containers read it as a user of their own, whom nobody here knows.
	# On this machine its directory keeps everybody else away from it.
	chmod 0444 "$key_work"
	publish "$key_work" "$key_file"
fi

internal_api_key=$(secret)
cat >"$work/env" <<EOF
# Secrets of docker-compose.yml, made by scripts/compose-env.sh. Keep this file
# to yourself.
SESSION_SECRET=$(secret)
REDIS_PASSWORD=$(secret)
INTERNAL_API_KEY=$internal_api_key
INTERNAL_API_KEY_SHA256=$(printf %s "$internal_api_key" | sha256)
SIGNING_KEY_FILE=$key_file
EOF
publish "$work/env" "$env_file"
echo "$env_file and $key_file are ready"
