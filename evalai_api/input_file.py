"""The file that a participant handed in: where a message names no image, the file does."""

import json

import httpx

from evalai_api.transport import AnswerTooLarge, HttpAnswer, Request, Timeouts, exchange
from evaluation.errors import EvaluationError, ServiceUnavailable
from evaluation.text import storable

LIMIT_BYTES = 64 * 1024  # EvalAI's own command line writes a hundred


def handed_in_image(url: str, timeouts: Timeouts, trust_env: bool) -> str | None:
    """`submitted_image_uri` of the JSON at `url`, or None where the file is gone, is too large or names none.

    Sent without any token: the file is on EvalAI's storage, which is not EvalAI. Raises ServiceUnavailable.
    Source: docs/evalai.md, "The queue message"; the file is what `evalai push` writes.
    """
    if not url.startswith(("http://", "https://")):
        return None
    trouble: EvaluationError
    # Raised after the `except`: the vendor's error may hold a signed address.
    try:
        answer = exchange(Request("GET", url), None, timeouts, LIMIT_BYTES, trust_env)
    except AnswerTooLarge:
        return None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        trouble = ServiceUnavailable("EvalAI's storage does not give out a submission's file", type(error).__name__)
    else:
        return _image(answer)
    raise trouble


def _image(answer: HttpAnswer) -> str | None:
    if answer.status == 429 or answer.status >= 500:
        raise ServiceUnavailable("EvalAI's storage failed on a submission's file", f"{answer.status}")
    if not 200 <= answer.status < 300:
        return None
    try:
        image = json.loads(answer.body)["submitted_image_uri"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return storable(image) if isinstance(image, str) and image else None
