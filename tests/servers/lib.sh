# Sourced by the scripts beside it. Each script NAME runs a server until its standard input ends:
# `NAME DIRECTORY PORT`, with all that the server keeps below DIRECTORY. Once the server answers, the script prints a line
# that begins with `ready`. It stops what it started, and nothing else, by process id: whoever holds the other end
# of its standard input may die in any way, and nothing is left behind but, unless AMBERFS_SERVER_LEAVES_NOTHING is set, DIRECTORY.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOOLS=${AMBERFS_TEST_TOOLS:-${CARGO_TARGET_DIR:-$here/../../target}/tools/servers}
children=()

# Starts a server in the background: `run NAME COMMAND...`; its output goes to DIRECTORY/NAME.log.
run() {
  local name=$1; shift
  "$@" >"$D/$name.log" 2>&1 </dev/null &
  children+=($!)
  last=$!
}
# Waits until the command succeeds, half a minute at most.
await() {
  local i
  for i in $(seq 300); do
    "$@" >/dev/null 2>&1 && return 0
    # A server that has ended will not answer any more.
    kill -0 "${last:-$$}" 2>/dev/null || break
    sleep 0.1
  done
  echo "not ready: $*" >&2
  tail -n 20 "$D"/*.log >&2
  return 1
}
# A port on which nobody listens at the moment.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }
stop() {
  local pid
  for pid in "${children[@]+"${children[@]}"}"; do kill "${STOP:--TERM}" "$pid" 2>/dev/null || true; done
  for pid in "${children[@]+"${children[@]}"}"; do wait "$pid" 2>/dev/null || true; done
  [ -z "${AMBERFS_SERVER_LEAVES_NOTHING:-}" ] || rm -rf "$D"
}
# Says that all is ready, and serves until nobody wants it any more.
serve() {
  echo "ready $*"
  cat >/dev/null
}
# Makes buckets of an S3 server: `buckets ENDPOINT KEY SECRET REGION NAME[:versioned|:locked]...`.
buckets() { "$TOOLS/venv/bin/python" "$here/buckets.py" "$@"; }
if [ "$(basename "$0")" != install ]; then
  D=$(realpath -m "${1:?DIRECTORY PORT}")
  P=${2:?DIRECTORY PORT}
  mkdir -p "$D"
  trap stop EXIT
  trap 'exit 1' TERM INT HUP
fi
