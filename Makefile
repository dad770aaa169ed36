# The verbs of Gatehouse. `make` alone prints them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BIN   := bin
TOOLS := .tools
GO    ?= go
# Where tests find the Node modules of the Express application.
export GATEHOUSE_NODE_MODULES ?= $(CURDIR)/e2e/express/node_modules
# Releases are built by the Go that images are built by.
RELEASE = GOTOOLCHAIN=go$$(sed -n 's/^ARG GO_VERSION=//p' deploy/Dockerfile) $(GO) -C tools run ./release

.PHONY: help
help: ## print the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.PHONY: build
build: ## build gatehouse and the demo services into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $(BIN)/ ./cmd/gatehouse ./services/user-service ./services/order-service

.PHONY: demo
demo: build ## run the whole story here: Envoy, Gatehouse, a store, two services and a page
	@scripts/tools.sh envoy
	@exec $(BIN)/gatehouse demo $(DEMO_FLAGS)

.PHONY: test-envoys
test-envoys: ## the tests that run Envoy, with its oldest and newest minor and one with a known fault (an hour)
	@scripts/tools.sh envoys
	@scripts/tools.sh redis
	@scripts/tools.sh nginx
	@scripts/tools.sh node
	@scripts/tools.sh sdk-python || true # what needs it is skipped
	@GO="$(GO)" scripts/test-envoys.sh

.PHONY: examples
examples: ## try the six policies of examples/, each behind a real Envoy
	@scripts/tools.sh envoy
	@scripts/tools.sh redis
	@for script in examples/*/e2e.sh; do echo "== $$script"; "$$script"; done

.PHONY: example
example: ## run one of them, to try it by hand: make example CASE=mobile-app
	@test -d "examples/$(CASE)" -a -n "$(CASE)" || { echo "name a directory of examples/: make example CASE=mobile-app"; exit 1; }
	@mkdir -p $(BIN)
	@$(GO) build -o $(BIN)/ ./cmd/gatehouse ./examples/stack
	@exec $(BIN)/stack examples/$(CASE)

.PHONY: test
test: tools ## install what the tests need and run all of them
	$(GO) test -timeout 15m ./...
	$(GO) -C tools test ./release

# What runs where requests are served, and the tests of the whole; `make test` runs all.
RACED := ./authz/... ./cmd/... ./internal/... ./services/... ./e2e/...

.PHONY: check
check: lint licenses vulnerabilities ## generated files fresh, formatted, linted, tested with the race detector
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff
	$(GO) test -race -short -timeout 15m $(RACED)
	$(GO) -C tools test -short ./release

.PHONY: fuzz
fuzz: ## run every fuzz target, 10 s each; FUZZTIME=1m for more, FUZZ=Cookie for some
	@GO="$(GO)" scripts/fuzz.sh

.PHONY: lint
lint: $(TOOLS)/bin/golangci-lint ## formatting and linters
	@unformatted=$$(gofmt -l cmd authz envoy services internal e2e bench chaos deploy docs examples scripts sdk tools); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run 'make format': $$unformatted"; exit 1; fi
	$(TOOLS)/bin/golangci-lint run
	cd tools && ../$(TOOLS)/bin/golangci-lint run

.PHONY: format
format: $(TOOLS)/bin/golangci-lint ## format the code
	$(TOOLS)/bin/golangci-lint fmt
	cd tools && ../$(TOOLS)/bin/golangci-lint fmt

.PHONY: generate
generate: ## write the files that are generated from code
	$(GO) generate ./...
	$(GO) -C tools run ./release licenses -write

.PHONY: licenses
licenses: ## check the licences of all that is linked into the programs, and THIRD_PARTY_NOTICES
	@$(GO) -C tools run ./release licenses

.PHONY: release
release: ## build dist/VERSION: make release VERSION=v1.2.3
	@$(RELEASE) build -version "$(VERSION)"

.PHONY: release-check
release-check: ## build that twice, far apart, and compare (a quarter of an hour)
	@$(RELEASE) check -version "$(VERSION)"

.PHONY: vulnerabilities
vulnerabilities: $(TOOLS)/bin/govulncheck ## look for known vulnerabilities (needs the vulnerability database)
	@scripts/vulnerabilities.sh $(TOOLS)/bin/govulncheck

.PHONY: bench
bench: build ## compare through a real Envoy: no filter, a no-op server, the usual one, jwt_authn, Gatehouse
	@scripts/tools.sh envoy
	@scripts/tools.sh redis
	$(GO) run ./bench $(BENCH_FLAGS)

.PHONY: chaos
chaos: ## the faults, floods and attacks of docs/reliability.md, long; writes dist/chaos.md (half an hour)
	@for part in envoy redis toxiproxy; do scripts/tools.sh $$part; done
	@for part in nginx node; do scripts/tools.sh $$part || true; done # what needs them is skipped
	@rm -f dist/chaos.md
	@status=0; \
	$(GO) test ./chaos -count=1 -timeout 120m -v $(CHAOS_FLAGS) -args -full -report $(CURDIR)/dist/chaos.md || status=$$?; \
	cat dist/chaos.md || true; exit $$status

.PHONY: compose-env
compose-env: .env ## write the secrets that docker compose needs into .env
.env:
	@scripts/compose-env.sh .env

.PHONY: tools
tools: ## install Envoy, Redis, nginx, promtool, toxiproxy, Chromium, the Node modules and the Python that tests use
	@scripts/tools.sh all

.PHONY: tools-kubernetes
tools-kubernetes: ## build Helm, kubectl-validate, egctl and the like, for tests of deploy that are skipped without (half an hour)
	@scripts/tools.sh kubernetes

.PHONY: clean
clean: ## remove what was built and installed here
	rm -rf $(BIN) $(TOOLS) .demo dist e2e/express/node_modules $(addprefix sdk/typescript/,node_modules dist build)

$(TOOLS)/bin/%: tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)/bin
	@echo "building $* (once)"
	@cd tools && $(GO) build -o ../$(TOOLS)/bin/$* $$($(GO) list tool | grep '/$*$$')
