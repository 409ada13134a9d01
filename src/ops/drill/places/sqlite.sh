# Databases as files in a folder here.
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
command -v sqlite3 >/dev/null || { echo "There is no sqlite3 here: install SQLite" >&2; exit 1; }
mkdir -p -m 711 "$0"
cd "$0"
# The file that a stream becomes.
file=$PWD/server/${SNAP_STREAM:-}
case $1 in
  up)
    mkdir -m 700 server
    echo "SNAP_SERVER=SQLite $(sqlite3 --version | cut -d ' ' -f 1)"
    ;;
  load)
    mkdir -p "$(dirname "$file")"
    $SNAP_UNPACK >"$file"
    answer=$(sqlite3 -readonly "$file" "pragma integrity_check")
    [ "$answer" = ok ] || { echo "$answer" | head -n 5 >&2; exit 1; }
    echo "SQLITE_DATABASE=$file"
    ;;
  ask) sqlite3 -readonly "$SQLITE_DATABASE" "$SNAP_ASK" ;;
  count)
    while IFS= read -r table; do
      sqlite3 -readonly "$file" "select count(*) from \"${table//\"/\"\"}\"" 2>/dev/null </dev/null || echo -
    done
    ;;
  down) ;;
esac
