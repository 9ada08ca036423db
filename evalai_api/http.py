"""Requests to EvalAI: the budget, the retries, and every vendor error translated. Knows no endpoint."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import stamina
from pydantic import SecretStr
from requests.auth import AuthBase

from evaluation.errors import (
    EvaluationError,
    InvalidConfiguration,
    RequestRefused,
    ServiceUnavailable,
    UnknownSubmission,
)

T = TypeVar("T")

WRONG_ROLE = "Sorry, you are not authorized to make this request!"  # EvalAI's 400 to an update by a non-host
HOST_REMEDY = "Put the token of a host of this challenge into the secret evalai."
SERVER_REMEDY = "Correct api_server in the secret evalai."


@dataclass(frozen=True)
class Timeouts:
    """Seconds for one request. EvalAI kills its own requests at 60 s, so waiting much longer is of no use."""

    connect: float = 10.0
    read: float = 65.0


@dataclass(frozen=True)
class RetryPolicy:
    """How often and for how long (seconds, all attempts of one call together) a failing call is repeated."""

    attempts: int = 6
    total_seconds: float = 240.0
    first_wait: float = 1.0
    longest_wait: float = 30.0


class RequestBudget:
    """At most `per_minute` requests in any 60 s of this process, for commands that run without a Prefect server.

    EvalAI allows 60 a minute for a user (contracts/evalai.md, "Limits").
    """

    def __init__(
        self, per_minute: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Wait until one more request fits."""
        with self._lock:
            if len(self._sent) == self._sent.maxlen:
                self._sleep(max(0.0, self._sent[0] + 60.0 - self._clock()))
            self._sent.append(self._clock())


class _Bearer(AuthBase):
    # An explicit auth object also keeps `requests` from replacing the header by an entry of ~/.netrc.
    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return request


@dataclass(frozen=True)
class Upload:
    """A multipart body: plain fields, and files as (name, content, content type)."""

    fields: Mapping[str, str]
    files: Mapping[str, tuple[str, bytes, str]]


