"""What one call of watch() has seen of its jobs so far, and what it asks beyond their states."""

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from batch_jobs.api import BatchApi
from batch_jobs.job_description import DUPLICATE, SUPERVISOR, BatchJob
from batch_jobs.job_queues import why_batch_says_it_waits, why_its_queue_waits
from batch_jobs.shard_states import Observed, ShardTimeouts, chosen, duplicates, shard_status
from batch_jobs.spec import BatchSpec
from batch_jobs.submit_request import attempt_names
from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.shards import ENDED, ShardJob, ShardStatus

_KEEPERS_LINE = re.compile(r".*supervisor: (?:Exit code [a-z ]+: )?(.*)")  # as shard_pod.logging_setup writes it
_KEEPERS_LINES = 20


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
    """Looks at the jobs of a submission. An end stays an end: Batch forgets after some days."""

    def __init__(self, api: BatchApi, spec: BatchSpec, timeouts: ShardTimeouts, explain_seconds: float) -> None:
        self._api = api
        self._spec = spec
        self._timeouts = timeouts
        self._explain_seconds = explain_seconds
        self._ended: dict[int, ShardStatus] = {}
        self._since: dict[tuple[str, str], datetime] = {}  # job id and status -> when it was first seen so
        self._explained: dict[str, tuple[float, str]] = {}  # job id -> when it was asked, what was learned

    async def look(self, jobs: Sequence[ShardJob]) -> dict[int, ShardStatus]:
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
        seen = Observed(
            now=now,
            since=self._since.setdefault((batch_job.id, batch_job.status), now),
            deadline_seconds=job.deadline_seconds,
            why=await self._why_it_waits(job, batch_job, now),
            supervisor=await self._supervisors_words(batch_job),
        )
        return shard_status(index, batch_job, seen, self._timeouts)

    async def _why_it_waits(self, job: ShardJob, batch_job: BatchJob, now: datetime) -> str:
        """Batch's own reason at once; the state of queue and machines once it has waited for a while, and seldom."""
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

    async def _ask(self, name: str, batch_job: BatchJob) -> str:
        try:
            queue = await self._api.queue(name)
            environments = await self._api.environments(queue) if queue else []
        except (RequestRefused, InvalidConfiguration, ServiceUnavailable):
            return ""  # an explanation is welcome, not needed
        return why_its_queue_waits(batch_job, queue, environments)

    async def _supervisors_words(self, batch_job: BatchJob) -> str:
        """The last line of the supervisor's log, of a job that failed: it says what the exit code does not."""
        supervisor = batch_job.containers.get(SUPERVISOR)
        if batch_job.status != "FAILED" or supervisor is None or not supervisor.log_stream:
            return ""
        try:
            text = await self._api.last_lines(supervisor.log_group, supervisor.log_stream, _KEEPERS_LINES)
        except (RequestRefused, InvalidConfiguration, ServiceUnavailable):
            return ""
        lines = [found[1] for line in text.splitlines() if (found := _KEEPERS_LINE.fullmatch(line))]
        return lines[-1].rstrip(".") if lines else ""
