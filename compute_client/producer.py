"""Posts jobs and fetches their results: the side of the queue where the caller is."""

import time
import uuid

from compute_client.arguments import require_instance, require_number, require_text
from compute_client.job import JobResult, JobTimeout, NotSent, PostedId, ResultStatus, require_id
from compute_client.queue import DynamoDBClient, JobQueue
from compute_client.table import LOST_SECONDS
from evaluation.errors import EvaluationError

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 2.0, 1.5  # seconds between two reads of a job


class Producer:
    """Posts jobs to one queue and reads their table.

    `queue_name` is a name or URL, standard or FIFO. Every method raises errors of `evaluation.errors` only, for a wrong
    argument InvalidConfiguration or RequestRefused.
    """

    def __init__(self, queue_name: str, ddb_client: DynamoDBClient, *, timeout_seconds: float = 300) -> None:
        self.timeout_seconds = require_number("timeout_seconds", timeout_seconds)
        require_instance("ddb_client", ddb_client, DynamoDBClient)
        self._queue = JobQueue(require_text("queue_name", queue_name), ddb_client.client)
        self._table = ddb_client.jobs()

    def post_non_blocking(self, body: object, job_id: str | None = None, group: str | None = None) -> PostedId:
        """Ask for `function(body, id)` and return the job's id. The body is anything that JSON can hold.

        An id of the caller's makes the call repeatable: the same id and body are one job, however often they are
        posted. Jobs of one `group` are computed one after the other on a FIFO queue. Raises NotSent, which names the
        id, where the job is recorded but its message may be missing; RequestRefused where the id has another body.
        """
        job_id = PostedId(require_id(uuid.uuid4().hex if job_id is None else job_id))
        group = require_id(group or job_id)
        # The row first: a worker that receives the message finds the job.
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
        """Post and wait for the end; raises JobTimeout, a TimeoutError. The job then goes on, under its id.

        Given what `post_non_blocking` has returned, it waits for that job.
        """
        if timeout_seconds is not None:
            require_number("timeout_seconds", timeout_seconds)  # before anything is posted
        posted = body if isinstance(body, PostedId) else self.post_non_blocking(body, job_id, group)
        return self.wait(posted, timeout_seconds)

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobResult:
        """Wait for a job that was posted before; raises JobTimeout, a TimeoutError."""
        limit = self.timeout_seconds if timeout_seconds is None else require_number("timeout_seconds", timeout_seconds)
        deadline, pause = time.monotonic() + limit, FIRST_PAUSE
        while not (status := self._table.status(job_id)).final:
            left = deadline - time.monotonic()
            if left <= 0:
                raise JobTimeout(
                    f"Job {job_id} has no result after {limit:g} seconds", f"it is {status}", "It goes on: wait for it."
                )
            time.sleep(min(pause, left))
            pause = min(pause * GROWTH, LONGEST_PAUSE)
        return self._table.read(job_id)

    def resend(
        self, older_seconds: float | None = None, *, unsent_seconds: float = 60, lost_seconds: float = LOST_SECONDS
    ) -> list[str]:
        """Send the messages of jobs that seem to have none; returns the ids. May be repeated, at any time.

        That is: recorded `unsent_seconds` ago and never sent, or sent `lost_seconds` ago and not computed since.
        `older_seconds` replaces both. A message too many does no harm: one job has one outcome.
        """
        for name, given in {
            "older_seconds": older_seconds,
            "unsent_seconds": unsent_seconds,
            "lost_seconds": lost_seconds,
        }.items():
            if given is not None:
                require_number(name, given)
        unsent, lost = (unsent_seconds, lost_seconds) if older_seconds is None else (older_seconds, older_seconds)
        waiting = dict(self._table.lost(lost)) | dict(self._table.unsent(unsent))
        for job_id, group in waiting.items():
            self._send(job_id, group)
        return list(waiting)

    def _send(self, job_id: str, group: str) -> None:
        try:
            self._queue.send(job_id, group)
            self._table.sent(job_id)
        except EvaluationError as error:
            raise NotSent(job_id, str(error)) from error
