"""What the supervisor and `prepare` are told by their environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.errors import InvalidConfiguration
from evaluation.routes import RouteRun, expand, parse_route_list
from evaluation.shards import Budgets
from evaluation.submission.model import LeaderboardVersion


@dataclass(frozen=True)
class PairSettings:
    """One shard's settings; times in seconds."""

    submission: int
    attempt: int
    shard: int
    version: LeaderboardVersion
    expected: tuple[RouteRun, ...]
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
    log_group: str = ""  # CloudWatch's; none where it is empty


def read_settings(environment: Mapping[str, str]) -> PairSettings:
    """Read the environment contract; raises InvalidConfiguration that names the variable."""

    def text(name: str) -> str:
        if not environment.get(name):
            raise InvalidConfiguration(
                f"The environment variable {name} is missing or empty", remedy="Set it in the shard's Job."
            )
        return environment[name]

    def number(name: str) -> float:
        try:
            return float(text(name))
        except ValueError as error:
            raise InvalidConfiguration(f"{name} must be a number, not {text(name)!r}") from error

    if text("LEADERBOARD_VERSION") not in set(LeaderboardVersion):
        raise InvalidConfiguration(f"LEADERBOARD_VERSION must be 1.0 or 2.0, not {text('LEADERBOARD_VERSION')!r}")
    return PairSettings(
        submission=int(number("SUBMISSION")),
        attempt=int(number("ATTEMPT")),
        shard=int(number("WORKER_ID")),
        version=LeaderboardVersion(text("LEADERBOARD_VERSION")),
        expected=expand(parse_route_list(text("ROUTES_SUBSET")), int(number("REPETITIONS"))),
        bucket=text("BUCKET"),
        routes_location=text("ROUTES_LOCATION"),
        routes=Path(text("ROUTES")),
        pair_dir=Path(text("PAIR_DIR")),
        checkpoint=Path(text("CHECKPOINT_ENDPOINT")),
        budgets=Budgets(
            int(number("AGENT_RESTARTS")),
            int(number("INFRASTRUCTURE_RESTARTS")),
            int(number("SIMULATOR_CRASHES_PER_ROUTE")),
        ),
        hang_seconds=number("HANG_SECONDS"),
        copy_seconds=number("COPY_SECONDS"),
        poll_seconds=number("POLL_SECONDS"),
        simulator_wait_seconds=number("SIMULATOR_WAIT_SECONDS"),
        log_group=environment.get("LOG_GROUP", ""),
    )
