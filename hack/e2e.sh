#!/usr/bin/env bash
# Brings the product up on the local cluster and runs the journeys there. They
# reach Services and pods by their addresses, which no other cluster offers to
# this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${CONTEXT:-}" ]; then
  echo "e2e: the journeys run on the local cluster only; unset CONTEXT" >&2
  exit 2
fi
go run -C hack/cluster . up
hack/deploy.sh local
KUBECONFIG=$(go run -C hack/cluster . kubeconfig) go test -tags e2e -race -count=1 -timeout 30m -v ./hack/e2e/...
