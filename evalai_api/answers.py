"""What an answer of EvalAI that is no success means. Source: docs/evalai.md, "Who may ask"."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from evalai_api.transport import HttpAnswer
from evaluation.errors import (
    EvaluationError,
    InvalidConfiguration,
    RequestRefused,
    ServiceUnavailable,
    UnknownSubmission,
)

WRONG_ROLE = "Sorry, you are not authorized to make this request!"  # EvalAI's 400 to an update by a non-host
NO_SUBMISSION = re.compile(r"Submission \d+ does not exist")
REASON_LIMIT = 300  # characters
HOST_REMEDY = "Put the token of a host of this challenge into the secret evalai."
SERVER_REMEDY = "Correct api_server in the secret evalai."


def problem(what: str, answer: HttpAnswer, clean: Callable[[str], str], about_submission: bool) -> EvaluationError:
    """The error for an answer that is no success; `clean` takes the token out of EvalAI's words."""
    status = answer.status
    own_words = _own_words(answer)
    reason = clean(own_words or _form(answer))
    cause = f"{what} answered {status}: {reason}"
    if status == 429 or status >= 500:
        summary = "EvalAI's request limit is used up" if status == 429 else "EvalAI failed on the request"
        return ServiceUnavailable(summary, cause, retry_after=_retry_after(answer))
    if status in (401, 403) or (status == 400 and reason == WRONG_ROLE):
        return InvalidConfiguration("EvalAI does not accept the token", cause, HOST_REMEDY)
    if 300 <= status < 400 or (status == 404 and not own_words):
        # A gateway's 404 has another form than EvalAI's own: it says nothing of the submission.
        return InvalidConfiguration("EvalAI's API is not at this address", cause, SERVER_REMEDY)
    if status == 404 and about_submission and NO_SUBMISSION.fullmatch(own_words):
        return UnknownSubmission("EvalAI does not know the submission", cause)
    return RequestRefused("EvalAI refused the request", cause)


def _own_words(answer: HttpAnswer) -> str:
    """What EvalAI's JSON says, "" where it has not EvalAI's form. A 401's own reason stands one level deeper."""
    content = answer.json if answer.is_json else None
    if not isinstance(content, dict):
        return ""
    said = next((content[key] for key in ("error", "detail") if isinstance(content.get(key), str)), "")
    messages = content.get("messages")
    details = messages if isinstance(messages, list) else []
    more = [each["message"] for each in details if isinstance(each, dict) and isinstance(each.get("message"), str)]
    return f"{said} ({'; '.join(more)})"[:REASON_LIMIT] if more else str(said)[:REASON_LIMIT]


def _form(answer: HttpAnswer) -> str:
    """Anything but EvalAI's JSON stays out: a debug page repeats the request's headers."""
    if answer.is_json:
        return json.dumps(answer.json)[:REASON_LIMIT]
    return str(answer.headers.get("Content-Type", "no content"))


def _retry_after(answer: HttpAnswer) -> float | None:
    """Seconds from now; the header is a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
