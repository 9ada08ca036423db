"""Ends an attempt's Batch jobs and proves that none is left."""

import asyncio
import logging
import time
from dataclasses import dataclass

from batch_jobs.api import BatchApi
from batch_jobs.job_description import REMOVED, BatchJob
from batch_jobs.submit_request import attempt_names
from evaluation.errors import CleanupIncomplete, RequestRefused

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemovalLimits:
    """Seconds. The containers' own time to end (stopTimeout) is part of the deadline."""

    deadline_seconds: float = 300.0
    again_seconds: float = 30.0  # a job that has not ended by then is terminated once more
    first_pause_seconds: float = 0.5  # between two listings; grows
    longest_pause_seconds: float = 5.0


async def remove_attempt(
    api: BatchApi, queues: tuple[str, ...], submission: int, attempt: int, limits: RemovalLimits
) -> None:
    """Terminate all jobs of the attempt; returns after a listing in which every one of them has ended.

    Batch cannot delete a job: it forgets an ended one after some days. Until then a tag says that it is removed.
    Raises CleanupIncomplete after the deadline.
    """
    name = attempt_names(submission, attempt)
    deadline, pause = time.monotonic() + limits.deadline_seconds, limits.first_pause_seconds
    terminated_at: dict[str, float] = {}
    while left := [job for job in await api.jobs(queues, name) if not job.ended]:
        await _terminate(api, left, terminated_at, limits.again_seconds)
        if time.monotonic() + pause > deadline:
            raise CleanupIncomplete(
                f"Something of {name} has not ended after {limits.deadline_seconds:g} s",
                ", ".join(f"{job.name} is {job.status} ({job.id})" for job in left),
                "Check it with aws batch describe-jobs; its instance may be lost.",
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, limits.longest_pause_seconds)
    for job in await api.jobs(queues, name):
        if not job.removed:
            await _mark(api, job)


async def _mark(api: BatchApi, job: BatchJob) -> None:
    try:
        await api.mark_removed(job)
    except RequestRefused as error:  # nothing of it runs; it only stays in listings until Batch forgets it
        log.warning("%s", error)


async def _terminate(api: BatchApi, jobs: list[BatchJob], terminated_at: dict[str, float], again: float) -> None:
    now = time.monotonic()
    due = [job for job in jobs if now - terminated_at.get(job.id, float("-inf")) >= again]
    for job in due:
        await api.terminate(job, REMOVED)
        terminated_at[job.id] = now
