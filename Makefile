# Everything that people and CI do here. 'make help' lists it.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

TOOLS := go tool -modfile=hack/tools/go.mod
LINT := go tool -modfile=hack/tools/lint/go.mod golangci-lint
CLUSTER := go run -C hack/cluster .
# What runs on Node.js: the peer of the messaging benchmark, and the stock clients
# that tests and journeys drive, and that of the guide for them.
NODE_PACKAGES := hack/bench/messaging/peer services/client/stockclient/client
NODE_PACKAGES += docs/examples/socketio-client
NODE := for dir in $(NODE_PACKAGES); do npm ci --prefix $$dir --no-audit --no-fund --silent || exit; done
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w'
# Packages start a PostgreSQL or an API server each: two at a time is what a
# small machine bears.
TEST_FLAGS ?= -race -count=1 -p 2 -timeout 10m

# CONTEXT names a cluster of your own for 'up'; see README.md.
CONTEXT ?=
export CONTEXT IMAGE POSTGRES_IMAGE

##@ Run

.PHONY: up
up: ## Run the product on a real cluster: CONTEXT=… if named, else kind where Docker answers, else one built here
	@hack/up.sh

.PHONY: down
down: ## Remove the local cluster and everything that it left
	@$(CLUSTER) down

.PHONY: kubeconfig
kubeconfig: ## Print the path of the local cluster's kubeconfig
	@$(CLUSTER) kubeconfig

.PHONY: dev
dev: build ## Run all services in one process on 127.0.0.1:8080, without a cluster (ARGS=… are passed on)
	@hack/setup.sh postgresql
	@exec bin/marketplane dev $(ARGS)

.PHONY: smoke
smoke: build ## Walk the users' story against a running deployment: URL=http://127.0.0.1:8080
	@bin/marketplane smoke --url "$(or $(URL),http://127.0.0.1:8080)"

##@ Build

.PHONY: build
build: ## Build bin/marketplane and bin/marketplane-operator
	@mkdir -p bin
	$(GO_BUILD) -o bin/marketplane ./services
	$(GO_BUILD) -o bin/marketplane-operator .

.PHONY: generate
generate: ## Write all generated files again: deepcopy, CRD, RBAC, chart copies, config/, SQL code
	@hack/generate.sh

##@ Check

.PHONY: verify
verify: ## Lint, check the modules, and fail if a generated file is stale
	@hack/setup.sh gcc shellcheck
	@hack/verify.sh

.PHONY: test
test: ## Run all tests but the end-to-end ones, with the race detector
	@hack/setup.sh gcc postgresql redis node
	@$(NODE)
	@assets="$$($(CLUSTER) assets)" && KUBEBUILDER_ASSETS="$$assets" go test $(TEST_FLAGS) ./...
	@go test -C hack/cluster $(TEST_FLAGS) ./...
	@go test -C hack/promql $(TEST_FLAGS) ./...
	@go test -C hack/cluster/ingress $(TEST_FLAGS) ./...

.PHONY: e2e
e2e: ## Run the journeys on the local cluster, which is started for it
	@hack/setup.sh gcc browser node
	@$(NODE)
	@hack/e2e.sh

.PHONY: bench-operator
bench-operator: build ## Measure the operator with 100, 300 and 1,000 Marketplaces, against hack/bench/operator/thresholds.yaml
	@hack/setup.sh postgresql
	@assets="$$($(CLUSTER) assets)" && KUBEBUILDER_ASSETS="$$assets" go run ./hack/bench/operator $(ARGS)

.PHONY: bench-messaging
bench-messaging: build ## Measure messaging against a server of the Node.js stack, against hack/bench/messaging/thresholds.yaml
	@hack/setup.sh postgresql redis node
	@$(NODE)
	@go build -o bin/bench-messaging ./hack/bench/messaging
	@exec bin/bench-messaging $(ARGS)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 30s) each
	@hack/setup.sh gcc
	@hack/fuzz.sh "$(or $(FUZZTIME),30s)"

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
