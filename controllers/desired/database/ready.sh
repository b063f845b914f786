#!/bin/sh
# Succeeds when the server takes connections.
set -eu
. /etc/marketplane/database-scripts/binaries.sh
exec "$bin/pg_isready" -q -h /run/marketplane -U postgres -d marketplane
