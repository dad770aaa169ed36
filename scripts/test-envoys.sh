#!/usr/bin/env bash
# Runs the tests that start Envoy, with each of those that 'scripts/tools.sh envoys'
# installs: all of them, whatever comes of one. Prints how many tests of each passed,
# failed and were skipped; the whole output is in dist/envoy-VERSION.log.
#
#   TEST_FLAGS='-run Story' scripts/test-envoys.sh    fewer tests
set -euo pipefail
cd "$(dirname "$0")/.."

shopt -s nullglob
envoys=(.tools/envoys/*/bin/envoy)
if ((${#envoys[@]} == 0)); then
	echo "there are no Envoys in .tools/envoys: run scripts/tools.sh envoys" >&2
	exit 1
fi
mkdir -p dist
failed=()
for envoy in "${envoys[@]}"; do
	version=$(basename "$(dirname "$(dirname "$envoy")")")
	log=dist/envoy-$version.log
	echo "== Envoy $version"
	# shellcheck disable=SC2086 # flags are words
	GATEHOUSE_ENVOY=$PWD/$envoy ${GO:-go} test -v -count=1 -timeout 45m ${TEST_FLAGS:-} ./envoy ./authz/extauthz ./e2e >"$log" 2>&1 ||
		failed+=("$version")
	count() { grep -c "^--- $1: " "$log" || true; }
	echo "passed $(count PASS), failed $(count FAIL), skipped $(count SKIP): $log"
	grep -E '^ *--- FAIL: |^panic: |^FAIL' "$log" || true
done
if ((${#failed[@]})); then
	echo "FAILED with Envoy ${failed[*]}" >&2
	exit 1
fi
