"""`leaderboard batch`: Python functions as AWS Batch jobs."""

from blocks import document_names
from deployments.batch_setup import save_batch_tasks
from deployments.installation import installation
from deployments.settings import load_settings


def setup(
    *,
    bucket: str,
    definition: str = "leaderboard-function",
    queue_prefix: str = "",
    block: str = document_names.BATCH,
) -> None:
    """Save the block with which flows run functions on AWS Batch. Repeatable.

    Parameters
    ----------
    bucket
        S3 bucket of arguments and results: an output of deployments/aws/batch-functions.yaml.
    definition
        Name of the job definition: the other output.
    queue_prefix
        What the names of batch.yaml's queues begin with; staging- in a staging.
    block
        The block's name. Another definition, with another role, gets another block.
    """
    settings = load_settings()
    with installation(settings):
        for line in save_batch_tasks(settings, block, definition, bucket, queue_prefix):
            print(f"ready: {line}")
