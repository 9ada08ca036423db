"""Notes what the supervisor sees of its shard (evaluation.pair.observations), in its own directory."""

import json
from collections.abc import Sequence

from evaluation.pair.decisions import ALL_SO_FAR, Decision, EndedStart, StopReason
from evaluation.pair.observations import Observations, SeenStart, parse_observations
from evaluation.pair.protocol import Counters, PairExitCode
from evaluation.routes import RouteRun
from shard_pod.clock import now
from shard_pod.pair_directory import PairDirectory, read_whole, write_whole

_AGENTS = frozenset(
    {
        PairExitCode.AGENT_CRASHED,
        PairExitCode.AGENT_HANGS,
        PairExitCode.AGENT_SETUP_FAILED,
        PairExitCode.SENSORS_INVALID,
    }
)


class ObservationLog:
    """The file is written whole at each event, so a supervisor that starts again goes on with it."""

    def __init__(self, files: PairDirectory) -> None:
        self._file = files.observations
        data = read_whole(self._file)
        self.seen = parse_observations(data, str(self._file)) if data else Observations()

    def start_begins(self, attempt: int, number: int, unrecorded: Sequence[RouteRun]) -> None:
        """A start, and the routes that have no record yet."""
        self._keep(self.seen.with_new_start(SeenStart(attempt, number, now()), unrecorded))

    def simulator_is_ready(self, watched: bool = True) -> None:
        """It is now; not `watched`: this supervisor has come after the start's begin, and it may be so since then."""
        if self.seen.starts and self.seen.starts[-1].ready_at is None:
            self._keep(self.seen.with_last_start(ready_at=now() if watched else self.seen.starts[-1].began_at))

    def start_is_stopped(self) -> None:
        """From now on an evaluator may report a crash of a simulator that was only stopped."""
        self._keep(self.seen.with_last_start(stopping=True))

    def start_ended(self, ending: EndedStart, before: Counters, step: Decision) -> None:
        """How the start ended, and what was decided; the counters before tell who was charged for it."""
        simulator = ending.simulator
        lost = simulator is None or simulator.by_itself or ending.stop is StopReason.SILENT
        after = step.counters
        charged = (
            after.agent_restarts > before.agent_restarts
            or sum(after.evaluator_deaths.values()) > sum(before.evaluator_deaths.values())
            or step.exit_code in _AGENTS
        )
        drove_all = step.detail == ALL_SO_FAR
        interrupted = step.give_up is None and step.exit_code is not PairExitCode.FINISHED and not drove_all
        self._keep(
            self.seen.with_last_start(
                ended_at=now(),
                simulator_lost=lost,
                interrupted=interrupted,
                charged_to_agent=charged,
                drove_all=drove_all,
                how=step.detail,
            )
        )

    def checkpoint_changed(self, runs: Sequence[RouteRun], data: bytes, by_supervisor: RouteRun | None) -> None:
        """A checked checkpoint; its records are of these runs, one of them perhaps written by the supervisor."""
        records = json.loads(data)["_checkpoint"]["records"]
        self._keep(self.seen.with_records(runs, records, now(), by_supervisor))

    def _keep(self, seen: Observations) -> None:
        if seen != self.seen:
            write_whole(self._file, seen.render())
            self.seen = seen
