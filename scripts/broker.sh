# Sourced after prepare.sh: one broker of the release build, started, killed and ended by its process id.
#
# A script that sources this owns every process it starts and ends them when it ends, however it ends.

corrente=target/release/corrente
broker_pid=
broker=127.0.0.1:0
helper_pids=()

end_our_processes() {
  local status=$?
  local pid
  for pid in "${helper_pids[@]}" $broker_pid; do
    kill -9 "$pid" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  exit "$status"
}
trap end_our_processes EXIT
trap 'exit 130' INT TERM

build_release() {
  say "cargo build --release (the first time takes some minutes)"
  cargo build --release --locked -p corrente-cli "$@"
}

# The shards pin a little memory for their rings; root may raise the limit, everybody else is told by the broker.
ulimit -l unlimited 2>/dev/null || true

# start_broker DIR [flags of corrente serve]: data, log and ready file are in DIR. The first start takes a free port,
# later ones the same, so that clients find it again. Returns once requests are served.
start_broker() {
  local directory=$1 began=$EPOCHREALTIME
  shift
  mkdir -p "$directory"
  rm -f "$directory/ready"
  "$corrente" serve --data-dir "$directory/data" --listen "$broker" --ready-file "$directory/ready" "$@" \
    >>"$directory/broker.log" 2>&1 &
  broker_pid=$!
  # The ready file is written once requests are served; until then all there is to ask is whether the process lives.
  until [ -s "$directory/ready" ]; do
    if ! kill -0 "$broker_pid" 2>/dev/null; then
      tail -n 20 "$directory/broker.log" >&2
      die "the broker ended while starting"
    fi
    sleep 0.01
  done
  broker=$(sed 's/.*"advertised" *: *"\([^"]*\)".*/\1/' "$directory/ready")
  export CORRENTE_BROKERS=$broker
  ready_ms=$(milliseconds_since "$began")
}

# No signal handler runs, nothing is flushed: what the kernel was not given is gone.
kill_broker() {
  kill -9 "$broker_pid"
  wait "$broker_pid" 2>/dev/null || true
  broker_pid=
}

stop_broker() {
  kill -TERM "$broker_pid"
  wait "$broker_pid" || die "the broker did not end in order: $?"
  broker_pid=
}

milliseconds_since() { local now=$EPOCHREALTIME; echo $(((${now/[.,]/} - ${1/[.,]/}) / 1000)); }

# start_producer STATS ARGS...: `corrente produce` in the background, telling in STATS how far it is.
start_producer() {
  local stats=$1
  shift
  rm -f "$stats"
  "$corrente" produce --stats-file "$stats" "$@" &
  producer_pid=$!
  helper_pids+=("$producer_pid")
}

# A number of the stats file: sent, acked or failed; 0 before there is one.
stat_of() { sed -n "s/.*\"$2\" *: *\([0-9]*\).*/\1/p" "$1" 2>/dev/null | grep . || echo 0; }

# kill_in_flight STATS AT: waits until AT records were handed to the SDK, kills the broker while some of them are
# unacknowledged, and sets sent_at_kill (read before) and acked_at_kill (read after, when no more can come).
kill_in_flight() {
  local stats=$1 at=$2
  while kill -0 "$producer_pid" 2>/dev/null; do
    sent_at_kill=$(stat_of "$stats" sent)
    [ "$sent_at_kill" -lt "$at" ] || [ "$sent_at_kill" -le "$(stat_of "$stats" acked)" ] || break
    sleep 0.005
  done
  kill -0 "$producer_pid" 2>/dev/null || die "the producer was done before $at records: nothing to kill a broker under"
  kill_broker
  # The file is renewed every 100 ms; two equal readings that far apart are the last word.
  local before=
  acked_at_kill=$(stat_of "$stats" acked)
  until [ "$before" = "$acked_at_kill" ]; do
    before=$acked_at_kill
    sleep 0.25
    acked_at_kill=$(stat_of "$stats" acked)
  done
}
