#!/usr/bin/env bash
# Runs every fuzz target of this module, one after the other, each for a
# bounded time, and prints a line for each:
#
#   scripts/fuzz.sh          all of them, FUZZTIME each (10s, or a number of inputs: 1000x)
#   scripts/fuzz.sh --list   package and name of each, and runs nothing
#
# FUZZ=Cookie takes only those whose package or name matches this regular
# expression; FUZZ_PARALLEL is how many work on one at a time (default: as many as
# there are processors). The targets are found in the code. It goes on after a
# failure, says where the failing input is, and fails at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

go=${GO:-go}
fuzztime=${FUZZTIME:-10s}
only=${FUZZ:-.}

# targets prints "./package FuzzName", sorted.
targets() {
	local dir files
	"$go" list -f '{{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}' ./... |
		while read -r dir files; do
			[[ -n $files ]] || continue
			# shellcheck disable=SC2086 # one word for each file
			(cd "$dir" && sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*\*testing\.F\).*/\1/p' $files) |
				while read -r name; do echo "./${dir#"$PWD"/} $name"; done
		done | sort
}

all=$(targets | { grep -E -- "$only" || true; })
if [[ -z $all ]]; then
	echo "no fuzz target matches FUZZ=$only" >&2
	exit 1
fi
if [[ ${1:-} == --list ]]; then
	echo "$all"
	exit
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0 count=0
while read -r dir name; do
	# Making one input smaller may take a minute by default: all of the time, and more.
	count=$((count + 1))
	code=0
	"$go" test -run='^$' -fuzz="^$name\$" -fuzztime="$fuzztime" -fuzzminimizetime=1s ${FUZZ_PARALLEL:+-parallel="$FUZZ_PARALLEL"} "$dir" >"$log" 2>&1 </dev/null || code=$?
	last=$(grep -E '^fuzz: elapsed: .*execs: ' "$log" | tail -n 1 || true)
	executions=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' <<<"$last")
	new=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' <<<"$last")
	word=ok
	((code == 0)) || word=FAIL
	printf '%-5s%-28s %-26s %9s executions, %4s new inputs\n' "$word" "${dir#./}" "$name" "${executions:-0}" "${new:-0}"
	((code == 0)) && continue
	failed=$((failed + 1))
	input=$(sed -nE 's/^ *Failing input written to (.*)$/\1/p' "$log" | tail -n 1)
	sed -E '/^fuzz: elapsed:/d; s/^/     /' "$log" | tail -n 60
	if [[ -n $input ]]; then
		echo "     the failing input is $dir/$input; to see it again:"
		echo "     go test $dir -run='^$name\$/^${input##*/}\$'"
	fi
done <<<"$all"
if ((failed > 0)); then
	echo "$failed of $count fuzz targets failed" >&2
	exit 1
fi
echo "$count fuzz targets, $fuzztime each: no failure"
