# Sourced after prepare.sh: one broker of the release build, started, killed and ended by its process id.
#
# A script that sources this owns every process it starts and ends them when it ends, however it ends.

corrente=target/release/corrente
broker_pid=
broker=127.0.0.1:0

end_our_processes() {
  local status=$? pid
  # Only jobs of this shell that still run: a number that was freed may be somebody else's by now.
  for pid in $(jobs -p); do
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
  local directory=$1 began=$EPOCHREALTIME deadline=$((SECONDS + 120))
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
    ((SECONDS < deadline)) || die "the broker, process $broker_pid, serves nothing 120 s after its start"
    sleep 0.01
  done
  broker=$(sed 's/.*"advertised" *: *"\([^"]*\)".*/\1/' "$directory/ready")
  export CORRENTE_BROKERS=$broker
  ready_ms=$(milliseconds_since "$began")
}

# kafka_address DIR: where the broker that start_broker started there speaks Kafka's protocol.
kafka_address() { sed 's/.*"advertised_kafka" *: *"\([^"]*\)".*/\1/' "$1/ready"; }

# metrics_address DIR: where the broker that start_broker started there, with --metrics, serves them.
metrics_address() { sed 's/.*"metrics" *: *"\([^"]*\)".*/\1/' "$1/ready"; }

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
}

# read_stats FILE: sets sent, acked and failed; 0 before the producer wrote them.
read_stats() {
  local json=
  sent=0 acked=0 failed=0
  { read -r json <"$1"; } 2>/dev/null || true
  if [[ $json =~ \"sent\":([0-9]+) ]]; then sent=${BASH_REMATCH[1]}; fi
  if [[ $json =~ \"acked\":([0-9]+) ]]; then acked=${BASH_REMATCH[1]}; fi
  if [[ $json =~ \"failed\":([0-9]+) ]]; then failed=${BASH_REMATCH[1]}; fi
}

# kill_in_flight STATS AT: waits until AT records were handed to the SDK and some of them are unacknowledged, and kills
# the broker. Sets sent_at_kill, acked_at_kill and in_flight, a lower bound: what had been handed over shortly before
# the kill, less all that was ever acknowledged before it or after.
kill_in_flight() {
  local stats=$1 at=$2 previous
  read_stats "$stats"
  # The file is renewed every 100 ms. A reading that just changed is fresh.
  while previous=$sent; kill -0 "$producer_pid" 2>/dev/null; do
    read_stats "$stats"
    if ((sent != previous && sent >= at && sent > acked)); then break; fi
    sleep 0.002
  done
  kill -0 "$producer_pid" 2>/dev/null || die "the producer was done before record $at: no kill would hit anything"
  kill_broker
  sent_at_kill=$sent
  # The broker is gone: once two readings, with a renewal between them, are equal, no acknowledgement is on its way.
  until acked_at_kill=$acked; sleep 0.25; read_stats "$stats"; ((acked == acked_at_kill)); do :; done
  in_flight=$((sent_at_kill - acked_at_kill))
}
