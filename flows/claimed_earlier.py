"""A takeover run whose submission EvalAI no longer shows as it was claimed: it goes on by what the ledger says."""

import asyncio

from evaluation.errors import SubmissionCancelled, SubmissionFailed, UnknownSubmission
from evaluation.moments import parse_moment
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import Phase, Submission, SubmissionStatus
from flows.cancellation import TakenBack
from flows.services import Cluster, Services


async def claimed_earlier(
    services: Services, cluster: Cluster, message: SubmissionMessage, phase: Phase, why: SubmissionFailed
) -> Submission:
    """The submission as it was claimed, marked as gone once EvalAI confirms a 404, so that its evaluation can end.

    Where EvalAI names another phase by now, it is still the claimed one that is evaluated; EvalAI refuses the report
    then, and an operator is notified. Raises `why` where the ledger does not know the submission.
    """
    gone = isinstance(why, UnknownSubmission) and await _is_deleted(services, cluster, message.submission_pk, why)
    entry = await asyncio.to_thread(cluster.entry_of, message.submission_pk)
    if entry is None:
        raise why
    try:
        resumed_at = parse_moment(entry.key) if entry.key else None
    except ValueError:  # somebody has changed the row
        raise why from None
    return Submission(
        pk=entry.submission,
        challenge_pk=message.challenge_pk,
        phase_pk=message.phase_pk,
        phase=phase,
        team_pk=entry.team,
        team_name=entry.team_name,
        status=SubmissionStatus.CANCELLED if gone else SubmissionStatus.RUNNING,
        image=entry.image,
        submitted_at=None,
        rerun_resumed_at=resumed_at,
        gone=gone,
    )


async def _is_deleted(services: Services, cluster: Cluster, submission: int, first: UnknownSubmission) -> bool:
    """Whether EvalAI has no row of it; False where it says by now that it was cancelled."""
    try:
        await TakenBack(services.evalai, submission, cluster.settings.cancel_check_seconds).confirm(first)
    except SubmissionCancelled:
        return False
    return True
