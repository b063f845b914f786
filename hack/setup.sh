#!/usr/bin/env bash
# Installs what the given things need, if it is missing, with apt-get.
#   setup.sh gcc           a C compiler, for the race detector
#   setup.sh shellcheck    the checker of shell scripts
#   setup.sh browser       a browser without a screen, for the journeys
#   setup.sh postgresql    a PostgreSQL server, for tests and for 'make dev'
#   setup.sh redis         a Redis server, for the peer of the messaging benchmark
#   setup.sh node          Node.js with npm, for that peer and the stock Socket.IO client
set -euo pipefail

missing=()
for thing in "$@"; do
  case $thing in
    gcc) command -v gcc >/dev/null && [ -e /usr/include/stdlib.h ] || missing+=(gcc libc6-dev) ;;
    shellcheck) command -v shellcheck >/dev/null || missing+=(shellcheck) ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql) ;;
    redis) command -v redis-server >/dev/null || missing+=(redis-server) ;;
    node)
      if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        missing+=(nodejs npm)
      elif version=$(node --version) && major=${version#v} && [ "${major%%.*}" -lt 18 ]; then
        echo "setup: Node.js here is $version, and what runs on it here needs 18.19 or newer: see https://nodejs.org/en/download" >&2
        exit 1
      fi
      ;;
    browser) command -v chromium-headless-shell >/dev/null || command -v chrome-headless-shell >/dev/null || missing+=(chromium-headless-shell) ;;
    *) echo "setup: nothing called $thing" >&2; exit 2 ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "setup: please install: ${missing[*]} (this script can do it as root, where there is apt-get)" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# A package's own server is not what is wanted: ours are started where needed.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
apt-get update -qq >&2
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
