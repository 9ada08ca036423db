"""What follows when a start of a pair has ended: the supervisor's decisions, pure (see evaluation.pair.protocol)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as parsed

from evaluation.pair.protocol import Counters, PairExitCode
from evaluation.routes import RouteRun
from evaluation.shards import Budgets

SIMULATION_CRASHED = "Failed - Simulation crashed"
AGENT_CRASHED = "Failed - Agent crashed"
SENSORS_INVALID = "Failed - Agent's sensors were invalid"  # the evaluator stops at it, and again after a restart
SETUP_FAILED = "Failed - Agent couldn't be set up"  # the evaluator goes on with the next route
# A new attempt drives the routes at the end of a shard with these statuses again, unless the shard has finished.
REPEATED = frozenset({SIMULATION_CRASHED, SENSORS_INVALID, SETUP_FAILED})
# Then the route counts 0 as "Failed - Agent crashed", as the evaluator counts an agent that fails on a route.
EVALUATOR_DEATHS_PER_ROUTE = 3


# A start that has driven all that a pulling pair has claimed so far; the next one is no restart.
ALL_SO_FAR = "every route so far has its record"


class StopReason(StrEnum):
    """Why the supervisor stopped a start."""

    HANG = "hang"  # the agent makes no progress, and its simulator answers
    SILENT = "silent"  # the simulator does not answer
    PARTNER = "partner"  # the other half ended


@dataclass(frozen=True)
class Exit:
    """How one party's process ended. `code` is set exactly when it ended by itself."""

    code: int | None = None
    unready: bool = False  # the agent's only: never started
    note: str = ""  # what is wrong with the exit file

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
        return Exit(int(words[1][:9]))
    return Exit(1)


@dataclass(frozen=True)
class EndedStart:
    """How one start of the pair ended. None: that party does not answer."""

    simulator: Exit | None
    agent: Exit | None
    stop: StopReason | None = None
    driving: bool = True  # the simulator had become ready
    agent_was_there: bool = True  # the agent's container had written something in this pod


@parsed(frozen=True)
class Decision:
    """What follows a start: another one, or the end if there is an exit code.

    The first `keep` records of the checkpoint stay; then a record for `give_up` with `status` is appended.
    """

    counters: Counters
    detail: str
    keep: int
    exit_code: PairExitCode | None = None
    give_up: RouteRun | None = None
    status: str = SIMULATION_CRASHED

    @property
    def settled(self) -> int:
        """How many records there are after it."""
        return self.keep + (self.give_up is not None)

    def render(self) -> str:
        """The decision as JSON, one line."""
        return _DECISION.dump_json(self).decode()


_DECISION = TypeAdapter(Decision)


def parse_decision(text: str) -> Decision:
    """Read what `Decision.render` wrote; raises pydantic's ValidationError."""
    return _DECISION.validate_json(text)


@dataclass(frozen=True)
class CheckpointSummary:
    """What the last good checkpoint shows of the shard."""

    expected: Sequence[RouteRun]
    statuses: Sequence[str]  # of the records, in order; they are the first of `expected`
    refused: str = ""  # why the evaluator's own file is not that checkpoint, if it cannot be used
    open: bool = False  # more routes may come: the pair pulls them

    @property
    def complete(self) -> bool:
        return len(self.statuses) == len(self.expected)

    def settled(self, quarantined: Sequence[RouteRun] = ()) -> int:
        """How many records a new attempt keeps; it drives the routes after them.

        All of a finished shard. Otherwise all up to the first of the last records that a restart may change.
        """
        if self.complete and self.failure(quarantined) is None:
            return len(self.statuses)
        count = len(self.statuses)
        while count and self.statuses[count - 1] in REPEATED and self.expected[count - 1] not in quarantined:
            count -= 1
        return count

    def failure(self, quarantined: Sequence[RouteRun] = (), given_up: Sequence[RouteRun] = ()) -> PairExitCode | None:
        """Why the shard has not finished although every route may have its record; None where nothing says so."""
        last = self.statuses[-1] if self.statuses else ""
        if last == SENSORS_INVALID:
            return PairExitCode.SENSORS_INVALID
        if last == SIMULATION_CRASHED and self.expected[len(self.statuses) - 1] not in quarantined:
            return PairExitCode.SIMULATOR_CRASHED
        recorded = list(zip(self.expected, self.statuses, strict=False))
        if recorded and all(status == SETUP_FAILED or run in given_up for run, status in recorded):
            tried = SETUP_FAILED in self.statuses
            return PairExitCode.AGENT_SETUP_FAILED if tried else PairExitCode.AGENT_CRASHED
        return None

    def run(self, position: int) -> RouteRun | None:
        return self.expected[position] if position < len(self.expected) else None


