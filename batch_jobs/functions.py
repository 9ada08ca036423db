"""Runs Python functions as AWS Batch jobs and brings their results back, by way of S3."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aws_api.s3 import read_object, write_object
from batch_jobs.api import BatchAccess, BatchApi
from batch_jobs.function_job import CONTAINER, FLOW_RUN, BatchQueues, FunctionCall, call_text, function_request
from batch_jobs.function_main import CALL, outcome_key
from batch_jobs.job_description import BatchJob
from batch_jobs.job_queues import require_fit, why_batch_says_it_waits
from batch_jobs.poller import end_duplicates
from batch_jobs.status_lines import StatusLines, misconfigured
from compute_client.job import JobError, JobFailed
from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

MISCONFIGURED = "leaderboard: Batch calls it misconfigured"  # reasons for TerminateJob
CANCELLED = "leaderboard: its flow run was cancelled"
OUTPUT_LINES = 1000  # of a job's own output in the flow run's log; CloudWatch has all of it

Say = Callable[[str], None]


@dataclass(frozen=True)
class FunctionLimits:
    """Seconds; the tests replace the clock."""

    poll_seconds: float = 5.0
    repeat_seconds: float = 30.0  # a status that does not change is said again
    silent_seconds: float = 3600.0  # so long may Batch not answer
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class BatchFunctions:
    """One installation's functions on Batch. `prefix` is the folder of all calls in the bucket.

    Methods raise ServiceUnavailable while AWS does not answer, InvalidConfiguration for what an operator has to
    correct, RequestRefused where AWS says no.
    """

    access: BatchAccess
    s3: Callable[[], "S3Client"]
    definition: str
    bucket: str
    prefix: str = "functions"
    queues: BatchQueues = field(default_factory=BatchQueues)
    share: str | None = "functions"  # None for queues without a scheduling policy
    limits: FunctionLimits = field(default_factory=FunctionLimits)

    async def run(self, call: FunctionCall, name: str, flow_run: str, say: Say) -> object:
        """Call the function in a Batch job of that name and return what it returned; every state goes to `say`.

        A job of the name that lives is adopted, so the call may be repeated after an outage. A cancellation ends it.
        Raises JobFailed where the function failed, or its job without a result; InvalidConfiguration also where Batch
        calls the job misconfigured, which is then ended.
        """
        starting = asyncio.create_task(self._start(call, name, flow_run))
        try:
            return await self._follow(call, await asyncio.shield(starting), name, say)
        except asyncio.CancelledError:
            await asyncio.shield(self._cancel(call, starting, say))
            raise

    async def end(self, name: str, reason: str = CANCELLED) -> list[str]:
        """Terminate the jobs of that name, or with a name that begins so if it ends in `*`; their ids."""
        found = await self._going(self.queues.all, name)
        for job in found:
            await self._api.terminate(job, reason)
        return [job.id for job in found]

    async def _start(self, call: FunctionCall, name: str, flow_run: str) -> str:
        """The job's id: of one that lives, or of a new one."""
        queue = self.queues.of(call)
        return await self._living(queue, name) or await self._submit(call, queue, name, flow_run)

    async def _cancel(self, call: FunctionCall, starting: asyncio.Task[str], say: Say) -> None:
        """End the job, also one that Batch is just accepting."""
        try:
            job_id = await starting
            for job in await self._api.described([job_id]):
                await self._api.terminate(job, CANCELLED)
            say(f"[{job_id}] {call.function} is ended: its run was cancelled")
        except EvaluationError as error:
            say(f"The job of {call.function} may go on: {error}")

    @property
    def _api(self) -> BatchApi:
        return BatchApi(self.access)

    async def _living(self, queue: str, name: str) -> str | None:
        """The oldest job of that name that has not ended; younger ones, of an earlier try, are ended."""
        found = await self._going([queue], name)
        await end_duplicates(self._api, found)
        return found[0].id if found else None

    async def _going(self, queues: Sequence[str], name: str) -> list[BatchJob]:
        return [job for job in await self._api.jobs(queues, name) if not job.ended and not job.ending]

    async def _submit(self, call: FunctionCall, queue: str, name: str, flow_run: str) -> str:
        definition = await self._definition(call, queue)
        text, folder = call_text(call), self._folder(name)
        await asyncio.to_thread(
            lambda: write_object(self.s3(), self.bucket, f"{folder}/{CALL}", text.encode(), "application/json")
        )
        address, tags = f"s3://{self.bucket}/{folder}", {FLOW_RUN: flow_run}
        return await self._api.submit(function_request(call, name, definition, queue, address, self.share, tags))

    async def _definition(self, call: FunctionCall, queue: str) -> str:
        """The ARN of the definition's newest revision, when the queue fits the call."""
        revisions = await self._api.definitions(self.definition)
        if not revisions:
            raise InvalidConfiguration(
                f"There is no active job definition {self.definition}",
                remedy="Create the stack of deployments/aws/batch-functions.yaml.",
            )
        found = await self._api.queue(queue)
        require_fit(queue, found, await self._api.environments(found) if found else [], call.gpus > 0)
        return str(revisions[0]["jobDefinitionArn"])

    async def _follow(self, call: FunctionCall, job_id: str, name: str, say: Say) -> object:
        lines, output = StatusLines(call.function, self.limits.repeat_seconds), _Output(self._api, say)
        answered = self.limits.clock()
        while True:
            now = self.limits.clock()
            try:
                job = await self._job(job_id)
                answered = now
                line = lines.next(job, now)
                if line and not job.ended:
                    say(line)
                await output.show(job)
                if line and job.ended:  # after its last words
                    say(line)
            except ServiceUnavailable as error:
                if now - answered > self.limits.silent_seconds:
                    raise
                say(f"[{job_id}] Batch does not answer now: {error}")
            else:
                if misconfigured(job):
                    await self._api.terminate(job, MISCONFIGURED)
                    raise _misconfigured(job, call)
                if job.ended:
                    return await self._result(call, job, name)
            await asyncio.sleep(self.limits.poll_seconds)

    async def _job(self, job_id: str) -> BatchJob:
        found = await self._api.described([job_id])
        if not found:
            raise RequestRefused(f"Batch knows no job {job_id}", "it has forgotten it, or it is another account's")
        return found[0]

    async def _result(self, call: FunctionCall, job: BatchJob, name: str) -> object:
        key = outcome_key(self._folder(name), job.id)
        body = await asyncio.to_thread(lambda: read_object(self.s3(), self.bucket, key))
        content: Mapping[str, object] = json.loads(body) if body else {}
        if "result" in content:
            return json.loads(str(content["result"]))
        if "misnamed" in content:
            raise InvalidConfiguration(
                "The function cannot be called in a Batch job",
                str(content["misnamed"]),
                "Correct its name, or the image of the job definition.",
            )
        given = content.get("error")
        error = JobError(**given).cut() if isinstance(given, dict) else _without_result(call, job)
        raise JobFailed(job.id, error)

    def _folder(self, name: str) -> str:
        return f"{self.prefix}/{name}"


