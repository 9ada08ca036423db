#!/usr/bin/env bash
# Runs the simulator when the supervisor says so, and says when it is ready: the warm-up has passed and its port accepts
# connections. Protocol: evaluation/pair/protocol.py.
party=simulator
source "${BASH_SOURCE[0]%/*}/pair.sh"
require PAIR_DIR SIMULATOR_COMMAND SIMULATOR_WARMUP_SECONDS POLL_SECONDS CARLA_PORT
milliseconds "$SIMULATOR_WARMUP_SECONDS"
warmup=$REPLY
begin

port_answers() {
  { exec {connection}<> "/dev/tcp/127.0.0.1/$CARLA_PORT"; } 2>/dev/null || return 1
  exec {connection}>&-
}

for ((n = 1; ; n++)); do
  await_start "$n"
  start_child "$SIMULATOR_COMMAND"
  age=0 ready=""
  until ended; do
    obey
    if [[ -z "$ready" ]] && ((age >= warmup)) && port_answers; then
      publish "ready$n" "$CARLA_PORT"
      say "start $n: ready on port $CARLA_PORT"
      ready=1
    fi
    pause "$poll"
    ((age += poll))
  done
  publish_exit "$n" "$REPLY"
done
