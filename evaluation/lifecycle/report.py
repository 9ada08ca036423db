"""What EvalAI gets to know of a submission."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.lifecycle.write_permit import WritePermit
from evaluation.submission.model import Submission, SubmissionStatus


@dataclass(frozen=True)
class Report:
    """What is reported to EvalAI. `result` is empty unless finished.

    Source: docs/reference/results.md, "What EvalAI is sent".
    """

    submission: Submission
    status: SubmissionStatus  # FINISHED, FAILED, CANCELLED, or PARTIALLY_EVALUATED
    result: Sequence[Mapping[str, object]] = ()
    stdout: str = ""
    stderr: str = ""
    metadata: str = ""  # JSON text
    permit: WritePermit | None = field(default=None, compare=False, repr=False)  # without one it is always written
