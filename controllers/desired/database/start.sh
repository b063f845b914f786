#!/bin/sh
# Starts PostgreSQL on the mounted volume. Every step may be killed half-way:
# the next start finishes or repeats it.
set -eu

volume=/var/lib/marketplane
data=$volume/data
socket=/run/marketplane
config=/etc/marketplane/database-scripts
password_file=/etc/marketplane/database/password

# As process 1 the shell ignores signals that it does not trap.
trap 'exit 143' INT TERM

. "$config/binaries.sh"
major=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9][0-9]*\).*/\1/')

# Whoever holds the lock is the only server on this volume, so what an earlier
# one left of itself is stale.
exec 9>"$volume/lock"
if ! flock -w 20 9; then
	echo "another PostgreSQL still runs on this volume; it is tried again" >&2
	exit 1
fi

if [ -s "$data/PG_VERSION" ]; then
	found=$(cat "$data/PG_VERSION")
	if [ "$found" != "$major" ]; then
		echo "the volume was made by PostgreSQL $found and the image holds PostgreSQL $major: set spec.database.embedded.image to an image of PostgreSQL $found" >&2
		exit 1
	fi
else
	# Made beside its place and then renamed: half a database is never used.
	rm -rf "$data.new"
	mkdir -m 0700 "$data.new"
	"$bin/initdb" --pgdata="$data.new" --username=postgres --pwfile="$password_file" \
		--auth-local=peer --auth-host=scram-sha-256 --data-checksums \
		--encoding=UTF8 --locale=C.UTF-8
	echo 'CREATE DATABASE marketplane' |
		"$bin/postgres" --single -D "$data.new" -c exit_on_error=on postgres
	sync
	rm -rf "$data"
	mv "$data.new" "$data"
	sync
fi

# A volume's group permissions are set when it is mounted; PostgreSQL wants
# none.
chmod 0700 "$data"
rm -f "$data/postmaster.pid"

# A kept volume meets a new password. It never stands in an argument, and
# reaches the server's log in no statement.
password=$(cat "$password_file")
case $password in
*[!A-Za-z0-9_-]* | '')
	echo "the password in Secret key \"password\" must be of A-Z a-z 0-9 _ - alone" >&2
	exit 1
	;;
esac
printf "ALTER ROLE postgres PASSWORD '%s'\n" "$password" |
	"$bin/postgres" --single -D "$data" \
		-c exit_on_error=on -c log_statement=none -c log_min_error_statement=panic \
		-c password_encryption=scram-sha-256 postgres >/dev/null
unset password

trap - INT TERM
exec "$bin/postgres" -D "$data" \
	-c hba_file="$config/pg_hba.conf" \
	-c listen_addresses='*' \
	-c port=5432 \
	-c unix_socket_directories="$socket" \
	-c password_encryption=scram-sha-256 \
	-c max_connections=200 \
	-c shared_buffers=128MB \
	-c max_wal_size=512MB \
	-c jit=off \
	-c timezone=UTC \
	-c log_timezone=UTC \
	-c log_checkpoints=off \
	-c logging_collector=off
