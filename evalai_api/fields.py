"""EvalAI's JSON as values of ours. Source of every rule: docs/evalai.md, "What EvalAI shows"."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evaluation.errors import RequestRefused
from evaluation.moments import parse_moment
from evaluation.submission.model import CLOSED, SubmissionStatus
from evaluation.text import storable

MOST_PAGES = 20  # of one leaderboard, a hundred teams each


def _whole(value: object) -> int:
    """An id: an int, or a string of digits as the queue has it."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a whole number")
    return value


def _text(value: object) -> str:
    return "" if value is None else storable(str(value))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, value)) if isinstance(value, list) else ()


def _time(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    return parse_moment(value)


def _status(value: object) -> SubmissionStatus:
    try:
        return SubmissionStatus(str(value).lower())
    except ValueError:
        raise ValueError("which is no status we know") from None


def _flag(value: object) -> bool:
    return value is True


Id = Annotated[int, BeforeValidator(_whole)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Time = Annotated[datetime | None, BeforeValidator(_time)]
Status = Annotated[SubmissionStatus, BeforeValidator(_status)]
Flag = Annotated[bool, BeforeValidator(_flag)]


class _Record(BaseModel):
    """Fields that EvalAI adds are left out, so that a new release of it breaks nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


Record = TypeVar("Record", bound=_Record)


class SubmissionRow(_Record):
    """A submission as EvalAI shows it. Times are UTC; `job_names` in order of the calls that set them.

    `status` is the one to act on where `read_submission` made it: one that its team deleted counts as cancelled.
    """

    pk: Id = Field(alias="id")
    phase_pk: Id = Field(alias="challenge_phase")
    team_pk: Id = Field(alias="participant_team")
    team_name: Text = Field(default="", alias="participant_team_name")
    status: Status
    method_name: Text = ""  # what the team calls its method
    input_file: Text = ""  # address of what the team handed in
    stdout_file: Text = ""  # address of what the team reads about a result
    stderr_file: Text = ""  # address of what the team reads about a failure
    submitted_at: Time = None
    rerun_resumed_at: Time = None
    job_names: Texts = Field(default=(), alias="job_name")
    deleted: Flag = Field(default=False, alias="ignore_submission")  # by its team; the row stays

    @property
    def withdrawn(self) -> bool:
        """Cancelled, or deleted by its team, which EvalAI shows by a flag beside whatever status there was."""
        return self.deleted or self.status is SubmissionStatus.CANCELLED


class PhaseRow(_Record):
    """A phase, as far as this project cares."""

    pk: Id = Field(alias="id")
    codename: Text
    partial_results: Flag = Field(default=False, alias="is_partial_submission_evaluation_enabled")
    disable_logs: Flag = False
    concurrent_submissions: int | None = Field(default=None, alias="max_concurrent_submissions_allowed")


class LeaderboardSchema(_Record):
    """The labels of a leaderboard, in its order, and the one that ranks."""

    labels: tuple[str, ...]
    default_order_by: Text = ""


class SplitRow(_Record):
    """The leaderboard of a phase."""

    pk: Id = Field(alias="id")
    phase_pk: Id = Field(alias="challenge_phase")
    leaderboard_schema: LeaderboardSchema


class LeaderboardRow(_Record):
    """A team's row of a leaderboard, in EvalAI's order. `result` is in the order of the leaderboard's labels."""

    team_name: Text = Field(alias="submission__participant_team__team_name")
    result: tuple[float | str, ...]  # "#" where the submission has no such figure


class LeaderboardPage(_Record):
    """A part of a leaderboard; `next` is the address of what follows, or nothing."""

    next: Text = ""
    results: tuple[LeaderboardRow, ...]


class ChallengeRow(_Record):
    """A challenge's settings that this project needs."""

    pk: Id = Field(alias="id")
    title: Text = ""
    remote_evaluation: Flag = False
    is_docker_based: Flag = False
    allow_resuming_submissions: Flag = False
    queue: Text = ""


class NewSubmission(_Record):
    """The answer to a submission that was handed in."""

    pk: Id = Field(alias="id")


class SubmissionList(list[SubmissionRow]):
    """Submissions by id; `unreadable` says of each row that had to be left out what is wrong with it."""

    def __init__(self, rows: Iterable[SubmissionRow], unreadable: Sequence[str] = ()) -> None:
        super().__init__(sorted(rows, key=lambda row: row.pk))
        self.unreadable = tuple(unreadable)


def unreadable(name: str, cause: str) -> RequestRefused:
    """The error for an answer that has not the form of docs/evalai.md."""
    return RequestRefused(f"EvalAI's answer about {name} cannot be read", cause, "Has EvalAI changed its API?")


def read(kind: type[Record], content: object, name: str) -> Record:
    """One JSON object as a record; raises RequestRefused with the object's and the first wrong field's name."""
    if not isinstance(content, dict):
        raise unreadable(name, f"it is a {type(content).__name__}, not an object")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise unreadable(name, _first_problem(error)) from None


def read_list(kind: type[Record], content: object, name: str) -> list[Record]:
    """A plain list of objects; raises as `read`."""
    return [read(kind, item, name) for item in _items(content, name)]


def read_leaderboard(ask: Callable[[int], object], name: str) -> list[LeaderboardRow]:
    """The rows of all pages, which `ask` gets by their numbers from 1; at most MOST_PAGES. Raises as `read`."""
    rows: list[LeaderboardRow] = []
    for number in range(1, MOST_PAGES + 1):
        page = read(LeaderboardPage, ask(number), name)
        rows += page.results
        if not page.next:
            break
    return rows


def read_submission(content: object, name: str) -> SubmissionRow:
    """A submission; one that was deleted before its end is cancelled, whatever EvalAI calls it."""
    row = read(SubmissionRow, content, name)
    if row.deleted and row.status not in CLOSED:
        return row.model_copy(update={"status": SubmissionStatus.CANCELLED})
    return row


def read_submissions(content: object, name: str) -> SubmissionList:
    """The rows that can be read; one that cannot is named and hides none of the others."""
    rows: list[SubmissionRow] = []
    problems: list[str] = []
    for item in _items(content, name):
        pk = item.get("id") if isinstance(item, dict) else None
        try:
            rows.append(read_submission(item, f"submission {pk}"))
        except RequestRefused as error:
            problems.append(str(error))
    return SubmissionList(rows, problems)


def _items(content: object, name: str) -> list[object]:
    if not isinstance(content, list):
        raise unreadable(name, f"it is a {type(content).__name__}, not a list")
    return content


def _first_problem(error: ValidationError) -> str:
    """`status is 'teleporting', which is no status we know`."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{field} is missing"
    words = str(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else first["msg"]
    return f"{field} is {repr(first['input'])[:80]}, {words}"
