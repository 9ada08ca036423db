"""`leaderboard compute`: queues of jobs for users' functions. They ask the embedded stack where one is up here."""

import json
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from blocks import document_names
from blocks.compute_job_table import ComputeJobTable
from blocks.submission_queue import SubmissionQueue
from cli.setup import log_to_stderr, patiently
from compute_client.job import JobResult
from compute_client.stop_signals import stopped_by_signals
from deployments.compute_setup import given_places, save_jobs
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation.errors import InvalidConfiguration
from prefect_api.blocks import load_saved_block
from services.bridge import serve_bridge
from services.compute_backlog import Jobs, Rate, describe, ecs_workers, keep_publishing, measure, publish
from services.compute_bridge import compute_reader, compute_settings

Name = Annotated[str, Parameter(name="--jobs", help="Name of the blocks of queue and table.")]
Flag = Parameter(negative=())


def setup(
    *,
    queue_url: str | None = None,
    dead_letter_url: str | None = None,
    table: str | None = None,
    bucket: str | None = None,
    lease_seconds: float = 120,
    jobs: Name = document_names.COMPUTE,
    metrics: Annotated[bool, Flag] = False,
    pool: str | None = None,
) -> None:
    """Save the blocks of one queue of jobs on the Prefect server, and make the work pool of its workers. Repeatable.

    Without addresses, an embedded stack that is up here gets a queue of its own.

    Parameters
    ----------
    queue_url
        URL of the queue that producers fill.
    dead_letter_url
        URL of its dead-letter queue.
    table
        DynamoDB table of the jobs.
    bucket
        S3 bucket of bodies and results that are too large for the table.
    lease_seconds
        A run that is silent for so long is dead, and another takes its job over.
    metrics
        Let every run publish to CloudWatch how long its job took.
    pool
        Work pool, of the type `process`, made where it is missing; LEADERBOARD_WORK_POOL's if not given.
    """
    settings = load_settings()
    settings = settings.model_copy(update={"work_pool": pool or settings.work_pool})
    with installation(settings) as target:
        if target.stack:
            settings = settings.model_copy(
                update={"aws_endpoint_url": target.stack.aws_url, "region": target.stack.region}
            )
        if target.stack and not (queue_url or dead_letter_url or table):
            from embedded.compute_queue import embedded_places  # only where a stack runs

            places = embedded_places(target.stack, jobs)
        else:
            places = given_places(queue_url, dead_letter_url, table, bucket)
        for line in save_jobs(settings, places, jobs, lease_seconds, metrics):
            print(f"ready: {line}")


def bridge(*, jobs: Name = document_names.COMPUTE) -> None:
    """Carry the queue's messages to Prefect, as events, until SIGTERM or Ctrl-C. Keeps no state of its own."""
    log_to_stderr()
    with installation(load_settings()):
        queue = patiently(partial(load_saved_block, SubmissionQueue, jobs), "Prefect cannot say yet where the queue is")
        serve_bridge(queue, compute_settings(queue), read=compute_reader(jobs))


def backlog(
    *,
    jobs: Name = document_names.COMPUTE,
    workers: int | None = None,
    ecs_service: str | None = None,
    job_seconds: float = 60,
    start_seconds: float = 10,
    every: float | None = None,
    quiet: Annotated[bool, Flag] = False,
) -> None:
    """Measure how many seconds of work wait for each worker, and publish that for the scaling policy.

    Parameters
    ----------
    workers
        How many workers there are, each with one job at a time; or
    ecs_service
        CLUSTER/SERVICE in ECS, whose running tasks are counted.
    job_seconds
        What a job takes, as long as none has ended within the last 15 minutes.
    start_seconds
        How long a worker needs to begin with one.
    every
        Go on until SIGTERM or Ctrl-C, this many seconds apart; also sends what was recorded without its message.
    quiet
        Only measure: publish nothing.
    """
    with installation(load_settings()):
        if every is not None:
            log_to_stderr()
        found = (
            patiently(partial(load_jobs, jobs), "Prefect cannot say yet where the queue is")
            if every
            else load_jobs(jobs)
        )
        count = count_workers(found, workers, ecs_service)
        measure_once = partial(measure, found, count, Rate(job_seconds, start_seconds))
        if every is None:
            seen = measure_once()
            print(describe(seen))
            if not quiet:
                publish(found, seen)
            return
        stop = threading.Event()
        with stopped_by_signals(stop):
            keep_publishing(found, measure_once, every, stop)


def resend(*, older: float | None = None, jobs: Name = document_names.COMPUTE) -> None:
    """Send the messages of jobs that have none: never sent for a minute, or sent 14 days ago, when SQS drops them.

    Parameters
    ----------
    older
        Instead of that: all jobs that no worker computes and that were posted, or last sent, so many seconds ago, as
        after a purge of the queue. May be repeated: a message too many does no harm.
    """
    with installation(load_settings()):
        sent = load_jobs(jobs).producer().resend(older)
    for job_id in sent:
        print(f"sent: {job_id}")
    print(f"{len(sent)} messages sent")


def post(
    body: str,
    /,
    *,
    job_id: Annotated[str | None, Parameter(name="--id")] = None,
    wait: float = 0,
    jobs: Name = document_names.COMPUTE,
) -> int:
    """Post a job, and wait for its result if asked to. Exit code 1 where it has failed.

    Parameters
    ----------
    body
        JSON, e.g. '{"number": 4}'; - reads it from standard input.
    job_id
        An id of yours: the same id and body are one job, however often they are posted.
    wait
        Wait so many seconds for the result.
    """
    try:
        value = json.loads(sys.stdin.read() if body == "-" else body)
    except ValueError as error:
        raise InvalidConfiguration("The body is not JSON", str(error)) from error
    with installation(load_settings()):
        producer = load_jobs(jobs).producer()
        posted = producer.post_non_blocking(value, job_id)
        found = producer.wait(posted, wait) if wait else producer.retrieve_result(posted)
    return _show(found)


def result(job_id: str, /, *, wait: float = 0, jobs: Name = document_names.COMPUTE) -> int:
    """Show how a job stands, and its result or error. Exit code 1 where it has failed.

    Parameters
    ----------
    job_id
        As `post` printed it.
    wait
        Wait so many seconds for its end.
    """
    with installation(load_settings()):
        producer = load_jobs(jobs).producer()
        return _show(producer.wait(job_id, wait) if wait else producer.retrieve_result(job_id))


def load_jobs(jobs: str) -> Jobs:
    return Jobs(load_saved_block(SubmissionQueue, jobs), load_saved_block(ComputeJobTable, jobs))


def count_workers(jobs: Jobs, workers: int | None, ecs_service: str | None) -> Callable[[], int]:
    """What says how many workers there are; raises InvalidConfiguration unless exactly one of the two is given."""
    if (workers is None) == (ecs_service is None):
        raise InvalidConfiguration("The workers are not known", "give one of --workers and --ecs-service")
    if workers is not None:
        return lambda: workers
    cluster, _, service = str(ecs_service).partition("/")
    if not service:
        raise InvalidConfiguration(f"{ecs_service!r} names no ECS service", "it has to look like CLUSTER/SERVICE")
    return lambda: ecs_workers(jobs, cluster, service)


def _show(found: JobResult) -> int:
    print(f"{found.id} {found.status}")
    if found.error:
        print(f"{found.error}\n{found.error.trace}".rstrip())
        return 1
    if found.status.final:
        print(json.dumps(found.value, ensure_ascii=False))
    return 0
