# A private Redis (or Valkey) server in a folder here, started on the dump, reached only through a socket in it.
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
unset REDISCLI_AUTH
tool() {
  command -v "$1" || command -v "$2" || { echo "There is no $1 here: install Redis" >&2; exit 1; }
}
client() {
  "$(tool redis-cli valkey-cli)" -s "$PWD/server/socket" "$@"
}
mkdir -p -m 711 "$0"
cd "$0"
case $1 in
  up)
    mkdir -m 700 server
    server=$(tool redis-server valkey-server)
    echo "REDIS_SOCKET=$PWD/server/socket"
    echo "SNAP_SERVER=$("$server" --version | grep -o -e '[A-Z][a-z]*' -e 'v=[0-9.]*' | head -n 2 | tr '\n' ' ')"
    ;;
  load)
    [ ! -s server/pid ] || { echo "One drill takes one dump of Redis: make a job of each" >&2; exit 1; }
    $SNAP_UNPACK >server/dump.rdb
    "$(tool redis-server valkey-server)" --port 0 --unixsocket "$PWD/server/socket" --dir "$PWD/server" --dbfilename dump.rdb \
      --save "" --appendonly no --daemonize yes --pidfile "$PWD/server/pid" --logfile "$PWD/server/log" >/dev/null
    for _ in $(seq 3000); do
      [ "$(client ping 2>/dev/null)" != PONG ] || exit 0
      sleep 0.1
      [ ! -s server/log ] || ! grep -q -i -e 'fatal' -e 'wrong signature' -e "can't handle rdb" -e 'terminating' server/log || break
    done
    echo "The server did not load the dump" >&2
    tail -n 5 server/log >&2
    exit 1
    ;;
  ask)
    read -r -a words <<<"$SNAP_ASK"
    client "${words[@]}"
    ;;
  count)
    while IFS= read -r table; do
      client -n "${table#db}" dbsize </dev/null
    done
    ;;
  down) client shutdown nosave >/dev/null 2>&1 || true ;;
esac
