#!/usr/bin/env bash
# Runs the simulator when the supervisor says so, and says when it is warm. Protocol: evaluation/pair/protocol.py.
party=simulator
source "${BASH_SOURCE[0]%/*}/pair.sh"
require PAIR_DIR SIMULATOR_COMMAND SIMULATOR_WARMUP_SECONDS POLL_SECONDS CARLA_PORT
milliseconds "$SIMULATOR_WARMUP_SECONDS"
warmup=$REPLY
begin

for ((n = 1; ; n++)); do
  until [[ -e "$supervisor/start$n" ]]; do
    obey
    pause "$poll"
  done
  start_child "$SIMULATOR_COMMAND"
  age=0 ready=""
  until ended; do
    obey
    if [[ -z "$ready" ]] && ((age >= warmup)); then
      tell "ready$n" "$CARLA_PORT"
      say "start $n: ready on port $CARLA_PORT"
      ready=1
    fi
    pause "$poll"
    ((age += poll))
  done
  tell "exit$n" "$REPLY"
done
