"""What a job is: its id, its message, how it stands, how it ended. Nothing here leaves the process."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from compute_client.json_text import json_text
from evaluation.errors import (
    ControlFlow,
    DeadlineExceeded,
    InvalidMessage,
    RequestRefused,
    SubmissionFailed,
    TransientError,
)

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # also part of S3 keys and of names in Prefect
LONGEST_TRACE = 4000  # characters; the end of a stack trace says the most
LONGEST_ERROR = 1000


class ResultStatus(StrEnum):
    SUBMITTED = "SUBMITTED"  # recorded, not computed yet
    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        return self in (ResultStatus.SUCCESS, ResultStatus.FAILED)


class UnknownJob(SubmissionFailed):
    """The table has no row of that id: it was never posted here, or it is older than results are kept."""


class UnreadableJob(UnknownJob):
    """The table's row of that id was not written by this client, or somebody has changed it."""

    def __init__(self, job_id: object, cause: str) -> None:
        super().__init__(f"The row of job {job_id!r:.120} makes no sense", cause, "Post the job under another id.")


class AlreadyComputed(ControlFlow):
    """The job has its result, or its error."""


class Held(ControlFlow):
    """Another run computes the job."""

    def __init__(self, summary: str, cause: str, seconds_left: float) -> None:
        super().__init__(summary, cause)
        self.seconds_left = seconds_left  # until its lease ends, unless it is renewed


class Abandoned(SubmissionFailed):
    """Run after run died while computing the job."""


class NotSent(TransientError):
    """The job is recorded, but its message may not have reached the queue."""

    def __init__(self, job_id: str, cause: str) -> None:
        super().__init__(
            f"Job {job_id} is recorded but not on its queue",
            cause,
            "Post it again with this id, or let `leaderboard compute resend` send it.",
        )
        self.job_id = job_id


class JobTimeout(DeadlineExceeded, TimeoutError):
    """The caller's time is over and the job has no end yet; it goes on, under its id."""


class PostedId(str):
    """The id of a job that `post_non_blocking` has posted: a string, which `post` distinguishes from a body."""


class NotFinished(TransientError):
    """The job has no result yet."""


@dataclass(frozen=True)
class JobError:
    """Why a job failed, cut to lengths that a row can hold."""

    type: str  # the exception's name, e.g. ValueError
    message: str
    trace: str = ""  # the end of the stack trace

    def cut(self) -> "JobError":
        """Without what is no UTF-8, such as the lone surrogates of an undecodable file name."""
        kind, message, trace = (
            each.encode("utf-8", "replace").decode() for each in (self.type, self.message, self.trace)
        )
        return JobError(kind[:200], message[:LONGEST_ERROR], trace[-LONGEST_TRACE:])

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class JobFailed(SubmissionFailed):
    """The function failed on this body."""

    def __init__(self, job_id: str, error: JobError) -> None:
        super().__init__(f"Job {job_id} failed", str(error))
        self.job_id = job_id
        self.error = error


@dataclass(frozen=True)
class JobResult:
    """How a job stands. `result` is there once it is a success."""

    id: str
    status: ResultStatus
    value: object = None
    error: JobError | None = None

    @property
    def result(self) -> object:
        """What the function returned; raises JobFailed, or NotFinished."""
        if self.error:
            raise JobFailed(self.id, self.error)
        if self.status is not ResultStatus.SUCCESS:
            raise NotFinished(f"Job {self.id} has no result yet", f"it is {self.status}")
        return self.value


@dataclass(frozen=True)
class Lease:
    """The right to compute a job and to write its result, for as long as it is renewed."""

    job_id: str
    token: str
    attempt: int


@dataclass(frozen=True)
class ClaimedJob:
    lease: Lease
    place: Mapping[str, str]  # where its body is: `body_json` or `body_key`


def require_id(job_id: str) -> str:
    if not (isinstance(job_id, str) and JOB_ID.fullmatch(job_id)):
        raise RequestRefused(
            f"{job_id!r:.120} is not an id for a job",
            "text of letters, digits, '.', '_' and '-' is allowed, 100 at most",
        )
    return job_id


def to_json(what: str, value: object) -> str:
    """The value as JSON text; raises RequestRefused where it has none."""
    try:
        return json_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestRefused(f"{what} is not JSON", str(error)) from error


def digest(text: str) -> str:
    """Whether two JSON texts are the same value, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(json.loads(text), sort_keys=True).encode()).hexdigest()


def write_message(job_id: str) -> str:
    """What is on the queue: the id alone. Everything else is in the table, which is there before the message."""
    return json.dumps({"job_id": job_id})


def read_message(text: str) -> str:
    """The job's id; raises InvalidMessage with the reason why it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("The message is not JSON", str(error)) from error
    job_id = content.get("job_id") if isinstance(content, dict) else None
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        raise InvalidMessage("The message names no job", f'it has to be {{"job_id": "..."}}, not {text[:100]!r}')
    return job_id
