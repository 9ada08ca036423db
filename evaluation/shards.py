"""How a submission's routes are split over GPU pairs, and what a shard can be doing."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evaluation.errors import Failure, InvalidConfiguration
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion, Phase


@dataclass(frozen=True)
class Shard:
    """The routes of one simulator-agent pair. A list rather than a range, so that other plans can come later."""

    index: int
    count: int
    routes: tuple[int, ...]


def split_contiguous(routes: Sequence[int], count: int) -> tuple[Shard, ...]:
    """Give shard i of n the routes ceil(i*R/n) .. ceil((i+1)*R/n)-1; never an empty shard, so n <= R.

    Source: docs/reference/step-function.md, "The Job": four pairs of five routes. Raises InvalidConfiguration.
    """
    if count < 1 or not routes:
        raise InvalidConfiguration("The routes cannot be split", f"there are {len(routes)} routes for {count} shards")
    n = min(count, len(routes))
    bounds = [-(-i * len(routes) // n) for i in range(n + 1)]
    return tuple(Shard(i, n, tuple(routes[bounds[i] : bounds[i + 1]])) for i in range(n))


@dataclass(frozen=True)
class Budgets:
    """How often a pair may start again. Restarts for infrastructure never count against the agent."""

    agent_restarts: int = 4  # as the original's backoffLimit of 8: four restarts of a pair
    infrastructure_restarts: int = 8
    simulator_crashes_per_route: int = 3  # then the route is quarantined: scored 0 and skipped


@dataclass(frozen=True)
class ShardJob:
    """Everything that a backend needs to run one shard. Holds no secret."""

    submission: int
    attempt: int  # 1 for the first claim of the submission, one more for each resume
    shard: Shard
    phase: Phase
    version: LeaderboardVersion
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


_JOB_NAME = re.compile(r"submission-(\d+)-attempt-(\d+)-shard-\d+")


def attempt_of(job_name: str) -> tuple[int, int] | None:
    """(submission, attempt) of a shard's Job by its name, or None for a name of another kind."""
    parts = _JOB_NAME.fullmatch(job_name)
    return (int(parts[1]), int(parts[2])) if parts else None


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
    image_digest: str = ""  # of the agent's image as it runs, where the backend knows it
    warning: str = ""  # why this may be old news: the backend cannot see the shard now
    backend_id: str = ""  # what the backend calls it: name of the Kubernetes pod or Job, id of the Batch job, pid here


ShardStatuses = Mapping[int, ShardStatus]


def render_plan(shards: Sequence[Shard], repetitions: int) -> str:
    """The plan as JSON: `{"repetitions": 1, "shards": [[0, 1, 2], [3, 4, 5]]}`."""
    return json.dumps({"repetitions": repetitions, "shards": [list(shard.routes) for shard in shards]})


def parse_plan(data: bytes, source: str) -> tuple[tuple[Shard, ...], int]:
    """Read what `render_plan` wrote: the shards and the repetitions. Raises InvalidConfiguration."""
    try:
        content = json.loads(data)
        shards = [tuple(_whole(route, 0) for route in shard) for shard in content["shards"]]
        repetitions = _whole(content["repetitions"], 1)
        routes = [route for shard in shards for route in shard]
        if not all(shards) or not routes or len(set(routes)) < len(routes):
            raise ValueError("a shard is empty, or a route is planned twice")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        remedy = "Delete the file: the next resume then drives all routes anew."
        raise InvalidConfiguration(f"{source} is not a shard plan", repr(error), remedy) from error
    return tuple(Shard(index, len(shards), shard) for index, shard in enumerate(shards)), repetitions


def _whole(value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is not a whole number from {least}")
    return value
