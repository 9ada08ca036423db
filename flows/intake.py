"""From a message to a claimed submission: what the Lambda PreEKS and the Pipe did."""

import asyncio
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from evaluation.errors import AlreadyClaimed, EvaluationError, NeedsOperator, SubmissionFailed, TransientError
from evaluation.lifecycle.takeover import Takeover
from evaluation.ports import Claim, ListedSubmission
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import Phase, Submission
from flows.best_effort import best_effort
from flows.claimed_earlier import claimed_earlier
from flows.services import Cluster, Services, load_cluster
from flows.task_retries import on_transient_errors
from flows.threads import in_evalai_thread
from prefect_api.states import StateName, completed_state, failed_state

HOLD_SECONDS = 600  # longer than the retries of everything up to the claim
BLOCKED_SECONDS = 3600  # until the next try of what an operator has to correct first; the bridge hides no longer


@task(name="extend-visibility", **on_transient_errors(2))
async def extend_visibility(services: Services, delivery: Delivery | None, seconds: int = HOLD_SECONDS) -> None:
    """Keep the message hidden until the claim is made or has failed."""
    if delivery:
        await asyncio.to_thread(services.queue.extend, delivery, seconds)


@task(name="enrich", task_run_name="enrich-{message.submission_pk}", **on_transient_errors(3))
async def enrich(services: Services, message: SubmissionMessage, takeover: Takeover | None) -> Submission:
    """Ask EvalAI who sent the submission and what became of it, and name its phase."""
    phase = services.phase(message)
    try:
        row = await _listed(services, message.submission_pk)
        return await in_evalai_thread(services.evalai.submission, message, phase, row)
    except SubmissionFailed as why:
        if takeover is None:
            raise
        return await claimed_earlier(services, await load_cluster(phase.cluster), message, phase, why)


async def _listed(services: Services, submission: int) -> ListedSubmission | None:
    """The submission in the list that answers for all that wait; None where its run has to ask for itself."""
    if services.listed is not None:
        with best_effort("EvalAI is asked for this submission alone"):
            return await services.listed.now(submission)
    return None


@task(name="choose-cluster", **on_transient_errors(3))
async def choose_cluster(phase: Phase) -> Cluster:
    """Load the cluster that the phase's codename names."""
    return await load_cluster(phase.cluster)


@task(name="claim", **on_transient_errors(5))
async def claim_submission(cluster: Cluster, submission: Submission, takeover: Takeover | None) -> Claim:
    """Take the submission in the ledger; raises AlreadyClaimed for every run but one and its takeover runs."""
    own = takeover or Takeover.first(str(flow_run.get_id()))
    return await asyncio.to_thread(cluster.ledger.claim, submission, own.owner, own.epoch)


@task(name="acknowledge", **on_transient_errors(3))
async def acknowledge(services: Services, delivery: Delivery | None) -> None:
    """Delete the message: from here on the ledger holds the submission."""
    if delivery:
        await asyncio.to_thread(services.queue.acknowledge, delivery)


@task(name="reject-message", **on_transient_errors(3))
async def reject_message(
    services: Services, message: SubmissionMessage, delivery: Delivery | None, reason: SubmissionFailed
) -> None:
    """Move the message to the dead-letter queue with the reason, where an operator finds it and can redrive it."""
    get_run_logger().error(str(reason))
    if delivery:
        await asyncio.to_thread(services.queue.reject, delivery, message.model_dump_json(), str(reason))


async def end_unclaimed(
    services: Services | None, message: SubmissionMessage, delivery: Delivery | None, reason: EvaluationError
) -> State[Any]:
    """The final state of a run that claimed nothing. Only a fault of the message itself takes it off the queue.

    `services` is None where not even the blocks could be loaded; then the message comes back as the bridge hid it.
    """
    if services and isinstance(reason, SubmissionFailed):
        try:
            await reject_message(services, message, delivery, reason)
            return failed_state(StateName.REJECTED, str(reason))
        except (TransientError, NeedsOperator) as trouble:
            reason = trouble
    if services and isinstance(reason, AlreadyClaimed):
        with best_effort("The message comes back once more"):
            await acknowledge(services, delivery)
        return completed_state(StateName.DUPLICATE, str(reason))
    if services and isinstance(reason, NeedsOperator):
        with best_effort("The message comes back earlier than it has to"):
            await extend_visibility(services, delivery, BLOCKED_SECONDS)
    name = StateName.BLOCKED if isinstance(reason, NeedsOperator) else StateName.POSTPONED
    return failed_state(name, f"{reason} The message stays on the queue, and another run tries again.")
