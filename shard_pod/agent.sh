#!/usr/bin/env bash
# Runs the evaluator with the team's agent once its simulator is warm. Protocol: evaluation/pair/protocol.py.
party=agent
source "${BASH_SOURCE[0]%/*}/pair.sh"
require PAIR_DIR EVALUATOR_COMMAND SIMULATOR_WAIT_SECONDS POLL_SECONDS CHECKPOINT_ENDPOINT ROUTES ROUTES_SUBSET \
  REPETITIONS CARLA_PORT CHALLENGE_TRACK_CODENAME
milliseconds "$SIMULATOR_WAIT_SECONDS"
patience=$REPLY
begin

simulator_is_ready() { # sets REPLY to the exit file's content when there will be no simulator
  local waited=0
  until [[ -e "$PAIR_DIR/simulator/ready$n" ]]; do
    obey
    REPLY="stopped"
    [[ -e "$supervisor/stop$n" ]] && return 1
    if ((waited >= patience)); then
      say "start $n: the simulator was not ready after $SIMULATOR_WAIT_SECONDS seconds"
      REPLY="unready"
      return 1
    fi
    pause "$poll"
    ((waited += poll))
  done
}

for ((n = 1; ; n++)); do
  await_start "$n"
  if simulator_is_ready; then
    export RESUME="" # the evaluator takes any text for true
    [[ -e "$CHECKPOINT_ENDPOINT" ]] && RESUME=1
    [[ -e "$supervisor/subset$n" ]] && read -r ROUTES_SUBSET < "$supervisor/subset$n" && export ROUTES_SUBSET
    start_child "$EVALUATOR_COMMAND"
    until ended; do
      obey
      pause "$poll"
    done
  fi
  publish_exit "$n" "$REPLY"
done
