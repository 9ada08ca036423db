"""Reads why a shard's Batch job failed for good from the job; what the ends mean: evaluation.pair.diagnosis. Pure."""

import re

from batch_jobs.job_description import BatchJob, Container
from evaluation.errors import Failure
from evaluation.pair.diagnosis import (
    ContainerEnd,
    PodEnd,
    StartFailure,
    deadline_failure,
    failure_of_pod,
    infrastructure_failure,
)

INSTANCE_LOST = re.compile(r"Host EC2\b")  # as the job definition's evaluateOnExit has it
_TIMEOUT = re.compile(r"attempt duration exceeded timeout", re.IGNORECASE)
# Of ECS, in a container's or a stopped task's reason.
_OUT_OF_MEMORY = re.compile(r"OutOfMemory", re.IGNORECASE)
_NO_IMAGE = re.compile(r"CannotPull\w*|RepositoryAuth\w*")
_NOT_STARTED = re.compile(r"Cannot(Start|Create|Inspect)\w*|ContainerRuntime\w*|DockerTimeout\w*")


def failure_of_job(job: BatchJob, deadline_seconds: float) -> Failure:
    """The failure of a FAILED job: what Batch did to it, else what its containers' ends say."""
    # The task's own end comes last: where a container says why it never ran, that is more exact.
    ends = [*(_end(each) for each in job.containers.values()), _end(Container("", reason=job.reason))]
    limits_in = "the job definition's stack"
    return (
        _by_batch(job, deadline_seconds)
        or failure_of_pod(PodEnd(ends, limits_in, stops_together=True, reason=job.reason))
        or infrastructure_failure("The shard's Batch job failed", job.reason)
    )


def _by_batch(job: BatchJob, deadline_seconds: float) -> Failure | None:
    if _TIMEOUT.search(job.reason):
        return deadline_failure(deadline_seconds)
    if INSTANCE_LOST.search(job.reason):
        cause = f"{len(job.losses) + 1} instances in a row, the last one: {job.reason}"
        return infrastructure_failure("The shard's instance was lost again and again", cause)
    if job.ending:
        return infrastructure_failure(
            "The shard's Batch job was ended from outside", job.reason or "Batch gives no reason"
        )
    return None


def _end(container: Container) -> ContainerEnd:
    return ContainerEnd(
        container.name,
        container.exit_code,
        container.reason,
        out_of_memory=bool(container.name and _OUT_OF_MEMORY.search(container.reason)),
        start_failure=_start_failure(container.reason),
    )


def _start_failure(reason: str) -> StartFailure | None:
    if _NO_IMAGE.search(reason):
        return StartFailure.IMAGE
    return StartFailure.CONTAINER if _NOT_STARTED.search(reason) else None
