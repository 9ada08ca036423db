"""Everything that can go wrong, as one tree. Adapters translate their vendor's errors into these, `raise ... from`.

EvaluationError
├── PermanentError                trying again changes nothing
│   ├── InvalidMessage            the body on the queue is not a submission message
│   ├── InvalidConfiguration      a secret, block, setting, phase codename or route file is wrong
│   ├── UnknownSubmission         EvalAI does not know the submission
│   ├── ImageRefused              the image is missing or outside the allowed registries
│   ├── InvalidCheckpoint         a result file breaks the format, or does not fit the routes sent out
│   ├── RequestRefused            a service understood the request and said no (4xx)
│   ├── AlreadyClaimed            another run has this submission: end as a no-op
│   ├── SubmissionCancelled       the team took the submission back
│   └── ShardsFailed              shards ended without a result; carries one Failure a shard
└── TransientError                the same call may succeed later
    ├── ServiceUnavailable        EvalAI, AWS or a cluster does not answer, throttles or breaks
    ├── DeadlineExceeded          a wait came to its stated end
    └── CleanupIncomplete         something of a submission is still running after its removal
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


class PermanentError(EvaluationError):
    """Trying again changes nothing."""


class InvalidMessage(PermanentError):
    """The body on the queue is not a submission message."""


class InvalidConfiguration(PermanentError):
    """A secret, block, setting, phase codename or route file is wrong; a host has to mend it."""


class UnknownSubmission(PermanentError):
    """EvalAI does not know the submission."""


class ImageRefused(PermanentError):
    """The submission's image is missing or outside the allowed registries."""


class InvalidCheckpoint(PermanentError):
    """A result file breaks the format, or does not fit the routes that were sent out."""


class RequestRefused(PermanentError):
    """A service understood the request and said no."""


class AlreadyClaimed(PermanentError):
    """Another run has this submission; the caller ends as a no-op."""


class SubmissionCancelled(PermanentError):
    """The team took the submission back."""


class ShardsFailed(PermanentError):
    """Shards ended without a result."""

    def __init__(self, summary: str, cause: str = "", remedy: str = "", fault: Fault = Fault.INFRASTRUCTURE) -> None:
        super().__init__(summary, cause, remedy)
        self.fault = fault
        self.logs = ""  # the last lines of the shards that failed, for the team


class TransientError(EvaluationError):
    """The same call may succeed later."""


class ServiceUnavailable(TransientError):
    """EvalAI, AWS or a cluster does not answer, throttles or breaks."""

    def __init__(self, summary: str, cause: str = "", remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(summary, cause, remedy)
        self.retry_after = retry_after  # seconds that the service asked for


class DeadlineExceeded(TransientError):
    """A wait came to its stated end."""


class CleanupIncomplete(TransientError):
    """Something of a submission is still running after its removal."""