class _Output:
    """What the job's container puts out, line by line as it comes."""

    def __init__(self, api: BatchApi, say: Say) -> None:
        self._api = api
        self._say = say
        self._token: str | None = None
        self._count = 0

    async def show(self, job: BatchJob) -> None:
        container = job.containers.get(CONTAINER)
        if container is None or not container.log_stream or self._count >= OUTPUT_LINES:
            return
        group, stream = container.log_group, container.log_stream
        while self._count < OUTPUT_LINES:
            lines, self._token = await self._api.next_lines(group, stream, self._token)
            for line in lines[: OUTPUT_LINES - self._count]:
                self._say(f"[{job.id}] {line}")
            self._count += len(lines)
            if not lines:
                return
        self._say(f"[{job.id}] (cut here after {OUTPUT_LINES} lines: the log group {group}, stream {stream}, has all)")


def _misconfigured(job: BatchJob, call: FunctionCall) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"AWS Batch calls the job of {call.function} misconfigured",
        f"{why_batch_says_it_waits(job)}; job {job.id} was ended",
        "Correct the call's sizes, or the compute environment of its queue.",
    )


def _without_result(call: FunctionCall, job: BatchJob) -> JobError:
    container = job.containers.get(CONTAINER)
    code = container.exit_code if container else None
    said = [job.reason, container.reason if container else "", "" if code is None else f"exit code {code}"]
    words = ", ".join(each for each in said if each) or "Batch gives no reason"
    if job.ending:
        return JobError("Terminated", f"somebody ended the job: {words}")
    if "attempt duration exceeded timeout" in job.reason:
        return JobError("TimeLimit", f"the function ran longer than {call.limit_seconds:g} seconds")
    return JobError("BatchJobFailed", f"it ended as {job.status} and left no result: {words}")
