"""The request of SubmitJob for a shard: its name, its queue, its team's share, and the values that are the shard's own.

The variables' names are the pair's contract (shard_pod.environment). What all shards have in common stands in the job
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
from evaluation.shards import ShardJob, attempt_prefix
from shard_pod.environment import Party, job_environment, shard_ports

SUBMISSION, ATTEMPT, SHARD = "leaderboard:submission", "leaderboard:attempt", "leaderboard:shard"
TEAM, PHASE = "leaderboard:team", "leaderboard:phase"

# Batch's containers share their instance's network. An instance has one shard at a time; should two ever meet, then
# shards of one submission have different ports (shard_ports).
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


def _variables(job: ShardJob, spec: BatchSpec) -> dict[str, dict[str, str]]:
    """By container: what is the shard's own (shard_pod.environment). The definition sets what all shards share."""
    environment = job_environment(
        job, routes_location=spec.routes_location, log_group=spec.log_group, **shard_ports(job.shard.index)
    )
    supervisor = environment.to_environment(Party.SUPERVISOR)
    return {
        INIT: supervisor,
        SUPERVISOR: supervisor,
        SIMULATOR: environment.to_environment(Party.SIMULATOR),
        AGENT: environment.to_environment(Party.AGENT),
    }


def _override(container: str, values: dict[str, str]) -> dict[str, Any]:
    return {"name": container, "environment": [{"name": name, "value": value} for name, value in values.items()]}
