"""The blocks of one queue of jobs on a Prefect server; in an embedded stack also the queue itself."""

from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from blocks import names
from blocks.compute_jobs import ComputeJobs
from blocks.submission_queue import SubmissionQueue
from deployments.aws_resources import EmbeddedAws, queue_url
from deployments.prefect_errors import prefect_errors
from deployments.prefect_setup import prefect_client, site_credentials, work_pool
from deployments.settings import Settings
from deployments.stack_state import StackState
from evaluation.errors import InvalidConfiguration, ServiceUnavailable


@dataclass(frozen=True)
class Places:
    """Where one queue of jobs lives: the outputs of deployments/aws/compute.yaml."""

    queue_url: str
    dead_letter_url: str
    table: str
    bucket: str | None


def given_places(queue_url: str | None, dead_letter_url: str | None, table: str | None, bucket: str | None) -> Places:
    """Raises InvalidConfiguration naming what is missing."""
    given = {"--queue-url": queue_url, "--dead-letter-url": dead_letter_url, "--table": table}
    missing = [option for option, value in given.items() if not value]
    if missing:
        raise InvalidConfiguration(
            "The queue of jobs is not known", f"give {', '.join(missing)}", "They are outputs of compute.yaml's stack."
        )
    return Places(queue_url or "", dead_letter_url or "", table or "", bucket)


def embedded_places(stack: StackState, jobs: str) -> Places:
    """Make the queue from its template in a stack's AWS, where it is not there yet; raises ServiceUnavailable."""
    aws = EmbeddedAws(stack.aws_url, stack.region)
    bucket = f"{jobs}-contents"
    try:
        there = aws.sqs.list_queues(QueueNamePrefix=jobs).get("QueueUrls", [])
    except (ClientError, BotoCoreError) as error:
        raise ServiceUnavailable("The embedded AWS does not answer", str(error)) from error
    if not any(url.rpartition("/")[2] == jobs for url in there):
        aws.deploy("compute", stack=jobs, Name=jobs, BucketName=bucket)
    return Places(queue_url(stack.aws_url, jobs), queue_url(stack.aws_url, f"{jobs}-dead-letters"), jobs, bucket)


def save_jobs(settings: Settings, places: Places, jobs: str, lease_seconds: float, metrics: bool) -> list[str]:
    """Save the blocks over earlier ones and make the settings' work pool; returns what is there now, for people.

    Raises InvalidConfiguration or ServiceUnavailable.
    """
    credentials = site_credentials(settings)
    with prefect_client() as client, prefect_errors("Setting up Prefect's server"):
        pool = work_pool(client, settings)
        credentials.save(names.CREDENTIALS, overwrite=True)  # first: the others refer to it instead of copying it
        queue = SubmissionQueue(
            queue_url=places.queue_url, dead_letter_url=places.dead_letter_url, credentials=credentials
        )
        queue.save(jobs, overwrite=True)
        ComputeJobs(
            table=places.table,
            bucket=places.bucket,
            credentials=credentials,
            metrics=jobs if metrics else None,
            lease_seconds=lease_seconds,
        ).save(jobs, overwrite=True)
    return [pool, f"the blocks {jobs} of the queue {places.queue_url} and the table {places.table}"]
