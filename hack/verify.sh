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

# Not the modules of tools and of Kubernetes: to tidy those is to download the
# tests of all that they stand on.
step "modules"
for module in . hack/cluster; do
  go -C "$module" mod tidy -diff
done

step "lint"
lint=$(go tool -modfile=hack/tools/lint/go.mod -n golangci-lint)
"$lint" run ./...
(cd hack/cluster && "$lint" run ./...)

step "shell"
git ls-files '*.sh' .ci/run ':!controllers' | xargs shellcheck
# These run in a container, and read one another there.
shellcheck --shell=sh --exclude=SC1091,SC2012,SC2154 controllers/desired/database/*.sh

step "chart"
helm=$(go tool -modfile=hack/tools/go.mod -n helm)
"$helm" lint --quiet --strict charts/marketplane
for values in charts/marketplane/ci/*-values.yaml; do
  "$helm" lint --quiet --strict --values "$values" charts/marketplane
done

step "done"
