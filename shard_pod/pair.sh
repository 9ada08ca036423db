# Sourced by simulator.sh and agent.sh: their half of the protocol in evaluation/pair/protocol.py. Bash 4.3 and coreutils only,
# since it runs in images that are not ours.
set -u -m # -m: every child gets a process group of its own, to be stopped whole

child=""
terminated=""
trap 'terminated=1' TERM INT HUP

say() { # sentence: into the log, with the time
  local now
  TZ=UTC printf -v now '%(%Y-%m-%dT%H:%M:%SZ)T' -1
  echo "$now $party: $1"
}

leave() { # code: end everything of this party
  stop_child
  exec >&- 2>&-
  for ((i = 0; i < 20; i++)); do # the log's last lines, unless something still holds the pipe
    kill -0 "$logger" 2>/dev/null || break
    pause 50
  done
  exit "$1"
}

require() { # names of variables
  local name
  for name in "$@"; do
    if [[ -z "${!name:-}" ]]; then
      echo "$party: the environment variable $name is missing or empty. Set it in the shard's Job." >&2
      exit 40
    fi
  done
}

milliseconds() { # seconds, perhaps with a fraction -> REPLY
  if [[ ! "$1" =~ ^([0-9]+)(\.([0-9]+))?$ ]]; then
    echo "$party: $1 is no number of seconds." >&2
    exit 40
  fi
  local fraction="${BASH_REMATCH[3]:-}000"
  REPLY=$((10#${BASH_REMATCH[1]} * 1000 + 10#${fraction:0:3}))
}

pause() { # milliseconds: waits without starting a process; ends early when told to end
  local left slice
  for ((left = $1; left > 0; left -= 250)); do
    slice="000$((left < 250 ? left : 250))"
    read -r -t "0.${slice: -3}" -u "$clock"
    [[ -n "$terminated" ]] && break
  done
}

begin() { # open the log, learn the polling interval
  supervisor="$PAIR_DIR/supervisor" own="$PAIR_DIR/$party"
  milliseconds "$POLL_SECONDS"
  poll=$REPLY
  mkdir -p "$own" || exit 40
  exec {clock}<> <(:)
  exec > >(trap '' TERM INT HUP; exec tee -a "$own/$party.log") 2>&1
  logger=$!
}

tell() { # file content: other parties see all of it or nothing
  echo "$2" > "$own/.$1.new" && mv -f "$own/.$1.new" "$own/$1"
}

obey() { # what the supervisor and the machine want of us at any time
  if [[ -e "$supervisor/exit_code" ]]; then # before TERM: ECS ends the other containers when the first one has ended
    local exit_code
    read -r exit_code < "$supervisor/exit_code"
    leave "$exit_code"
  fi
  if [[ -n "$terminated" ]]; then
    say "told to end"
    leave 30
  fi
}

start_child() { # command line
  bash -c "$1" < /dev/null &
  child=$!
  say "start $n: process $child"
}

child_runs() { kill -0 "$child" 2>/dev/null; }

reap() { # sets REPLY to the child's exit code; ends what it left behind
  wait "$child" 2>/dev/null
  REPLY=$?
  kill -KILL -- "-$child" 2>/dev/null
  child=""
}

stop_child() {
  [[ -n "$child" ]] || return 0
  kill -TERM -- "-$child" 2>/dev/null
  local i
  for ((i = 0; i < 10; i++)); do
    child_runs || break
    pause 50
  done
  kill -KILL -- "-$child" 2>/dev/null
  reap
}

ended() { # sets REPLY to the exit file's content and succeeds when the n-th child has ended or had to be stopped
  if ! child_runs; then
    reap
    say "start $n: ended by itself with code $REPLY"
    REPLY="died $REPLY"
    return 0
  fi
  [[ -e "$supervisor/stop$n" ]] || return 1
  stop_child
  say "start $n: stopped"
  REPLY="stopped"
}
