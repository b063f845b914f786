#!/usr/bin/env bash
# Fails on lint, on modules that are not tidy, and on generated files that are
# not what their sources generate.
set -euo pipefail
cd "$(dirname "$0")/.."

begin=$SECONDS
step() { printf 'verify: %-40s (%ds)\n' "$1" $((SECONDS - begin)); }

step "generated files"
before=$(git status --porcelain)
hack/generate.sh
if [ "$(git status --porcelain)" != "$before" ]; then
  echo "verify: generated files are stale; 'make generate' wrote them anew, commit them:" >&2
  git --no-pager diff --stat >&2
  exit 1
fi

step "modules"
for module in . hack/cluster hack/tools hack/tools/lint; do
  go -C "$module" mod tidy -diff
done

step "lint"
go tool -modfile=hack/tools/lint/go.mod golangci-lint run ./...

step "chart"
go tool -modfile=hack/tools/go.mod helm lint --strict charts/marketplane

step "done"
