"""What follows when a start of a pair has ended: the supervisor's decisions, pure (see evaluation.pair.protocol)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evaluation.pair.protocol import Counters, PairExitCode
from evaluation.routes import RouteRun
from evaluation.shards import Budgets

SIMULATION_CRASHED = "Failed - Simulation crashed"
# The evaluator stops at these, and starting it again shows them again.
PERMANENT = {
    "Failed - Agent's sensors were invalid": PairExitCode.SENSORS_INVALID,
    "Failed - Agent couldn't be set up": PairExitCode.AGENT_SETUP_FAILED,
}
# Statuses with which the evaluator stops a shard. A resume by a host drives such a route again.
STOPPING = frozenset({SIMULATION_CRASHED, *PERMANENT})


class StopReason(StrEnum):
    """Why the supervisor stopped a start."""

    HANG = "hang"  # no new output of the agent
    PARTNER = "partner"  # the other half ended


@dataclass(frozen=True)
class Exit:
    """How one party's process ended. `code` is set exactly when it ended by itself."""

    code: int | None = None
    unready: bool = False  # the agent's only: never started

    @property
    def by_itself(self) -> bool:
        return self.code is not None


def parse_exit(text: str) -> Exit:
    """Read an exit file. What is no exit of the protocol counts as an end by itself with code 1."""
    words = text.split()
    if words == ["stopped"]:
        return Exit()
    if words == ["unready"]:
        return Exit(unready=True)
    if len(words) == 2 and words[0] == "died" and words[1].isascii() and words[1].isdigit():
        return Exit(int(words[1]))
    return Exit(1)


@dataclass(frozen=True)
class EndedStart:
    """How one start of the pair ended. None: that party does not answer."""

    simulator: Exit | None
    agent: Exit | None
    stop: StopReason | None = None
    driving: bool = True  # the simulator had become ready


@dataclass(frozen=True)
class Decision:
    """What follows a start: another one, or the end if there is a exit_code.

    The first `keep` records of the checkpoint stay; then a record for the route in `quarantine` is appended.
    """

    counters: Counters
    detail: str
    keep: int
    exit_code: PairExitCode | None = None
    quarantine: RouteRun | None = None


@dataclass(frozen=True)
class CheckpointSummary:
    """What the last good checkpoint shows of the shard."""

    expected: Sequence[RouteRun]
    statuses: Sequence[str]  # of the records, in order; they are the first of `expected`
    refused: str = ""  # why the evaluator's own file is not that checkpoint, if it cannot be used

    @property
    def driven(self) -> int:
        """How many routes a resume need not drive again."""
        return len(self.statuses) - (1 if self.statuses and self.statuses[-1] in PERMANENT else 0)

    def run(self, position: int) -> RouteRun | None:
        return self.expected[position] if position < len(self.expected) else None


def decide(counters: Counters, budgets: Budgets, ending: EndedStart, shown: CheckpointSummary) -> Decision:
    """What follows a start that has ended.

    Records beat exit codes: a shard whose routes are all recorded has finished, however its processes went down.
    The simulator's death beats the agent's (benefit of the doubt); a hang or crash of the evaluator is the agent's.
    """
    keep = _records_to_keep(counters, ending, shown)
    last = shown.statuses[-1] if shown.statuses else ""
    if last in PERMANENT and _failing(ending.agent):
        return Decision(counters, f"the evaluator reported: {last}", keep, PERMANENT[last])
    if keep == len(shown.expected):
        return Decision(counters, "every route has its record", keep, PairExitCode.FINISHED)
    if ending.simulator is None or ending.agent is None:
        silent = "simulator" if ending.simulator is None else "agent"
        return Decision(counters, f"the {silent} container does not answer", keep, PairExitCode.PAIR_LOST)
    if ending.simulator.by_itself or keep < len(shown.statuses):
        return _after_simulator_crash(counters, budgets, ending, shown, keep)
    if ending.agent.unready:
        what = "the simulator did not get ready in time"
        return _charge_infrastructure(counters, budgets, what, keep, PairExitCode.SIMULATOR_NOT_READY)
    if ending.stop is StopReason.HANG:
        what = f"the agent stopped making progress{_bad_file(shown)}"
        return _charge_agent(counters, budgets, what, keep, PairExitCode.AGENT_HANGS)
    what = f"the evaluator ended with code {ending.agent.code} before all routes were driven{_bad_file(shown)}"
    return _charge_agent(counters, budgets, what, keep, PairExitCode.AGENT_CRASHED)


def _bad_file(shown: CheckpointSummary) -> str:
    return f" and left a bad checkpoint ({shown.refused})" if shown.refused else ""


def _failing(agent: Exit | None) -> bool:
    return agent is None or agent.code != 0


def _records_to_keep(counters: Counters, ending: EndedStart, shown: CheckpointSummary) -> int:
    """All, but a trailing crash record of the evaluator: with it the route would count as driven.

    The supervisor's own crash records, of quarantined routes, stay.
    """
    count = len(shown.statuses)
    if not count or shown.statuses[-1] != SIMULATION_CRASHED or not _failing(ending.agent):
        return count
    return count if shown.run(count - 1) in counters.quarantined else count - 1


def _after_simulator_crash(
    counters: Counters, budgets: Budgets, ending: EndedStart, shown: CheckpointSummary, keep: int
) -> Decision:
    run = shown.run(keep)
    code = ending.simulator.code if ending.simulator else None
    what = f"the simulator died with code {code}" if code is not None else "the evaluator lost its simulator"
    if run is None or not ending.driving:
        return _charge_infrastructure(counters, budgets, what, keep, PairExitCode.SIMULATOR_CRASHED)
    crashes = {**counters.simulator_crashes, run.route: counters.simulator_crashes.get(run.route, 0) + 1}
    counters = replace(counters, simulator_crashes=crashes)
    step = _charge_infrastructure(
        counters, budgets, f"{what} on route {run.route}", keep, PairExitCode.SIMULATOR_CRASHED
    )
    if step.exit_code is not None or crashes[run.route] < budgets.simulator_crashes_per_route:
        return step
    # Its crashes stay charged: a machine on which every simulator dies must not "finish" with zeros on all routes.
    return replace(
        step,
        counters=replace(step.counters, quarantined=(*counters.quarantined, run)),
        detail=f"route {run.route} is quarantined, scored 0: the simulator died on it {crashes[run.route]} times",
        quarantine=run,
        exit_code=PairExitCode.FINISHED if keep + 1 == len(shown.expected) else None,
    )


def _charge_agent(counters: Counters, budgets: Budgets, what: str, keep: int, exit_code: PairExitCode) -> Decision:
    used, allowed = counters.agent_restarts, budgets.agent_restarts
    if used >= allowed:
        return Decision(counters, f"{what}, after {used} of {allowed} restarts", keep, exit_code)
    detail = f"{what}: restart {used + 1} of {allowed}"
    return Decision(replace(counters, agent_restarts=used + 1), detail, keep)


def _charge_infrastructure(
    counters: Counters, budgets: Budgets, what: str, keep: int, exit_code: PairExitCode
) -> Decision:
    used, allowed = counters.infrastructure_restarts, budgets.infrastructure_restarts
    if used >= allowed:
        return Decision(counters, f"{what}, after {used} of {allowed} restarts", keep, exit_code)
    detail = f"{what}: restart {used + 1} of {allowed}, not charged to the agent"
    return Decision(replace(counters, infrastructure_restarts=used + 1), detail, keep)
