"""Whether a start makes progress: a record, game time, or a tick. What an agent prints is no progress of its own.

    records        of the checkpoint
    game time      in the line that the evaluator's agent base class prints at every tick, in both versions:
                   `======[Agent] Wallclock_time = ... / Sim_time = 12.3 / 0.4x` (1.0),
                   `=== [Agent] -- Wallclock = ... -- Game time = 12.300 -- Ratio = 0.4x` (2.x)
    ticks          2.x writes agent/live_results.txt at every tick

An agent may replace the base class's method that prints the line, and 1.0 has no live results. In a start without any
tick so far, output alone therefore keeps the start alive for `UNTICKED_FACTOR` times as long.

All times are this process's monotonic clock: file times are the agent's to set. A supervisor that starts again waits
anew. An agent that writes such lines without driving delays the end of its own start, at most to the shard's deadline.
"""

import re
import time
from collections.abc import Callable

from shard_pod.pair_directory import PairDirectory, changed, read_part, size

UNTICKED_FACTOR = 5
_GAME_TIME = re.compile(rb"(?:Sim_time|Game time) = ([0-9]+(?:\.[0-9]+)?)")
_MOST_READ = 1 << 20  # bytes of the log at one poll


class DrivingProgress:
    """Follows one start. `observe` is called at every poll while the simulator is ready."""

    def __init__(self, files: PairDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = files.logs["agent"]
        self._live_results = files.agent / "live_results.txt"
        self._clock = clock
        self._log_read = size(self._log)
        self._records: int | None = None
        self._game_time: bytes | None = None
        self._live = changed(self._live_results)
        self._output = changed(self._log)
        self._ticked = False
        self._progress_at: float | None = None
        self._output_at: float | None = None

    def observe(self, records: int) -> None:
        """Compare with the poll before; `records` is how many the checkpoint has."""
        now = self._clock()
        ticked = self._game_time_passed() | self._live_results_written()
        self._ticked |= ticked
        if ticked or records != self._records or self._progress_at is None:
            self._records, self._progress_at = records, now
        output = changed(self._log)
        if output != self._output or self._output_at is None:
            self._output, self._output_at = output, now

    def hangs(self, seconds: float) -> bool:
        """Whether the start has made no progress for so long."""
        if self._progress_at is None or self._output_at is None:
            return False
        now = self._clock()
        stalled, silent = now - self._progress_at, now - self._output_at
        if not self._ticked and silent <= seconds:
            return stalled > UNTICKED_FACTOR * seconds
        return stalled > seconds

    def _game_time_passed(self) -> bool:
        found = size(self._log)
        start = max(self._log_read if found >= self._log_read else 0, found - _MOST_READ)
        times = _GAME_TIME.findall(read_part(self._log, start, found - start)) if found > start else []
        self._log_read = found
        passed = any(time != self._game_time for time in times)
        self._game_time = times[-1] if times else self._game_time
        return passed

    def _live_results_written(self) -> bool:
        live, self._live = self._live, changed(self._live_results)
        return live != self._live
