#!/usr/bin/env bash
# Installs the operator on a cluster, makes the sample marketplace and walks
# through it. Quick when nothing changed.
#
#   hack/deploy.sh local           the cluster of hack/cluster; images are made
#                                  here, without Docker
#   hack/deploy.sh kind            the kind cluster marketplane, made if need be;
#                                  the image by docker build
#   hack/deploy.sh context NAME    a context of the kubeconfig; the image IMAGE,
#                                  and for databases POSTGRES_IMAGE (default: the
#                                  chart's), must be there for it to pull
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly mode=${1:-}
readonly release=marketplane system=marketplane-system sample=chore-done
readonly ready_timeout=420

fail() {
  echo "deploy: $*" >&2
  exit 1
}

# step NAME COMMAND... says what runs and how long it took; its output shows
# only if it fails.
step() {
  local name=$1 started=$SECONDS log status
  shift
  log=$(mktemp)
  printf '%s ...\n' "$name"
  # Not as a condition: that would switch off errexit in the command.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1
  status=$?
  set -e
  ((status == 0)) || sed 's/^/    /' "$log" >&2
  rm -f "$log"
  ((status == 0)) || fail "$name failed after $((SECONDS - started)) s"
  printf '%s: %d s\n' "$name" "$((SECONDS - started))"
}

tool_path() { go tool -modfile=hack/tools/go.mod -n "$1"; }
cluster() { go run -C hack/cluster . "$@"; }
helm() { "$helm" --kube-context "$context" "$@"; }
kube() { "$kubectl" --context "$context" "$@"; }

build_programs() {
  export CGO_ENABLED=0
  # Without the commit's stamp, equal sources give equal bytes, and so a tag
  # that an unchanged build finds in the cluster already.
  go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$1/marketplane" ./services
  go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$1/marketplane-operator" .
}

digest_of() { cat "$@" | sha256sum | cut -c 1-12; }

local_images() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/marketplane/images programs=$PWD/.cache/image
  mkdir -p "$cache" "$programs"
  KUBECONFIG=$(cluster kubeconfig) || fail "the local cluster does not run; 'make up' starts it"
  export KUBECONFIG
  context=marketplane-local
  kubectl=$(cluster assets)/kubectl

  step "build the programs" build_programs "$programs"
  image=marketplane/marketplane:dev-$(digest_of "$programs"/marketplane "$programs"/marketplane-operator)
  postgres_image=marketplane-postgres:15
  local archive=$cache/${image##*:}.tar
  if [[ ! -f $archive ]]; then
    # Older builds' archives are of no use once a newer one is made.
    rm -f "$cache"/dev-*.tar
    step "make the image $image" cluster image --out "$archive" --name "$image" --entrypoint /marketplane \
      --file "$programs/marketplane=/marketplane" --file "$programs/marketplane-operator=/marketplane-operator"
  fi
  if [[ ! -f $cache/postgres-15.tar ]]; then
    step "make the image $postgres_image" cluster postgres-image --out "$cache/postgres-15.tar" --name "$postgres_image"
  fi
  step "load the images" cluster load-image "$archive" "$cache/postgres-15.tar"
}

kind_images() {
  local name=marketplane
  context=kind-$name
  kubectl=$(command -v kubectl) || fail "kubectl is not installed"
  if ! kind get clusters 2>/dev/null | grep -qx "$name"; then
    step "make the kind cluster $name" kind create cluster --name "$name" --wait 3m
  fi
  step "build the image" docker build --quiet --tag marketplane/marketplane:dev .
  # A tag of its own makes the cluster notice a new build.
  image=marketplane/marketplane:dev-$(docker image inspect --format '{{.Id}}' marketplane/marketplane:dev | cut -c 8-19)
  docker tag marketplane/marketplane:dev "$image"
  step "load the image" kind load docker-image --name "$name" "$image"
}

named_images() {
  context=${1:-}
  [[ -n $context ]] || fail "name the cluster's context"
  [[ -n ${IMAGE:-} ]] || fail "name an image that the cluster of $context can pull: IMAGE=registry/marketplane:tag (docker build makes it from the Dockerfile)"
  kubectl=$(command -v kubectl) || fail "kubectl is not installed"
  image=$IMAGE
  postgres_image=${POSTGRES_IMAGE:-}
}

