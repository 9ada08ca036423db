"""How every submission ended, by what EvalAI, the ledger, Prefect and this machine show. Pure.

lost       it reached EvalAI and has not exactly one outcome there, in the ledger and in Prefect
doubled    one attempt was decided twice, or evaluated by two at once, or moved on after its team had cancelled it
orphan     a process, a run directory or a flow run that still belongs to a submission which has ended
unexpected an outcome that the agent's behaviour does not explain
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from tests.chaos.plan import SHARD_KINDS, Kind

TERMINAL = frozenset({"finished", "failed", "cancelled"})
BEGINS = frozenset({"submitted", "resuming"})  # an attempt
INSTALLATION = "leaderboard-flows"  # our user at EvalAI; all others are people
UNFINISHED = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"})
CAN_FINISH, CAN_FAIL = frozenset({"finished"}), frozenset({"failed"})
CALM = frozenset({"steady", "fast"})  # agents that never need a second start
# What an agent's tag may end in when nothing of ours breaks it. A simulator that is killed gives `always-crash` one
# more start than its budget, and so perhaps its last route.
ENDINGS = {
    "steady": CAN_FINISH,
    "fast": CAN_FINISH,
    "crash-on-route-7": CAN_FINISH,
    "simulator-crash-on-route-3": CAN_FINISH,
    "poison-route-5": CAN_FINISH,
    "always-crash": CAN_FINISH | CAN_FAIL,
    "hang": CAN_FAIL,
    "hang-once": CAN_FINISH,
    "bad-sensors": CAN_FAIL,
    "bad-setup": CAN_FAIL,
}


@dataclass(frozen=True)
class Write:
    """A status that EvalAI accepted."""

    at: datetime
    submission: int
    status: str
    by: str
    digest: str


@dataclass(frozen=True)
class Row:
    """The ledger's row: `ended` is whether it has an end time."""

    submission: int
    status: str
    attempt: int
    ended: bool
    routes_done: int
    routes_total: int


@dataclass(frozen=True)
class FlowRun:
    """A run of evaluate-submission. `submission` is None for a run of another flow."""

    id: str
    submission: int | None
    state: str  # Prefect's type
    name: str  # the state's
    started: datetime | None


@dataclass(frozen=True)
class Driven:
    """A line of the agents' journal: a route was started, or recorded."""

    at: float
    what: str
    submission: int
    attempt: int
    shard: int
    route: int
    repetition: int
    pid: int


