#!/usr/bin/env bash
# Brings the product up on the local cluster and runs the journeys there.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/up.sh
kubeconfig=${KUBECONFIG:-$(go run -C hack/cluster . kubeconfig)}
KUBECONFIG=$kubeconfig go test -tags e2e -race -count=1 -timeout 25m -v ./hack/e2e/...
