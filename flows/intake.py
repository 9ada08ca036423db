"""From a message to a claimed submission: what the Lambda PreEKS and the Pipe did."""

import asyncio

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from evaluation.errors import EvaluationError
from evaluation.lifecycle.takeover import Takeover
from evaluation.ports import Claim
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import Phase, Submission
from flows.services import Cluster, Services, load_cluster
from flows.task_retries import on_transient_errors

HOLD_SECONDS = 600  # longer than the retries of everything up to the claim


@task(name="extend-visibility", **on_transient_errors(2))
async def extend_visibility(services: Services, delivery: Delivery | None) -> None:
    """Keep the message hidden until the claim is made or has failed."""
    if delivery:
        await asyncio.to_thread(services.queue.extend, delivery, HOLD_SECONDS)


@task(name="enrich", task_run_name="enrich-{message.submission_pk}", **on_transient_errors(3))
async def enrich(services: Services, message: SubmissionMessage) -> Submission:
    """Ask EvalAI who sent the submission and what became of it, and name its phase."""
    phase = services.phase(message)
    return await asyncio.to_thread(services.evalai.submission, message, phase)


@task(name="choose-cluster", **on_transient_errors(3))
async def choose_cluster(phase: Phase) -> Cluster:
    """Load the cluster that the phase's codename names."""
    return await load_cluster(phase.cluster)


@task(name="claim", **on_transient_errors(5))
async def claim_submission(cluster: Cluster, submission: Submission, takeover: Takeover | None) -> Claim:
    """Take the submission in the ledger; raises AlreadyClaimed for every run but one and its successors."""
    own = takeover or Takeover.first(str(flow_run.get_id()))
    return await asyncio.to_thread(cluster.ledger.claim, submission, own.owner, own.epoch)


@task(name="acknowledge", **on_transient_errors(3))
async def acknowledge(services: Services, delivery: Delivery | None) -> None:
    """Delete the message: from here on the ledger holds the submission."""
    if delivery:
        await asyncio.to_thread(services.queue.acknowledge, delivery)


@task(name="reject-message", **on_transient_errors(3))
async def reject_message(
    services: Services, message: SubmissionMessage, delivery: Delivery | None, error: EvaluationError
) -> None:
    """Move the message to the dead-letter queue with the reason, where a host finds it and can redrive it."""
    get_run_logger().error(str(error))
    if delivery:
        await asyncio.to_thread(services.queue.reject, delivery, message.model_dump_json(), str(error))
