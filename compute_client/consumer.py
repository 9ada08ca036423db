"""Computes the jobs of one queue, one after the other, in one process and without Prefect.

The rows, leases and rules are those of the flow `compute` (flows/compute.py), so that both may work on one queue.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aws_api.ecs_task_protection import protect_task
from compute_client.arguments import require_instance, require_number, require_text
from compute_client.function_main import Function, call
from compute_client.function_process import END_SECONDS, MARKER, ProcessDied, end_marked, read_outcome
from compute_client.job import Abandoned, AlreadyComputed, ClaimedJob, Held, JobError, UnknownJob, read_message
from compute_client.queue import DynamoDBClient, JobQueue
from compute_client.stop_signals import stopped_by_signals
from evaluation.errors import AlreadyClaimed, EvaluationError, InvalidConfiguration, InvalidMessage, RequestRefused

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageTypeDef

LIMIT_SECONDS = 6 * 3600  # of a function, as in the flow
POLL_SECONDS = 20  # SQS's longest poll
MARGIN_SECONDS = 15  # the message comes back a little after the lease has ended, not before
RENEWALS = 3  # of a lease within its time
RETRIES = 4  # within the time to the next renewal, where one failed (compute_client.lease_watch)
OUTAGE_SECONDS = 5  # between two polls while the queue or the table does not answer

_LOG = logging.getLogger(__name__)


class Stopped(Exception):
    """The consumer was asked to stop while it computed a job."""


class Consumer:
    """Calls `compute_result(body, job_id)` for each job of the queue, in a process of its own for each call.

    `queue_name` is a name or URL. A function that raises has failed its job, and is not called again; one whose process
    dies is called again, `ddb_client.most_attempts` times in all. One that takes longer than `limit_seconds` fails.
    Raises InvalidConfiguration for a wrong argument, such as what is no function, before it costs a job.
    """

    def __init__(
        self,
        queue_name: str,
        ddb_client: DynamoDBClient,
        compute_result: Function,
        *,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        if not callable(compute_result):
            raise InvalidConfiguration(
                f"compute_result is {compute_result!r:.100}, no function",
                remedy="Give the function itself, not its name.",
            )
        require_instance("ddb_client", ddb_client, DynamoDBClient)
        self._queue = JobQueue(require_text("queue_name", queue_name), ddb_client.client)
        self._jobs = ddb_client.jobs()
        self._function = compute_result
        self._limit_seconds = require_number("limit_seconds", limit_seconds)

    def start_consuming(self, stop: threading.Event | None = None, poll_seconds: int = POLL_SECONDS) -> None:
        """Compute jobs until `stop` is set, or SIGTERM or Ctrl-C comes; a job that runs then is given back."""
        stop = stop or threading.Event()
        with stopped_by_signals(stop):
            while not stop.is_set():
                try:
                    message = self._queue.receive(poll_seconds, self._hidden_seconds)
                    if message:
                        self._handle(message, stop)
                except Stopped:
                    return
                except EvaluationError as error:  # the message comes back by itself
                    _LOG.warning("The queue or the table cannot be used now: %s", error)
                    stop.wait(OUTAGE_SECONDS)

    @property
    def _hidden_seconds(self) -> float:
        return self._jobs.lease_seconds + MARGIN_SECONDS

    def _handle(self, message: "MessageTypeDef", stop: threading.Event) -> None:
        receipt = message["ReceiptHandle"]
        try:
            job = self._jobs.claim(read_message(message["Body"]), f"consumer-{os.getpid()}-{message['MessageId']}")
        except AlreadyComputed:
            self._queue.acknowledge(receipt)
        except Held as held:
            self._queue.hide(receipt, held.seconds_left + MARGIN_SECONDS)
        except (InvalidMessage, UnknownJob, Abandoned) as poison:
            _LOG.error("%s", poison)
            self._queue.reject(message, str(poison))
        else:
            self._compute(job, receipt, stop)

    def _compute(self, job: ClaimedJob, receipt: str, stop: threading.Event) -> None:
        """Hold the lease while the function runs, then keep its outcome and delete the message."""
        try:
            outcome = self._call(job, receipt, stop)
            self._keep(job, outcome)
        except AlreadyClaimed as taken:
            _LOG.warning("%s", taken)
            return
        except ProcessDied as death:
            _LOG.error("%s", death)
            self._give_back(job, receipt, counted=True)
            return
        except Stopped:
            self._give_back(job, receipt, counted=False)
            raise
        self._queue.acknowledge(receipt)

    def _call(self, job: ClaimedJob, receipt: str, stop: threading.Event) -> str | JobError:
        """What the function returns, a JSON text, or why it failed. Raises AlreadyClaimed, ProcessDied, Stopped."""
        try:
            body = self._jobs.body(job)
        except RequestRefused as gone:
            return JobError("BodyLost", str(gone))
        with tempfile.TemporaryDirectory(prefix="compute-") as folder:
            outcome, mark = Path(folder) / "outcome.json", f"{job.lease.job_id}-{job.lease.token}"
            process = _context().Process(
                target=_run_in_child, args=(self._function, body, job.lease.job_id, str(outcome), mark)
            )
            process.start()
            self._protect()
            try:
                if not self._wait(process, job, receipt, stop):
                    return JobError("TimeLimit", f"the function ran longer than {self._limit_seconds:g} seconds")
            finally:
                _end(process, mark)
            return read_outcome(outcome, getattr(self._function, "__qualname__", "the function"), process.exitcode or 0)

    def _wait(self, process: Any, job: ClaimedJob, receipt: str, stop: threading.Event) -> bool:
        """Whether the process ended within the limit; renews the lease meanwhile."""
        deadline = time.monotonic() + self._limit_seconds
        renewal = self._jobs.lease_seconds / RENEWALS
        due = time.monotonic() + renewal
        while process.is_alive():
            if stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= due:
                renewed = self._renew(job, receipt)
                due = now + (renewal if renewed else renewal / RETRIES)
            process.join(min(0.5, deadline - now, max(0.0, due - now)))
        return True

    def _protect(self) -> None:
        """Where this is an ECS task, let no scale-in stop it while the lease holds."""
        try:
            protect_task(self._jobs.lease_seconds)
        except EvaluationError as error:
            _LOG.warning("The task is not protected now: %s", error)

    def _renew(self, job: ClaimedJob, receipt: str) -> bool:
        """Whether the lease is renewed; raises AlreadyClaimed. Its message and task are covered as far as may be."""
        self._protect()
        try:
            self._jobs.renew(job.lease)
        except AlreadyClaimed:
            raise
        except EvaluationError as error:
            _LOG.warning("The lease of job %s cannot be renewed now: %s", job.lease.job_id, error)
            return False
        try:
            self._queue.hide(receipt, self._hidden_seconds)
        except EvaluationError as error:
            _LOG.warning("The message of job %s cannot be hidden now: %s", job.lease.job_id, error)
        return True

    def _keep(self, job: ClaimedJob, outcome: str | JobError) -> None:
        if isinstance(outcome, str):
            try:
                self._jobs.succeed(job.lease, outcome)
                return
            except RequestRefused as refusal:
                outcome = JobError("ResultRefused", str(refusal))
        _LOG.error("Job %s failed: %s\n%s", job.lease.job_id, outcome, outcome.trace)
        self._jobs.fail(job.lease, outcome)

    def _give_back(self, job: ClaimedJob, receipt: str, counted: bool) -> None:
        """End the lease and let the message come back at once; where that fails, both end by themselves."""
        try:
            self._jobs.give_back(job.lease, counted)
            self._queue.hide(receipt, 0)
        except EvaluationError as error:
            _LOG.warning("Job %s comes back only after its lease: %s", job.lease.job_id, error)


def _context() -> Any:
    """Fork where that is safe: the function may then be anything, also one of `__main__`; else it is pickled."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _run_in_child(function: Function, body: str, job_id: str, outcome: str, mark: str) -> None:
    os.setsid()  # a process group, so that what the function starts ends with it
    os.environ[MARKER] = mark
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with Path(os.devnull).open() as nothing:  # the function's standard input is empty
        os.dup2(nothing.fileno(), 0)
    Path(outcome).write_text(json.dumps(call(function, body, job_id)), "ascii")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not waiting for threads of the function's


def _end(process: Any, mark: str) -> None:
    """Nothing of the function goes on, whatever sessions it has made."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(END_SECONDS)
    end_marked(mark)
