"""The settings of the supervisor and `prepare`, from their environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.routes import RouteRun, expand, parse_route_list
from evaluation.shards import Budgets, RoutePlan
from evaluation.submission.model import LeaderboardVersion
from shard_pod.environment import PairEnvironment

ANSWER_SECONDS = 60.0  # a world that is being loaded keeps CARLA's game thread busy for tens of seconds


@dataclass(frozen=True)
class PairSettings:
    """One shard's settings; times in seconds."""

    submission: int
    attempt: int
    shard: int
    version: LeaderboardVersion
    expected: tuple[RouteRun, ...]  # what the shard is to drive, or may claim
    bucket: str
    routes_location: str  # s3://bucket/key, or a file's path
    routes: Path  # where the evaluator reads the route file
    pair_dir: Path
    checkpoint: Path  # where the evaluator writes
    budgets: Budgets
    hang_seconds: float
    copy_seconds: float
    poll_seconds: float
    simulator_wait_seconds: float
    simulator_answer_seconds: float = ANSWER_SECONDS
    log_group: str = ""  # CloudWatch's; none where it is empty
    repetitions: int = 1
    pulled: bool = False  # the shard claims its routes from the submission's pool


def read_settings(environment: Mapping[str, str]) -> PairSettings:
    """Read the environment (shard_pod.environment); raises InvalidConfiguration that names the variable."""
    given = PairEnvironment.from_environment(environment)
    read = given.required
    return PairSettings(
        version=read("version"),
        submission=read("submission"),
        attempt=read("attempt"),
        shard=read("shard"),
        expected=expand(parse_route_list(read("routes_subset")), read("repetitions")),
        bucket=read("bucket"),
        routes_location=read("routes_location"),
        routes=Path(read("routes")),
        pair_dir=Path(read("pair_dir")),
        checkpoint=Path(read("checkpoint")),
        budgets=Budgets(read("agent_restarts"), read("infrastructure_restarts"), read("simulator_crashes_per_route")),
        hang_seconds=read("hang_seconds"),
        copy_seconds=read("copy_seconds"),
        poll_seconds=read("poll_seconds"),
        simulator_wait_seconds=read("simulator_wait_seconds"),
        simulator_answer_seconds=given.simulator_answer_seconds or ANSWER_SECONDS,
        log_group=given.log_group or "",
        repetitions=read("repetitions"),
        pulled=given.route_plan is RoutePlan.PULLED,
    )
