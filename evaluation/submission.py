"""The queue's message, the submission as EvalAI describes it, and the phase that names its cluster and track."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evaluation.errors import ImageRefused, InvalidConfiguration, InvalidMessage


def _whole_number(value: object) -> object:
    """EvalAI sends ids as ints or as strings of digits; refuse what `int()` would forgive (1.0, True, ' 1', '1_0')."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a positive whole number")
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a positive whole number")
    return int(value)


Id = Annotated[int, BeforeValidator(_whole_number), Field(gt=0, le=2**63 - 1)]


class SubmissionMessage(BaseModel):
    """One message of EvalAI's queue, ids as ints. Source: contracts/evalai.md, "The queue message"."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    challenge_pk: Id
    phase_pk: Id
    submission_pk: Id
    # Absent when EvalAI's storage did not answer, and when a participant re-sent the submission.
    submitted_image_uri: str | None = None


class Delivery(BaseModel):
    """Where a message lies on the queue, so that the run which claims the submission can delete it."""

    model_config = ConfigDict(frozen=True)

    queue_url: str
    receipt_handle: str
    message_id: str


class Succession(BaseModel):
    """A run goes on with what an earlier one began: whose claim it takes over, the how manieth start it is, and why."""

    model_config = ConfigDict(frozen=True)

    owner: str  # the id of the first run, which made the claim
    start: int = Field(ge=1)
    deaths: int = Field(default=0, ge=0)  # how many starts died without an outage that explains it
    stopped: bool = False  # a host stopped the run in Prefect: end the evaluation instead of going on

    @classmethod
    def first(cls, run: str) -> "Succession":
        """Where a run stands that goes on with nothing."""
        return cls(owner=run, start=1)

    def after_death(self) -> "Succession":
        return self.model_copy(update={"start": self.start + 1, "deaths": self.deaths + 1})

    def after_stop(self) -> "Succession":
        return self.model_copy(update={"start": self.start + 1, "stopped": True})

    @property
    def key(self) -> str:
        """The same for everybody who wants to start this very successor, so that there is one."""
        return f"{self.owner}-start-{self.start}"


def parse_message(body: str) -> SubmissionMessage:
    """Read a queue message's body; raises InvalidMessage with one sentence that names the field."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(
            "The message is not JSON", str(error), "Send the JSON object that EvalAI sends."
        ) from error
    if not isinstance(content, dict):
        raise InvalidMessage("The message is not a JSON object", f"it is a {type(content).__name__}")
    try:
        return SubmissionMessage.model_validate(content)
    except ValidationError as error:
        raise InvalidMessage("The message is not a submission", _problems(error, content)) from error


def _problems(error: ValidationError, content: Mapping[str, object]) -> str:
    problems = []
    for item in error.errors():
        field = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"{field} is missing")
        else:
            given = json.dumps(content.get(field))[:80]
            want = "text" if field == "submitted_image_uri" else "a positive whole number"
            problems.append(f"{field} must be {want}, not {given}")
    return "; ".join(problems)


class SubmissionStatus(StrEnum):
    """EvalAI's own states. EvalAI guards none of the transitions: any write may overwrite any state."""

    SUBMITTED = "submitted"  # new, its message is on the queue
    SUBMITTING = "submitting"  # EvalAI is still storing the upload
    QUEUED = "queued"
    RUNNING = "running"
    RESUMING = "resuming"  # a host asked for a failed one to go on, same pk
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTIALLY_EVALUATED = "partially_evaluated"
    ARCHIVED = "archived"


RUNNABLE = frozenset(
    {
        SubmissionStatus.SUBMITTED,
        SubmissionStatus.SUBMITTING,  # the message can overtake EvalAI's own last write
        SubmissionStatus.RESUMING,
    }
)


class Generation(StrEnum):
    """Which evaluator a cluster runs; 2.0 and 2.1 write and aggregate results alike."""

    V1 = "1.0"
    V2 = "2.0"


@dataclass(frozen=True)
class Phase:
    """A phase of the challenge. The codename is `<cluster>-<track>`, e.g. `leaderboard-20-SENSORS`."""

    codename: str
    cluster: str
    track: str


def parse_phase(codename: str) -> Phase:
    """Split a codename at its last hyphen; raises InvalidConfiguration where either side is empty.

    Source: contracts/aws.md ("everything before the last `-` is the cluster, the rest the track").
    """
    cluster, hyphen, track = codename.rpartition("-")
    if not (hyphen and cluster and track):
        raise InvalidConfiguration(
            f"The phase codename {codename!r} does not split into cluster and track",
            "it has to look like leaderboard-20-SENSORS",
            "Correct the codename in EvalAI and in the secret evalai-tracks.",
        )
    return Phase(codename, cluster, track)


@dataclass(frozen=True)
class Submission:
    """A submission after enrichment: EvalAI's answer, the message and the phase in one value."""

    pk: int
    challenge_pk: int
    phase_pk: int
    phase: Phase
    team_pk: int
    team_name: str
    status: SubmissionStatus
    image: str | None
    submitted_at: datetime | None
    rerun_resumed_at: datetime | None


# Looser than the registries' own rule, but without blanks, empty parts and dots that lead elsewhere.
_IMAGE = re.compile(r"[a-z0-9][\w.:@-]*(/[a-z0-9][\w.:@-]*)*", re.ASCII | re.IGNORECASE)


def require_allowed_image(image: str | None, registries: Iterable[str]) -> str:
    """Return the image if one of the registries (host, or host/path prefix) holds it; raises ImageRefused.

    A prefix ends at a `/`, so that `registry.example` does not admit `registry.example.evil/x`.
    """
    allowed = sorted({registry.rstrip("/") for registry in registries} - {""})
    if not image:
        raise ImageRefused(
            "The submission names no image",
            "EvalAI sent no submitted_image_uri with it",
            "Push the image again and submit once more.",
        )
    if not _IMAGE.fullmatch(image):
        form = "it has to look like registry.example/name:tag"
        raise ImageRefused(f"The image {image[:200]!a} is no image reference", form, "Push it again.")
    if not any(image.startswith(f"{registry}/") for registry in allowed):
        raise ImageRefused(
            f"The image {image!r} is not in an allowed registry",
            f"allowed: {', '.join(allowed) or 'none'}",
            "Push the image with EvalAI's command line tool, which uploads it to the challenge's registry.",
        )
    return image
