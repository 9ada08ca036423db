"""AWS Batch as the backend uses it: every listing read to its last page, and no call that blocks the event loop."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_api.errors import aws_errors
from batch_jobs.job_description import REMOVED_TAG, BatchJob, read_job

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient
    from types_boto3_logs import CloudWatchLogsClient

Json = Mapping[str, Any]

_DESCRIBED_AT_ONCE = 100  # ids that DescribeJobs takes


@dataclass(frozen=True)
class BatchAccess:
    """How to reach AWS, as one of two roles; the clients are made when needed."""

    batch: Callable[[], "BatchClient"]
    registrar: Callable[[], "BatchClient"]  # as the role that may register job definitions, and nothing else
    logs: Callable[[], "CloudWatchLogsClient"]


@dataclass(frozen=True)
class BatchApi:
    """Raises ServiceUnavailable, InvalidConfiguration or RequestRefused (aws_api.errors).

    `page` is how much is asked for at once; the tests make it small.
    """

    access: BatchAccess
    page: int = 100  # what ListJobs gives at most with a filter

    async def jobs(self, queues: Iterable[str], name: str) -> list[BatchJob]:
        """All jobs of that name, or with a name that begins so if it ends in `*`; ended ones too, oldest first."""
        ids = [id_ for queue in queues for id_ in await asyncio.to_thread(self._list, queue, name)]
        return await self.described(ids)

    async def described(self, ids: Sequence[str]) -> list[BatchJob]:
        """These jobs as they are now, oldest first; what Batch has forgotten is left out."""
        chunks = [ids[start : start + _DESCRIBED_AT_ONCE] for start in range(0, len(ids), _DESCRIBED_AT_ONCE)]
        found = [job for chunk in chunks for job in await asyncio.to_thread(self._describe, chunk)]
        return sorted(found, key=lambda job: (job.created, job.id))

    async def submit(self, request: Json) -> str:
        """Submit one job; its id."""
        with aws_errors(f"Submitting the Batch job {request['jobName']}"):
            answer = await asyncio.to_thread(lambda: self.access.batch().submit_job(**request))
        return answer["jobId"]

    async def terminate(self, job: BatchJob, reason: str) -> None:
        """TerminateJob, never CancelJob: that one answers well even where it does nothing, once a job has started."""
        with aws_errors(f"Ending the Batch job {job.name} ({job.id})"):
            await asyncio.to_thread(lambda: self.access.batch().terminate_job(jobId=job.id, reason=reason))

    async def mark_removed(self, job: BatchJob) -> None:
        """Tag an ended job, as a deleted one of another system."""
        with aws_errors(f"Tagging the Batch job {job.name} ({job.id})"):
            tags = {REMOVED_TAG: "yes"}
            await asyncio.to_thread(lambda: self.access.batch().tag_resource(resourceArn=job.arn, tags=tags))

    async def queue(self, name: str) -> Json | None:
        """The job queue, or None."""
        with aws_errors(f"Looking at the job queue {name}"):
            answer = await asyncio.to_thread(lambda: self.access.batch().describe_job_queues(jobQueues=[name]))
        return next(iter(answer["jobQueues"]), None)

    async def front_of_queue(self, name: str) -> list[str]:
        """The ARNs of the jobs that Batch starts next in this queue, in that order: the first 100 that are RUNNABLE."""
        with aws_errors(f"Looking at the front of the job queue {name}"):
            answer = await asyncio.to_thread(lambda: self.access.batch().get_job_queue_snapshot(jobQueue=name))
        return [job["jobArn"] for job in (answer.get("frontOfQueue") or {}).get("jobs") or []]

    async def environments(self, queue: Json) -> list[Json]:
        """The queue's compute environments."""
        order = sorted(queue["computeEnvironmentOrder"], key=lambda entry: entry["order"])
        names = [entry["computeEnvironment"] for entry in order]
        with aws_errors(f"Looking at the compute environments of {queue['jobQueueName']}"):
            answer = await asyncio.to_thread(
                lambda: self.access.batch().describe_compute_environments(computeEnvironments=names)
            )
        return list(answer["computeEnvironments"])

    async def definitions(self, name: str) -> list[Json]:
        """The active revisions of a job definition, newest first."""
        found = await asyncio.to_thread(self._definitions, name)
        return sorted(found, key=lambda definition: int(definition["revision"]), reverse=True)

    async def register(self, request: Json) -> str:
        """Register a revision, under the role that may do nothing else; its ARN."""
        with aws_errors(f"Registering the job definition {request['jobDefinitionName']}"):
            answer = await asyncio.to_thread(lambda: self.access.registrar().register_job_definition(**request))
        return answer["jobDefinitionArn"]

    async def last_lines(self, group: str, stream: str, lines: int) -> str:
        """The last lines of a log stream; empty where it does not exist yet."""
        with aws_errors(f"Reading the log {group}/{stream}"):
            return await asyncio.to_thread(self._last_lines, group, stream, lines)

    async def next_lines(self, group: str, stream: str, token: str | None) -> tuple[list[str], str | None]:
        """The lines of a log stream after those of an earlier call, whose second value is the token; None at first."""
        with aws_errors(f"Reading the log {group}/{stream}"):
            return await asyncio.to_thread(self._next_lines, group, stream, token)

    def _list(self, queue: str, name: str) -> list[str]:
        filters = [{"name": "JOB_NAME", "values": [name]}]  # with a filter, Batch lists every status
        with aws_errors(f"Listing the jobs of the queue {queue}"):
            request = {"jobQueue": queue, "filters": filters, "maxResults": self.page}
            return [summary["jobId"] for summary in self._pages("list_jobs", "jobSummaryList", request)]

    def _describe(self, ids: Sequence[str]) -> list[BatchJob]:
        with aws_errors("Looking at Batch jobs"):
            answer = self.access.batch().describe_jobs(jobs=list(ids))
        return [read_job(job) for job in answer["jobs"]]

    def _definitions(self, name: str) -> list[Json]:
        with aws_errors(f"Looking at the job definition {name}"):
            request = {"jobDefinitionName": name, "status": "ACTIVE", "maxResults": self.page}
            return self._pages("describe_job_definitions", "jobDefinitions", request)

    def _pages(self, operation: str, items: str, request: Json) -> list[Json]:
        call, found, token = getattr(self.access.batch(), operation), [], None
        while True:
            answer = call(**request, **({"nextToken": token} if token else {}))
            found += answer[items]
            token = answer.get("nextToken")
            if not token:
                return found

    def _last_lines(self, group: str, stream: str, lines: int) -> str:
        logs = self.access.logs()
        try:
            answer = logs.get_log_events(
                logGroupName=group, logStreamName=stream, limit=min(lines, 10_000), startFromHead=False
            )
        except logs.exceptions.ResourceNotFoundException:
            return ""
        return "\n".join(event["message"].rstrip("\n") for event in answer["events"])

    def _next_lines(self, group: str, stream: str, token: str | None) -> tuple[list[str], str | None]:
        logs = self.access.logs()
        after: Json = {"nextToken": token} if token else {}
        try:
            answer = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **after)
        except logs.exceptions.ResourceNotFoundException:
            return [], token
        return [event["message"].rstrip("\n") for event in answer["events"]], answer.get("nextForwardToken") or token
