"""How an evaluation ended, in the words that EvalAI, the ledger and the flow run's state all use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from evaluation.errors import EvaluationError, Fault, InvalidCheckpoint, ShardsFailed, SubmissionFailed, TransientError
from evaluation.lifecycle.report import Report
from evaluation.lifecycle.takeover import Takeover
from evaluation.shards import ShardState, ShardStatuses
from evaluation.submission.model import CLOSED, Submission, SubmissionStatus


class OutcomeStatus(StrEnum):
    """The ways in which a run that claimed a submission can end."""

    FINISHED = "finished"  # scored
    FAILED = "failed"  # no score; `fault` says who is charged
    CANCELLED = "cancelled"  # the team took it back; EvalAI says so already
    HELD = "held"  # complete, but it does not fit what is known: an operator decides whether it is published
    SKIPPED = "skipped"  # EvalAI's status asked for no evaluation


@dataclass(frozen=True)
class Outcome:
    ending: OutcomeStatus
    sentence: str  # what happened, and what to do, for people
    fault: Fault | None = None
    result: Sequence[Mapping[str, object]] = ()  # EvalAI's form
    metrics: Mapping[str, float] = field(default_factory=dict)
    routes_done: int = 0
    routes_total: int = 0
    summary: str = ""  # the text for EvalAI's stdout
    merged: str = ""  # the merged file
    logs: str = ""  # the last lines of the agents that failed
    undelivered: str = ""  # why the report has not reached EvalAI, if it has not
    refused: bool = False  # EvalAI understood the report and said no
    reasons: tuple[str, ...] = ()  # why it is, or was, held
    remarks: tuple[str, ...] = ()  # what readers of the score should know: quarantined routes, restarts

    def report(self, submission: Submission) -> Report:
        """The report for EvalAI, which gets FINISHED and FAILED only; what is held stays `running` there."""
        finished = self.ending is OutcomeStatus.FINISHED
        return Report(
            submission,
            SubmissionStatus.FINISHED if finished else SubmissionStatus.FAILED,
            result=self.result if finished else (),
            stdout=self.summary,
            stderr="" if finished else f"{self.sentence}\n{self.logs}",
            metadata=self.merged,
        )

    def not_delivered(self, error: EvaluationError) -> "Outcome":
        return replace(self, undelivered=str(error), refused=not isinstance(error, TransientError))


_OUTCOME = TypeAdapter(Outcome)


def render_outcome(outcome: Outcome) -> bytes:
    """The outcome as JSON, to be kept until it is reported everywhere."""
    return _OUTCOME.dump_json(outcome, indent=1)


def parse_outcome(data: bytes, source: str) -> Outcome:
    """Read what `render_outcome` wrote; raises InvalidCheckpoint, naming the source."""
    try:
        return _OUTCOME.validate_json(data)
    except ValidationError as error:
        raise InvalidCheckpoint(f"{source} is not a kept outcome", str(error)) from error


MAX_CRASHES = 5  # so often a run's process may die before its submission is given up


def reason_not_to_run(submission: Submission, is_takeover: bool, takeover: Takeover | None) -> Outcome | None:
    """The outcome of a claimed submission that is not to be simulated; None for one that is."""
    if submission.gone:
        return cancelled(deleted_at_evalai(submission.pk))
    if submission.status is SubmissionStatus.CANCELLED:
        return cancelled("The team cancelled the submission before it was simulated.")
    if takeover and takeover.stopped:
        return _given_up(submission, "an operator cancelled its run in Prefect")
    if takeover and takeover.crashes > MAX_CRASHES:
        return _given_up(submission, f"its run crashed {takeover.crashes} times; the runs' logs say why")
    # What was begun is continued, whatever EvalAI shows of it.
    if is_takeover or submission.status not in CLOSED:
        return None
    return _skipped(submission)


def deleted_at_evalai(submission: int) -> str:
    """Why a submission ends of which EvalAI has no row any more."""
    return f"EvalAI no longer knows submission {submission}: it was deleted there."


def attempts_used_up(submission: Submission, attempt: int, most: int) -> Outcome | None:
    """The outcome of an attempt beyond the `most` that one submission gets; None for one within.

    EvalAI lets a team resume its own submission as often as it likes (docs/evalai.md, "What EvalAI does not guard"),
    and does not show who resumed it: every attempt counts, whether the team or an operator asked for it.
    """
    if attempt <= most:
        return None
    sentence = (
        f"Submission {submission.pk} failed: it was resumed once too often, this was attempt {attempt} of at most "
        f"{most}. Nothing was simulated. An operator can raise max_attempts in the cluster's settings."
    )
    return Outcome(OutcomeStatus.FAILED, sentence, Fault.TEAM)


def _given_up(submission: Submission, happened: str) -> Outcome:
    sentence = (
        f"Submission {submission.pk} failed: {happened}. This was not the agent's fault. "
        "The driven routes are kept: a challenge host can resume the submission."
    )
    return Outcome(OutcomeStatus.FAILED, sentence, Fault.INFRASTRUCTURE)


def cancelled(reason: str, so_far: Outcome | None = None) -> Outcome:
    """`so_far` holds the results up to the cancellation, where there are any; none of them is reported."""
    return replace(
        so_far or Outcome(OutcomeStatus.CANCELLED, ""),
        ending=OutcomeStatus.CANCELLED,
        sentence=reason,
        result=(),
        metrics={},
    )


def held(submission: Submission, result: Outcome, reasons: Sequence[str]) -> Outcome:
    """A complete result that is not published before an operator has decided; its figures are kept."""
    count = f"are {len(reasons)} reasons" if len(reasons) > 1 else "is a reason"
    more = f" And {len(reasons) - 3} more." if len(reasons) > 3 else ""
    sentence = (
        f"Submission {submission.pk} is held: there {count} not to believe its result. {' '.join(reasons[:3])}{more} "
        f"Nothing is published until an operator decides: `leaderboard verify {submission.pk}`."
    )
    return replace(result, ending=OutcomeStatus.HELD, sentence=sentence, reasons=tuple(reasons))


def finished_sentence(submission: int, metrics: Mapping[str, float], done: int, total: int) -> str:
    """The score, where there is one, and over how many routes."""
    score = f": driving score {metrics['Driving score']:.3f}" if "Driving score" in metrics else ""
    return f"Submission {submission} finished{score} over {done} of {total} routes."


def released(submission: int, outcome: Outcome, who: str, because: str) -> Outcome:
    """What was held, published all the same."""
    finished = finished_sentence(submission, outcome.metrics, outcome.routes_done, outcome.routes_total)
    sentence = f"{finished} It was held, and released by {who}{_why(because)}."
    return replace(outcome, ending=OutcomeStatus.FINISHED, sentence=sentence)


def rejected(submission: int, outcome: Outcome, who: str, because: str) -> Outcome:
    """What was held, ended without a score. The team is told that it was checked, and not how."""
    sentence = (
        f"Submission {submission} failed: its result does not fit what the challenge's organisers know of its drives. "
        f"It was held, and rejected by {who}{_why(because)}."
    )
    return replace(
        outcome,
        ending=OutcomeStatus.FAILED,
        sentence=sentence,
        fault=Fault.TEAM,
        result=(),
        metrics={},
        summary="",  # it has the figures, and so has the merged file
        merged="",
        logs="",
    )


def _why(because: str) -> str:
    return f": {because.rstrip('.')}" if because else ""


def _skipped(submission: Submission) -> Outcome:
    sentence = f"EvalAI says that submission {submission.pk} is {submission.status}: there is nothing to evaluate."
    return Outcome(OutcomeStatus.SKIPPED, sentence)


def failed(
    submission: Submission, error: SubmissionFailed, so_far: Outcome | None, hints: Iterable[str] = ()
) -> Outcome:
    """The failure in full sentences: what happened, why, who is charged, what is kept, what to do.

    `so_far` holds the results up to the failure, where there are any; `hints` follow the failure's own sentences.
    """
    parts = [f"Submission {submission.pk} failed.", str(error), *hints]
    if error.fault is Fault.INFRASTRUCTURE:
        parts.append("This was not the agent's fault: a challenge host can resume the submission.")
    if so_far and so_far.routes_done:
        parts.append(f"{so_far.routes_done} of {so_far.routes_total} routes are driven; a resume continues from there.")
    return replace(
        so_far or Outcome(OutcomeStatus.FAILED, ""),
        ending=OutcomeStatus.FAILED,
        sentence=" ".join(parts),
        fault=error.fault,
        result=(),
        metrics={},
        logs=error.logs,
    )


def raise_for_failures(statuses: ShardStatuses) -> None:
    """Raise ShardsFailed unless every shard has finished; the team is charged if any shard's failure is its own."""
    failures = {index: status.failure for index, status in sorted(statuses.items()) if status.failure}
    gone = sorted(index for index, status in statuses.items() if status.state is ShardState.GONE)
    if not failures and not gone:
        return
    causes: dict[str, list[int]] = {}  # shards often fail alike: say it once
    for index, failure in failures.items():
        cause = f" ({failure.cause})" if failure.cause else ""
        causes.setdefault(failure.summary.rstrip(".") + cause, []).append(index)
    if gone:
        causes["its Job has disappeared"] = gone
    faults = {failure.fault for failure in failures.values()}
    raise ShardsFailed(
        f"{len(failures) + len(gone)} of {len(statuses)} shards failed",
        "; ".join(f"shard {', '.join(map(str, indexes))}: {cause}" for cause, indexes in causes.items()),
        next((failure.remedy for failure in failures.values()), "Resume the submission."),
        fault=Fault.TEAM if Fault.TEAM in faults else Fault.INFRASTRUCTURE,
    )
