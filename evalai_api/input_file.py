"""The file that a participant handed in: for a message that names no image, it does."""

import json

import requests

from evalai_api.http import Timeouts
from evaluation.errors import ServiceUnavailable

LIMIT_BYTES = 64 * 1024  # EvalAI's own command line writes a hundred


def handed_in_image(url: str, timeouts: Timeouts, trust_env: bool) -> str | None:
    """`submitted_image_uri` of the JSON at `url`, or None where the file is gone or names none.

    Sent without any token: the file lies on EvalAI's storage, which is not EvalAI. Raises ServiceUnavailable.
    Source: contracts/evalai.md, "The queue message"; the file is what `evalai push` writes.
    """
    if not url.startswith(("http://", "https://")):
        return None
    try:
        with requests.Session() as session:
            session.trust_env = trust_env
            with session.get(url, timeout=(timeouts.connect, timeouts.read), stream=True) as response:
                if response.status_code == 429 or response.status_code >= 500:
                    raise ServiceUnavailable("EvalAI's storage broke on a submission's file", f"{response.status_code}")
                if not response.ok:
                    return None
                return _image(response.raw.read(LIMIT_BYTES + 1, decode_content=True))
    except requests.RequestException as error:  # its text may hold a signed address
        raise ServiceUnavailable(
            "EvalAI's storage does not give out a submission's file", type(error).__name__
        ) from error


def _image(content: bytes) -> str | None:
    try:
        image = json.loads(content[:LIMIT_BYTES])["submitted_image_uri"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return image if isinstance(image, str) and image else None
