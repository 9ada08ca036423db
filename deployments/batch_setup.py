"""The block of functions on AWS Batch on a Prefect server."""

from blocks import document_names
from blocks.batch_tasks import BatchTasks
from deployments.prefect_setup import site_credentials
from deployments.settings import Settings
from prefect_api.client import prefect_client
from prefect_api.errors import prefect_errors


def save_batch_tasks(settings: Settings, block: str, definition: str, bucket: str, queue_prefix: str) -> list[str]:
    """Save the block over an earlier one; returns what is there now, for people.

    The queues are batch.yaml's. Raises InvalidConfiguration or ServiceUnavailable.
    """
    credentials = site_credentials(settings)
    with prefect_client(), prefect_errors("Setting up Prefect's server"):
        credentials.save(document_names.CREDENTIALS, overwrite=True)  # first: the block refers to it
        tasks = BatchTasks(
            definition=definition,
            bucket=bucket,
            cpu_queue=f"{queue_prefix}leaderboard-cpu-production",
            cpu_adhoc_queue=f"{queue_prefix}leaderboard-cpu-adhoc",
            gpu_queue=f"{queue_prefix}leaderboard-gpu-production",
            gpu_adhoc_queue=f"{queue_prefix}leaderboard-gpu-adhoc",
            credentials=credentials,
        )
        tasks.save(block, overwrite=True)
    return [f"the block {block}: functions as jobs of the definition {definition}, values in s3://{bucket}"]
