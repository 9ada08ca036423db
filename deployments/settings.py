"""Every setting of the command line, the bridge and the embedded stack, read from LEADERBOARD_* variables."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from evaluation.errors import InvalidConfiguration
from evaluation.lifecycle.stages import LEASE_SECONDS
from evaluation.shards import RoutePlan

PREFIX = "LEADERBOARD_"
# Of CARLA's evaluator, of the embedded stack's processes, and of the tests.
_OF_OTHERS = frozenset({f"{PREFIX}{name}" for name in ("ROOT", "VERSION", "STACK", "SHARED")})


class Settings(BaseSettings):
    """Names follow the field: `region` is LEADERBOARD_REGION. Secrets are no settings: they live in blocks."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    state_dir: Path = Field(
        default=Path(".leaderboard"), description="Folder of the embedded stack: its state, logs and databases."
    )
    cache_dir: Path | None = Field(
        default=None, description="Folder for what outlives a stack (an empty Prefect database); in state_dir if unset."
    )
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="Port wanted for the embedded Prefect server.")
    aws_port: int = Field(default=4201, ge=1, le=65535, description="Port wanted for the embedded AWS.")
    evalai_port: int = Field(default=4202, ge=1, le=65535, description="Port wanted for the embedded EvalAI.")
    demo_seconds: float = Field(default=240, gt=0, description="How long the demo's submission may take.")
    start_seconds: float = Field(default=90, gt=0, description="How long a part of the stack may take to start.")
    region: str = Field(default="us-west-2", description="AWS region of queue, tables, buckets and secrets.")
    secrets_prefix: str = Field(
        default="",
        description="What the secrets' names begin with, for `leaderboard setup`; `staging-` in a staging.",
    )
    work_pool: str = Field(default="leaderboard", description="Prefect work pool of the flow runs.")
    recovery_pool: str = Field(
        default="leaderboard-recovery",
        description="Work pool of the reconciler and of runs that take over; without a limit, and with its own worker.",
    )
    work_pool_type: str = Field(
        default="in-process",
        description="Type of these pools where `setup` has to make them; also of the embedded workers.",
    )
    aws_endpoint_url: str = Field(
        default="", description="Address of an AWS emulator: `setup` then stores it, with made-up keys, in the block."
    )
    challenge_pk: int | None = Field(
        default=None,
        gt=0,
        description="The challenge: the reconciler lists it, and messages of others on the same queue are refused.",
    )
    lease_seconds: int = Field(
        default=LEASE_SECONDS,
        ge=3,
        description="A run silent for so long counts as dead, for `leaderboard setup`; the embedded default is 45.",
    )
    queue_url: str = Field(default="", description="URL of EvalAI's queue, for `leaderboard setup`.")
    dead_letter_url: str = Field(default="", description="URL of its dead-letter queue, for `leaderboard setup`.")
    evalai_requests_per_minute: int = Field(
        default=60, ge=8, description="What EvalAI allows a user: for `leaderboard setup` and the embedded EvalAI."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of the metrics of bridge and in-process worker (none if unset) and of `leaderboard metrics`.",
    )
    worker_limit: int = Field(
        default=100,
        ge=1,
        description="How many flow runs the embedded worker has at once; 8 is enough with the work pool type process, "
        "where each takes some 200 MB.",
    )
    gpu_slots: int = Field(
        default=8, ge=1, description="How many pairs drive at once in the embedded stack; other shards wait for a turn."
    )
    route_seconds: float = Field(default=1.0, gt=0, description="How long a stand-in drives one route, in seconds.")
    route_plan: RoutePlan = Field(
        default=RoutePlan.FIXED, description="Which pair drives which routes in the embedded stack: fixed, or pulled."
    )
    cancel_check_seconds: float = Field(
        default=3.0, gt=0, description="Longest time between two lists of EvalAI, which show cancellations, in seconds."
    )
    reconcile_seconds: float = Field(
        default=60, ge=10, description="How often the embedded stack's reconciler runs, in seconds."
    )
    hang_seconds: float = Field(default=8.0, gt=0, description="Without output this long, a stand-in agent hangs.")
    visibility_seconds: int = Field(
        default=60, ge=1, description="How long the embedded queue hides a message that was received, in seconds."
    )

    @property
    def cache(self) -> Path:
        return self.cache_dir or self.state_dir / "cache"

    @property
    def state_file(self) -> Path:
        return self.state_dir / "stack.json"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"


def _check_names(environment: Iterable[str]) -> None:
    """A mistyped variable would be ignored. Others begin so too: LEADERBOARD_ROOT is the evaluator's."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in (*known, *_OF_OTHERS):
            for meant in get_close_matches(name, known, n=1, cutoff=0.85):
                raise InvalidConfiguration(
                    f"There is no setting {name}", f"the nearest is {meant}", "Correct its name."
                )


def load_settings() -> Settings:
    """Read the environment; raises InvalidConfiguration with one sentence that names the variable."""
    _check_names(os.environ)
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"LEADERBOARD_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidConfiguration("A setting is wrong", problems) from error
