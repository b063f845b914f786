#!/usr/bin/env bash
# Runs every fuzz target of the product for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh DURATION}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() {
  go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" 2>&1 | tee "$log" && return
  # Go sometimes reports the end of the fuzzing time itself as a failure
  # (golang/go#75804, mended in Go 1.27). Then no input failed, and nothing else
  # is said.
  grep -qx '    context deadline exceeded' "$log" && ! grep -q 'Failing input written' "$log"
}

git grep -lE '^func Fuzz' -- '*_test.go' | while read -r file; do
  grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}' | while read -r target; do
    echo "fuzz: $target in $(dirname "$file"), $time"
    fuzz "./$(dirname "$file")" "$target"
  done
done
