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
(cd hack/promql && "$lint" run ./...)
(cd hack/cluster/ingress && "$lint" run ./...)

step "shell"
git ls-files '*.sh' .ci/run ':!controllers' | xargs shellcheck
# These run in a container, and read one another there.
shellcheck --shell=sh --exclude=SC1091,SC2012,SC2154 controllers/desired/database/*.sh

# There may be no Docker here to build the image with. What its first stage is
# given must do to build the programs.
step "Dockerfile"
given=$(mktemp -d)
trap 'rm -rf "$given"' EXIT
while read -r -a copied; do
  for name in "${copied[@]}"; do
    if ! grep -qxF "!$name" .dockerignore; then
      echo "verify: the Dockerfile copies $name, which .dockerignore keeps from it" >&2
      exit 1
    fi
  done
  cp -r "${copied[@]}" "$given/"
done < <(sed -n '/^FROM scratch/q; s/^COPY \(.*\) [^ ]*$/\1/p' Dockerfile)
for program in ./services .; do
  CGO_ENABLED=0 go build -C "$given" -trimpath -buildvcs=false -ldflags '-s -w' -o /dev/null "$program"
done

# Every rendering is held against the schemas of the Kubernetes that the local
# cluster runs, from its own source, and of the Prometheus Operator: from Go
# modules, and from nowhere else.
step "chart"
helm=$(go tool -modfile=hack/tools/go.mod -n helm)
kubeconform=$(go tool -modfile=hack/tools/go.mod -n kubeconform)
schemas=$(mktemp -d)
trap 'rm -rf "$given" "$schemas"' EXIT
source_of() {
  go -C "$1" mod download "$2"
  go -C "$1" list -m -f '{{.Dir}}' "$2"
}
kubernetes=$(source_of hack/cluster/kubernetes k8s.io/kubernetes)
prometheus=$(source_of hack/promql github.com/prometheus-operator/prometheus-operator)
go run ./hack/kubeschemas "$schemas" "$kubernetes/api/openapi-spec/swagger.json" \
  config/crd/bases/*.yaml "$prometheus/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
conform() {
  "$kubeconform" -strict -summary -skip Kustomization -schema-location "$schemas/{{.ResourceKind}}{{.KindSuffix}}.json" "$@"
}
"$helm" lint --quiet --strict charts/marketplane
"$helm" template marketplane charts/marketplane | conform
if "$helm" template marketplane charts/marketplane --set metrics.podMonitor.enabled=true >/dev/null 2>&1; then
  echo "verify: the chart takes a PodMonitor whose Prometheus its NetworkPolicy shuts out" >&2
  exit 1
fi
for values in charts/marketplane/ci/*-values.yaml; do
  "$helm" lint --quiet --strict --values "$values" charts/marketplane
  "$helm" template marketplane charts/marketplane --values "$values" | conform
done
conform config

# The other way to install it: in an image of one's own, which the services run,
# too.
step "kustomize"
kustomize=$(go tool -modfile=hack/tools/go.mod -n kustomize)
"$kustomize" build config/default | conform
"$kustomize" build config/samples | conform
cp -r config "$schemas/config"
(cd "$schemas/config/default" && "$kustomize" edit set image marketplane/marketplane=registry.example.com/marketplane:1.2.3)
renamed=$("$kustomize" build "$schemas/config/default" | grep -cE '(image|value): registry\.example\.com/marketplane:1\.2\.3$' || true)
if [ "$renamed" != 2 ]; then
  echo "verify: an image that is set in config/default reaches $renamed of 2 places: the operator's own and that of the services" >&2
  exit 1
fi

step "done"
