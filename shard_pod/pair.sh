# Sourced by simulator.sh and agent.sh: their half of the protocol in evaluation/pair/protocol.py. Bash 4.3 and coreutils only,
# since it runs in images that are not ours.
#
# Between two starts everything that the first one left behind is killed, also what runs in a session of its own, so that
# ports and the GPU are free. In a container this script is process 1, so the kernel makes every orphan its child: all
# its descendants are killed. On a machine that is no container (local_jobs) an orphan is recognised by PAIR_PARTY in its
# environment, which only a program that clears its environment escapes; without /proc (macOS) only the process group ends.
set -u -m # -m: every child gets a process group of its own, to be stopped whole
LC_ALL=C # environments and logs may hold any bytes

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

pause() { # milliseconds: waits without starting a process; ends early after TERM
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

publish() { # file content: other parties see all of it or nothing; what a child has put in its place goes
  local fresh="${own:?}/.$1.new" file="${own:?}/$1"
  [[ -e "$fresh" || -L "$fresh" ]] && rm -rf "$fresh"
  [[ -d "$file" && ! -L "$file" ]] && rm -rf "$file"
  { echo "$2" > "$fresh" && mv -f "$fresh" "$file"; } 2>/dev/null
}

await_start() { # n: until the supervisor says so; meanwhile the last exit file stays where it is
  local last="exit$(($1 - 1))"
  until [[ -e "$supervisor/start$1" ]]; do
    [[ $1 -gt 1 && ! ( -f "$own/$last" && ! -L "$own/$last" ) ]] && publish "$last" "$last_exit"
    obey
    pause "$poll"
  done
}

publish_exit() { # n content
  last_exit="$2"
  publish "exit$1" "$2"
}

obey() { # what the supervisor and the machine want of us at any time
  if [[ -e "$supervisor/exit_code" ]]; then # before TERM: ECS ends the other containers when the first one has ended
    local ending
    read -r ending < "$supervisor/exit_code"
    leave "$ending"
  fi
  if [[ -n "$terminated" ]]; then
    say "ended by a signal"
    leave 30
  fi
}

start_child() { # command line
  PAIR_PARTY="$own" bash -c "$1" < /dev/null &
  child=$!
  say "start $n: process $child"
}

child_runs() { kill -0 "$child" 2>/dev/null; }

reap() { # sets exit_code to the child's; ends what it left behind
  wait "$child" 2>/dev/null
  exit_code=$?
  kill -KILL -- "-$child" 2>/dev/null
  child=""
  end_rest
}

rest() { # sets REPLY to the processes that children have left behind
  local entry pid line fields parents=" $$ " seen=() found=1
  REPLY=""
  for entry in /proc/[0-9]*; do
    pid="${entry##*/}"
    [[ "$pid" == "$$" || "$pid" == "$logger" ]] && continue
    line=""
    { IFS= read -r -N 4000 line < "$entry/stat"; } 2>/dev/null
    fields=(${line##*) }) # state and parent, behind the name in brackets, which may hold anything
    [[ ${#fields[@]} -lt 2 || "${fields[0]}" == [ZX] ]] && continue
    if [[ $$ != 1 ]] && marked "$entry/environ"; then
      parents+="$pid " REPLY+="$pid "
    else
      seen+=("$pid ${fields[1]}")
    fi
  done
  while [[ -n "$found" && ${#seen[@]} -gt 0 ]]; do
    found=""
    for entry in "${seen[@]}"; do
      pid="${entry% *}"
      if [[ "$parents" == *" ${entry#* } "* && "$parents" != *" $pid "* ]]; then
        parents+="$pid " REPLY+="$pid " found=1
      fi
    done
  done
}

marked() { # a process's environment: does it name this party?
  local content=""
  [[ -O "$1" ]] && { IFS= read -r -N 200000 content < "$1"; } 2>/dev/null
  [[ "$content" == *"PAIR_PARTY=$own"* ]]
}

end_rest() {
  local round
  for ((round = 0; round < 40; round++)); do
    rest
    [[ -z "$REPLY" ]] && return
    kill -KILL $REPLY 2>/dev/null
    pause 50
  done
  say "processes $REPLY do not end"
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
    say "start $n: ended by itself with code $exit_code"
    REPLY="died $exit_code"
    return 0
  fi
  [[ -e "$supervisor/stop$n" ]] || return 1
  stop_child
  say "start $n: stopped"
  REPLY="stopped"
}
