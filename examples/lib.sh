# shellcheck shell=bash
# What the examples' scripts share. Sourced by each as its first step: alone, a
# script starts a stack (a real Redis, Gatehouse and Envoy, see stack/) that runs
# it; inside one, GATEWAY is set, and the script goes on.
set -euo pipefail

if [[ -z ${GATEWAY:-} ]]; then
	script=$(realpath "$0")
	cd "$(dirname "$script")/../.."
	if [[ -z ${EXAMPLES_BIN:-} ]]; then # where a test has built the programs
		EXAMPLES_BIN=bin
		mkdir -p bin
		go build -o bin/ ./cmd/gatehouse ./examples/stack
	fi
	exec "$EXAMPLES_BIN/stack" -script "$script" "$(dirname "$script")"
fi

answers=$(mktemp -d)
trap 'rm -rf "$answers"' EXIT

# step TEXT: what the next commands are about.
step() { printf '%s\n' "$1"; }

# curl … is curl, which keeps status, headers and body for expect.
curl() {
	last=("$@") body=$answers/body
	local argument previous=
	for argument in "$@"; do
		if [[ $previous == -o ]]; then body=$argument; fi
		if [[ $argument == http://* ]]; then where=${argument#"$GATEWAY"} where=${where%%\?*}; fi
		previous=$argument
	done
	if [[ $body == "$answers/body" ]]; then set -- "$@" -o "$body"; fi
	: >"$answers/body"
	status=$(command curl -sS --max-time 20 -D "$answers/headers" -w '%{http_code}' "$@")
}

# as_expected STATUS TEXT…: did the last curl bring this, the texts in headers or
# body? Text behind a ! must not be there.
as_expected() {
	difference=
	if [[ $status != "$1" ]]; then
		difference="status $1"
		return 1
	fi
	local text answer
	answer=$(cat "$answers/headers" "$body")
	for text in "${@:2}"; do
		if [[ $text == !* && $answer == *"${text#!}"* ]]; then
			difference="no ${text#!}"
			return 1
		elif [[ $text != !* && $answer != *"$text"* ]]; then
			difference=$text
			return 1
		fi
	done
}

# expect STATUS TEXT…: the last curl brought this, or the script ends here.
expect() {
	if as_expected "$@"; then
		printf '  ok  %s  %s\n' "$status" "$where"
		return
	fi
	# Tokens and cookies stay out of what is printed.
	printf '  NOT OK  %s\n  expected  %s\n  came      status %s: %s\n' "$where" "$difference" "$status" "$(head -c 1000 "$body")" |
		sed -E 's/"(accessToken|refreshToken|access_token|cookie)":"[^"]*"/"\1":"…"/g' >&2
	exit 1
}

# expect_soon STATUS TEXT…: the same for what takes effect a moment later; the
# request is sent again until then.
expect_soon() {
	local deadline=$((SECONDS + 15))
	until as_expected "$@" || ((SECONDS > deadline)); do
		sleep 0.1
		curl "${last[@]}"
	done
	expect "$@"
}
