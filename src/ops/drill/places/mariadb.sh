# A private MariaDB (or MySQL) server in a folder here, reached only through a socket in it.
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
tool() {
  local name
  for name in "$@"; do
    command -v "$name" || continue
    return
  done
  echo "There is no $1 here: install the MariaDB or MySQL server" >&2
  exit 1
}
client() {
  # Where it is, only `up` says: never some server that happens to be there.
  : "${MYSQL_UNIX_PORT:-${MYSQL_HOST:?up must print MYSQL_UNIX_PORT or MYSQL_HOST}}"
  "$(tool mariadb mysql)" --no-defaults --user="${MYSQL_USER:-root}" --batch --skip-column-names "$@"
}
mkdir -p -m 711 "$0"
cd "$0"
# The database that a stream is loaded into.
database=$(basename "${SNAP_STREAM:-}")
database=${database%%.*}
case $1 in
  up)
    mkdir -m 700 server
    server=$(tool mariadbd mysqld)
    if command -v mariadb-install-db >/dev/null; then
      mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$PWD/server/data" --auth-root-authentication-method=normal \
        --skip-test-db >server.log 2>&1 || { tail -n 20 server.log >&2; exit 1; }
    else
      "$server" --no-defaults --user="$(id -un)" --datadir="$PWD/server/data" --initialize-insecure >server.log 2>&1 ||
        { tail -n 20 server.log >&2; exit 1; }
    fi
    setsid "$server" --no-defaults --user="$(id -un)" --datadir="$PWD/server/data" --socket="$PWD/server/socket" \
      --pid-file="$PWD/server/pid" --skip-networking --innodb-flush-log-at-trx-commit=0 --max-allowed-packet=1G \
      >>server.log 2>&1 </dev/null &
    for _ in $(seq 600); do
      if version=$(MYSQL_UNIX_PORT=$PWD/server/socket client -e "select version()" 2>/dev/null); then
        echo "MYSQL_UNIX_PORT=$PWD/server/socket"
        echo "SNAP_SERVER=$(basename "$server") $version"
        exit 0
      fi
      kill -0 $! 2>/dev/null || break
      sleep 0.1
    done
    echo "The server did not start" >&2
    tail -n 20 server.log >&2
    exit 1
    ;;
  load)
    client -e "create database if not exists \`${database//\`/\`\`}\`"
    $SNAP_UNPACK | client --binary-mode --max-allowed-packet=1G "$database" >/dev/null
    echo "MYSQL_DATABASE=$database"
    ;;
  ask) client "${MYSQL_DATABASE:-$database}" -e "$SNAP_ASK" ;;
  count)
    while IFS= read -r table; do
      quoted=\`${table//\`/\`\`}\`
      # Of a dump of several databases the name begins with the database.
      count=$(client "$database" -e "select count(*) from $quoted" 2>/dev/null </dev/null ||
        client -e "select count(*) from ${quoted/./\`.\`}" 2>/dev/null </dev/null || true)
      echo "${count:--}"
    done
    ;;
  down)
    if [ -s server/pid ]; then
      pid=$(cat server/pid)
      kill "$pid"
      for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || exit 0
        sleep 0.1
      done
      kill -9 "$pid"
    fi
    ;;
esac
