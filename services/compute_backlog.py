"""Measures the backlog of a queue of jobs, for people and for the policy that scales its workers."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from aws_api.errors import aws_errors
from blocks.aws_client import aws_client
from blocks.compute_job_table import ComputeJobTable
from blocks.dead_letters import queue_facts
from blocks.submission_queue import SubmissionQueue
from compute_client.backlog import Backlog
from compute_client.producer import Producer
from compute_client.queue import DynamoDBClient
from evaluation.errors import EvaluationError, InvalidConfiguration

if TYPE_CHECKING:
    from types_boto3_ecs import ECSClient

RATE_WINDOW = 900  # seconds over which the jobs' duration is averaged
UNSENT_SECONDS = 300  # a caller that is still about to send its message is not disturbed

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rate:
    """What a job costs a worker: measured where jobs have ended lately, else assumed."""

    assumed_seconds: float = 60
    # Until a run begins, its worker has polled for it and started its process, which no run can measure by itself.
    start_seconds: float = 10


@dataclass(frozen=True)
class Jobs:
    """A queue of jobs with its table, from their blocks."""

    queue: SubmissionQueue
    block: ComputeJobTable

    def producer(self) -> Producer:
        credentials = self.block.credentials
        clients = partial(aws_client, credentials)
        return Producer(self.queue.queue_url, DynamoDBClient(self.block.table, self.block.bucket, make_client=clients))


def measure(jobs: Jobs, workers: Callable[[], int], rate: Rate) -> Backlog:
    """Measure the queue, its workers, and how long jobs took lately. Raises what AWS says, translated."""
    facts = queue_facts(jobs.queue, jobs.queue.queue_url)
    measures = jobs.block.measures()
    measured = measures.mean_job_seconds(RATE_WINDOW) if measures else None
    seconds = (rate.assumed_seconds if measured is None else measured) + rate.start_seconds
    return Backlog(facts.visible, facts.hidden, workers(), seconds)


def publish(jobs: Jobs, backlog: Backlog) -> None:
    """Give CloudWatch the backlog; raises InvalidConfiguration where the block names no metrics."""
    measures = jobs.block.measures()
    if measures is None:
        raise InvalidConfiguration(
            "The backlog cannot be published",
            "the block names no metrics",
            "Run `leaderboard compute setup --metrics`.",
        )
    measures.publish(backlog)


def describe(backlog: Backlog) -> str:
    return (
        f"{backlog.jobs} jobs ({backlog.visible} visible, {backlog.in_flight} in flight), {backlog.workers} workers, "
        f"{backlog.job_seconds:.1f} s a job: {backlog.seconds_per_worker:.0f} s for each worker"
    )


def ecs_workers(jobs: Jobs, cluster: str, service: str) -> int:
    """How many tasks of the service run; raises InvalidConfiguration where there is no such service."""
    ecs = cast("ECSClient", aws_client(jobs.block.credentials, "ecs"))
    with aws_errors(f"Asking for the ECS service {cluster}/{service}"):
        found = ecs.describe_services(cluster=cluster, services=[service])["services"]
    if not found:
        raise InvalidConfiguration(f"There is no ECS service {cluster}/{service}")
    return int(found[0]["runningCount"])


def keep_publishing(
    jobs: Jobs, measure_once: Callable[[], Backlog], every_seconds: float, stop: threading.Event
) -> None:
    """Publish until `stop` is set, and send what was recorded without its message. An outage is waited out."""
    while not stop.is_set():
        try:
            backlog = measure_once()
            publish(jobs, backlog)
            _LOG.info("%s", describe(backlog))
            if sent := jobs.producer().resend(unsent_seconds=UNSENT_SECONDS):
                _LOG.warning("sent %s jobs that were recorded without a message: %s", len(sent), ", ".join(sent[:10]))
        except EvaluationError as error:
            _LOG.error("the backlog is not published now: %s", error)
        stop.wait(every_seconds)
