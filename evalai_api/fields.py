"""EvalAI's JSON as values of ours, and ours as its JSON. Source of every rule: contracts/evalai.md."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from evaluation.errors import RequestRefused
from evaluation.lifecycle.report import Report
from evaluation.submission.model import SubmissionStatus

T = TypeVar("T")

# EvalAI took 50 MB; what people read fits in far less, and the whole text lies in S3 anyway.
TEXT_LIMIT_BYTES = 200_000
METADATA_LIMIT_BYTES = 300_000


@dataclass(frozen=True)
class SubmissionRow:
    """A submission as EvalAI shows it. Times are UTC; `job_names` in order of the calls that set them."""

    pk: int
    phase_pk: int
    team_pk: int
    team_name: str
    status: SubmissionStatus
    method_name: str = ""  # what the team calls its method
    input_file: str = ""  # address of what the team handed in
    stderr_file: str = ""  # address of what the team reads about a failure
    submitted_at: datetime | None = None
    rerun_resumed_at: datetime | None = None
    job_names: tuple[str, ...] = ()


class Fields:
    """One JSON object of an answer; each accessor raises RequestRefused with the object's and the field's name."""

    def __init__(self, content: object, name: str) -> None:
        if not isinstance(content, dict):
            raise unreadable(name, f"it is a {type(content).__name__}, not an object")
        self._content: dict[str, object] = content
        self._name = name

    def raw(self, key: str) -> object:
        return self._content.get(key)

    def whole(self, key: str) -> int:
        """An id: an int, or a string of digits as the queue has it."""
        value = self._content.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise unreadable(self._name, f"{key} is {_shown(value)}, not a whole number")
        return value

    def text(self, key: str) -> str:
        value = self._content.get(key)
        return "" if value is None else str(value)

    def time(self, key: str) -> datetime | None:
        value = self._content.get(key)
        if value is None or value == "":
            return None
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            raise unreadable(self._name, f"{key} is {_shown(value)}, not an ISO time") from None
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)

    def status(self, key: str = "status") -> SubmissionStatus:
        value = self._content.get(key)
        try:
            return SubmissionStatus(str(value).lower())
        except ValueError:
            raise unreadable(self._name, f"{key} is {_shown(value)}, which is no status we know") from None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._content.get(key)
        return tuple(map(str, value)) if isinstance(value, list) else ()


def unreadable(name: str, cause: str) -> RequestRefused:
    """The error for an answer that does not look as the contract says."""
    return RequestRefused(f"EvalAI's answer about {name} cannot be read", cause, "Has EvalAI changed its API?")


def objects(content: object, name: str) -> list[Fields]:
    """A plain list of objects."""
    if not isinstance(content, list):
        raise unreadable(name, f"it is a {type(content).__name__}, not a list")
    return [Fields(item, name) for item in content]


def read_submission(fields: Fields) -> SubmissionRow:
    return SubmissionRow(
        pk=fields.whole("id"),
        phase_pk=fields.whole("challenge_phase"),
        team_pk=fields.whole("participant_team"),
        team_name=fields.text("participant_team_name"),
        status=fields.status(),
        method_name=fields.text("method_name"),
        input_file=fields.text("input_file"),
        stderr_file=fields.text("stderr_file"),
        submitted_at=fields.time("submitted_at"),
        rerun_resumed_at=fields.time("rerun_resumed_at"),
        job_names=fields.texts("job_name"),
    )


def report_body(report: Report) -> dict[str, object]:
    """The body of a final or partial report; raises RequestRefused for a result that EvalAI must not get."""
    body: dict[str, object] = {
        # The submission's own phase: EvalAI books the score on whatever phase it is told.
        "challenge_phase": report.submission.phase_pk,
        "submission": report.submission.pk,
        "submission_status": report.status.value.upper(),
        "stdout": shortened(report.stdout),
        "stderr": shortened(report.stderr),
        "environment_log": "",
        "metadata": _short_metadata(report.metadata),
    }
    if report.status in (SubmissionStatus.FINISHED, SubmissionStatus.PARTIALLY_EVALUATED):
        body["result"] = result_text(report.result)
    return body


def result_text(result: Sequence[Mapping[str, object]]) -> str:
    """The result as the JSON string that EvalAI wants; raises RequestRefused unless all is plain and finite.

    EvalAI itself takes a bool and then breaks the public leaderboard for everyone, takes an empty result as
    finished, and breaks at the next report when one split comes twice.
    """
    splits = [entry.get("split") for entry in result]
    if not splits or not all(isinstance(split, str) and split for split in splits) or len({*splits}) < len(splits):
        raise _bad_result(f"it names the splits {splits}; wanted is each split once")
    for entry in result:
        accuracies = entry.get("accuracies")
        if not isinstance(accuracies, Mapping) or not accuracies:
            raise _bad_result(f"split {entry.get('split')!r} has no metrics")
        if not isinstance(entry.get("show_to_participant"), bool):
            raise _bad_result(f"split {entry.get('split')!r} does not say show_to_participant")
        for label, value in accuracies.items():
            if not isinstance(label, str) or not _is_plain_number(value):
                raise _bad_result(f"metric {label!r} is {_shown(value)}, not a finite number")
    return json.dumps([dict(entry) for entry in result], default=dict, allow_nan=False)


def shortened(text: str, limit: int = TEXT_LIMIT_BYTES) -> str:
    """The text, or its beginning and end with a note between them, in at most about `limit` bytes of UTF-8."""
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL stores no NUL
    data = text.encode("utf-8", errors="replace")
    if len(data) <= limit:
        return text
    half = limit // 2
    head, tail = (part.decode("utf-8", errors="ignore") for part in (data[:half], data[-half:]))
    return f"{head}\n[... {len(data) - 2 * half} of {len(data)} bytes left out ...]\n{tail}"


def _short_metadata(metadata: str) -> str:
    size = len(metadata.encode("utf-8", errors="replace"))
    if size <= METADATA_LIMIT_BYTES:
        return metadata
    # Half a JSON text would be no JSON.
    return json.dumps({"left_out": f"the merged results have {size} bytes; they lie in the submission's S3 folder"})


def _is_plain_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bad_result(cause: str) -> RequestRefused:
    return RequestRefused("The result is not fit to be sent to EvalAI", cause, "Nothing was sent.")


def _shown(value: object) -> str:
    return repr(value)[:80]
