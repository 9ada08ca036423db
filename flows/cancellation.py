"""A submission that is taken back while it is evaluated: cancelled by its team, or deleted at EvalAI."""

import asyncio
from typing import NoReturn

from evaluation.errors import ServiceUnavailable, SubmissionCancelled, UnknownSubmission
from evaluation.submission.model import SubmissionStatus
from flows.best_effort import best_effort
from flows.evaluation_context import EvaluationContext

CONFIRMATIONS = 3  # so often in a row EvalAI has to answer 404 before a submission counts as deleted


async def wait_for_cancellation(context: EvaluationContext) -> NoReturn:
    """Poll EvalAI until it confirms that the submission was taken back; raises SubmissionCancelled then.

    An outage, a refusal, an unreadable answer or a single 404 stop no simulation.
    """
    unknown = 0
    while True:
        await asyncio.sleep(context.settings.cancel_check_seconds)
        with best_effort("EvalAI was not asked for a cancellation"):
            unknown = 0 if await _is_known(context) else unknown + 1
        if unknown >= CONFIRMATIONS:
            raise _deleted(context)


async def confirm_deletion(context: EvaluationContext, first: UnknownSubmission) -> NoReturn:
    """Ask again after a 404; raises SubmissionCancelled once it is confirmed, else ServiceUnavailable."""
    for _ in range(CONFIRMATIONS - 1):
        await asyncio.sleep(context.settings.cancel_check_seconds)
        if await _is_known(context):
            raise ServiceUnavailable(first.summary, "it knows it now") from first
    raise _deleted(context) from first


async def _is_known(context: EvaluationContext) -> bool:
    """Whether EvalAI has the submission; raises SubmissionCancelled where its team took it back."""
    pk = context.submission.pk
    try:
        status = await asyncio.to_thread(context.evalai.status, pk)
    except UnknownSubmission:
        return False
    if status is SubmissionStatus.CANCELLED:
        raise SubmissionCancelled(f"Submission {pk} was cancelled while it was evaluated")
    return True


def _deleted(context: EvaluationContext) -> SubmissionCancelled:
    return SubmissionCancelled(f"EvalAI no longer knows submission {context.submission.pk}: it was deleted there")
