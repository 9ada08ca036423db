"""A queue of jobs of the compute client in the embedded AWS."""

from botocore.exceptions import BotoCoreError, ClientError

from deployments.compute_setup import Places
from deployments.stack_state import StackState
from embedded.aws import EmbeddedAws, queue_url
from evaluation.errors import ServiceUnavailable


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