class EvalAIHttp:
    """One EvalAI server and one user. May be used from several threads: it keeps no connection open."""

    def __init__(
        self,
        api_server: str,
        token: SecretStr,
        throttle: Callable[[], None],
        timeouts: Timeouts | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        """Raises InvalidConfiguration for a server that is no http(s) address, or a token that is no header value."""
        self._server = _checked_server(api_server)
        self._token = _checked_token(token)
        self.on_this_machine = _on_this_machine(self._server)
        self._throttle = throttle
        self.timeouts = timeouts or Timeouts()
        self._retries = retries or RetryPolicy()

    def retrying(self, operation: Callable[[], T]) -> T:
        """Run the operation until it succeeds, again only on ServiceUnavailable and within the RetryPolicy.

        The operation is the whole step (look, then write), so that what it looked at is fresh at each attempt.
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
                return operation()
        raise AssertionError("stamina ends with a result or an exception")

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
        """One request, one attempt; returns the answer's JSON.

        Raises ServiceUnavailable (429, 5xx, no answer), InvalidConfiguration (401, 403, a wrong address),
        UnknownSubmission (EvalAI's own 404, when `about_submission`), RequestRefused (every other 4xx).
        """
        self._throttle()
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        request = requests.Request(
            method,
            self._server + path,
            headers,
            params=query,
            data=_encoded(body) if body is not None else upload.fields if upload else None,
            files=upload.files if upload else None,
            auth=_Bearer(self._token),
        )
        return self._read(f"{method} {path}", self._exchange(request), about_submission)

    def _exchange(self, request: requests.Request) -> requests.Response:
        what = f"{request.method} {request.url}"
        problem: EvaluationError
        # The vendor's errors hold the request and with it the token: what is raised must not keep them as its
        # context, so it is raised after the `except` blocks.
        try:
            with requests.Session() as session:
                session.trust_env = not self.on_this_machine
                sent = session.prepare_request(request)
                settings = session.merge_environment_settings(sent.url, {}, None, None, None)
                times = (self.timeouts.connect, self.timeouts.read)
                return session.send(sent, timeout=times, allow_redirects=False, **settings)
        except requests.Timeout:
            cause = f"{what}: nothing came within {self.timeouts.read:g} s"
            problem = ServiceUnavailable("EvalAI did not answer in time", cause)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            problem = InvalidConfiguration("EvalAI's address is no web address", what, SERVER_REMEDY)
        except requests.RequestException as error:
            problem = ServiceUnavailable("EvalAI cannot be reached", f"{what}: {type(error).__name__}")
        raise problem

    def _read(self, what: str, response: requests.Response, about_submission: bool) -> object:
        if not 200 <= response.status_code < 300:
            raise _problem(what, response, self._clean(_reason(response)), about_submission)
        content, is_json = _json(response)
        if not is_json:
            raise ServiceUnavailable(
                "EvalAI answered with something that is not JSON",
                f"{what}: {response.headers.get('Content-Type', 'no content type')}",
                "If this stays, api_server in the secret evalai is not EvalAI's API.",
            )
        return content

    def _clean(self, text: str) -> str:
        return text.replace(self._token.get_secret_value(), "***")


def _wait_before_retry(error: Exception, deadline: float) -> bool | float:
    """stamina's question: may this be tried again, and after how many seconds (True: its own back-off)."""
    if not isinstance(error, ServiceUnavailable):
        return False
    if error.retry_after is None:
        return time.monotonic() < deadline
    # stamina looks at the clock only after a wait; a wait beyond the deadline is known to be in vain now.
    return error.retry_after if time.monotonic() + error.retry_after <= deadline else False


def _problem(what: str, response: requests.Response, reason: str, about_submission: bool) -> EvaluationError:
    """The error for an answer that is no success. Source: contracts/evalai.md, "Auth"."""
    status = response.status_code
    cause = f"{what} answered {status}: {reason}"
    is_html = "html" in response.headers.get("Content-Type", "")
    if status == 429 or status >= 500:
        summary = "EvalAI's request limit is used up" if status == 429 else "EvalAI broke on the request"
        return ServiceUnavailable(summary, cause, retry_after=_retry_after(response))
    if status in (401, 403) or (status == 400 and reason == WRONG_ROLE):
        return InvalidConfiguration("EvalAI does not accept the token", cause, HOST_REMEDY)
    if 300 <= status < 400 or (status == 404 and is_html):
        return InvalidConfiguration("EvalAI's API is not at this address", cause, SERVER_REMEDY)
    if status == 404 and about_submission:
        return UnknownSubmission("EvalAI does not know the submission", cause)
    return RequestRefused("EvalAI refused the request", cause)


def _reason(response: requests.Response) -> str:
    """EvalAI's own words. Anything but its JSON stays out: a debug page repeats the request's headers."""
    content, is_json = _json(response)
    if not is_json:
        return response.headers.get("Content-Type", "no content")
    if isinstance(content, dict):
        for key in ("error", "detail"):
            if isinstance(content.get(key), str):
                return str(content[key])[:300]
    return json.dumps(content)[:300]


def _json(response: requests.Response) -> tuple[object, bool]:
    try:
        return response.json(), True
    except ValueError:
        return None, False


def _retry_after(response: requests.Response) -> float | None:
    """Seconds from now; the header is a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _encoded(body: Mapping[str, object]) -> bytes:
    # Plain UTF-8 keeps the size near that of the text; half a surrogate pair in a log must not stop the report.
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


def _checked_server(api_server: str) -> str:
    server = api_server.strip().rstrip("/")
    if not server.startswith(("http://", "https://")) or any(character.isspace() for character in server):
        raise InvalidConfiguration(
            f"EvalAI's address {api_server!r} is no web address", "it must start with https://", SERVER_REMEDY
        )
    return server


def _on_this_machine(server: str) -> bool:
    """Whether it is a loopback address, with which a proxy of the environment has no business."""
    try:
        return urlsplit(server).hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:  # no address at all: the first request says so
        return False


def _checked_token(token: SecretStr) -> SecretStr:
    value = token.get_secret_value().strip()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidConfiguration("EvalAI's token is empty or holds characters that no token has", "", HOST_REMEDY)
    return SecretStr(value)