@dataclass(frozen=True)
class Hit:
    """An incident that found its target. `shard` is (submission, shard), `run` a flow run's id."""

    at: datetime
    kind: Kind
    target: str
    run: str = ""
    shard: tuple[int, int] | None = None
    back_at: datetime | None = None  # of a part that was started again


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdict rests on."""

    images: Mapping[int, str]  # by submission
    writes: Sequence[Write]
    rows: Sequence[Row]
    runs: Sequence[FlowRun]
    driven: Sequence[Driven]
    hits: Sequence[Hit]
    left: Sequence[str]  # processes and run directories


@dataclass(frozen=True)
class Verdict:
    submissions: int
    outcomes: Mapping[str, int]
    lost: Sequence[str]
    doubled: Sequence[str]
    orphans: Sequence[str]
    unexpected: Sequence[str]
    routes: int  # distinct (submission, attempt, route, repetition)
    routes_again: int  # started more than once in one attempt: what is interrupted is driven anew
    routes_again_by_agents: int  # of those, of submissions whose agent or simulator breaks down by itself
    recorded_again: int  # of those, recorded before: the record had not reached S3 yet
    recoveries: Mapping[Kind, float] = field(default_factory=dict)  # the longest of each kind, in seconds

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.orphans or self.unexpected)


def judge(evidence: Evidence) -> Verdict:
    """Every list holds one sentence for each thing that is wrong; empty lists are what we want."""
    rows = {row.submission: row for row in evidence.rows}
    stories = {submission: _story(evidence, submission) for submission in sorted(evidence.images)}
    routes = Counter(_key(line) for line in evidence.driven if line.what == "started")
    again = [key for key, count in routes.items() if count > 1]
    recorded = Counter(_key(line) for line in evidence.driven if line.what == "recorded")
    return Verdict(
        submissions=len(stories),
        outcomes=Counter(row.status if row.ended else "open" for row in rows.values()),
        lost=[problem for each in stories.items() for problem in _lost(*each, rows, evidence.runs)],
        doubled=[
            *(problem for each in stories.items() for problem in _doubled(*each, rows)),
            *_driven_by_two(evidence.driven),
        ],
        orphans=[*evidence.left, *_unfinished(evidence.runs)],
        unexpected=[
            problem for each in stories.items() for problem in _unexpected(*each, rows, evidence.images[each[0]])
        ],
        routes=len(routes),
        routes_again=len(again),
        routes_again_by_agents=sum(_tag(evidence.images.get(key[0], "")) not in CALM for key in again),
        recorded_again=sum(count > 1 for count in recorded.values()),
        recoveries=longest_recoveries(evidence),
    )


Attempt = Sequence[Write]  # what was written from a submission or a resume to the next one


def _story(evidence: Evidence, submission: int) -> list[Attempt]:
    """The attempts of a submission, by what EvalAI accepted."""
    attempts: list[list[Write]] = []
    for write in evidence.writes:
        if write.submission == submission:
            if write.status in BEGINS or not attempts:
                attempts.append([])
            attempts[-1].append(write)
    return list(attempts)


def _lost(
    submission: int, attempts: Sequence[Attempt], rows: Mapping[int, Row], runs: Iterable[FlowRun]
) -> Iterator[str]:
    row = rows.get(submission)
    shown = attempts[-1][-1].status if attempts else "unknown"
    if shown not in TERMINAL:
        yield f"submission {submission} is {shown} at EvalAI"
    if row is None:
        yield f"submission {submission} has no row in the ledger"
    elif not row.ended:
        yield f"submission {submission} is open in the ledger ({row.status})"
    elif shown in TERMINAL and row.status != shown and not _taken_back_after_its_end(attempts[-1]):
        yield f"submission {submission} is {shown} at EvalAI and {row.status} in the ledger"
    if not any(run.submission == submission and run.state not in UNFINISHED for run in runs):
        yield f"submission {submission} has no flow run that ended"


def _taken_back_after_its_end(attempt: Attempt) -> bool:
    """EvalAI lets a team cancel what is finished: the outcome was reported before, and stands in the ledger."""
    reported = any(write.by == INSTALLATION and write.status in TERMINAL for write in attempt)
    return reported and attempt[-1].by != INSTALLATION


def _doubled(submission: int, attempts: Sequence[Attempt], rows: Mapping[int, Row]) -> Iterator[str]:
    for number, attempt in enumerate(attempts, 1):
        ours = [write for write in attempt if write.by == INSTALLATION]
        reported = {(write.status, write.digest) for write in ours if write.status in TERMINAL}
        if len(reported) > 1:
            words = ", ".join(sorted(status for status, _ in reported))
            yield f"submission {submission}, attempt {number}, was reported {len(reported)} different outcomes: {words}"
        back = next((write for write in attempt if write.by != INSTALLATION and write.status == "cancelled"), None)
        late = [write.status for write in ours if back and write.at > back.at and write.status != "cancelled"]
        if late:
            yield f"submission {submission} was set to {', '.join(late)} after its team had cancelled it"
    row = rows.get(submission)
    if row and row.attempt > len(attempts):
        yield f"submission {submission} was claimed {row.attempt} times for {len(attempts)} attempts"


def _driven_by_two(driven: Iterable[Driven]) -> Iterator[str]:
    """Two agents at work on one shard at the same time."""
    times: dict[tuple[int, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in driven:
        times[line.submission, line.shard][line.pid].append(line.at)
    for (submission, shard), agents in times.items():
        spans = sorted((min(at), max(at)) for at in agents.values())
        if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
            yield f"shard {shard} of submission {submission} was driven by two agents at once"


def _unfinished(runs: Iterable[FlowRun]) -> Iterator[str]:
    for run in runs:
        if run.submission is not None and run.state in UNFINISHED:
            yield f"flow run {run.id} of submission {run.submission} is {run.name} for ever"


def _unexpected(submission: int, attempts: Sequence[Attempt], rows: Mapping[int, Row], image: str) -> Iterator[str]:
    row = rows.get(submission)
    if row is None or not row.ended:
        return  # lost
    tag = _tag(image)
    taken_back = any(write.status == "cancelled" and write.by != INSTALLATION for write in attempts[-1])
    allowed = ENDINGS[tag] | ({"cancelled"} if taken_back else set())
    if row.status not in allowed:
        yield f"submission {submission} ({tag}) ended as {row.status}, not as {' or '.join(sorted(allowed))}"
    if row.status == "finished" and not 0 < row.routes_done == row.routes_total:
        yield f"submission {submission} is finished with {row.routes_done} of {row.routes_total} routes"


def _tag(image: str) -> str:
    return image.rpartition(":")[2]


def _key(line: Driven) -> tuple[int, int, int, int]:
    return line.submission, line.attempt, line.route, line.repetition


def longest_recoveries(evidence: Evidence) -> dict[Kind, float]:
    """From a kill to the next sign that what was killed goes on; the longest of each kind, in seconds."""
    longest: dict[Kind, float] = {}
    for hit in evidence.hits:
        moment = _goes_on(evidence, hit)
        if moment is not None:
            longest[hit.kind] = max(longest.get(hit.kind, 0.0), (moment - hit.at).total_seconds())
    return longest


def _goes_on(evidence: Evidence, hit: Hit) -> datetime | None:
    """A flow run's submission: its next run or its outcome. A shard: its next route or the submission's outcome.

    A worker: the next run that starts, whosever. Bridge and server: when they were back.
    """
    if hit.kind is Kind.FLOW_RUN:
        killed = next((run.submission for run in evidence.runs if run.id == hit.run), None)
        if killed is None:
            return None
        runs = [run.started for run in evidence.runs if run.submission == killed and run.started]
        return _next([*runs, *_outcomes(evidence, killed)], hit.at)
    if hit.kind in SHARD_KINDS and hit.shard:
        submission, shard = hit.shard
        lines = [line for line in evidence.driven if (line.submission, line.shard) == (submission, shard)]
        driven = [datetime.fromtimestamp(line.at, hit.at.tzinfo) for line in lines]
        return _next([*driven, *_outcomes(evidence, submission)], hit.at)
    if hit.kind in (Kind.WORKER, Kind.MACHINE):
        return _next([run.started for run in evidence.runs if run.started], hit.at)
    return hit.back_at


def _outcomes(evidence: Evidence, submission: int) -> list[datetime]:
    return [write.at for write in evidence.writes if write.submission == submission and write.status in TERMINAL]


def _next(moments: Iterable[datetime], after: datetime) -> datetime | None:
    return min((moment for moment in moments if moment > after), default=None)
