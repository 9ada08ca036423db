"""What Prefect's client raises, in this project's terms."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from evaluation.errors import InvalidConfiguration, ServiceUnavailable


@contextmanager
def prefect_errors(what: str) -> Iterator[None]:
    """Translate what Prefect's client raises inside, but for ObjectNotFound, which the caller knows the meaning of.

    `what` was tried, e.g. "Asking for the workers". Of a refusal only the status is said: its text repeats the request,
    and saving a block sends a token. Raises InvalidConfiguration where the server does not accept us,
    else ServiceUnavailable.
    """
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            summary = f"{what}: Prefect's server does not accept us"
            raise InvalidConfiguration(summary, f"it answers {status}", "Check PREFECT_API_KEY.") from error
        raise ServiceUnavailable(f"{what} failed", f"Prefect's server answers {status}") from error
    except httpx.HTTPError as error:
        raise ServiceUnavailable(f"{what} failed", type(error).__name__) from error


@contextmanager
def prefect_answer(what: str) -> Iterator[None]:
    """As prefect_errors, for one request whose answer is read inside: one that makes no sense is translated as well.

    Raises InvalidConfiguration for such an answer: something else than Prefect is at the address.
    """
    try:
        with prefect_errors(what):
            yield
    except ValueError as error:
        summary = f"{what}: that is not a Prefect server"
        raise InvalidConfiguration(summary, type(error).__name__, "Check PREFECT_API_URL.") from error
