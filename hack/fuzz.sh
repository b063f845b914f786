#!/usr/bin/env bash
# Runs every fuzz target of the product for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?usage: fuzz.sh DURATION}

git grep -lE '^func Fuzz' -- '*_test.go' | while read -r file; do
  grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}' | while read -r target; do
    echo "fuzz: $target in $(dirname "$file"), $time"
    go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
  done
done
