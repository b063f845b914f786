#!/usr/bin/env bash
# Runs the product on a cluster: CONTEXT if one is named, else kind where a
# Docker engine answers, else a Kubernetes that is built and started here.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${CONTEXT:-}" ]; then
  exec hack/deploy.sh context "$CONTEXT"
fi
if command -v kind >/dev/null && docker info >/dev/null 2>&1; then
  exec hack/deploy.sh kind
fi
go run -C hack/cluster . up
exec hack/deploy.sh local
