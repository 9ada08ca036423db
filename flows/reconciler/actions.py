"""What the reconciler does about a finding. Every repair may be done twice, or by two at once, and counts once."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import PrefectClient

from evaluation.errors import AlreadyClaimed, InvalidConfiguration
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import SubmissionStatus
from flows.reconciler.model import Action, Finding, SubmissionSnapshot
from flows.reconciler.snapshot import Snapshot
from flows.services import Services
from flows.takeover_runs import DEPLOYMENT, start_takeover_run
from flows.threads import in_evalai_thread
from prefect_api.runs import BEGUN, clock_ahead, in_states, mark_crashed, read_runs, start_run

DIED = "The run holds no claim in the ledger: its process must have died; see the artifact `reconciliation`."


async def apply_action(services: Services, seen: Snapshot, finding: Finding) -> None:
    """Do what the finding says. Raises what the ports raise, and httpx's errors where Prefect does not answer."""
    view = next(view for view in seen.views if view.submission == finding.submission)
    match finding.action:
        case Action.REMOVE_JOBS:
            for attempt in finding.attempts:
                await _remove(seen, view, attempt)
        case Action.TAKE_OVER | Action.START_RUN | Action.MARK_CRASHED:
            async with get_client() as client:
                if finding.action is not Action.MARK_CRASHED:
                    await _start(client, services, view, finding.takeover)
                for run in finding.dead_runs:
                    await mark_crashed(client, UUID(run), DIED)
        case Action.RESEND_REPORT:
            await _resend_report(services, seen, view)
        case _:
            return


async def _remove(seen: Snapshot, view: SubmissionSnapshot, attempt: int) -> None:
    """In every cluster: a phase may have moved, and removing nothing is fine."""
    for cluster in seen.clusters.values():
        await cluster.backend.remove(view.submission, attempt)


async def _resend_report(services: Services, seen: Snapshot, view: SubmissionSnapshot) -> None:
    """Open the evaluation once more; a takeover run finds the outcome decided, reports it, and ends it."""
    entry = view.entry
    if entry is None:
        return
    now = await in_evalai_thread(services.evalai.status, view.submission)
    if now is SubmissionStatus.CANCELLED or now.value == entry.status:
        return  # EvalAI's list was read before the report arrived, or the team has cancelled since
    ledger = seen.clusters[view.cluster].ledger
    try:
        await asyncio.to_thread(ledger.reopen, entry)
    except AlreadyClaimed:  # resumed in the meantime
        return
    async with get_client() as client:
        await _start(client, services, view, Takeover(owner=entry.owner, epoch=entry.epoch + 1))


async def _start(
    client: PrefectClient, services: Services, view: SubmissionSnapshot, takeover: Takeover | None
) -> None:
    message = _message(services, view)
    parameters = {"message": message.model_dump(mode="json"), "delivery": None}
    if takeover:
        await start_takeover_run(client, parameters, takeover, [])
        return
    key = view.shown.key if view.shown else ""
    await start_run(
        client,
        DEPLOYMENT,
        parameters,
        name=f"submission-{view.submission}",
        # A run that did not get to its claim either is followed by another.
        idempotency_key=f"never-queued-{view.submission}-{key}-{len(view.runs)}",
    )


def _message(services: Services, view: SubmissionSnapshot) -> SubmissionMessage:
    """The message that was lost, or would come again."""
    if view.entry:
        entry = view.entry
        return SubmissionMessage(
            challenge_pk=entry.challenge,
            phase_pk=entry.phase_pk,
            submission_pk=entry.submission,
            submitted_image_uri=entry.image,
        )
    if view.shown is None or services.phases.challenge_pk is None:
        raise InvalidConfiguration(f"Nothing says which phase submission {view.submission} belongs to")
    return SubmissionMessage(
        challenge_pk=services.phases.challenge_pk, phase_pk=view.shown.phase_pk, submission_pk=view.submission
    )


async def mark_dead_reconciler_runs_crashed(longest: timedelta) -> None:
    """The same for the reconciler's own runs, which end or begin again within this time."""
    async with get_client() as client:
        prefect_now = datetime.now(UTC) + await clock_ahead(client)
        for run in await read_runs(client, "reconcile", in_states(BEGUN)):
            if run.state and run.state.timestamp <= prefect_now - longest:
                await mark_crashed(client, run.id, "The run has not ended in its time: its process must have died.")
