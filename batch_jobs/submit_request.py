"""What SubmitJob is told of a shard: its name, its queue, its team's share, and the values that are the shard's own.

The variables' names are the pair's contract (shard_pod.settings). What all shards have in common stands in the job
definition. Pure.
"""

import hashlib
import math
import re
from typing import Any

from batch_jobs.job_description import INIT
from batch_jobs.spec import BatchSpec
from evaluation.errors import InvalidConfiguration
from evaluation.pair.diagnosis import AGENT, SIMULATOR, SUPERVISOR
from evaluation.routes import format_route_list
from evaluation.shards import ShardJob, attempt_prefix

SUBMISSION, ATTEMPT, SHARD = "leaderboard:submission", "leaderboard:attempt", "leaderboard:shard"
TEAM, PHASE = "leaderboard:team", "leaderboard:phase"

# Batch's containers share their machine's network. A machine has one shard at a time; should two ever meet, then shards
# of one submission at least do not take each other's ports. CARLA takes three ports from its first on.
_CARLA_PORT, _TRAFFIC_MANAGER_PORT, _PORT_STEP = 2000, 8000, 10
_LEAST_TIMEOUT = 60  # seconds; Batch accepts no shorter one
_SHARE_LETTERS = 40
_NAME = re.compile(r"submission-([0-9]+)-attempt-([0-9]+)-shard-[0-9]+")


def submit_request(job: ShardJob, spec: BatchSpec, definition: str) -> dict[str, Any]:
    """SubmitJob's arguments. Raises InvalidConfiguration where the job runs no time."""
    if not job.deadline_seconds > 0:
        raise InvalidConfiguration(f"{job.name} has a deadline of {job.deadline_seconds} seconds", "it has to be > 0")
    variables = _variables(job, spec)
    return {
        "jobName": job.name,
        "jobQueue": spec.queue_of(job.phase),
        "jobDefinition": definition,
        "shareIdentifier": share_identifier(job.team_name),
        "timeout": {"attemptDurationSeconds": max(_LEAST_TIMEOUT, math.ceil(job.deadline_seconds))},
        "tags": identity(job) | {TEAM: tag_value(job.team_name), PHASE: tag_value(job.phase.codename)},
        "ecsPropertiesOverride": {
            "taskProperties": [{"containers": [_override(name, values) for name, values in variables.items()]}]
        },
    }


def identity(job: ShardJob) -> dict[str, str]:
    """The tags by which a job of ours is known."""
    return {SUBMISSION: str(job.submission), ATTEMPT: str(job.attempt), SHARD: str(job.shard.index)}


def share_identifier(team: str) -> str:
    """The team's share in the queue: letters and digits, as Batch has it; two names never have one share in common."""
    digest = hashlib.sha256(team.encode("utf-8", "replace")).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9]", "", team)[:_SHARE_LETTERS] + digest


def tag_value(text: str) -> str:
    """The nearest value that AWS takes for a tag: 256 of letters, digits, spaces and _.:/=+-@."""
    return re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "-", text)[:256]


def attempt_names(submission: int, attempt: int) -> str:
    """ListJobs' filter for all jobs of one attempt."""
    return f"{attempt_prefix(submission, attempt)}-shard-*"


def attempt_of(name: str) -> tuple[int, int] | None:
    """Submission and attempt of a job's name, or None where it is none of ours."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def _variables(job: ShardJob, spec: BatchSpec) -> dict[str, dict[str, object]]:
    """By container. The agent gets what it needs to drive, and nothing that leads to the storage."""
    ports = {
        "CARLA_PORT": _CARLA_PORT + job.shard.index * _PORT_STEP,
        "TRAFFIC_MANAGER_PORT": _TRAFFIC_MANAGER_PORT + job.shard.index * _PORT_STEP,
    }
    routes = {"ROUTES_SUBSET": format_route_list(job.shard.routes), "REPETITIONS": job.repetitions}
    worker = {"WORKER_ID": job.shard.index}
    supervisor = {
        **worker,
        **routes,
        "SUBMISSION": job.submission,
        "ATTEMPT": job.attempt,
        "SHARD_COUNT": job.shard.count,
        "LEADERBOARD_VERSION": job.version.value,
        "BUCKET": job.bucket,
        "ROUTES_LOCATION": spec.routes_location,
        "AGENT_RESTARTS": job.budgets.agent_restarts,
        "INFRASTRUCTURE_RESTARTS": job.budgets.infrastructure_restarts,
        "SIMULATOR_CRASHES_PER_ROUTE": job.budgets.simulator_crashes_per_route,
        "HANG_SECONDS": job.hang_seconds,
        "LOG_GROUP": spec.log_group,
    }
    return {
        INIT: supervisor,
        SUPERVISOR: supervisor,
        SIMULATOR: {**worker, "CARLA_PORT": ports["CARLA_PORT"]},
        AGENT: {**worker, **routes, **ports, "CHALLENGE_TRACK_CODENAME": job.phase.track},
    }


def _override(container: str, values: dict[str, object]) -> dict[str, Any]:
    return {"name": container, "environment": [{"name": name, "value": _text(value)} for name, value in values.items()]}


def _text(value: object) -> str:
    """As the scripts read it: without exponents."""
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
