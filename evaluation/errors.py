"""Everything that can go wrong, as one tree of four branches: a caller catches a branch and knows what to do next.

Adapters translate their vendor's errors into these, `raise ... from`.

EvaluationError
├── TransientError                it may pass: try again, later another run continues
│   ├── ServiceUnavailable        EvalAI, AWS, Prefect or a cluster does not answer, throttles or breaks
│   ├── DeadlineExceeded          a wait came to its stated end
│   └── CleanupIncomplete         something of a submission is still running after its removal
├── NeedsOperator                 an operator must act: the submission waits, and no budget is charged
│   ├── InvalidConfiguration      a secret, block, setting, phase codename or route file is wrong
│   └── RequestRefused            a service understood the request and said no (4xx)
├── SubmissionFailed              this one submission is at fault: it ends, by `fault` of its team or of ours
│   ├── InvalidMessage            the body on the queue is not a submission message, or fits no submission
│   ├── UnknownSubmission         EvalAI does not know the submission
│   ├── ImageRefused              the image is missing or outside the allowed registries
│   ├── InvalidCheckpoint         a result file breaks the format, or does not fit the routes sent out
│   └── ShardsFailed              shards ended without a result
└── ControlFlow                   no failure: this run has nothing left to do
    ├── AlreadyClaimed            another run has this submission: end as a no-op
    └── SubmissionCancelled       the team took the submission back: stop, and report nothing

Before a claim SubmissionFailed moves the message to the dead-letter queue; after it EvalAI gets the reason. What
NeedsOperator or TransientError stops stays where it is: the message on the queue, the claim in the ledger, the shards
in their cluster.
"""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Whose fault a failure is, which decides who is charged for it."""

    TEAM = "team"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Failure:
    """What a person reads: one sentence each for what happened, why, and what to do."""

    summary: str
    cause: str
    remedy: str
    fault: Fault

    def __str__(self) -> str:
        return explain(self.summary, self.cause, self.remedy)


def explain(summary: str, cause: str = "", remedy: str = "") -> str:
    """Join the three sentences: `Summary: cause. remedy.`; empty parts are left out."""
    text = f"{summary.rstrip('.')}: {cause.rstrip('.')}." if cause else f"{summary.rstrip('.')}."
    return f"{text} {remedy}".rstrip()


class EvaluationError(Exception):
    """Root of the tree. `str()` is one sentence that says what, where, and what to do."""

    def __init__(self, summary: str, cause: str = "", remedy: str = "") -> None:
        super().__init__(summary, cause, remedy)
        self.summary = summary
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return explain(self.summary, self.cause, self.remedy)


class TransientError(EvaluationError):
    """The same call may succeed later."""


class ServiceUnavailable(TransientError):
    """EvalAI, AWS, Prefect or a cluster does not answer, throttles or breaks."""

    def __init__(self, summary: str, cause: str = "", remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(summary, cause, remedy)
        self.retry_after = retry_after  # seconds that the service asked for


class DeadlineExceeded(TransientError):
    """A wait came to its stated end."""


class CleanupIncomplete(TransientError):
    """Something of a submission is still running after its removal."""


class NeedsOperator(EvaluationError):
    """Neither time nor the team changes it: an operator must act."""


class InvalidConfiguration(NeedsOperator):
    """A secret, block, setting, phase codename or route file is wrong, or a service does not accept the credentials."""


class RequestRefused(NeedsOperator):
    """A service understood the request and said no, for another reason than who asks."""


class SubmissionFailed(EvaluationError):
    """This one submission (or job of the compute client) is at fault, not the installation."""

    fault: Fault = Fault.INFRASTRUCTURE  # the team has the benefit of the doubt
    logs: str = ""  # the last lines of the shards that failed, for the team


class InvalidMessage(SubmissionFailed):
    """The body on the queue is not a submission message, or does not belong to the submission that it names."""


class UnknownSubmission(SubmissionFailed):
    """EvalAI does not know the submission."""


class ImageRefused(SubmissionFailed):
    """The submission's image is missing or outside the allowed registries."""

    fault = Fault.TEAM


class InvalidCheckpoint(SubmissionFailed):
    """A result file breaks the format, or does not fit the routes that were sent out."""


class ShardsFailed(SubmissionFailed):
    """Shards ended without a result."""

    def __init__(self, summary: str, cause: str = "", remedy: str = "", fault: Fault = Fault.INFRASTRUCTURE) -> None:
        super().__init__(summary, cause, remedy)
        self.fault = fault


class ControlFlow(EvaluationError):
    """No failure: the caller has nothing left to do."""


class AlreadyClaimed(ControlFlow):
    """Another run has this submission; the caller ends as a no-op."""


class SubmissionCancelled(ControlFlow):
    """The team took the submission back, or it was deleted at EvalAI."""
