#!/usr/bin/env bash
# Makes the certificates that envoy/envoy-tls.yaml names, for development:
#
#   scripts/certs.sh [DIR]        DIR is envoy/certs unless given
#
#   ca.crt, ca.key                an authority of your own, for nothing else
#   gateway.crt, gateway.key      the gateway's certificate, for browsers
#   gatehouse.crt, gatehouse.key  the check listener's
#   envoy.crt, envoy.key          with which Envoy shows Gatehouse who it is
#
# What is there and valid for another week stays, so it can run every time. Keys
# are readable by their owner only, and DIR keeps itself out of git.
#
# GATEHOUSE_CERT_NAMES are the gateway's names and addresses, separated by
# commas; localhost,127.0.0.1,::1 unless given.
set -euo pipefail

dir=${1:-$(dirname "$0")/../envoy/certs}
names=${GATEHOUSE_CERT_NAMES:-localhost,127.0.0.1,::1}
days=90

if ! command -v openssl >/dev/null; then
	echo "certs: openssl is not installed: install it with your package manager" >&2
	exit 1
fi

umask 077
mkdir -p "$dir"
cd "$dir"
echo '*' >.gitignore

valid() { # valid NAME: the certificate is there, has its key and lives for a week
	[[ -s $1.key && -s $1.crt ]] && openssl x509 -in "$1.crt" -noout -checkend 604800 >/dev/null
}

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

authority() {
	key ca
	openssl req -new -x509 -sha256 -key ca.key -days "$days" -out ca.crt -subj "/CN=Gatehouse development CA" \
		-addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign"
}

# leaf NAME COMMON_NAME USAGE ALTERNATIVE_NAMES
leaf() {
	key "$1"
	openssl req -new -sha256 -key "$1.key" -subj "/CN=$2" -out "$1.csr"
	printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
		"extendedKeyUsage=$3" "subjectAltName=$4" >"$1.ext"
	if ! openssl x509 -req -sha256 -in "$1.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
		-days "$days" -extfile "$1.ext" -out "$1.crt" 2>openssl.log; then
		cat openssl.log >&2
		exit 1
	fi
	rm -f "$1.csr" "$1.ext" openssl.log # openssl talks even when all is well
}

# alternative_names a,b,1.2.3.4 → DNS:a,DNS:b,IP:1.2.3.4
alternative_names() {
	local name out=
	for name in ${1//,/ }; do
		if [[ $name == *:* || $name =~ ^[0-9.]+$ ]]; then
			out+=",IP:$name"
		else
			out+=",DNS:$name"
		fi
	done
	printf '%s' "${out#,}"
}

if ! valid ca; then
	authority
	rm -f gateway.crt gatehouse.crt envoy.crt # signed by another one
fi
valid gateway || leaf gateway "${names%%,*}" serverAuth "$(alternative_names "$names")"
valid gatehouse || leaf gatehouse gatehouse serverAuth "DNS:gatehouse,DNS:localhost,IP:127.0.0.1"
valid envoy || leaf envoy envoy clientAuth "DNS:envoy"
echo "certs: in $PWD; trust ca.crt to reach the gateway without a warning"