def decide(counters: Counters, budgets: Budgets, ending: EndedStart, shown: CheckpointSummary) -> Decision:
    """What follows a start that has ended.

    Records beat exit codes: a shard whose routes are all recorded has finished, however its processes went down.
    The simulator's death or silence beats the agent's (benefit of the doubt); a hang or crash of the evaluator is the
    agent's.
    """
    keep = _records_to_keep(counters, ending, shown)
    if shown.statuses and shown.statuses[-1] == SENSORS_INVALID and _failing(ending.agent):
        return Decision(counters, f"the evaluator reported: {SENSORS_INVALID}", keep, PairExitCode.SENSORS_INVALID)
    if keep == len(shown.expected):
        return Decision(counters, ALL_SO_FAR, keep) if shown.open else complete(counters, shown)
    if ending.simulator is None:
        return Decision(counters, "the simulator container does not answer", keep, PairExitCode.PAIR_LOST)
    if ending.simulator.by_itself or ending.stop is StopReason.SILENT or keep < len(shown.statuses):
        return _after_simulator_crash(counters, budgets, ending, shown, keep)
    if ending.agent is None:
        return _without_agent(counters, ending, keep)
    if ending.agent.unready and not ending.driving:
        what = "the simulator did not get ready in time"
        return _charge_infrastructure(counters, budgets, what, keep, PairExitCode.SIMULATOR_NOT_READY)
    return _after_evaluator_death(counters, budgets, ending, shown, keep)


def complete(counters: Counters, shown: CheckpointSummary) -> Decision:
    """The end of a shard whose routes all have their records: finished, unless nothing of it was driven."""
    keep = len(shown.statuses)
    match shown.failure(counters.quarantined, counters.given_up):
        case PairExitCode.AGENT_SETUP_FAILED:
            detail = f"the evaluator reported on every route: {SETUP_FAILED}"
            return Decision(counters, detail, keep, PairExitCode.AGENT_SETUP_FAILED)
        case PairExitCode.AGENT_CRASHED:
            detail = f"the evaluator died {EVALUATOR_DEATHS_PER_ROUTE} times on every route"
            return Decision(counters, detail, keep, PairExitCode.AGENT_CRASHED)
        case _:
            return Decision(counters, "every route has its record", keep, PairExitCode.FINISHED)


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


def _without_agent(counters: Counters, ending: EndedStart, keep: int) -> Decision:
    """The simulator answers and the agent does not: only the agent's container runs a team's code."""
    if not ending.agent_was_there:
        return Decision(counters, "the agent container does not answer", keep, PairExitCode.PAIR_LOST)
    detail = "the agent container does not answer: there is no exit file of its evaluator"
    return Decision(counters, detail, keep, PairExitCode.AGENT_CRASHED)


def _after_simulator_crash(
    counters: Counters, budgets: Budgets, ending: EndedStart, shown: CheckpointSummary, keep: int
) -> Decision:
    run = shown.run(keep)
    code = ending.simulator.code if ending.simulator else None
    what = "the evaluator lost its simulator"
    if code is not None:
        what = f"the simulator died with code {code}"
    elif ending.stop is StopReason.SILENT:
        what = "the simulator did not answer"
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
        give_up=run,
        exit_code=PairExitCode.FINISHED if keep + 1 == len(shown.expected) and not shown.open else None,
    )


def _after_evaluator_death(
    counters: Counters, budgets: Budgets, ending: EndedStart, shown: CheckpointSummary, keep: int
) -> Decision:
    what, exit_code = _what_the_evaluator_did(ending, shown)
    run = shown.run(keep)
    if run is None:
        return _charge_agent(counters, budgets, what, keep, exit_code)
    deaths = {**counters.evaluator_deaths, run.route: counters.evaluator_deaths.get(run.route, 0) + 1}
    counters = replace(counters, evaluator_deaths=deaths)
    if deaths[run.route] < EVALUATOR_DEATHS_PER_ROUTE:
        return _charge_agent(counters, budgets, what, keep, exit_code)
    return _give_route_up(counters, what, run, shown, keep)


def _what_the_evaluator_did(ending: EndedStart, shown: CheckpointSummary) -> tuple[str, PairExitCode]:
    bad_file = f" and left a bad checkpoint ({shown.refused})" if shown.refused else ""
    if ending.stop is StopReason.HANG:
        return f"the agent stopped making progress{bad_file}", PairExitCode.AGENT_HANGS
    agent = ending.agent or Exit(1)
    note = f" ({agent.note})" if agent.note else ""
    how = "stopped" if agent.code is None else f"ended with code {agent.code}"
    exit_code = PairExitCode.AGENT_CRASHED
    if shown.failure() is PairExitCode.AGENT_SETUP_FAILED:
        exit_code = PairExitCode.AGENT_SETUP_FAILED
    return f"the evaluator {how}{note} before all routes were driven{bad_file}", exit_code


def _give_route_up(counters: Counters, what: str, run: RouteRun, shown: CheckpointSummary, keep: int) -> Decision:
    """Record the route as crashed. The last death is not charged, those before it were: the budget bounds them all."""
    counters = replace(counters, given_up=(*counters.given_up, run))
    count = counters.evaluator_deaths[run.route]
    detail = f"route {run.route} counts 0 as an agent's crash, after {count} tries: {what}"
    step = Decision(counters, detail, keep, give_up=run, status=AGENT_CRASHED)
    if keep + 1 < len(shown.expected) or shown.open:
        return step
    whole = replace(shown, statuses=[*shown.statuses[:keep], AGENT_CRASHED])
    exit_code = complete(counters, whole).exit_code
    if exit_code is PairExitCode.FINISHED:
        return replace(step, exit_code=exit_code)
    return replace(step, exit_code=exit_code, give_up=None, detail=f"{what}, on every route of the shard")


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
