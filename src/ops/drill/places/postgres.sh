# A private PostgreSQL server in a folder here, of the newest version installed, reached only through a socket in it.
# The server refuses to run as root; then it runs as the user postgres.
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin PGCONNECT_TIMEOUT=10
as_server() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}
tool() {
  local found
  found=$(command -v "$1" || ls -d /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1" 2>/dev/null | sort -V | tail -n 1)
  [ -n "$found" ] || { echo "There is no $1 here: install the PostgreSQL server" >&2; exit 1; }
  echo "$found"
}
ask() {
  psql -X -A -t -q -v ON_ERROR_STOP=1 "$@"
}
mkdir -p -m 711 "$0"
cd "$0"
# The database that a stream is loaded into. What is of the whole server names its databases itself.
database=$(basename "${SNAP_STREAM:-}")
database=${database%%.*}
[ "${SNAP_FORMAT:-}" != pg_dumpall ] || database=postgres
# Where the server is, only `up` says: never some server that happens to be there.
[ "$1" = up ] || : "${PGHOST:?up must print PGHOST}"
case $1 in
  up)
    initdb=$(tool initdb) pg_ctl=$(tool pg_ctl)
    mkdir -m 700 server
    if [ "$(id -u)" = 0 ]; then
      chmod 711 ..
      chown postgres server
    fi
    as_server "$initdb" -D "$PWD/server/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >server.log 2>&1 ||
      { cat server.log >&2; exit 1; }
    options="-c listen_addresses= -c unix_socket_directories=$PWD/server -c fsync=off -c full_page_writes=off -c autovacuum=off"
    as_server "$pg_ctl" -D "$PWD/server/data" -l "$PWD/server/log" -o "$options" -w -t 60 start >/dev/null || { cat server/log >&2; exit 1; }
    echo "PGHOST=$PWD/server"
    echo "PGPORT=5432"
    echo "PGUSER=postgres"
    echo "PGDATABASE=postgres"
    echo "SNAP_SERVER=PostgreSQL $("$initdb" --version | grep -o '[0-9.]*' | head -n 1)"
    ;;
  load)
    [ "$SNAP_FORMAT" = pg_dumpall ] || createdb "$database" 2>/dev/null || ask -d "$database" -c ""
    case $SNAP_FORMAT in
      "pg_dump custom" | "pg_dump tar" | tar) $SNAP_UNPACK | pg_restore --no-owner --no-privileges --exit-on-error -d "$database" ;;
      *)
        $SNAP_UNPACK | psql -X -q -d "$database" >/dev/null 2>load.errors
        # Owners that are not here, and what is here already, change no data.
        if grep -v -e 'role ".*" does not exist' -e 'role "postgres" already exists' -e 'database ".*" already exists' load.errors |
          grep -e 'ERROR: ' -e 'FATAL: ' -e 'invalid command' | head -n 5 | grep . >&2; then
          exit 1
        fi
        ;;
    esac
    # Questions go to the database, and not to where roles were made.
    [ "$SNAP_FORMAT" = pg_dumpall ] || echo "PGDATABASE=$database"
    ;;
  ask) ask -c "$SNAP_ASK" ;;
  count)
    export PGDATABASE=$database
    while IFS= read -r table; do
      if [ "$SNAP_FORMAT" = pg_dumpall ]; then
        PGDATABASE=${table%%.*}
        table=${table#*.}
      fi
      count=$(ask -v table="$table" 2>/dev/null <<'SQL' || true
select format('select count(*) from only %I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where translate(n.nspname || '.' || c.relname, E'\n', ' ') = :'table' and c.relkind in ('r', 'p', 'm', 'f') limit 1 \gexec
SQL
      )
      echo "${count:--}"
    done
    ;;
  down)
    [ -d server/data ] || exit 0
    as_server "$(tool pg_ctl)" -D "$PWD/server/data" -m immediate stop >/dev/null
    ;;
esac
