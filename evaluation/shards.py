"""How a submission's routes are split over GPU pairs, and what a shard can be doing."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from evaluation.errors import Failure, InvalidConfiguration
from evaluation.queue_place import QueuePlace
from evaluation.routes import RouteRun, expand
from evaluation.submission.model import LeaderboardVersion, Phase


@dataclass(frozen=True)
class Shard:
    """The routes of one simulator-agent pair.

    `pulled`: they are the submission's, and the pair drives those that it claims (evaluation.pulling).
    """

    index: int
    count: int
    routes: tuple[int, ...]
    pulled: bool = False


def split_contiguous(routes: Sequence[int], count: int) -> tuple[Shard, ...]:
    """Give shard i of n the routes ceil(i*R/n) .. ceil((i+1)*R/n)-1; never an empty shard, so n <= R.

    Source: docs/reference/step-function.md, "The Job": four pairs of five routes. Raises InvalidConfiguration.
    """
    if count < 1 or not routes:
        raise InvalidConfiguration("The routes cannot be split", f"there are {len(routes)} routes for {count} shards")
    n = min(count, len(routes))
    bounds = [-(-i * len(routes) // n) for i in range(n + 1)]
    return tuple(Shard(i, n, tuple(routes[bounds[i] : bounds[i + 1]])) for i in range(n))


class RoutePlan(StrEnum):
    """Who decides which pair drives which routes."""

    FIXED = "fixed"  # the plan: each pair has its part
    PULLED = "pulled"  # the pairs: each takes the next routes when it has driven its last


@dataclass(frozen=True)
class Plan:
    """A submission's shards; a resume keeps to them."""

    shards: tuple[Shard, ...]
    repetitions: int

    @property
    def pulled(self) -> bool:
        return self.shards[0].pulled

    @property
    def routes(self) -> tuple[int, ...]:
        """Each once, in the route file's order."""
        return tuple(dict.fromkeys(route for shard in self.shards for route in shard.routes))


def plan_routes(routes: Sequence[int], count: int, repetitions: int, how: RoutePlan) -> Plan:
    """So many shards for these routes, or as many as there are routes. Raises InvalidConfiguration."""
    shards = split_contiguous(routes, count)
    if how is RoutePlan.PULLED:
        shards = tuple(replace(shard, routes=tuple(routes), pulled=True) for shard in shards)
    return Plan(shards, repetitions)


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
        """What it is to drive; where it pulls its routes, what it may claim."""
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
    queue: QueuePlace | None = None  # while it waits in a queue that the backend can see
    backend_id: str = ""  # what the backend calls it: name of the Kubernetes pod or Job, id of the Batch job, pid here


ShardStatuses = Mapping[int, ShardStatus]


def all_expected(jobs: Sequence[ShardJob]) -> tuple[RouteRun, ...]:
    """Every run that the shards together are to drive, once, in the order of the routes."""
    return tuple(dict.fromkeys(run for job in jobs for run in job.expected))


def render_plan(plan: Plan) -> str:
    """The plan as JSON: `{"repetitions": 1, "shards": [[0, 1, 2], [3, 4, 5]]}`.

    Where routes are pulled, `{"repetitions": 1, "pulled_by": 4, "routes": [0, 1, 2, 3, 4, 5]}`.
    """
    if plan.pulled:
        content = {"pulled_by": len(plan.shards), "routes": list(plan.routes)}
    else:
        content = {"shards": [list(shard.routes) for shard in plan.shards]}
    return json.dumps({"repetitions": plan.repetitions, **content})


def parse_plan(data: bytes, source: str) -> Plan:
    """Read what `render_plan` wrote. Raises InvalidConfiguration."""
    try:
        content = json.loads(data)
        repetitions = _whole(content["repetitions"], 1)
        if "pulled_by" in content:
            routes = _routes([content["routes"]])
            count = _whole(content["pulled_by"], 1)
            if count > len(routes):
                raise ValueError("there are more shards than routes")
            return plan_routes(routes, count, repetitions, RoutePlan.PULLED)
        shards = [tuple(shard) for shard in content["shards"]]
        _routes(shards)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        remedy = "Delete the file: the next resume then drives all routes anew."
        raise InvalidConfiguration(f"{source} is not a shard plan", repr(error), remedy) from error
    return Plan(tuple(Shard(index, len(shards), shard) for index, shard in enumerate(shards)), repetitions)


def _routes(shards: Sequence[Sequence[object]]) -> list[int]:
    routes = [_whole(route, 0) for shard in shards for route in shard]
    if not all(shards) or not routes or len(set(routes)) < len(routes):
        raise ValueError("a shard is empty, or a route is planned twice")
    return routes


def _whole(value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is not a whole number from {least}")
    return value
