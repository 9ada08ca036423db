"""How a submission's routes are split over GPU pairs, and what a shard can be doing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluation.errors import Failure
from evaluation.routes import RouteRun, expand
from evaluation.submission import Generation, Phase


@dataclass(frozen=True)
class Shard:
    """The routes of one simulator-agent pair. A list rather than a range, so that other plans can come later."""

    index: int
    count: int
    routes: tuple[int, ...]


def split_contiguous(routes: Sequence[int], count: int) -> tuple[Shard, ...]:
    """Give shard i of n the routes ceil(i*R/n) .. ceil((i+1)*R/n)-1; never an empty shard, so n <= R.

    Source: the seeds' four pairs of five routes; design.md for the rounding.
    """
    n = min(count, len(routes))
    bounds = [-(-i * len(routes) // n) for i in range(n + 1)]
    return tuple(Shard(i, n, tuple(routes[bounds[i] : bounds[i + 1]])) for i in range(n))


@dataclass(frozen=True)
class Budgets:
    """How often a pair may start again. Restarts for infrastructure never count against the agent."""

    agent_restarts: int = 4  # the seeds' backoffLimit of 8: four resumes of a pair
    infrastructure_restarts: int = 8
    simulator_crashes_per_route: int = 3  # then the route is quarantined: scored 0 and skipped


@dataclass(frozen=True)
class ShardJob:
    """Everything that a backend needs to run one shard. Holds no secret."""

    submission: int
    attempt: int  # 1 for the first claim of the submission, one more for each resume
    shard: Shard
    phase: Phase
    generation: Generation
    repetitions: int
    image: str
    team_name: str  # for people; never part of a name
    bucket: str  # the S3 bucket that holds the submission's folder
    budgets: Budgets
    hang_seconds: float  # this long without new output is a hang
    deadline_seconds: float  # the whole shard's maximum

    @property
    def name(self) -> str:
        """Deterministic and valid as a DNS label whatever the team is called."""
        return f"{attempt_prefix(self.submission, self.attempt)}-shard-{self.shard.index}"

    @property
    def expected(self) -> tuple[RouteRun, ...]:
        return expand(self.shard.routes, self.repetitions)


def attempt_prefix(submission: int, attempt: int) -> str:
    return f"submission-{submission}-attempt-{attempt}"


class ShardState(StrEnum):
    """What a shard is doing, in words that a person knows."""

    WAITING = "waiting"  # accepted; no machine yet
    PULLING = "pulling"  # a machine is there; images and private contents are on their way
    STARTING = "starting"  # the simulator is warming up
    DRIVING = "driving"  # the agent drives its routes
    RETRYING = "retrying"  # something broke; the pair starts again within a budget
    FINISHED = "finished"  # every route has its record, the last checkpoint is stored
    FAILED = "failed"  # for good; `failure` says why
    GONE = "gone"  # the backend knows nothing of it


ENDED = frozenset({ShardState.FINISHED, ShardState.FAILED, ShardState.GONE})


@dataclass(frozen=True)
class ShardStatus:
    """One shard as its backend sees it. `failure` is set exactly when the state is FAILED."""

    index: int
    state: ShardState
    detail: str = ""  # plain words: the scheduler's reason, the budget in use
    since: datetime | None = None
    failure: Failure | None = None


ShardStatuses = Mapping[int, ShardStatus]
