# Sourced after broker.sh: the brokers that scripts/compare sets beside ours, taken from the package registries, each
# started on CPU 0 with a fresh directory and ended by its process id. What is not to be had is named in `skipped`.

kafka_version=4.3.1
nats_version=v2.15.3
natscli_version=v0.5.1

rivals=$PWD/target/rivals
skipped=()
skip() { skipped+=("$1: $2"); say "skipped: $1: $2"; }

# A subshell, so that a package that is not to be had ends the attempt and not the script.
have() { command -v "$1" >/dev/null || (apt_install "$2"); }

# free_port: the first of some that nobody listens to.
free_port() {
  local port
  for ((port = 20000 + RANDOM % 10000; ; port++)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# until_it_listens NAME PID PORT LOG: returns once somebody answers there.
until_it_listens() {
  local deadline=$((SECONDS + 120))
  until (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null; do
    kill -0 "$2" 2>/dev/null || { tail -n 20 "$4" >&2; die "$1 ended while starting"; }
    ((SECONDS < deadline)) || die "$1, process $2, does not listen 120 s after its start"
    sleep 0.1
  done
}

rival_pid=
stop_rival() {
  kill -TERM "$rival_pid"
  # A JVM that was told to end says 143.
  wait "$rival_pid" || [ $? = 143 ] || die "process $rival_pid did not end in order"
  rival_pid=
}

# A JVM may say other things first.
java_version() { java -version 2>&1 | grep ' version "'; }

# Kafka: its jars from Maven's registry, run by whatever JVM of version 17 or later there is.
need_kafka() {
  kafka_jars=$rivals/kafka-$kafka_version
  if ! have java default-jre-headless; then
    skip "Apache Kafka" "no Java, and none in the package registry"
    return 1
  fi
  local java
  java=$(java_version | sed 's/[^"]*"\([0-9]*\).*/\1/')
  if ((${java:-0} < 17)); then
    skip "Apache Kafka" "it needs Java 17, this is Java ${java:-of no known version}"
    return 1
  fi
  [ ! -e "$kafka_jars/whole" ] || return 0
  if ! have mvn maven; then
    skip "Apache Kafka" "no Maven, and none in the package registry"
    return 1
  fi
  say "org.apache.kafka:kafka_2.13:$kafka_version and what it needs, from Maven's registry"
  mkdir -p "$kafka_jars"
  cat >"$kafka_jars/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>corrente</groupId><artifactId>rivals</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version>
    </dependency>
  </dependencies>
</project>
POM
  if ! mvn -B -q -f "$kafka_jars/pom.xml" dependency:copy-dependencies -DoutputDirectory="$kafka_jars" \
    -DincludeScope=runtime; then
    skip "Apache Kafka" "version $kafka_version is not to be had from Maven's registry"
    return 1
  fi
  touch "$kafka_jars/whole"
}

# start_kafka DIR [lines of server.properties]: one node that is broker and controller, with the options of the JVM that
# Kafka's own start script has. Sets `rival`, its address.
start_kafka() {
  local directory=$1 controller
  shift
  rm -rf "$directory"
  mkdir -p "$directory"
  rival=127.0.0.1:$(free_port)
  until controller=127.0.0.1:$(free_port); [ "$controller" != "$rival" ]; do :; done
  printf '%s\n' process.roles=broker,controller node.id=1 "controller.quorum.voters=1@$controller" \
    "listeners=PLAINTEXT://$rival,CONTROLLER://$controller" "advertised.listeners=PLAINTEXT://$rival" \
    controller.listener.names=CONTROLLER inter.broker.listener.name=PLAINTEXT "log.dirs=$directory/data" \
    offsets.topic.replication.factor=1 "$@" >"$directory/server.properties"
  local -a run=(java -server -Xms1G -Xmx1G -XX:+UseG1GC -XX:MaxGCPauseMillis=20
    -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -cp "$kafka_jars/*")
  "${run[@]}" kafka.tools.StorageTool format -t AAAAAAAAQACAAAAAAAAAAA -c "$directory/server.properties" \
    >"$directory/broker.log" 2>&1 || { cat "$directory/broker.log" >&2; die "Kafka's storage cannot be formatted"; }
  taskset -c 0 "${run[@]}" kafka.Kafka "$directory/server.properties" >>"$directory/broker.log" 2>&1 &
  rival_pid=$!
  until_it_listens Kafka "$rival_pid" "${rival##*:}" "$directory/broker.log"
}

# NATS: server and bench tool from the Go module proxy; Debian's server knows no flush before the acknowledgement.
need_nats() {
  [ ! -e "$rivals/bin/nats-$natscli_version" ] || return 0
  if ! have go golang-go; then
    skip "NATS JetStream" "no Go, and none in the package registry"
    return 1
  fi
  say "nats-server $nats_version and nats $natscli_version, from the Go module proxy"
  if ! GOBIN=$rivals/bin go install "github.com/nats-io/nats-server/v2@$nats_version" ||
    ! GOBIN=$rivals/bin go install "github.com/nats-io/natscli/nats@$natscli_version"; then
    skip "NATS JetStream" "$(go version | cut -d' ' -f3) cannot install it from the Go module proxy"
    return 1
  fi
  mv "$rivals/bin/nats" "$rivals/bin/nats-$natscli_version"
}

# start_nats DIR SYNC_INTERVAL: sets `rival`, its address.
start_nats() {
  local directory=$1 port
  rm -rf "$directory"
  mkdir -p "$directory"
  port=$(free_port)
  rival=127.0.0.1:$port
  printf 'listen: "%s"\njetstream { store_dir: "%s", sync_interval: "%s" }\n' "$rival" "$directory/data" "$2" \
    >"$directory/nats.conf"
  taskset -c 0 "$rivals/bin/nats-server" -c "$directory/nats.conf" >"$directory/broker.log" 2>&1 &
  rival_pid=$!
  until_it_listens NATS "$rival_pid" "$port" "$directory/broker.log"
}

# nats_bench sync|async CSV MESSAGES [flags]: publishes so many messages to a file stream, from CPU 1.
nats_bench() {
  local way=$1 csv=$2 messages=$3
  shift 3
  taskset -c "$generator_cpu" "$rivals/bin/nats-$natscli_version" --server "$rival" --no-context bench js pub "$way" \
    compare --no-progress --create --purge --storage file --maxbytes 8GB --size 256B --msgs "$messages" \
    --csv "$csv" "$@"
}
