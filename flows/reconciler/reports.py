"""What EvalAI shows of an evaluation that has ended here, or that was never claimed here. Pure, as decisions.py."""

from datetime import datetime

from evaluation.lifecycle.ledger_entry import LedgerEntry
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.submission.model import UNDER_WAY, WAITING, SubmissionStatus
from flows.reconciler.model import Action, Finding, SubmissionSnapshot, notify
from flows.reconciler.wording import at

# A write that was under way when the evaluation ended may undo the report; one that undoes it again does so on purpose.
MOST_RESENDS = 3
MOST_RESENDS_OVER_AN_END = 1  # another end there may be an operator's decision, which is not fought over


def never_claimed(view: SubmissionSnapshot) -> list[Finding]:
    """EvalAI says that it is evaluated, and no run of this installation evaluates it or ever did."""
    shown, entry = view.shown, view.entry
    if shown is None or shown.status not in UNDER_WAY:
        return []
    if entry and not (entry.status == OutcomeStatus.SKIPPED and shown.key <= entry.key):
        return []
    remedy = "If no other system evaluates it, set it to failed at EvalAI and resume it."
    return [notify(view, f"EvalAI says {shown.status}, and no run ever claimed it. {remedy}")]


def unreported(view: SubmissionSnapshot, now: datetime) -> list[Finding]:
    """The evaluation has ended; EvalAI must show that, and goes on showing it."""
    shown, entry = view.shown, view.entry
    if shown is None or entry is None or entry.ended_at is None or shown.key > entry.key:
        return []
    if now - entry.ended_at <= view.timeouts.settle:
        return []
    if entry.status == OutcomeStatus.HELD:
        return _held(view, entry, shown.status)
    differs = f"The ledger says {entry.status} since {at(entry.ended_at)}, EvalAI {shown.status}"
    if entry.status == OutcomeStatus.CANCELLED and shown.status in UNDER_WAY:
        return [notify(view, f"{differs}: a late write undid the cancellation. Set it to cancelled at EvalAI.")]
    if entry.status not in (OutcomeStatus.FINISHED, OutcomeStatus.FAILED):
        return []
    most = _most_resends(entry, shown.status)
    if most is None:
        return []
    if entry.outcome is None:
        return [notify(view, f"{differs}, and its outcome is not kept. Set it to {entry.status} at EvalAI.")]
    if entry.resends >= most:
        again = f"also after its report was sent again ({entry.resends} of {most})"
        return [notify(view, f"{differs}, {again}: another system wrote there. Decide which is right.")]
    return [Finding(view.submission, f"{differs}; the report is sent again.", Action.RESEND_REPORT)]


def _held(view: SubmissionSnapshot, entry: LedgerEntry, status: SubmissionStatus) -> list[Finding]:
    """Only an operator goes on with it, and one that its team has taken back needs no decision."""
    if status is SubmissionStatus.CANCELLED:
        return []
    elsewhere = "" if status in UNDER_WAY else f" EvalAI says {status}: somebody else wrote there."
    return [notify(view, f"Its result is held since {at(entry.ended_at)}.{elsewhere} {entry.reason}")]


def _most_resends(entry: LedgerEntry, status: SubmissionStatus) -> int | None:
    """How often the report may be sent again in all; None where EvalAI shows what it should."""
    if status in UNDER_WAY | WAITING:
        return MOST_RESENDS
    if status in (SubmissionStatus.FINISHED, SubmissionStatus.FAILED) and status.value != entry.status:
        return MOST_RESENDS_OVER_AN_END
    return None
