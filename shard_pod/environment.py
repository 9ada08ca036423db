"""The environment of a pair's processes, written once: what the backends set and what the supervisor and scripts read.

The supervisor reads its part by `read_settings` (shard_pod.settings), simulator.sh and agent.sh theirs by `require`.
What is the same for all shards of a cluster may stand in the backend's job definition instead (Batch).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.errors import InvalidConfiguration
from evaluation.routes import format_route_list
from evaluation.shards import RoutePlan, ShardJob
from evaluation.submission.model import LeaderboardVersion

# Containers that share a network (Batch) must not share a port. CARLA takes three ports from its first on.
CARLA_PORT, TRAFFIC_MANAGER_PORT, PORT_STEP = 2000, 8000, 10


class Party(StrEnum):
    SUPERVISOR = "supervisor"  # and the init container that prepares for it
    SIMULATOR = "simulator"
    AGENT = "agent"


class Variable(NamedTuple):
    """The name of a field's environment variable, and who gets it."""

    name: str
    parties: frozenset[Party]


def _variable(name: str, *parties: Party) -> Variable:
    return Variable(name, frozenset(parties))


_ALL = (Party.SUPERVISOR, Party.SIMULATOR, Party.AGENT)
_OURS, _AGENTS, _SIMULATORS = Party.SUPERVISOR, Party.AGENT, Party.SIMULATOR


class PairEnvironment(BaseModel):
    """The variables of one shard's pair. Times in seconds. A field that is None is not set by this writer.

    Nothing that leads to the storage goes to the agent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[LeaderboardVersion | None, _variable("LEADERBOARD_VERSION", _OURS)] = None
    submission: Annotated[int | None, _variable("SUBMISSION", _OURS)] = None
    attempt: Annotated[int | None, _variable("ATTEMPT", _OURS)] = None
    shard: Annotated[int | None, _variable("WORKER_ID", *_ALL)] = None
    shard_count: Annotated[int | None, _variable("SHARD_COUNT", _OURS)] = None
    track: Annotated[str | None, _variable("CHALLENGE_TRACK_CODENAME", _AGENTS)] = None
    routes_subset: Annotated[str | None, _variable("ROUTES_SUBSET", _OURS, _AGENTS)] = None  # 0-4,7
    route_plan: Annotated[RoutePlan | None, _variable("ROUTE_PLAN", _OURS)] = None  # fixed where it is not set
    repetitions: Annotated[int | None, _variable("REPETITIONS", _OURS, _AGENTS)] = None
    routes_location: Annotated[str | None, _variable("ROUTES_LOCATION", _OURS)] = None  # s3://bucket/key, or a path
    routes: Annotated[str | None, _variable("ROUTES", _OURS, _AGENTS)] = None  # where the evaluator reads the file
    bucket: Annotated[str | None, _variable("BUCKET", _OURS)] = None
    log_group: Annotated[str | None, _variable("LOG_GROUP", _OURS)] = None  # CloudWatch's; none where it is empty
    pair_dir: Annotated[str | None, _variable("PAIR_DIR", *_ALL)] = None
    checkpoint: Annotated[str | None, _variable("CHECKPOINT_ENDPOINT", _OURS, _AGENTS)] = None
    carla_port: Annotated[int | None, _variable("CARLA_PORT", _SIMULATORS, _AGENTS)] = None
    traffic_manager_port: Annotated[int | None, _variable("TRAFFIC_MANAGER_PORT", _AGENTS)] = None
    agent_restarts: Annotated[int | None, _variable("AGENT_RESTARTS", _OURS)] = None
    infrastructure_restarts: Annotated[int | None, _variable("INFRASTRUCTURE_RESTARTS", _OURS)] = None
    simulator_crashes_per_route: Annotated[int | None, _variable("SIMULATOR_CRASHES_PER_ROUTE", _OURS)] = None
    hang_seconds: Annotated[float | None, _variable("HANG_SECONDS", _OURS)] = None
    copy_seconds: Annotated[float | None, _variable("COPY_SECONDS", _OURS)] = None
    poll_seconds: Annotated[float | None, _variable("POLL_SECONDS", *_ALL)] = None
    simulator_wait_seconds: Annotated[float | None, _variable("SIMULATOR_WAIT_SECONDS", _OURS, _AGENTS)] = None
    simulator_warmup_seconds: Annotated[float | None, _variable("SIMULATOR_WARMUP_SECONDS", _SIMULATORS)] = None
    simulator_answer_seconds: Annotated[float | None, _variable("SIMULATOR_ANSWER_SECONDS", _OURS)] = None

    def to_environment(self, *parties: Party) -> dict[str, str]:
        """The variables of these parties, as text: numbers without exponents, which the scripts do not read."""
        wanted = frozenset(parties)
        values = ((variable, getattr(self, field)) for field, variable in VARIABLES.items())
        return {v.name: _text(value) for v, value in values if value is not None and v.parties & wanted}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "PairEnvironment":
        """What is set and not empty; raises InvalidConfiguration that names a variable with a wrong value."""
        values = {field: environment[v.name] for field, v in VARIABLES.items() if environment.get(v.name)}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            field = str(error.errors()[0]["loc"][0])
            kind = {"version": "1.0 or 2.0", "route_plan": "fixed or pulled"}.get(field, "a number")
            name = VARIABLES[field].name
            raise InvalidConfiguration(f"{name} must be {kind}, not {environment[name]!r}") from error

    def required(self, field: str) -> Any:
        """The field's value; raises InvalidConfiguration that names the variable where it is not set."""
        value = getattr(self, field)
        if value is None:
            problem = f"The environment variable {VARIABLES[field].name} is missing or empty"
            raise InvalidConfiguration(problem, remedy="Set it in the shard's Job.")
        return value


VARIABLES: Mapping[str, Variable] = {
    name: next(each for each in field.metadata if isinstance(each, Variable))
    for name, field in PairEnvironment.model_fields.items()
}


def job_environment(job: ShardJob, **more: Any) -> PairEnvironment:
    """What a shard's Job says of its pair; `more` are the fields that the backend knows."""
    return PairEnvironment(
        version=job.version,
        submission=job.submission,
        attempt=job.attempt,
        shard=job.shard.index,
        shard_count=job.shard.count,
        track=job.phase.track,
        routes_subset=format_route_list(job.shard.routes),
        route_plan=RoutePlan.PULLED if job.shard.pulled else None,
        repetitions=job.repetitions,
        bucket=job.bucket,
        agent_restarts=job.budgets.agent_restarts,
        infrastructure_restarts=job.budgets.infrastructure_restarts,
        simulator_crashes_per_route=job.budgets.simulator_crashes_per_route,
        hang_seconds=job.hang_seconds,
        **more,
    )


def shard_ports(shard: int) -> dict[str, int]:
    """The ports of a shard's pair: those of one submission differ, should two ever share a network."""
    return {
        "carla_port": CARLA_PORT + shard * PORT_STEP,
        "traffic_manager_port": TRAFFIC_MANAGER_PORT + shard * PORT_STEP,
    }


def _text(value: object) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