install_operator() {
  local name_part=${image##*/} values=()
  [[ $name_part == *:* ]] || fail "the image $image has no tag"
  values+=(--set-string "image.repository=${image%:*}" --set-string "image.tag=${image##*:}")
  [[ -z $postgres_image ]] || values+=(--set-string "postgres.image=$postgres_image")
  make_namespace "$system"
  # A release whose last change was killed is locked; its record is the lock.
  kube -n "$system" delete secrets -l "owner=helm,name=$release,status in (pending-install,pending-upgrade,pending-rollback)"
  helm upgrade --install "$release" charts/marketplane --namespace "$system" --wait --timeout 3m \
    --set "test.marketplace.name=$sample" --set "test.marketplace.namespace=$sample" "${values[@]}" || {
    explain "$system"
    return 1
  }
}

# Only pods that need no privilege may run in our namespaces.
make_namespace() {
  kube create namespace "$1" --dry-run=client -o yaml | kube apply -f -
  kube label namespace "$1" --overwrite pod-security.kubernetes.io/enforce=restricted
}

# What one would look at next, when something does not become ready.
explain() {
  local namespace=$1 pod
  kube -n "$namespace" get pods -o wide
  kube -n "$namespace" get events --field-selector type=Warning --sort-by .lastTimestamp | tail -n 10
  for pod in $(kube -n "$namespace" get pods --no-headers | awk '{split($2, r, "/")} r[1] != r[2] && $3 != "Completed" {print $1}'); do
    echo "--- the last lines of $pod"
    kube -n "$namespace" logs "$pod" --all-containers --tail 15 || true
  done
}

apply_sample() {
  make_namespace "$sample"
  kube -n "$sample" apply -f config/samples/chore-done.yaml
}

readonly not_true='{range .status.conditions[?(@.status!="True")]}{"  "}{.type}{": "}{.message}{"\n"}{end}{range .status.conditions[?(@.type=="Stalled")]}{"  stalled: "}{.message}{"\n"}{end}'

# Until the operator has brought the new image everywhere, Ready tells of the
# old one. The database keeps its own.
is_ready() {
  local services
  services=$(kube -n "$sample" get deployments -l "marketplane.dev/marketplace=$sample" -o jsonpath="{.items[*].spec.template.spec.containers[0].image}")
  [[ $services == "$image $image $image" ]] &&
    kube -n "$sample" wait "marketplace/$sample" --for=condition=Ready --timeout=3s
}

wait_ready() {
  local started=$SECONDS last='' now
  echo "wait until the marketplace $sample is ready ..."
  until is_ready >/dev/null 2>&1; do
    now=$(kube -n "$sample" get marketplace "$sample" -o jsonpath="$not_true")
    if [[ $now != "$last" ]]; then
      printf '%4d s\n%s\n' "$((SECONDS - started))" "$now"
      last=$now
    fi
    if ((SECONDS - started > ready_timeout)); then
      explain "$sample" >&2
      explain "$system" >&2
      fail "the marketplace $sample is not ready after $((SECONDS - started)) s"
    fi
    sleep 2
  done
  printf 'the marketplace %s is ready: %d s\n' "$sample" "$((SECONDS - started))"
}

walk_through() {
  local started=$SECONDS
  echo "walk through the marketplace $sample (helm test) ..."
  helm test "$release" --namespace "$system" --logs --timeout 5m ||
    fail "the walk through the marketplace $sample failed after $((SECONDS - started)) s"
  printf 'the walk through the marketplace %s: %d s\n' "$sample" "$((SECONDS - started))"
}

context='' kubectl='' helm='' image='' postgres_image=''
case $mode in
  local) local_images ;;
  kind) kind_images ;;
  context) named_images "${2:-}" ;;
  *) fail "usage: hack/deploy.sh local | kind | context NAME" ;;
esac
step "build helm (2 minutes the first time)" tool_path helm
helm=$(tool_path helm)
step "install the operator" install_operator
step "apply the marketplace $sample" apply_sample
wait_ready
walk_through
kube get marketplaces --all-namespaces
echo "all of it: $SECONDS s"
