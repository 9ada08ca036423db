"""The queue's message, and where it is on the queue."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evaluation.errors import InvalidMessage
from evaluation.text import storable


def _whole_number(value: object) -> object:
    """EvalAI sends ids as ints or as strings of digits; refuse what `int()` would forgive (1.0, True, ' 1', '1_0')."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a positive whole number")
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a positive whole number")
    return int(value)


def _storable(text: str) -> str:
    # JSON can spell what cannot be stored, and PostgreSQL drops such an event with its neighbours.
    if storable(text) != text:
        raise ValueError("must be text without U+0000 and lone surrogates")
    return text


StorableText = Annotated[str, AfterValidator(_storable)]
Id = Annotated[int, BeforeValidator(_whole_number), Field(gt=0, le=2**63 - 1)]


class SubmissionMessage(BaseModel):
    """One message of EvalAI's queue, ids as ints. Source: docs/evalai.md, "The queue message"."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    challenge_pk: Id
    phase_pk: Id
    submission_pk: Id
    # Absent when EvalAI's storage did not answer, and when a participant re-sent the submission.
    submitted_image_uri: StorableText | None = None


class Delivery(BaseModel):
    """Where a message is on the queue, so that the run which claims the submission can delete it."""

    model_config = ConfigDict(frozen=True)

    queue_url: str
    receipt_handle: str
    message_id: str


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
            given = _shown(content.get(field))
            want = (
                "text without U+0000 and lone surrogates"
                if field == "submitted_image_uri"
                else "a positive whole number"
            )
            problems.append(f"{field} must be {want}, not {given}")
    return "; ".join(problems)


def _shown(value: object) -> str:
    """The value, cut; lists and objects by their kind: written out they may be nested too deep for Python."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else json.dumps(value)[:80]
