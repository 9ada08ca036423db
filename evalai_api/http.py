"""Requests to EvalAI: their slots of the budget, the retries, every vendor error translated. Knows no endpoint."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import stamina
from pydantic import SecretStr

from evalai_api.answers import HOST_REMEDY, SERVER_REMEDY, problem
from evalai_api.budget import Budget, Urgency
from evalai_api.transport import AnswerTooLarge, HttpAnswer, Request, Timeouts, Upload, exchange
from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

__all__ = ["EvalAIHttp", "RetryPolicy", "Timeouts", "Upload"]

T = TypeVar("T")

# A list of 3,009 submissions has 2.7 MiB (docs/evalai.md, "Limits").
ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
PAUSE_SECONDS = 5.0  # after a 429 that does not say how long


@dataclass(frozen=True)
class RetryPolicy:
    """How often and for how long (seconds, all attempts of one call together) a failing call is repeated."""

    attempts: int = 6
    total_seconds: float = 240.0
    first_wait: float = 1.0
    longest_wait: float = 30.0


class EvalAIHttp:
    """One EvalAI server and one user. May be used from several threads: it keeps no connection open."""

    def __init__(
        self,
        api_server: str,
        token: SecretStr,
        budget: Budget,
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        """Raises InvalidConfiguration for a server that is no http(s) address, or a token that is no header value."""
        self._server = _checked_server(api_server)
        self._token = _checked_token(token)
        self.on_this_machine = _on_this_machine(self._server)
        self._budget = budget
        self.timeouts = timeouts or Timeouts()
        self._retries = retries or RetryPolicy()

    def retrying(self, operation: Callable[[], T], requests: int = 1, urgency: Urgency = Urgency.LOOK) -> T:
        """Run the operation until it succeeds, again only on ServiceUnavailable and within the RetryPolicy.

        The operation is the whole step (read, then write), so that what it has read is fresh at each attempt. The
        slots of all its `requests` are taken together before each attempt: a wait between the read and the write
        would be time in which a team cancels and is overwritten.
        """
        deadline = time.monotonic() + self._retries.total_seconds
        for attempt in stamina.retry_context(
            on=lambda error: _wait_before_retry(error, deadline),
            attempts=self._retries.attempts,
            timeout=self._retries.total_seconds,
            wait_initial=self._retries.first_wait,
            wait_max=self._retries.longest_wait,
            wait_jitter=self._retries.first_wait,
        ):
            with attempt:
                return self.once(operation, requests, urgency)
        raise AssertionError("stamina ends with a result or an exception")

    def once(self, operation: Callable[[], T], requests: int = 1, urgency: Urgency = Urgency.LOOK) -> T:
        """Take the slots, then run the operation once."""
        if requests:
            self._budget.take(requests, urgency)
        return operation()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        upload: Upload | None = None,
        about_submission: bool = False,
    ) -> object:
        """One request, one attempt, inside `retrying` or `once`, which have its slot; returns the answer's JSON.

        Raises ServiceUnavailable (429, 5xx, no answer), InvalidConfiguration (401, 403, a wrong address),
        UnknownSubmission (EvalAI's own 404, when `about_submission`), RequestRefused (every other 4xx).
        """
        content = _encoded(body) if body is not None else None
        answer = self._exchange(Request(method, self._server + path, query, content, upload))
        try:
            return self._read(f"{method} {path}", answer, about_submission)
        except ServiceUnavailable as error:
            if answer.status == 429:  # whichever process sent the request: the whole installation waits
                self._budget.pause(error.retry_after or PAUSE_SECONDS)
            raise

    def _exchange(self, request: Request) -> HttpAnswer:
        what = f"{request.method} {request.url}"
        trouble: EvaluationError
        # The vendor's errors hold the request and with it the token: what is raised must not keep them as its
        # context, so it is raised after the `except` blocks.
        try:
            return exchange(request, self._token, self.timeouts, ANSWER_LIMIT_BYTES, not self.on_this_machine)
        except TimeoutError:
            cause = f"{what}: nothing came within {self.timeouts.read:g} s, or not all of it within "
            cause += f"{self.timeouts.total:g} s"
            trouble = ServiceUnavailable("EvalAI did not answer in time", cause)
        except AnswerTooLarge as error:
            trouble = RequestRefused("EvalAI's answer is too large to be read", f"{what}: {error}")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            trouble = InvalidConfiguration("EvalAI's address is not a web address", what, SERVER_REMEDY)
        except (httpx.HTTPError, OSError) as error:
            trouble = ServiceUnavailable("EvalAI cannot be reached", f"{what}: {type(error).__name__}")
        raise trouble

    def _read(self, what: str, answer: HttpAnswer, about_submission: bool) -> object:
        if not 200 <= answer.status < 300:
            raise problem(what, answer, self._clean, about_submission)
        if not answer.is_json:
            raise ServiceUnavailable(
                "EvalAI answered with something that is not JSON",
                f"{what}: {answer.headers.get('Content-Type', 'no content type')}",
                "If this stays, api_server in the secret evalai is not EvalAI's API.",
            )
        return answer.json

    def _clean(self, text: str) -> str:
        return text.replace(self._token.get_secret_value(), "***")


def _wait_before_retry(error: Exception, deadline: float) -> bool | float:
    """stamina's question: may this be tried again, and after how many seconds (True: its own back-off)."""
    if not isinstance(error, ServiceUnavailable):
        return False
    if error.retry_after is None:
        return time.monotonic() < deadline
    # stamina reads the clock only after a wait; a wait beyond the deadline would end without another attempt.
    return error.retry_after if time.monotonic() + error.retry_after <= deadline else False


def _encoded(body: Mapping[str, object]) -> bytes:
    # Plain UTF-8 keeps the size near that of the text; half a surrogate pair in a log must not stop the report.
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


def _checked_server(api_server: str) -> str:
    server = api_server.strip().rstrip("/")
    if not server.startswith(("http://", "https://")) or any(character.isspace() for character in server):
        raise InvalidConfiguration(
            f"EvalAI's address {api_server!r} is not a web address", "it must start with https://", SERVER_REMEDY
        )
    return server


def _on_this_machine(server: str) -> bool:
    """Whether it is a loopback address, for which no proxy of the environment is used."""
    try:
        return urlsplit(server).hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:  # no address at all: the first request says so
        return False


def _checked_token(token: SecretStr) -> SecretStr:
    value = token.get_secret_value().strip()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidConfiguration("EvalAI's token is empty or holds characters that no token has", "", HOST_REMEDY)
    return SecretStr(value)
