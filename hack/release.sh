#!/usr/bin/env bash
# The release before this one, for tests of the way from there to here. It is
# built once, into the cache.
#   hack/release.sh sources   prints the folder of its sources
#   hack/release.sh load      loads its image into the local cluster, under the
#                             name that its chart has for it, and prints the
#                             folder of its programs
# Ends with 3 where the repository does not hold the release, as a shallow clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

constant() { sed -n "s/^\t$1 *= \"\(.*\)\"\$/\1/p" api/contract/release.go; }

release=$(constant PreviousRelease)
commit=$(constant PreviousCommit)
[[ -n $release && -n $commit ]] || {
  echo "release: api/contract/release.go does not name the release before" >&2
  exit 1
}
# The tag is what was published; the commit stands in where there is none.
at=$(git rev-parse --quiet --verify "refs/tags/$release^{commit}" || git rev-parse --quiet --verify "$commit^{commit}") || {
  echo "release: this repository has neither a tag $release nor commit $commit: fetch the whole history (git fetch --unshallow --tags)" >&2
  exit 3
}
named=$(git rev-parse --quiet --verify "$commit^{commit}" || true)
if [[ -n $named && $named != "$at" ]]; then
  echo "release: the tag $release is of $at, and api/contract/release.go names $commit: one of them is wrong" >&2
  exit 1
fi
readonly release at folder=${XDG_CACHE_HOME:-$HOME/.cache}/marketplane/releases/$release-${at:0:12}

# Each part is made beside its place and moved there whole.
sources() {
  [[ ! -d $folder/sources ]] || return 0
  mkdir -p "$folder"
  local new
  new=$(mktemp -d "$folder/new.XXXXXX")
  git archive "$at" | tar -x -C "$new"
  mv "$new" "$folder/sources"
}

programs() {
  [[ ! -d $folder/programs ]] || return 0
  local new
  new=$(mktemp -d "$folder/new.XXXXXX")
  CGO_ENABLED=0 go build -C "$folder/sources" -trimpath -buildvcs=false -ldflags '-s -w' -o "$new/marketplane" ./services
  CGO_ENABLED=0 go build -C "$folder/sources" -trimpath -buildvcs=false -ldflags '-s -w' -o "$new/marketplane-operator" .
  mv "$new" "$folder/programs"
}

image() {
  [[ ! -f $folder/image.tar ]] || return 0
  go run -C hack/cluster . image --out "$folder/image.new" --name "marketplane/marketplane:${release#v}" --entrypoint /marketplane \
    --file "$folder/programs/marketplane=/marketplane" --file "$folder/programs/marketplane-operator=/marketplane-operator"
  mv "$folder/image.new" "$folder/image.tar"
}

case ${1:-} in
  sources)
    sources
    echo "$folder/sources"
    ;;
  load)
    {
      sources
      programs
      image
      go run -C hack/cluster . load-image "$folder/image.tar"
    } >&2
    echo "$folder/programs"
    ;;
  *)
    echo "usage: hack/release.sh sources | load" >&2
    exit 2
    ;;
esac
