# Sourced by the scripts that need a PostgreSQL server of their own: one that listens on a socket in a temporary folder, belongs to
# "postgres" where the caller is root, forgets durability, and is gone when the script ends.
#
# Gives $pg_home, $pg_bin, PGHOST and PGUSER in the environment, and the functions below.

pg_start() {
  pg_bin=$(compgen -G "/usr/lib/postgresql/*/bin" | sort -V | tail -1 || true)
  if [ -z "$pg_bin" ] || [ ! -x "$pg_bin/initdb" ] || [ ! -x "$pg_bin/pgbench" ]; then
    echo "PostgreSQL is not there: install the Debian packages postgresql and postgresql-contrib" >&2
    return 1
  fi
  # Short, because the path of a socket may have 107 bytes.
  pg_home=$(mktemp -d /tmp/snap-pg.XXXXXX)
  chmod 755 "$pg_home"
  [ "$(id -u)" != 0 ] || chown postgres "$pg_home"
  export PGHOST=$pg_home PGUSER=postgres PATH="$pg_bin:$PATH"
  unset PGDATABASE PGPORT PGPASSWORD
  pg_as_owner "$pg_bin/initdb" -D "$pg_home/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
  pg_as_owner tee -a "$pg_home/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$pg_home'
shared_buffers = ${PG_BUFFERS:-256MB}
max_wal_size = 4GB
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
CONF
  pg_as_owner "$pg_bin/pg_ctl" -D "$pg_home/data" -l "$pg_home/server.log" -w start >/dev/null || {
    cat "$pg_home/server.log" >&2
    return 1
  }
}

pg_as_owner() {
  (
    cd "$pg_home"
    if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
  )
}

pg_stop() {
  [ -n "${pg_home:-}" ] || return 0
  pg_as_owner "$pg_bin/pg_ctl" -D "$pg_home/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$pg_home"
}
