# Sets bin to the folder of the newest PostgreSQL in the image.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -n 1)
if [ -z "$bin" ] || [ ! -x "$bin/postgres" ]; then
	echo "the image has no PostgreSQL server under /usr/lib/postgresql/MAJOR/bin" >&2
	exit 1
fi
