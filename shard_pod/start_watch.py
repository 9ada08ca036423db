"""Decides when a start of the pair is to be stopped, and why (evaluation.pair.protocol: stop<n>).

Times are this process's monotonic clock: the times of files are the agent's to set.
"""

import time
from threading import Event

from evaluation.pair.decisions import CheckpointSummary, Exit, StopReason
from shard_pod.driving_progress import DrivingProgress
from shard_pod.pair_directory import PairDirectory
from shard_pod.settings import PairSettings
from shard_pod.simulator_probe import simulator_answers


class Stopwatch:
    """How long something has been so."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds_since(self, it_is_so: bool) -> float:
        """Seconds since the call from which on the answer was always true; 0 where it is not."""
        if not it_is_so:
            self._since = None
            return 0.0
        self._since = time.monotonic() if self._since is None else self._since
        return time.monotonic() - self._since


class StartWatch:
    """Watches one start, from its first poll to its stop."""

    def __init__(self, start: int, settings: PairSettings, files: PairDirectory, stop: Event) -> None:
        self._start = start
        self._settings = settings
        self._files = files
        self._stop = stop
        self._one_ended = Stopwatch()
        self._progress: DrivingProgress | None = None

    def reason_to_stop(
        self, simulator: Exit | None, agent: Exit | None, summary: CheckpointSummary
    ) -> StopReason | None:
        """Why the start is to be stopped now; None while it may go on."""
        # When one half ends, the other may be going down of itself, and its own exit counts: give it two polls.
        ended = simulator is not None or agent is not None
        if self._one_ended.seconds_since(ended) > 2 * self._settings.poll_seconds:
            unasked = simulator is not None or summary.complete
            return StopReason.PARTNER if unasked else self._by_the_simulator(StopReason.PARTNER)
        if not ended and self._hangs(len(summary.statuses)):
            return self._by_the_simulator(StopReason.HANG)
        return None

    def _hangs(self, records: int) -> bool:
        if self._files.ready_port(self._start) is None or not self._files.agent_was_there:
            return False  # the simulator is warming up, or the agent's image is still being pulled
        self._progress = self._progress or DrivingProgress(self._files)
        self._progress.observe(records)
        return self._progress.hangs(self._settings.hang_seconds)

    def _by_the_simulator(self, reason: StopReason) -> StopReason:
        """This reason, unless the simulator does not answer: then neither end nor silence is the agent's."""
        port = self._files.ready_port(self._start)
        seconds = self._settings.simulator_answer_seconds
        return reason if port is None or simulator_answers(port, self._stop, seconds) else StopReason.SILENT
