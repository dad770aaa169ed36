#!/usr/bin/env bash
# Runs govulncheck; where the vulnerability database can't be reached it says
# so and passes, since that says nothing about the code.
set -euo pipefail
govulncheck=$1
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if "$govulncheck" ./... >"$report" 2>&1; then
	tail -n 3 "$report"
	exit 0
fi
if grep -qE 'fetching vulnerabilities|dial tcp|no such host|connection refused|Forbidden|i/o timeout' "$report"; then
	echo "vulnerability check skipped: the database is out of reach ($(grep -m1 -oE 'no such host|connection refused|Forbidden|i/o timeout|fetching vulnerabilities' "$report"))"
	exit 0
fi
cat "$report"
exit 1
