"""What one call of watch() has seen of its jobs so far, and what it reads beyond their states."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from batch_jobs.api import BatchApi
from batch_jobs.job_description import DUPLICATE, BatchJob
from batch_jobs.job_queues import why_batch_says_it_waits, why_its_queue_waits
from batch_jobs.shard_states import Observed, chosen, duplicates, shard_status
from batch_jobs.spec import BatchSpec
from batch_jobs.submit_request import attempt_names
from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.pair.shard_limits import ShardTimeouts
from evaluation.queue_place import QueuePlace
from evaluation.shards import ENDED, ShardJob, ShardStatus


async def jobs_by_name(api: BatchApi, spec: BatchSpec, jobs: Sequence[ShardJob]) -> dict[str, list[BatchJob]]:
    """All Batch jobs with these shards' names, oldest first; ListJobs is asked once for each attempt and queue."""
    found: dict[str, list[BatchJob]] = defaultdict(list)
    for submission, attempt, queue in {(job.submission, job.attempt, spec.queue_of(job.phase)) for job in jobs}:
        for job in await api.jobs([queue], attempt_names(submission, attempt)):
            found[job.name].append(job)
    return found


async def end_duplicates(api: BatchApi, found: Sequence[BatchJob]) -> None:
    """Of two living jobs with one name, which two runs that race may make, let the older one live."""
    for job in duplicates(found):
        await api.terminate(job, DUPLICATE)


class JobPoller:
    """Polls the jobs of a submission. An end stays an end: Batch forgets after some days."""

    def __init__(self, api: BatchApi, spec: BatchSpec, timeouts: ShardTimeouts, explain_seconds: float) -> None:
        self._api = api
        self._spec = spec
        self._timeouts = timeouts
        self._explain_seconds = explain_seconds
        self._ended: dict[int, ShardStatus] = {}
        self._since: dict[tuple[str, str], datetime] = {}  # job id and status -> when it was first seen so
        self._fronts: dict[str, tuple[float, list[str]]] = {}  # queue -> when it was read, the jobs that start next
        self._explained: dict[str, tuple[float, str]] = {}  # job id -> when it was read, the explanation

    async def poll(self, jobs: Sequence[ShardJob]) -> dict[int, ShardStatus]:
        """The status of each shard now."""
        found = await jobs_by_name(self._api, self._spec, [job for job in jobs if job.shard.index not in self._ended])
        statuses = {job.shard.index: await self._status(job, found.get(job.name, [])) for job in jobs}
        self._ended = {index: status for index, status in statuses.items() if status.state in ENDED}
        return statuses

    async def _status(self, job: ShardJob, found: Sequence[BatchJob]) -> ShardStatus:
        index = job.shard.index
        if index in self._ended:
            return self._ended[index]
        await end_duplicates(self._api, found)
        batch_job, now = chosen(found), datetime.now(UTC)
        if batch_job is None:
            return shard_status(index, None, Observed(now, now, job.deadline_seconds), self._timeouts)
        since = self._since.setdefault((batch_job.id, batch_job.status), now)
        why = await self._why_it_waits(job, batch_job, now)
        seen = Observed(
            now=now,
            since=since,
            deadline_seconds=job.deadline_seconds,
            why=why,
            place=await self._place(self._spec.queue_of(job.phase), batch_job, why),
        )
        return replace(shard_status(index, batch_job, seen, self._timeouts), backend_id=f"Batch job {batch_job.id}")

    async def _why_it_waits(self, job: ShardJob, batch_job: BatchJob, now: datetime) -> str:
        """Batch's own reason at once; the state of queue and compute environments after a while, and seldom."""
        if batch_job.status != "RUNNABLE":
            return ""
        if batch_job.reason:
            return why_batch_says_it_waits(batch_job)
        if (now - self._since[(batch_job.id, batch_job.status)]).total_seconds() < self._explain_seconds:
            return ""
        asked_at, text = self._explained.get(batch_job.id, (float("-inf"), ""))
        if time.monotonic() - asked_at >= self._explain_seconds:
            text = await self._ask(self._spec.queue_of(job.phase), batch_job)
            self._explained[batch_job.id] = (time.monotonic(), text)
        return text

    async def _place(self, queue: str, batch_job: BatchJob, why: str) -> QueuePlace | None:
        """Where a RUNNABLE job stands; None where it is not among the first, or Batch does not say."""
        if batch_job.status != "RUNNABLE":
            return None
        read_at, front = self._fronts.get(queue, (float("-inf"), []))
        if time.monotonic() - read_at >= self._explain_seconds:
            try:
                front = await self._api.front_of_queue(queue)
            except (RequestRefused, InvalidConfiguration, ServiceUnavailable):
                front = []  # a place is welcome, not needed
            self._fronts[queue] = (time.monotonic(), front)
        if batch_job.arn not in front:
            return None
        return QueuePlace(front.index(batch_job.arn) + 1, len(front), 0, why or "its queue's machines are in use")

    async def _ask(self, name: str, batch_job: BatchJob) -> str:
        try:
            queue = await self._api.queue(name)
            environments = await self._api.environments(queue) if queue else []
        except (RequestRefused, InvalidConfiguration, ServiceUnavailable):
            return ""  # an explanation is welcome, not needed
        return why_its_queue_waits(batch_job, queue, environments)
