"""JobBackend on AWS Batch: every shard is a multi-container job, found again by its name.

Batch gives every job a new id and lets two of them have the same name, it forgets an ended job only after days, and it
cannot delete one. So the names are ours to keep unique: the oldest living job of a name is the shard's, a younger one
is ended by whoever sees it. A removed job is one that has ended and bears a tag.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batch_jobs.api import BatchAccess, BatchApi, Json
from batch_jobs.job_definitions import find_revision, needs_gpu, require_base, revision_request, submission_definition
from batch_jobs.job_description import BatchJob
from batch_jobs.job_queues import require_fit
from batch_jobs.poller import JobPoller, end_duplicates, jobs_by_name
from batch_jobs.removal import RemovalLimits, remove_attempt
from batch_jobs.shard_states import chosen
from batch_jobs.spec import BatchSpec
from batch_jobs.submit_request import attempt_of, identity, submit_request
from evaluation.errors import DeadlineExceeded, InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.pair.shard_limits import ShardTimeouts, outdated
from evaluation.shards import ENDED, ShardJob, ShardStatuses

_OURS = "submission-"


@dataclass(frozen=True)
class BackendLimits:
    """Times in seconds; the tests shorten them."""

    poll_seconds: float = 5.0  # between two polls of Batch, which has no watch
    warning_seconds: float = 15.0  # a Batch that does not answer for less is not reported
    first_answer_seconds: float = 60.0  # how long it may not answer before it has answered at all
    silent_seconds: float = 3600.0  # then watching gives up; the jobs run on
    namesake_seconds: float = 300.0  # for a job of the same name to finish being ended
    listed_seconds: float = 60.0  # for Batch to list what it has accepted
    explain_seconds: float = 60.0  # a job that is RUNNABLE for longer asks for an explanation
    page: int = 100  # of listings
    timeouts: ShardTimeouts = field(default_factory=ShardTimeouts)
    removal: RemovalLimits = field(default_factory=RemovalLimits)


@dataclass(frozen=True)
class BatchJobBackend:
    """Every method raises ServiceUnavailable while AWS does not answer, InvalidConfiguration for what an operator has
    to correct, and RequestRefused when Batch says no."""

    access: BatchAccess
    spec: BatchSpec
    limits: BackendLimits = field(default_factory=BackendLimits)

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        """See JobBackend. A namesake that is being ended is waited for (DeadlineExceeded)."""
        unique = list({job.name: job for job in jobs}.values())
        missing = await self._missing(unique)
        if not missing:
            return
        base = await self._base({self.spec.queue_of(job.phase) for job in missing})
        images = {(job.submission, job.image) for job in missing}
        definitions = {key: await self._definition(base, *key) for key in sorted(images)}
        ids = [
            await self._api.submit(submit_request(job, self.spec, definitions[job.submission, job.image]))
            for job in missing
        ]
        await self._settle(missing, frozenset(ids))

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncGenerator[ShardStatuses, None]:
        """See JobBackend. While Batch does not answer, the last known states stay, and say so."""
        poller = JobPoller(self._api, self.spec, self._timeouts, self.limits.explain_seconds)
        known: ShardStatuses = {}
        statuses: ShardStatuses = {}
        answered_at = time.time()
        while True:
            try:
                statuses = known = await poller.poll(jobs)
                answered_at = time.time()
            except ServiceUnavailable as error:
                statuses = self._silent(known, answered_at, error)
            if statuses:
                yield statuses
            if statuses and all(status.state in ENDED for status in statuses.values()):
                return
            await asyncio.sleep(self.limits.poll_seconds)

    async def remove(self, submission: int, attempt: int) -> None:
        """See JobBackend. TerminateJob, until a listing shows that every job of the attempt has ended; then a tag."""
        await remove_attempt(self._api, self.spec.queues, submission, attempt, self.limits.removal)

    async def running(self) -> frozenset[tuple[int, int]]:
        """See JobBackend."""
        found = [attempt_of(job.name) for job in await self._api.jobs(self.spec.queues, f"{_OURS}*") if not job.removed]
        return frozenset(attempt for attempt in found if attempt)

    async def logs(self, job: ShardJob, lines: int) -> Mapping[str, str]:
        """See JobBackend. From CloudWatch: every container of the job's latest attempt that has begun to write."""
        found = await jobs_by_name(self._api, self.spec, [job])
        batch_job = chosen(found.get(job.name, []))
        streams = [each for each in batch_job.containers.values() if each.log_stream] if batch_job else []
        texts = await asyncio.gather(
            *(self._api.last_lines(each.log_group, each.log_stream, lines) for each in streams)
        )
        return {each.name: text for each, text in zip(streams, texts, strict=True)}

    async def preflight(self) -> str:
        """Where the shards run, in words; raises where definition or queues are missing or do not fit each other."""
        base = await self._base(self.spec.queues)
        definition = f"{base['jobDefinitionName']}:{base['revision']}"
        return f"AWS Batch, job definition {definition}, queues {', '.join(self.spec.queues)}"

    @property
    def _api(self) -> BatchApi:
        return BatchApi(self.access, self.limits.page)

    @property
    def _timeouts(self) -> ShardTimeouts:
        return replace(
            self.limits.timeouts,
            waiting_seconds=self.spec.waiting_seconds,
            warmup_seconds=self.spec.simulator_warmup_seconds,
        )

    async def _missing(self, jobs: Sequence[ShardJob]) -> list[ShardJob]:
        """The shards without a job, when no namesake is on its way out any more."""
        deadline, pause = time.monotonic() + self.limits.namesake_seconds, 0.2
        while True:
            found = await jobs_by_name(self._api, self.spec, jobs)
            there = {job.name: chosen(found.get(job.name, [])) for job in jobs}
            going = [each for each in there.values() if each and each.ending and not each.ended]
            if not going:
                break
            if time.monotonic() > deadline:
                names = ", ".join(each.name for each in going)
                raise DeadlineExceeded(f"{names} is still being ended after {self.limits.namesake_seconds:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.limits.poll_seconds)
        for job in jobs:
            _require_same(there[job.name], job)
        return [job for job in jobs if there[job.name] is None]

    async def _settle(self, jobs: Sequence[ShardJob], submitted: frozenset[str]) -> None:
        """Wait until Batch lists what was submitted, and end what another run has submitted as well.

        ListJobs may lag behind, and a watcher would take what it does not list for gone. Of two runs that saw the same
        gap, the later one sees both jobs here; watch() checks again.
        """
        deadline, pause = time.monotonic() + self.limits.listed_seconds, 0.2
        while True:
            found = await jobs_by_name(self._api, self.spec, jobs)
            unseen = submitted - {each.id for namesakes in found.values() for each in namesakes}
            if not unseen:
                break
            if time.monotonic() > deadline:
                raise DeadlineExceeded("Batch does not list jobs that it has accepted", ", ".join(sorted(unseen)))
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.limits.poll_seconds)
        for namesakes in found.values():
            await end_duplicates(self._api, namesakes)

    async def _base(self, queues: Iterable[str]) -> Json:
        """The base definition, when it and these queues fit each other."""
        base = require_base(self.spec.definition, await self._api.definitions(self.spec.definition))
        for name in sorted(queues):
            queue = await self._api.queue(name)
            environments = await self._api.environments(queue) if queue else []
            require_fit(name, queue, environments, needs_gpu(base))
        return base

    async def _definition(self, base: Json, submission: int, image: str) -> str:
        """The ARN of the base's revision with the submission's image, registered unless it is there."""
        if not image.strip():
            raise InvalidConfiguration(f"Submission {submission} has no image", "it was admitted without one")
        revisions = await self._api.definitions(submission_definition(base["jobDefinitionName"], submission))
        there = find_revision(revisions, base, image)
        return there or await self._api.register(revision_request(base, submission, image))

    def _silent(self, known: ShardStatuses, answered_at: float, error: ServiceUnavailable) -> ShardStatuses:
        """The last known states with a warning; raises the error when it has lasted too long."""
        silent = time.time() - answered_at
        if silent >= (self.limits.silent_seconds if known else self.limits.first_answer_seconds):
            raise ServiceUnavailable(f"AWS Batch has not answered for {silent:.0f} s", str(error)) from error
        if silent < self.limits.warning_seconds:
            return known
        return outdated(known, "AWS Batch", answered_at)


def _require_same(existing: BatchJob | None, job: ShardJob) -> None:
    """Adopt what has our tags for the same shard of the same attempt, nothing else."""
    if existing is None:
        return
    wrong = [key for key, value in identity(job).items() if existing.tags.get(key) != value]
    if wrong:
        raise RequestRefused(
            f"The Batch job {job.name} ({existing.id}) is not ours to adopt",
            f"its tag {wrong[0]} is {existing.tags.get(wrong[0])!r}",
            "End it, or give the shards a queue of their own.",
        )
