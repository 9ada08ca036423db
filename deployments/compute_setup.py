"""The blocks of one queue of jobs on a Prefect server."""

from dataclasses import dataclass

from blocks import document_names
from blocks.compute_job_table import ComputeJobTable
from blocks.submission_queue import SubmissionQueue
from deployments.prefect_setup import site_credentials, work_pool
from deployments.settings import Settings
from evaluation.errors import InvalidConfiguration
from prefect_api.client import prefect_client
from prefect_api.errors import prefect_errors


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


def save_jobs(settings: Settings, places: Places, jobs: str, lease_seconds: float, metrics: bool) -> list[str]:
    """Save the blocks over earlier ones and make the settings' work pool; returns what is there now, for people.

    Raises InvalidConfiguration or ServiceUnavailable.
    """
    credentials = site_credentials(settings)
    with prefect_client() as client, prefect_errors("Setting up Prefect's server"):
        pool = work_pool(client, settings)
        credentials.save(
            document_names.CREDENTIALS, overwrite=True
        )  # first: the others refer to it instead of copying it
        queue = SubmissionQueue(
            queue_url=places.queue_url, dead_letter_url=places.dead_letter_url, credentials=credentials
        )
        queue.save(jobs, overwrite=True)
        ComputeJobTable(
            table=places.table,
            bucket=places.bucket,
            credentials=credentials,
            metrics=jobs if metrics else None,
            lease_seconds=lease_seconds,
        ).save(jobs, overwrite=True)
    return [pool, f"the blocks {jobs} of the queue {places.queue_url} and the table {places.table}"]
