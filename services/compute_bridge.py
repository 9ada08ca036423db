"""The bridge's reader for a queue of the compute client."""

from uuid import NAMESPACE_URL, uuid5

from blocks import document_names
from blocks.submission_queue import Received, SubmissionQueue
from compute_client.job import read_message
from prefect_api.events import OutgoingEvent
from services.bridge import BridgeSettings, Reader

EVENT = "compute.message.received"


def compute_settings(queue: SubmissionQueue) -> BridgeSettings:
    """One message a poll on a FIFO queue: SQS holds a group back while one of its messages is out, but hands out up to
    ten of them at once to who asks for ten, and they would be computed side by side."""
    return BridgeSettings(batch=1) if queue.queue_url.endswith(".fifo") else BridgeSettings()


def compute_reader(jobs: str = document_names.COMPUTE) -> Reader:
    """Makes the event that starts the `compute` deployment; `jobs` is the name of the blocks of queue and table.

    The resource's id is `compute.message.<jobs>.<job id>`, so that a trigger can select a function's messages.
    """

    def read(received: Received, _: BridgeSettings) -> OutgoingEvent:
        job_id = read_message(received.body)
        return OutgoingEvent(
            name=EVENT,
            resource_id=f"compute.message.{jobs}.{job_id}",
            resource_name=f"job {job_id}",
            payload={"job_id": job_id, "delivery": received.delivery.model_dump(mode="json")},
            id=uuid5(NAMESPACE_URL, received.delivery.receipt_handle),
        )

    return read
