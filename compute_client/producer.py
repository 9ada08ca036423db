"""Posts jobs and fetches their results: the side of the queue where the caller is."""

import time
import uuid
from typing import TYPE_CHECKING, Any, cast

import boto3

from aws_api import ClientFactory
from aws_api.errors import aws_errors
from compute_client.job import JobResult, NotSent, ResultStatus, require_id, write_message
from compute_client.table import JobTable
from evaluation.errors import DeadlineExceeded, EvaluationError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 2.0, 1.5  # seconds between two looks at a job


class Producer:
    """One queue of jobs and their table.

    `queue` is a name or URL, standard or FIFO; `bucket` takes bodies of more than 100 KiB and results of more than
    250. boto3 finds region and credentials as usual; `client` replaces `boto3.client`. Every method raises errors of
    `evaluation.errors` only.
    """

    def __init__(
        self,
        queue: str,
        table: str,
        bucket: str | None = None,
        *,
        timeout_seconds: float = 300,
        client: ClientFactory | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._queue = queue
        self._make_client: ClientFactory = client or cast(ClientFactory, boto3.client)
        self._clients: dict[str, Any] = {}
        self._table = JobTable(table, bucket, self._client)
        self._url = queue if queue.startswith(("http://", "https://")) else ""

    def post_non_blocking(self, body: object, job_id: str | None = None, group: str | None = None) -> str:
        """Ask for `function(body, id)` and return the job's id. The body is anything that JSON can hold.

        An id of the caller's makes the call repeatable: the same id and body are one job, however often they are
        posted. Jobs of one `group` are computed one after the other on a FIFO queue. Raises NotSent, which names the
        id, where the job is recorded but its message may be missing; RequestRefused where the id has another body.
        """
        job_id = require_id(uuid.uuid4().hex if job_id is None else job_id)
        group = require_id(group or job_id)
        # The row first: whoever sees the message finds the job.
        if self._table.submit(job_id, body, group):
            self._send(job_id, group)
        return job_id

    def retrieve_result_status(self, job_id: str) -> ResultStatus:
        """SUBMITTED, IN_PROGRESS, SUCCESS or FAILED; raises UnknownJob."""
        return self._table.status(job_id)

    def retrieve_result(self, job_id: str) -> JobResult:
        """How the job stands; its `.result` is what the function returned, or raises what kept it from that."""
        return self._table.read(job_id)

    def post(
        self, body: object, job_id: str | None = None, group: str | None = None, timeout_seconds: float | None = None
    ) -> JobResult:
        """Post and wait for the end; raises DeadlineExceeded after the timeout. The job then goes on, under its id."""
        job_id = self.post_non_blocking(body, job_id, group)
        return self.wait(job_id, timeout_seconds)

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobResult:
        """Wait for a job that was posted before; raises DeadlineExceeded after the timeout."""
        limit = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline, pause = time.monotonic() + limit, FIRST_PAUSE
        while not (status := self._table.status(job_id)).final:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"Job {job_id} has no result after {limit:g} seconds", f"it is {status}", "It goes on: wait for it."
                )
            time.sleep(min(pause, left))
            pause = min(pause * GROWTH, LONGEST_PAUSE)
        return self._table.read(job_id)

    def resend(self, older_seconds: float = 60) -> list[str]:
        """Send the messages of jobs that were recorded so long ago without; returns the ids. May be repeated."""
        waiting = list(self._table.unsent(older_seconds))
        for job_id, group in waiting:
            self._send(job_id, group)
        return [job_id for job_id, _ in waiting]

    def _send(self, job_id: str, group: str) -> None:
        try:
            with aws_errors(f"Sending job {job_id} to {self._queue}"):
                self._sqs().send_message(
                    QueueUrl=self._address(), MessageBody=write_message(job_id), **self._fifo(group)
                )
            self._table.sent(job_id)
        except EvaluationError as error:
            raise NotSent(job_id, str(error)) from error

    def _fifo(self, group: str) -> dict[str, Any]:
        if not self._queue.endswith(".fifo"):
            return {}
        # A new one for each sending: SQS would drop a second message of the same id in silence, and the first may be
        # the one that was lost. The table knows duplicates.
        return {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex}

    def _address(self) -> str:
        if not self._url:
            self._url = self._sqs().get_queue_url(QueueName=self._queue)["QueueUrl"]
        return self._url

    def _sqs(self) -> "SQSClient":
        client: SQSClient = self._client("sqs")
        return client

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._make_client(service)
        return self._clients[service]
