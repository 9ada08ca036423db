"""What EvalAI is told of a submission."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.submission.model import Submission, SubmissionStatus


@dataclass(frozen=True)
class Report:
    """What EvalAI is told. `result` is the list of contracts/carla-results.md section 4, empty unless finished."""

    submission: Submission
    status: SubmissionStatus  # FINISHED, FAILED, CANCELLED, or PARTIALLY_EVALUATED
    result: Sequence[Mapping[str, object]] = ()
    stdout: str = ""
    stderr: str = ""
    metadata: str = ""  # JSON text
