"""A submission that is taken back while it is evaluated: cancelled by its team, or deleted at EvalAI."""

import asyncio
from dataclasses import dataclass
from typing import NoReturn

from evaluation.errors import ServiceUnavailable, SubmissionCancelled, UnknownSubmission
from evaluation.lifecycle.outcome import deleted_at_evalai
from evaluation.ports import EvaluationServer
from evaluation.submission.model import SubmissionStatus
from flows.best_effort import best_effort
from flows.evalai_list import READ_SECONDS
from flows.evaluation_context import EvaluationContext
from flows.threads import in_evalai_thread

CONFIRMATIONS = 3  # so often in a row EvalAI has to answer 404 before a submission counts as deleted


@dataclass(frozen=True)
class TakenBack:
    """Asks EvalAI about one submission, every so many seconds."""

    evalai: EvaluationServer
    submission: int
    seconds: float

    async def is_known(self) -> bool:
        """Whether EvalAI has the submission; raises SubmissionCancelled where its team took it back."""
        try:
            status = await in_evalai_thread(self.evalai.status, self.submission)
        except UnknownSubmission:
            return False
        if status is SubmissionStatus.CANCELLED:
            raise SubmissionCancelled(f"Submission {self.submission} was cancelled while it was evaluated")
        return True

    async def confirm(self, first: UnknownSubmission) -> None:
        """Ask again after a 404; raises ServiceUnavailable unless it stays so, SubmissionCancelled as above."""
        for _ in range(CONFIRMATIONS - 1):
            await asyncio.sleep(self.seconds)
            if await self.is_known():
                raise ServiceUnavailable(first.summary, "it knows it now") from first


async def wait_for_cancellation(context: EvaluationContext) -> NoReturn:
    """Follow the shared list, or poll EvalAI, until the submission was taken back; raises SubmissionCancelled then.

    An outage, a refusal, an unreadable answer or a single 404 stop no simulation.
    """
    look, unknown, clock = _of(context), 0, asyncio.get_running_loop().time
    own_look = clock() + look.seconds
    while True:
        await asyncio.sleep(min(READ_SECONDS, look.seconds))
        with best_effort("EvalAI's list cannot be read now"):
            if await is_listed(context):
                unknown, own_look = 0, clock() + look.seconds
        if clock() < own_look:
            continue
        own_look = clock() + look.seconds
        with best_effort("EvalAI was not asked for a cancellation"):
            unknown = 0 if await look.is_known() else unknown + 1
        if unknown >= CONFIRMATIONS:
            raise SubmissionCancelled(deleted_at_evalai(look.submission))


async def is_listed(context: EvaluationContext) -> bool:
    """Whether the shared list shows the submission as one to evaluate; raises SubmissionCancelled if as withdrawn.

    Costs no request of this run. False says nothing: EvalAI has to be asked.
    """
    listed, pk = context.services.listed, context.submission.pk
    row = await listed.lately(pk, context.settings.cancel_check_seconds) if listed else None
    if row is not None and row.withdrawn:
        raise SubmissionCancelled(f"Submission {pk} was cancelled while it was evaluated")
    return row is not None


async def confirm_deletion(context: EvaluationContext, first: UnknownSubmission) -> NoReturn:
    """Ask again after a 404; raises SubmissionCancelled once it is confirmed, else ServiceUnavailable."""
    await _of(context).confirm(first)
    raise SubmissionCancelled(deleted_at_evalai(context.submission.pk)) from first


def _of(context: EvaluationContext) -> TakenBack:
    return TakenBack(context.evalai, context.submission.pk, context.settings.cancel_check_seconds)
